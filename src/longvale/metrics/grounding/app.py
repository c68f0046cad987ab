"""Hugging Face Space of the metric."""

from longvale.metrics.page import build_page

build_page("grounding").launch()
