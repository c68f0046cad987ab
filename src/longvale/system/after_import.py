"""Callbacks that run once a module has been imported, by any code.

Registering with a library means importing it, and most uses of longvale need neither `datasets` nor `transformers`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def after_import(names: Collection[str], callback: Callable[[], None]) -> None:
    """Run `callback` each time one of these modules has been imported from now on; repeated registration has no effect.

    Args:
        names: full names of modules.
        callback: takes no arguments; an exception in it is raised by the import.

    Example:
        >>> after_import(["this"], lambda: print("Now you know."))
        >>> import this  # doctest: +SKIP
    """
    if not any(isinstance(finder, _AfterImport) and finder.callback is callback for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(frozenset(names), callback))


class _AfterImport(MetaPathFinder):
    """Finder that runs the callback after the import of a watched module; other imports are not affected."""

    def __init__(self, names: frozenset[str], callback: Callable[[], None]) -> None:
        self.names = names
        self.callback = callback

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.names:
            return None
        for finder in sys.meta_path:
            spec = None if isinstance(finder, _AfterImport) else finder.find_spec(fullname, path, target)
            if spec is not None:
                spec.loader.exec_module = partial(self._execute, spec.loader)
                return spec
        return None

    def _execute(self, loader: Any, module: ModuleType) -> None:
        del loader.exec_module  # back to the method of its class
        loader.exec_module(module)
        self.callback()
