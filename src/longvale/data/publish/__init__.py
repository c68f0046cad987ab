"""Checking a corpus and writing it as Parquet with a dataset card."""
