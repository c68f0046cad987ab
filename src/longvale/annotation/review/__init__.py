"""Checks, inter-annotator agreement and refinement in Label Studio."""
