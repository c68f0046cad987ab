"""Names of videos and files from any source: any bytes, any Unicode normalization, any allowed length."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

#: Maximum length of a file name in bytes on common file systems.
LONGEST_NAME = 255

#: Maximum length of a name to which a prefix and a suffix are added while the file is written.
_LONGEST_STEM = LONGEST_NAME - 55

#: Characters that a terminal interprets instead of showing: control characters (C0 except tab and line break, DEL, C1),
#: line and paragraph separators, directional overrides and isolates, and lone surrogates, which encode bytes of names
#: that are not UTF-8.
_NOT_SHOWN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Write control characters as escapes, so that a terminal shows them and does not interpret them.

    Args:
        text: from any source; tabs and line breaks stay.

    Example:
        >>> print(printable("a\x1b[2Jb\r\u202ec"))
        a\x1b[2Jb\r\u202ec
    """
    return _NOT_SHOWN.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def spellings(name: str) -> tuple[str, ...]:
    """Return the spellings of a name: as given, then composed (NFC) and decomposed (NFD), as macOS stores names.

    Example:
        >>> [len(name) for name in spellings("caf\u00e9")], spellings("cafe")
        ([4, 5], ('cafe',))
    """
    if name.isascii():
        return (name,)
    return tuple(dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))))


def look_up(values: Mapping[str, T], name: str) -> T | None:
    """Return the value of a name in any of its [`spellings`], the given one first; None if there is none.

    Example:
        >>> look_up({"cafe\u0301": 1}, "caf\u00e9"), look_up({"cafe": 1}, "caf\u00e9")
        (1, None)
    """
    return next((values[spelling] for spelling in spellings(name) if spelling in values), None)


def temporary_prefix(name: str) -> str:
    """Return the prefix of temporary files next to a file: a dot and its name, shortened if it would be too long.

    Example:
        >>> temporary_prefix("abc.npy"), len(temporary_prefix("x" * 250))
        ('.abc.npy.', 219)
    """
    if len(os.fsencode(name)) <= _LONGEST_STEM:
        return f".{name}."
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    while len(os.fsencode(name)) > _LONGEST_STEM:
        name = name[:-1]
    return f".{name}.{digest}."
