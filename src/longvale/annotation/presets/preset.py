"""A preset: a file that names a model for each role of `longvale annotate`, with revision, license and size.

::

    summary: Small models for every role.
    hardware: CPU, or a GPU with 8 GB
    roles:
      tagger:                                             # an option of the command, without its hyphens
        model: MIT/ast-finetuned-audioset-10-10-0.4593    # Hub id, or name on the server
        revision: f826b80d28226b62986cc218e5cec390b1096902
        license: bsd-3-clause
        size_mb: 346                                      # to download
        model_type: audio-spectrogram-transformer         # of its config.json
        about: Names sounds by the 527 classes of AudioSet.

`name` is a registered name (default `transformers`), `extra` the extra of longvale that it needs, `server` the URL of a
server on this machine. `unverified` lists fields that no model card states.

A preset may come from anyone, so it only holds data: names are looked up among the registered ones, no module is
imported, and a server on another machine is only named on the command line.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...registry import REGISTRIES

#: Kind of the registry of each role; None for roles without one, whose models are loaded by transformers.
ROLES: dict[str, str | None] = {
    "video_captioner": "captioners",
    "keyframe_captioner": "captioners",
    "audio_captioner": "captioners",
    "speech_recogniser": "recognisers",
    "tagger": "taggers",
    "diarizer": "diarizers",
    "text_reader": "text_readers",
    "visual_model": None,
    "audio_model": None,
    "language_model": None,
}

#: Largest preset file in bytes: the presets of the package have less than a tenth of it.
_MAX_BYTES = 65_536
#: Deepest nesting of a preset file: the fields of a role are at level 3, its lists at level 4. The parser's time grows
#: with the square of the depth.
_MAX_DEPTH = 8

_TEXT_FIELDS = ("summary", "hardware")
_ROLE_FIELDS = ("name", "model", "revision", "license", "size_mb", "model_type", "extra", "about", "unverified")
_MODEL_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LONGEST_TEXT = 300


class PresetError(ValueError):
    """A preset that cannot be used.

    Args:
        faults: one line per fault: file, field, value and remedy.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class RoleModel:
    """The model of a role.

    Args:
        role: name of the role, as in [`ROLES`].
        name: registered name of what loads it.
        model: Hub id, or name on the server; None for a package that carries its weights.
        revision: commit of the Hub.
        license: license of the weights.
        size_mb: size of the download in megabytes; 0 for a model on a server.
        model_type: architecture, as in the config.json of the model.
        extra: extra of longvale that it needs.
        about: one sentence.
        unverified: fields that no model card states.
    """

    role: str
    name: str = "transformers"
    model: str | None = None
    revision: str | None = None
    license: str | None = None
    size_mb: float = 0.0
    model_type: str | None = None
    extra: str | None = None
    about: str = ""
    unverified: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """Return the model with its revision, or the name of a package without one.

        Example:
            >>> RoleModel("tagger", model="some/model", revision="abc").reference
            'some/model@abc'
        """
        return (self.model or self.name) + (f"@{self.revision}" if self.revision else "")

    @property
    def option(self) -> str:
        """Return the value of the option of the command line.

        Example:
            >>> RoleModel("tagger", model="some/model").option, RoleModel("visual_model", model="some/model").option
            ('transformers:some/model', 'some/model')
        """
        if ROLES[self.role] is None:
            return self.reference
        return self.name if self.model is None else f"{self.name}:{self.reference}"

    @property
    def downloads(self) -> bool:
        """Return whether its weights are downloaded from the Hub."""
        return self.name != "server" and self.model is not None


