"""Predictions to scores: pairing, breakdowns, confidence intervals, comparison of runs."""
