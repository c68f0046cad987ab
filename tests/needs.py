"""Marks of tests that need optional packages; the other tests of their modules run without them."""

from importlib.util import find_spec

import pytest


def needs(*modules):
    missing = [module for module in modules if find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


needs_annotation = needs("scenedetect", "silero_vad")
