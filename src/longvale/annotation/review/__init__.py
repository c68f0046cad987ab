"""Checks, agreement of annotators and refinement in Label Studio."""
