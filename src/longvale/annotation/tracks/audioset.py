"""Labels of AudioSet: which are more general than others, and which are of speech, singing, music or silence."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal, TypeAlias

SoundKind: TypeAlias = Literal["speech", "singing", "music", "silence", "sound"]

#: Labels of each kind, beside the more specific ones; other labels are of the kind "sound".
_KINDS: dict[SoundKind, frozenset[str]] = {
    "singing": frozenset({"singing", "vocal music", "a capella", "opera"}),
    "speech": frozenset({"speech", "whispering"}),
    "music": frozenset({"music"}),
    "silence": frozenset({"silence"}),
}


def kind_of(label: str) -> SoundKind:
    """Return whether a label of a sound is of speech, singing, music, silence, or of another sound.

    Args:
        label: label of AudioSet, or of a tagger that has "speech", "singing" and "music"; case is ignored.

    Example:
        >>> [kind_of(label) for label in ("Conversation", "Choir", "Guitar", "music", "Silence", "Dog")]
        ['speech', 'singing', 'music', 'music', 'silence', 'sound']
    """
    names = {label.casefold(), *generalizations(label)}
    return next((kind for kind, general in _KINDS.items() if names & general), "sound")


def generalizations(label: str) -> frozenset[str]:
    """Return all labels of AudioSet that are more general than a label, in lower case; none for an unknown label.

    Example:
        >>> sorted(generalizations("Bark"))
        ['animal', 'dog', 'domestic animals, pets']
    """
    found: set[str] = set()
    queue = [label.casefold()]
    while queue:
        parents = _parents().get(queue.pop(), frozenset()) - found
        found |= parents
        queue += parents
    return frozenset(found)


def members(label: str) -> frozenset[str]:
    """Return the labels of a family, in lower case: those directly below its general label.

    Example:
        >>> sorted(members("Duck"))
        ['quack']
    """
    return frozenset(name for general, names in _families() if general == label.casefold() for name in names)


def is_known(label: str) -> bool:
    """Return whether a label is in one of AudioSet's families.

    Example:
        >>> is_known("Meow"), is_known("keyword 7")
        (True, False)
    """
    return label.casefold() in _known()


@cache
def _families() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Read the families: a general label and the more specific ones, in lower case."""
    text = files(__package__).joinpath("audioset.txt").read_text(encoding="utf-8").casefold()
    lines = [line.partition(": ") for line in text.splitlines() if not line.startswith("#")]
    return tuple((general, tuple(members.split("; "))) for general, _, members in lines)


@cache
def _parents() -> dict[str, frozenset[str]]:
    parents: dict[str, frozenset[str]] = {}
    for general, members in _families():
        for member in members:
            parents[member] = parents.get(member, frozenset()) | {general}
    return parents


@cache
def _known() -> frozenset[str]:
    return frozenset(label for general, members in _families() for label in (general, *members))
