"""What is known of the models of a run: id, revision and license, for its provenance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ...checkpoints.loading import split_revision
from ...registry import REGISTRIES
from .preset import ROLES, Preset

_COMMIT_FOLDER = re.compile(r"[0-9a-f]{40}")
#: The YAML at the beginning of a model card, and its `license`. It is not parsed: the time of a YAML parser grows with
#: the square of the nesting, and a card may come from anyone.
_METADATA = re.compile(r"---[ \t]*\n(.*?\n)---[ \t]*(?:\n|$)", re.DOTALL)
_LICENSE = re.compile(r"^license:[ \t]*([\"']?)([\w.+-]+)\1[ \t]*(?:#.*)?$", re.MULTILINE)


def describe_roles(options: Mapping[str, str | None], preset: Preset | None = None) -> dict[str, dict[str, str | None]]:
    """Describe the model of each role.

    Args:
        options: options of the command by role, such as `{"tagger": "transformers:some/model"}`; None, and "none",
            are left out.
        preset: preset that was chosen; its licenses are used for its own models.

    Example:
        >>> describe_roles({"tagger": "transformers:some/model@v1"})
        {'tagger': {'model': 'some/model', 'revision': 'v1', 'license': None}}
    """
    found = {}
    for role, text in options.items():
        if text is None or text == "none":
            continue
        kind = ROLES[role]
        name, model = (None, text) if kind is None else REGISTRIES[kind].split(text)
        own = None if preset is None else preset.roles.get(role)
        license = own.license if own is not None and own.option == text else None
        found[role] = describe_model(model or name or text, license)
    return found


def describe_model(reference: str, license: str | None = None) -> dict[str, str | None]:
    """Return what is known of a model for the provenance, without asking the Hub.

    Args:
        reference: Hub id, ID@REVISION, or folder.
        license: license as a preset states it; default that of the model card, if it was downloaded.

    Returns:
        `model`, `revision` (a commit, if the model is in the cache of the Hub) and `license`; None if not known.

    Example:
        >>> describe_model("some/model@v1")
        {'model': 'some/model', 'revision': 'v1', 'license': None}
    """
    name, revision = split_revision(reference)
    folder = Path(name) if Path(name).is_dir() else _cached(name, revision)
    if folder is not None and _COMMIT_FOLDER.fullmatch(folder.name):
        revision = folder.name
    card = None if folder is None else folder / "README.md"
    if license is None and card is not None and card.is_file():
        license = _license_of(card)
    return {"model": name, "revision": revision, "license": license}


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:  # not a Hub id, such as the name of a model on a server
        return None
    return Path(path).parent if isinstance(path, str) else None


def _license_of(card: Path) -> str | None:
    """Return the license of a model card's metadata; a card that cannot be read states none."""
    try:
        metadata = _METADATA.match(card.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    found = metadata and _LICENSE.search(metadata[1])
    return found[2] if found else None
