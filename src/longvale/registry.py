"""Registries of what can be extended: model adapters, captioners, benchmarks and more, by name.

An extension is one file with one decorator, inside the package or outside of it. There are three ways to name one:

- by its name, if it is built in: the modules of the package that hold built-ins are imported on first use;
- by its name, if an installed package has an entry point in the group `longvale.<kind>`, such as `longvale.adapters`;
- by `package.module:Name`, for a module that can be imported or lies in the current directory.

Dotted names come from the command line, from Python and from configurations. Names that files of data contain are only
looked up among the registered ones: reading a file imports no module that is not part of an installed package.
"""

from __future__ import annotations

import inspect
import logging
import os
import pkgutil
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from .system.names import printable

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)

T = TypeVar("T")

_DOTTED = re.compile(r"(?P<module>[^\W\d][\w.]*):(?P<name>[^\W\d]\w*)")
#: `NAME:ARGUMENT` or `package.module:Name:ARGUMENT`.
_WITH_ARGUMENT = re.compile(r"(?P<name>[^\W\d][\w.]*:[^\W\d]\w*)(?::(?P<argument>.+))?")


@dataclass(frozen=True)
class Entry:
    """One registered object, as `longvale list` prints it.

    Args:
        kind: name of the registry, such as "adapters".
        name: name of the object.
        summary: first line of its docstring, or why it cannot be loaded.
        source: "built-in", "registered" by a module of another package, or "entry point of PACKAGE".
    """

    kind: str
    name: str
    summary: str
    source: str


