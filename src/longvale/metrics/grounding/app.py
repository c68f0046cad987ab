"""The metric as a Space."""

from longvale.metrics.page import build_page

build_page("grounding").launch()
