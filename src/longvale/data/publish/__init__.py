"""A corpus checked and written as Parquet with a dataset card."""
