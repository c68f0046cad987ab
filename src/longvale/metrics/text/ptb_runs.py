"""Tokens of the caption tokenizer with a long lookahead: tags, web and mail addresses, file names, compounds.

In a text such as `&.&.&.` each character is a token, and a long web address might start at each of them. A [`Source`]
therefore caches matches per run of characters, so that adversarial text also takes linear time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from .ptb_parts import ENTITY, FILE_EXTENSION, MID, SPACE_OR_LINE_END, URL_STOP, WORD_CHARACTERS, compiled

#: End of the characters that a rule examined, and end of its token.
Found: TypeAlias = tuple[int, int]
#: Start of the top-level domain, and end of the address.
_Address: TypeAlias = tuple[int, int]

_COMMENT_START = r"<[!?][A-Za-z\-]"
_TAG_NAME = r"[A-Za-z][A-Za-z0-9_:.\-]*+"
_TAG = rf"</{_TAG_NAME} *+>|<{_TAG_NAME}(?: ++{_TAG_NAME}(?: *+= *+(?:'[^']*+'|\"[^\"]*+\"))?+)*+ *+/?+ *+>"

_URL_END = rf"[^{URL_STOP}.!?(){{}},\-]"
_ASTRAL = "[\U00010000-\U0010ffff]"  # two characters in the published tokenizer, so one matches a minimum of two
WEB_ADDRESS = rf"(?i:https?://)(?:[^{URL_STOP}(){{}}]+{_URL_END}|{_ASTRAL})"
_WEB_PATH = rf"/(?:[^{URL_STOP}()]+{_URL_END}|{_ASTRAL})"

_WWW_CHARACTER = rf"[^{URL_STOP}.!?(){{}},]"
BARE_CHARACTER = rf"[^{URL_STOP}.!?(){{}},`'$\x2c-\x5f]"
#: Labels of an address, the rest of their run, and the top-level domain.
_WWW = (rf"(?:{_WWW_CHARACTER}++\.)*+", rf"{_WWW_CHARACTER}*+", r"\.[A-Za-z]{2,4}")
_BARE = (rf"(?:{BARE_CHARACTER}++\.)*+", rf"{BARE_CHARACTER}*+", r"\.(?i:com|net|org|edu)")

_MAIL_START = r"(?:<|(?i:&lt;))?([A-Za-z0-9])"
_MAIL_CHARACTERS = rf"[^{URL_STOP}(){{}}\xa0]*+"
_MAIL_LABEL = rf"[^{URL_STOP}(){{}}\xa0.]++"
_MAIL_DOMAIN = rf"@{_MAIL_LABEL}(?:\.{_MAIL_LABEL})*+(?:>|(?i:&gt;))?+"

_FILE_NAME = rf"{WORD_CHARACTERS}(?:\.{WORD_CHARACTERS})*+"
_FILE_END = rf"\.{FILE_EXTENSION}(?=({SPACE_OR_LINE_END}|[.?!,]))"  # the period may start the next extension

_HYPHENATED = r"(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\xad]++))++"
_AFTER_HYPHENATED = rf"({_HYPHENATED}\.){MID}|({_HYPHENATED})"


class Source:
    """A text with cached results for its runs of characters.

    Args:
        text: any text.
    """

    def __init__(self, text: str):
        self.text = text
        self._runs: dict[Callable[[str, int], tuple[Any, int]], tuple[int, int, Any]] = {}

    def run(self, measure: Callable[[str, int], tuple[Any, int]], pos: int) -> Any:
        """Return the result of `measure` at a position; it is computed once for all positions of a run.

        Args:
            measure: function of a text and a position; returns a result and the end of the run for which it is valid.
            pos: the position.
        """
        start, end, found = self._runs.get(measure, (0, 0, None))
        if not start <= pos < end:
            found, end = measure(self.text, pos)
            self._runs[measure] = pos, end, found
        return found


def find_tag(source: Source, pos: int) -> Found | None:
    """Find an HTML or XML tag: `<b>`, `</b>`, `<a href="x">`, `<!-- x -->`."""
    if compiled(_COMMENT_START).match(source.text, pos):
        stop = source.run(_comment_stop, pos + 2)
        return (stop + 1, stop + 1) if source.text.startswith(">", stop) else None
    found = compiled(_TAG).match(source.text, pos)
    return (found.end(), found.end()) if found else None


def _comment_stop(text: str, pos: int) -> tuple[int, int]:
    stop = compiled(r"[^>\r\n]*+").match(text, pos).end()
    return stop, stop + 1


def find_odd_face(source: Source, pos: int) -> Found | None:
    """Find text that an error in the published rules treats as an emoticon: `x.[^x=` and all text up to `<>]`."""
    if not compiled(r"[\^x=~<>]\.\[\^x=").match(source.text, pos):
        return None
    stop = source.run(_next_less_sign, pos + len("x.[^x="))
    return (stop + 3, stop + 3) if source.text.startswith("<>]", stop) else None


def _next_less_sign(text: str, pos: int) -> tuple[int, int]:
    stop = compiled(r"[^<]*+").match(text, pos).end()
    return stop, stop + 1


def find_www_address(source: Source, pos: int) -> Found | None:
    """Find a web address with www, such as `www.example.com/a.html`."""
    if not compiled(r"(?i:www\.)").match(source.text, pos):
        return None
    return _longest(source.run(_www_addresses, pos), pos + len("www.x"))


def find_bare_address(source: Source, pos: int) -> Found | None:
    """Find a web address without www, such as `example.com/a.html`."""
    return _longest(source.run(_bare_addresses, pos), pos + len("x"))


def _longest(addresses: list[_Address], pos: int) -> Found | None:
    end = max((end for top, end in addresses if top >= pos), default=None)
    return None if end is None else (end, end)


def _www_addresses(text: str, pos: int) -> tuple[list[_Address], int]:
    return _addresses(text, pos, *_WWW)


def _bare_addresses(text: str, pos: int) -> tuple[list[_Address], int]:
    return _addresses(text, pos, *_BARE)


def _addresses(text: str, pos: int, labels: str, rest: str, top: str) -> tuple[list[_Address], int]:
    # Of all hosts that end in this run of labels, the last is the longest; the same holds for hosts with a path.
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
    """Find a mail address, such as `someone@example.org`, `<someone@example.org>`."""
    start = compiled(_MAIL_START).match(source.text, pos)
    if not start:
        return None
    at, end = source.run(_last_mail_address, start.start(1))
    return (end, end) if at > start.start(1) else None


def _last_mail_address(text: str, pos: int) -> tuple[_Address, int]:
    # The last "@" followed by a domain gives the longest match, for any start of the address.
    end = compiled(_MAIL_CHARACTERS).match(text, pos).end()
    at = text.rfind("@", pos, end)
    while at >= 0:
        domain = compiled(_MAIL_DOMAIN).match(text, at)
        if domain:
            return (at, domain.end()), end
        at = text.rfind("@", pos, at)
    return (-1, -1), end


def find_file_name(source: Source, pos: int) -> Found | None:
    """Find a file name, such as `clip.mp3`, `2x.tar.gz`, before a space or the end of a clause."""
    # An entity counts as a word character only as a whole, not from a position inside it.
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
    """Find a hyphenated compound, such as `well-known`, `1,000-year`, `U.S.-based`."""
    return source.run(_hyphenated, pos)


def _hyphenated(text: str, pos: int) -> tuple[Found | None, int]:
    end = compiled(r"[A-Za-z0-9.,\xad]*+").match(text, pos).end()
    found = compiled(_AFTER_HYPHENATED).match(text, end)
    return (found.end(), found.end(found.lastindex)) if found else None, end
