"""Examples in docstrings run and give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import longvale

#: Pages start when they are imported; they are no more than one call.
PAGES = ".app"

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(longvale.__path__, "longvale.")
    if not module.name.endswith((PAGES, ".__main__"))
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
