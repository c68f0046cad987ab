"""Experiments that measure the effect of the parts of the system; `recipes/experiments.py` runs them."""
