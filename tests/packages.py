"""Packages of PyPI that tests marked `real` or `slow` use, each in a folder of its own, installed once."""

import importlib
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Folder that keeps what was fetched.
CACHE = Path(os.environ.get("LONGVALE_TEST_CACHE", Path.home() / ".cache" / "longvale-tests"))


def install(name, *requirements):
    """Install packages into a folder, without what they depend on, and return it; without PyPI the test is skipped."""
    folder = CACHE / name
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            target = Path(temporary) / "installed"
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={target}"]
            result = subprocess.run([*command, *requirements], capture_output=True, text=True, timeout=600)
            if result.returncode:
                pytest.skip(f"{name} cannot be had: {result.stderr.strip().splitlines()[-1:]}")
            target.rename(folder)
    return folder


@contextmanager
def installed(name, *requirements):
    """Make packages importable.

    Afterwards they are forgotten, so that tests that follow in the process do not take them for what is installed.
    """
    folder = install(name, *requirements)
    sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for module in [name for name, found in sys.modules.items() if _is_within(found, folder)]:
            del sys.modules[module]


def _is_within(module, folder):
    return Path(getattr(module, "__file__", None) or "/").is_relative_to(folder)
