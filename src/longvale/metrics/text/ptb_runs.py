"""Tokens of the caption tokenizer that take a look far ahead: tags, web and mail addresses, file names, compounds.

In `&.&.&.` and so on each character is a token, and at each of them a web address might begin that ends far away. A
[`Source`] therefore remembers what the run of characters around a place holds: hostile text takes linear time, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from .ptb_parts import ENTITY, FILE_EXTENSION, MID, SPACE_OR_LINE_END, URL_STOP, WORD_CHARACTERS, compiled

#: Where the characters end that a rule looked at, and where those end that its token is made of.
Found: TypeAlias = tuple[int, int]
#: Where the top domain begins, and where the address ends.
_Address: TypeAlias = tuple[int, int]

_COMMENT_START = r"<[!?][A-Za-z\-]"
_TAG_NAME = r"[A-Za-z][A-Za-z0-9_:.\-]*+"
_TAG = rf"</{_TAG_NAME} *+>|<{_TAG_NAME}(?: ++{_TAG_NAME}(?: *+= *+(?:'[^']*+'|\"[^\"]*+\"))?+)*+ *+/?+ *+>"

_URL_END = rf"[^{URL_STOP}.!?(){{}},\-]"
_ASTRAL = "[\U00010000-\U0010ffff]"  # two characters to the published tokenizer, hence enough where two are asked for
WEB_ADDRESS = rf"(?i:https?://)(?:[^{URL_STOP}(){{}}]+{_URL_END}|{_ASTRAL})"
_WEB_PATH = rf"/(?:[^{URL_STOP}()]+{_URL_END}|{_ASTRAL})"

_WWW_CHARACTER = rf"[^{URL_STOP}.!?(){{}},]"
BARE_CHARACTER = rf"[^{URL_STOP}.!?(){{}},`'$\x2c-\x5f]"
#: An address's labels, the rest of their run, and its top domain.
_WWW = (rf"(?:{_WWW_CHARACTER}++\.)*+", rf"{_WWW_CHARACTER}*+", r"\.[A-Za-z]{2,4}")
_BARE = (rf"(?:{BARE_CHARACTER}++\.)*+", rf"{BARE_CHARACTER}*+", r"\.(?i:com|net|org|edu)")

_MAIL_START = r"(?:<|(?i:&lt;))?([A-Za-z0-9])"
_MAIL_CHARACTERS = rf"[^{URL_STOP}(){{}}\xa0]*+"
_MAIL_LABEL = rf"[^{URL_STOP}(){{}}\xa0.]++"
_MAIL_DOMAIN = rf"@{_MAIL_LABEL}(?:\.{_MAIL_LABEL})*+(?:>|(?i:&gt;))?+"

_FILE_NAME = rf"{WORD_CHARACTERS}(?:\.{WORD_CHARACTERS})*+"
_FILE_END = rf"\.{FILE_EXTENSION}(?=({SPACE_OR_LINE_END}|[.?!,]))"  # the period may begin the next end

_HYPHENATED = r"(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\xad]++))++"
_AFTER_HYPHENATED = rf"({_HYPHENATED}\.){MID}|({_HYPHENATED})"


class Source:
    """A text, and what is known of the runs in it.

    Args:
        text: any text.
    """

    def __init__(self, text: str):
        self.text = text
        self._runs: dict[Callable[[str, int], tuple[Any, int]], tuple[int, int, Any]] = {}

    def run(self, measure: Callable[[str, int], tuple[Any, int]], pos: int) -> Any:
        """What `measure` finds at a place, asked once for all places of a run.

        Args:
            measure: of a text and a place in it, returns what holds from there on, and where that ceases to hold.
            pos: the place.
        """
        start, end, found = self._runs.get(measure, (0, 0, None))
        if not start <= pos < end:
            found, end = measure(self.text, pos)
            self._runs[measure] = pos, end, found
        return found


def find_tag(source: Source, pos: int) -> Found | None:
    """A tag of HTML or XML: `<b>`, `</b>`, `<a href="x">`, `<!-- x -->`."""
    if compiled(_COMMENT_START).match(source.text, pos):
        stop = source.run(_comment_stop, pos + 2)
        return (stop + 1, stop + 1) if source.text.startswith(">", stop) else None
    found = compiled(_TAG).match(source.text, pos)
    return (found.end(), found.end()) if found else None


def _comment_stop(text: str, pos: int) -> tuple[int, int]:
    stop = compiled(r"[^>\r\n]*+").match(text, pos).end()
    return stop, stop + 1


def find_odd_face(source: Source, pos: int) -> Found | None:
    """What a slip in the published rules takes for a face: `x.[^x=` and all up to `<>]`."""
    if not compiled(r"[\^x=~<>]\.\[\^x=").match(source.text, pos):
        return None
    stop = source.run(_next_less_sign, pos + len("x.[^x="))
    return (stop + 3, stop + 3) if source.text.startswith("<>]", stop) else None


def _next_less_sign(text: str, pos: int) -> tuple[int, int]:
    stop = compiled(r"[^<]*+").match(text, pos).end()
    return stop, stop + 1


def find_www_address(source: Source, pos: int) -> Found | None:
    """`www.example.com/a.html`."""
    if not compiled(r"(?i:www\.)").match(source.text, pos):
        return None
    return _longest(source.run(_www_addresses, pos), pos + len("www.x"))


def find_bare_address(source: Source, pos: int) -> Found | None:
    """`example.com/a.html`."""
    return _longest(source.run(_bare_addresses, pos), pos + len("x"))


def _longest(addresses: list[_Address], pos: int) -> Found | None:
    end = max((end for top, end in addresses if top >= pos), default=None)
    return None if end is None else (end, end)


def _www_addresses(text: str, pos: int) -> tuple[list[_Address], int]:
    return _addresses(text, pos, *_WWW)


def _bare_addresses(text: str, pos: int) -> tuple[list[_Address], int]:
    return _addresses(text, pos, *_BARE)


def _addresses(text: str, pos: int, labels: str, rest: str, top: str) -> tuple[list[_Address], int]:
    # Of all hosts that end in this run of labels the last one is the longest, and so is the last one that has a path.
    dot = compiled(labels).match(text, pos).end()
    hosts = [found.span() for found in compiled(top).finditer(text, pos, dot + 4) if found.start() < dot]
    addresses = hosts[-1:]
    for start, slash in reversed(hosts):
        path = compiled(_WEB_PATH).match(text, slash)
        if path:
            addresses.append((start, path.end()))
            break
    return addresses, compiled(rest).match(text, dot).end()


def find_mail_address(source: Source, pos: int) -> Found | None:
    """`someone@example.org`, `<someone@example.org>`."""
    start = compiled(_MAIL_START).match(source.text, pos)
    if not start:
        return None
    at, end = source.run(_last_mail_address, start.start(1))
    return (end, end) if at > start.start(1) else None


def _last_mail_address(text: str, pos: int) -> tuple[_Address, int]:
    # The last "@" that a domain follows leads farthest, from wherever the address begins.
    end = compiled(_MAIL_CHARACTERS).match(text, pos).end()
    at = text.rfind("@", pos, end)
    while at >= 0:
        domain = compiled(_MAIL_DOMAIN).match(text, at)
        if domain:
            return (at, domain.end()), end
        at = text.rfind("@", pos, at)
    return (-1, -1), end


def find_file_name(source: Source, pos: int) -> Found | None:
    """`clip.mp3`, `2x.tar.gz`, before a space or the end of a clause."""
    # Read from its middle, an entity is not the word character that it is as a whole.
    last = (
        _last_file_name(source.text, pos)[0] if _inside_entity(source.text, pos) else source.run(_last_file_name, pos)
    )
    return last[1:] if last and last[0] > pos else None


def _last_file_name(text: str, pos: int) -> tuple[tuple[int, int, int] | None, int]:
    run = compiled(_FILE_NAME).match(text, pos)
    if not run:
        return None, pos
    last = None
    for found in compiled(_FILE_END).finditer(text, pos, run.end() + 2):
        if found.start() < run.end():
            last = found.start(), found.end(1), found.end()
    return last, run.end()


def _inside_entity(text: str, pos: int) -> bool:
    start = text.rfind("&", max(0, pos - 7), pos)
    found = compiled(ENTITY).match(text, start) if start >= 0 else None
    return found is not None and found.end() > pos


def find_hyphenated(source: Source, pos: int) -> Found | None:
    """`well-known`, `1,000-year`, `U.S.-based`."""
    return source.run(_hyphenated, pos)


def _hyphenated(text: str, pos: int) -> tuple[Found | None, int]:
    end = compiled(r"[A-Za-z0-9.,\xad]*+").match(text, pos).end()
    found = compiled(_AFTER_HYPHENATED).match(text, end)
    return (found.end(), found.end(found.lastindex)) if found else None, end
