"""Experiments on what the parts of the system are worth; `recipes/experiments.py` runs them."""
