"""Registration of the builder, so that `datasets.load_dataset("longvale", ...)` finds it.

`datasets` has had no public way to add a builder since it dropped loading scripts. This module alone uses its
internals: the table of packaged modules, and the factory that looks up their data files. That lookup lists the working
directory (it fails in an empty one and is slow in a large one), so it is replaced for the name `longvale` only; our
builder finds its own files.
"""

from __future__ import annotations

import hashlib
import sys
from importlib import metadata, resources

from longvale.system.after_import import after_import

NAME = "longvale"
BUILDER_MODULE = "longvale.data.builder"
_LOADER = "datasets.load"

#: Cached rows are rebuilt when one of these changes.
_SOURCES = (
    "io.py",
    "events.py",
    "timecodes.py",
    "tasks.py",
    "run_log.py",
    "features/backends.py",
    "features/manifest.py",
    "features/store.py",
    "data/builder.py",
    "data/dialogues.py",
    "data/media.py",
    "data/publish/shards.py",
    "data/rows.py",
    "data/sources.py",
)


def register() -> None:
    """Register the name `longvale` in `datasets`, now or when it is imported; repeated calls change nothing.

    Raises:
        ImportError: here or at that import, if this version of `datasets` keeps its packaged modules elsewhere.
    """
    after_import([_LOADER], _register_available)
    _register_available()


def _register_available() -> None:
    loader = sys.modules.get(_LOADER)
    if loader is None:
        return
    try:
        modules = loader._PACKAGED_DATASETS_MODULES
        base_factory = loader.PackagedDatasetModuleFactory
        module_type = loader.DatasetModule
    except AttributeError as error:
        version = metadata.version("datasets")
        raise ImportError(
            f"longvale cannot register its builder with datasets {version} ({error}); install datasets>=5.0,<6"
        ) from error
    if NAME in modules:
        return

    class ModuleFactory(base_factory):
        """The factory of `datasets`, except for the name `longvale`."""

        def __init__(self, name: str, *args, data_files=None, **kwargs) -> None:
            if name != NAME:
                super().__init__(name, *args, data_files=data_files, **kwargs)
            elif data_files is not None:
                raise ValueError("longvale reads a directory: pass data_dir=, not data_files=")
            # Nothing to set for our name. The base class would report the use of a packaged module to a server.
            self.name = name

        def get_module(self):
            if self.name != NAME:
                return super().get_module()
            # An empty data_files means "none needed"; None would be refused. data_dir is passed to the builder as is.
            return module_type(*modules[NAME], {"data_files": {}, "dataset_name": NAME})

    modules[NAME] = (BUILDER_MODULE, source_hash())
    loader.PackagedDatasetModuleFactory = ModuleFactory


def source_hash() -> str:
    """Return a hash of the modules that make rows: the cache of rows depends on it."""
    digest = hashlib.sha256()
    package = resources.files(NAME)
    for name in _SOURCES:
        digest.update(package.joinpath(name).read_bytes())
    return digest.hexdigest()