class Registry:
    """Names of one kind of extension.

    Args:
        kind: plural name of the kind, such as "adapters"; also the suffix of the entry point group.
        one: the kind in messages, such as "an adapter".
        builtin: module that contains the built-ins; of a package, all modules directly in it.
        methods: methods that an object must have.
        attributes: other attributes that an object must have.
        factory: whether names are of factories, classes or functions that [`Registry.create`] calls. What a function
            returns is checked then.
        reserved: names that have another meaning where a name of this kind is expected.

    Example:
        >>> sounds = Registry("sounds", "a sound", "longvale.system.names", methods=("play",))
        >>> @sounds.register("bell")
        ... class Bell:
        ...     "A bell."
        ...     def play(self):
        ...         return "ding"
        >>> sounds.create("bell").play(), sounds.names()
        ('ding', ('bell',))
    """

    def __init__(
        self,
        kind: str,
        one: str,
        builtin: str,
        *,
        methods: tuple[str, ...] = (),
        attributes: tuple[str, ...] = (),
        factory: bool = False,
        reserved: tuple[str, ...] = (),
    ) -> None:
        self.kind, self.one, self.factory, self._reserved = kind, one, factory, reserved
        self._builtin, self._methods, self._attributes = builtin, methods, attributes
        self._objects: dict[str, Any] = {}
        self._imported, self._lock = False, threading.RLock()
        self._points: dict[str, EntryPoint] | None = None

    def register(self, *names: str, **attributes: Any) -> Callable[[T], T]:
        """Return a decorator that registers a class or function.

        Args:
            names: its names; a benchmark has one per task.
            attributes: attributes to set on it, for functions.

        Raises:
            ValueError: if another object has one of the names, a name is reserved, or the object is not of this kind.
        """

        def decorate(item: T) -> T:
            if not item.__module__.startswith("longvale."):
                self._import_builtin()  # their names are taken
            for attribute, value in attributes.items():
                setattr(item, attribute, value)
            where = _path(item)
            self._check(item, where)
            for name in names:
                if name in self._reserved:
                    raise ValueError(f"{where}: {self.one} cannot be named {name!r}; choose another name")
                before = self._objects.setdefault(name, item)
                if _path(before) != where:
                    raise ValueError(f"{where}: {self.one} named {name!r} exists: {_path(before)}; choose another name")
                self._objects[name] = item  # the newest, if its module was loaded again
            return item

        return decorate

    def names(self) -> tuple[str, ...]:
        """Return all names, without importing entry points."""
        self._import_builtin()
        return tuple(dict.fromkeys([*self._objects, *self._entry_points()]))

    def get(self, name: str) -> Any:
        """Return the object with a name, or at `package.module:Name`.

        Raises:
            ValueError: if the name is unknown, the module cannot be imported, or the object is not of this kind.
        """
        if name not in self.names() and (dotted := _DOTTED.fullmatch(name)):
            return self._import(dotted["module"], dotted["name"])
        return self.registered(name)

    def registered(self, name: str) -> Any:
        """Return the object with a registered name; for names that a file contains.

        Raises:
            ValueError: if the name is not registered, or its entry point cannot be loaded.
        """
        self._import_builtin()
        if name in self._objects:
            return self._objects[name]
        if point := self._entry_points().get(name):
            return self._load(point)
        raise ValueError(
            f"unknown {self._noun} {name!r}; expected one of {', '.join(self.names())}, or package.module:Name"
        )

    def names_of(self, text: str) -> tuple[str, ...]:
        """Return a registered name as it is, and for `package.module:Name` all names of the object.

        Raises:
            ValueError: as in [`Registry.get`]; if the object is not registered.
        """
        item = self.get(text)
        if text in self.names():
            return (text,)
        names = tuple(name for name, other in self._objects.items() if other is item)
        if not names:
            raise ValueError(f"{text}: has no name; decorate it with @longvale.registry.{self.kind}.register(NAME)")
        return names

    def split(self, text: str) -> tuple[str | None, str | None]:
        """Split `NAME:ARGUMENT` into the name of a registered object and its argument.

        Returns:
            Name and argument. The name is None if the text begins with none, and is then the argument as a whole; the
            argument is None if there is none.

        Example:
            >>> captioners.split("server:llava:7b"), captioners.split("my.module:Mine"), captioners.split("Qwen/Qwen3")
            (('server', 'llava:7b'), ('my.module:Mine', None), (None, 'Qwen/Qwen3'))
        """
        head, _, rest = text.partition(":")
        if head in self.names():
            return head, rest or None
        if dotted := _WITH_ARGUMENT.fullmatch(text):
            return dotted["name"], dotted["argument"]
        return None, text

    def create(self, name: str, *args: Any, **options: Any) -> Any:
        """Call the class or function with a name, and check what it returns.

        Raises:
            ValueError: as in [`Registry.get`]; if it does not accept the arguments or returns something else.
        """
        factory = self.get(name)
        try:
            inspect.signature(factory).bind(*args, **options)
        except TypeError as error:
            takes = ", ".join([*(type(value).__name__ for value in args), *options])
            raise ValueError(f"{name}: {self.one} is called with ({takes}): {error}") from None
        made = factory(*args, **options)
        self._check(made, name)
        return made

    def entries(self) -> Iterator[Entry]:
        """Yield all registered objects; an entry point that cannot be loaded has the reason as its summary."""
        self._import_builtin()
        for name, item in self._objects.items():
            built_in = item.__module__.startswith("longvale.")
            yield Entry(self.kind, name, _summary(item), "built-in" if built_in else f"registered by {item.__module__}")
        for name, point in self._entry_points().items():
            if name in self._objects:
                continue
            try:
                summary = _summary(self._load(point))
            except ValueError as error:
                summary = str(error)
            yield Entry(self.kind, name, summary, f"entry point of {point.dist.name if point.dist else point.value}")

    @property
    def _noun(self) -> str:
        return self.one.partition(" ")[2]

    def _import_builtin(self) -> None:
        with self._lock:
            if self._imported:
                return
            self._imported = True  # before the import, which may ask for names
            try:
                module = import_module(self._builtin)
                for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
                    import_module(f"{self._builtin}.{info.name}")
            except BaseException:
                self._imported = False
                raise

    def load_all(self) -> list[Any]:
        """Return all objects; a warning names each entry point that cannot be loaded."""
        found = []
        for name in self.names():
            try:
                found.append(self.get(name))
            except ValueError as error:
                logger.warning("%s", error)
        return found

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._points is None:
            from importlib.metadata import entry_points  # slow to import

            self._points = {point.name: point for point in entry_points(group=f"longvale.{self.kind}")}
        return self._points

    def _load(self, point: EntryPoint) -> Any:
        try:
            item = point.load()
        except Exception as error:
            raise ValueError(f"{point.value}: cannot be imported ({_reason(error)})") from error
        self._check(item, point.value)
        return item

    def _import(self, module: str, name: str) -> Any:
        here = os.getcwd()
        if here not in sys.path and "" not in sys.path:
            # Last, so that a file in the current directory does not replace a module of an installed package.
            sys.path.append(here)
        try:
            item = getattr(import_module(module), name, None)
        except Exception as error:
            raise ValueError(f"{module}:{name}: the module cannot be imported ({_reason(error)})") from error
        if item is None:
            raise ValueError(f"{module}:{name}: the module {module} does not define {name}")
        self._check(item, f"{module}:{name}")
        return item

    def _check(self, item: Any, where: str) -> None:
        """Raise an error that names what an object, or the objects of a class, lack."""
        if self.factory and inspect.isfunction(item):
            return
        missing = [name for name in self._methods if not _has_method(item, name)]
        missing += sorted(getattr(item, "__abstractmethods__", ()) if isinstance(item, type) else ())
        if not (self.factory and isinstance(item, type)):  # instances may set them
            missing += [name for name in self._attributes if not hasattr(item, name)]
        if missing:
            raise ValueError(f"{where}: is not {self.one}: it lacks {', '.join(dict.fromkeys(missing))}")


