"""Scoring of predictions: pairing, breakdowns, confidence intervals, comparison of runs."""