@dataclass(frozen=True)
class Preset:
    """A model for each of some roles.

    Args:
        name: name of the preset in the package, or file.
        summary: one sentence.
        hardware: what it needs.
        roles: models by role.
        server: URL of an OpenAI-compatible server on this machine.
        unverified: fields that were not measured.
    """

    name: str
    summary: str
    hardware: str
    roles: Mapping[str, RoleModel]
    server: str | None = None
    unverified: tuple[str, ...] = ()
    sizes: Mapping[str, float] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {model.reference: model.size_mb for model in self.roles.values() if model.size_mb}
        object.__setattr__(self, "sizes", sizes)

    @property
    def size_mb(self) -> float:
        """Return the size of all downloads in megabytes; a model of several roles counts once."""
        return sum(self.sizes.values())

    def options(self) -> dict[str, str]:
        """Return the options of the command line by role."""
        return {role: model.option for role, model in self.roles.items()}


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets of the package, the smallest first.

    Example:
        >>> preset_names()
        ('small', 'large', 'omni', 'server')
    """
    order = ("small", "large", "omni", "server")
    found = {item.name[:-5] for item in files(__package__).iterdir() if item.name.endswith(".yaml")}
    return tuple(sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name)))


def load_preset(name: str | os.PathLike) -> Preset:
    """Read a preset.

    Args:
        name: name of a preset of the package, or a YAML file.

    Raises:
        FileNotFoundError: if there is no such preset or file.
        PresetError: naming file, field, value and remedy of each fault.

    Example:
        >>> load_preset("small").roles["tagger"].model
        'MIT/ast-finetuned-audioset-10-10-0.4593'
    """
    name = os.fspath(name)
    if name in preset_names():
        return _read(name, f"preset {name}", files(__package__).joinpath(f"{name}.yaml").read_bytes())
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"{name}: no such file, and no preset of this name; presets are {', '.join(preset_names())}"
        )
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    return _read(name, name, content)


def _read(name: str, where: str, content: bytes) -> Preset:
    value = _parse(where, content)
    faults = list(_faults(value))
    if faults:
        raise PresetError([f"{where}: {fault}" for fault in faults])
    roles = {
        role: RoleModel(role, **{**fields, "unverified": tuple(fields.get("unverified", ()))})
        for role, fields in value["roles"].items()
    }
    rest = {key: value.get(key) for key in ("summary", "hardware", "server")}
    return Preset(name, roles=roles, unverified=tuple(value.get("unverified", ())), **rest)


def _parse(where: str, content: bytes) -> Any:
    """Return the value of a YAML document without tags, aliases and repeated keys."""
    import yaml

    if len(content) > _MAX_BYTES:
        raise PresetError([f"{where}: has more than {_MAX_BYTES} bytes; a preset names one model per role"])
    depth = 0
    try:
        for event in yaml.parse(content, yaml.SafeLoader):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise PresetError([f"{where}: line {line}: uses an alias; write the value out"])
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise PresetError([f"{where}: line {line}: has more than {_MAX_DEPTH} nested levels; remove some"])
        node = yaml.compose(content, yaml.SafeLoader)
        for mapping in _mappings(node):
            count = Counter(str(key.value) for key, _ in mapping.value)
            for key, _ in mapping.value:
                if count[str(key.value)] > 1:
                    line = key.start_mark.line + 1
                    raise PresetError([f"{where}: line {line}: field {key.value!r} is there twice; keep one"])
        return yaml.safe_load(content)
    except PresetError:
        raise
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise PresetError([f"{where}: is not YAML: {' '.join(str(error).split())[:200]}"]) from None


def _mappings(node: Any) -> Iterator[Any]:
    import yaml

    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _faults(value: Any) -> Iterator[str]:
    """Yield what is wrong with the content of a preset: field, value and remedy."""
    if not isinstance(value, dict):
        yield f"must be a mapping with summary, hardware and roles, not {_short(value)}"
        return
    known = (*_TEXT_FIELDS, "roles", "server", "unverified")
    yield from (f"field {_short(name)} is not known; one of {', '.join(known)}" for name in value if name not in known)
    for name in _TEXT_FIELDS:
        yield from _text_faults(name, value.get(name), required=True)
    yield from _list_faults("unverified", value.get("unverified"))
    if "server" in value:
        yield from _server_faults(value["server"])
    roles = value.get("roles")
    if not isinstance(roles, dict) or not roles:
        yield f"field 'roles' must be a mapping of roles, some of {', '.join(ROLES)}, not {_short(roles)}"
        return
    for role, fields in roles.items():
        if role not in ROLES:
            yield f"field 'roles.{_plain(role)}' is not a role; one of {', '.join(ROLES)}"
        elif not isinstance(fields, dict):
            yield f"field 'roles.{role}' must be a mapping with model, revision, license ..., not {_short(fields)}"
        else:
            yield from _role_faults(role, fields)


def _role_faults(role: str, fields: Mapping[Any, Any]) -> Iterator[str]:
    place = f"roles.{role}"
    yield from (
        f"field '{place}.{_plain(name)}' is not known; one of {', '.join(_ROLE_FIELDS)}"
        for name in fields
        if name not in _ROLE_FIELDS
    )
    for name in ("license", "model_type", "extra", "about"):
        yield from _text_faults(f"{place}.{name}", fields.get(name), required=name == "about")
    yield from _list_faults(f"{place}.unverified", fields.get("unverified"))
    name, model, revision, size = (fields.get(key) for key in ("name", "model", "revision", "size_mb"))
    yield from _name_faults(role, fields.get("name", "transformers"))
    if model is None and name in (None, "transformers", "server"):
        yield f"field '{place}.model' is missing; give a Hub id, such as openai/whisper-base"
    elif model is not None and not (isinstance(model, str) and _MODEL_ID.fullmatch(model)):
        yield f"field '{place}.model' must be a Hub id, such as openai/whisper-base, not {_short(model)}"
    if model is not None and name != "server" and not (isinstance(revision, str) and _COMMIT.fullmatch(revision)):
        wrong = (
            "is missing; give" if revision is None else f"must be a commit of 40 digits, not {_short(revision)}; give"
        )
        yield f"field '{place}.revision' {wrong} that of the model's page on the Hub, Files and versions"
    if size is not None and (isinstance(size, bool) or not isinstance(size, (int, float)) or not 0 <= size < 1e7):
        yield f"field '{place}.size_mb' must be a number of megabytes, not {_short(size)}"


def _name_faults(role: str, name: Any) -> Iterator[str]:
    place, kind = f"field 'roles.{role}.name'", ROLES[role]
    if kind is None:
        allowed = ("transformers", "server") if role == "language_model" else ("transformers",)
        if name not in allowed:
            yield f"{place} must be {' or '.join(allowed)}, not {_short(name)}"
    elif not isinstance(name, str) or name not in REGISTRIES[kind].names():
        option = f"--{role.replace('_', '-')}"
        yield (
            f"{place}: {_short(name)} is not a registered name; one of {', '.join(REGISTRIES[kind].names())}, or "
            f"package.module:Name on the command line: {option}"
        )


def _server_faults(server: Any) -> Iterator[str]:
    try:
        host = urlsplit(server).hostname if isinstance(server, str) else None
    except ValueError:
        host = None
    if host not in ("localhost", "127.0.0.1", "::1") or not server.startswith(("http://", "https://")):
        yield (
            f"field 'server' must be the URL of a server on this machine, such as http://127.0.0.1:8000/v1, not "
            f"{_short(server)}; frames and sounds are sent to another only if --server names it"
        )


def _text_faults(place: str, value: Any, *, required: bool) -> Iterator[str]:
    if value is None:
        if required:
            yield f"field '{place}' is missing; write a line of text"
    elif not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_TEXT or not value.isprintable():
        yield f"field '{place}' must be a line of text of at most {_LONGEST_TEXT} characters, not {_short(value)}"


def _list_faults(place: str, value: Any) -> Iterator[str]:
    if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        yield f"field '{place}' must be a list of names of fields, not {_short(value)}"


def _plain(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _short(value: Any) -> str:
    try:
        return _plain(repr(value))
    except ValueError:  # Python prints no integer of more than some thousand digits
        return "a number of thousands of digits"