def _reason(error: Exception) -> str:
    return printable(f"{type(error).__name__}: {error}")


def _has_method(item: Any, name: str) -> bool:
    # Every class can be called, so its instances' methods are looked up in the classes.
    kinds = item.__mro__ if isinstance(item, type) else (item, *type(item).__mro__)
    return any(callable(_unwrapped(vars(kind).get(name))) for kind in kinds if hasattr(kind, "__dict__"))


def _unwrapped(method: Any) -> Any:
    return getattr(method, "__func__", method)  # of class methods and static methods


def _path(item: Any) -> str:
    return f"{item.__module__}:{getattr(item, '__qualname__', type(item).__qualname__)}"


def _summary(item: Any) -> str:
    line = (inspect.getdoc(item) or "no description").partition("\n")[0]
    return re.sub(r"\[`([^`]+)`\]", r"\1", line)


#: Models that answer questions: subclasses of [`longvale.evaluation.adapters.base.Adapter`].
adapters = Registry(
    "adapters",
    "an adapter",
    "longvale.evaluation.adapters",
    methods=("build", "settings", "check", "answer"),
    attributes=("videos_at_a_time",),
)
#: Zero-shot benchmarks by task: subclasses of [`longvale.evaluation.benchmarks.base.Benchmark`].
benchmarks = Registry(
    "benchmarks",
    "a benchmark",
    "longvale.evaluation.benchmarks",
    methods=("find", "questions", "references", "score", "is_parsed", "lines", "tables"),
    attributes=("files", "titles", "columns"),
    reserved=("all", "grounding", "dense_captioning", "segment_captioning"),
)
#: Captioners, as [`longvale.annotation.captions.Captioner`], called with a role and
#: [`longvale.annotation.language_models.ModelOptions`].
captioners = Registry(
    "captioners",
    "a captioner",
    "longvale.annotation.captions",
    methods=("__call__",),
    attributes=("name", "size"),
    factory=True,
)
#: Diarizers, as [`longvale.annotation.tracks.speakers.Diarizer`], called with
#: [`longvale.annotation.language_models.ModelOptions`].
diarizers = Registry(
    "diarizers",
    "a diarizer",
    "longvale.annotation.tracks.speakers",
    methods=("__call__",),
    attributes=("name",),
    factory=True,
)
#: Exporters, as [`longvale.exports.Exporter`].
exporters = Registry(
    "exporters", "an exporter", "longvale.exports", methods=("__call__",), attributes=("label", "suffix", "mime")
)
#: Metrics, as [`longvale.evaluation.scoring.metrics.Metric`].
metrics = Registry(
    "metrics", "a metric", "longvale.evaluation.scoring.metrics", methods=("__call__",), attributes=("tasks",)
)
#: Writers of event captions, as [`longvale.annotation.correlation.Reasoner`], called with
#: [`longvale.annotation.language_models.ModelOptions`].
reasoners = Registry(
    "reasoners",
    "a reasoner",
    "longvale.annotation.correlation",
    methods=("__call__",),
    attributes=("name",),
    factory=True,
)
#: Speech recognisers, as [`longvale.annotation.tracks.transcript.Recogniser`], called with
#: [`longvale.annotation.language_models.ModelOptions`].
recognisers = Registry(
    "recognisers",
    "a speech recogniser",
    "longvale.annotation.tracks.recognisers",
    methods=("__call__",),
    attributes=("name",),
    factory=True,
)
#: Sound taggers, as [`longvale.annotation.tracks.sounds.Tagger`], called with
#: [`longvale.annotation.language_models.ModelOptions`].
taggers = Registry(
    "taggers",
    "a tagger",
    "longvale.annotation.tracks.sounds",
    methods=("__call__",),
    attributes=("name", "labels", "window_s", "hop_s"),
    factory=True,
)
#: Readers of on-screen text, as [`longvale.annotation.tracks.text.TextReader`], called with
#: [`longvale.annotation.language_models.ModelOptions`].
text_readers = Registry(
    "text_readers",
    "a text reader",
    "longvale.annotation.tracks.text",
    methods=("__call__",),
    attributes=("name",),
    factory=True,
)
#: Formats of times in questions and replies: subclasses of [`longvale.evaluation.adapters.time_formats.TimeFormat`].
time_formats = Registry(
    "time_formats",
    "a time format",
    "longvale.evaluation.adapters.time_formats",
    methods=("write", "prompt", "read"),
    factory=True,
)

#: All registries by kind.
REGISTRIES: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        adapters,
        benchmarks,
        captioners,
        diarizers,
        exporters,
        metrics,
        reasoners,
        recognisers,
        taggers,
        text_readers,
        time_formats,
    )
}
