"""Building blocks of the caption tokenizer's rules: character sets and parts of patterns, as text.

Words and entities are case-insensitive, `(?i:...)`; sets are case-sensitive, because `re` would add letters to them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

DATA = json.loads(files(__package__).joinpath("ptb_data.json").read_text(encoding="utf-8"))

#: Compiles a pattern at its first use: there are many large patterns, and few texts need all of them.
compiled = cache(re.compile)


def _characters(name: str) -> str:
    """Return the content of a `[...]` set, from code points and ranges such as `00C0-00D6`."""
    return "".join(re.sub(r"\w+", r"\\u\g<0>", part) for line in DATA["characters"][name] for part in line.split())


def any_of(words: Iterable[str]) -> str:
    """Return a case-insensitive pattern of these words that prefers the longest match."""
    return rf"(?i:{'|'.join(re.escape(word) for word in sorted(words, key=len, reverse=True))})"


def any_capitalised(words: Iterable[str]) -> str:
    """Return a pattern of these words with a capital first letter."""
    ordered = sorted(words, key=len, reverse=True)
    return rf"(?:{'|'.join(re.escape(word[0].upper()) + f'(?i:{re.escape(word[1:])})' for word in ordered)})"


# Contents of [...] sets.
ALPHA, DIGIT, UPPER = _characters("letters"), _characters("digits"), _characters("upper")
SYMBOL, CURRENCY = _characters("symbols"), _characters("currency")
LETTER, LETTER_OR_DIGIT = "A-Za-z", "A-Za-z0-9"
_WORD_LETTER = rf"{ALPHA}{_characters('marks')}\xad"
WORD_START = rf"{_WORD_LETTER}&"
WORD_CHARACTER = rf"{_WORD_LETTER}{DIGIT}&"
_SPACE = r" \t\xa0\u2000-\u200a\u3000"
_LINE_END = r"\n\r\x0b\x0c\u2028\u2029"
URL_STOP = ' \\t\\n\\x0c\\r"<>|'
APOSTROPHE_START = r"'\u2019\x92&"

# Patterns.
ENTITY = r"&[aeiouAEIOU](?i:acute|grave|uml);"
WORD_LETTERS = rf"(?:[{_WORD_LETTER}]|{ENTITY})++"
WORD_CHARACTERS = rf"(?:[{_WORD_LETTER}{DIGIT}]|{ENTITY})++"
_WORD_PIECE = rf"(?:[{_WORD_LETTER}]|{ENTITY})(?:[{_WORD_LETTER}{DIGIT}]|{ENTITY})*+"
WORD = rf"{_WORD_PIECE}(?:[.!?]{_WORD_PIECE})*+"
SPACE = rf"[{_SPACE}]"
LINE_END = rf"(?:\r\n|[{_LINE_END}])"
SPACE_OR_LINE_END = rf"(?:\r\n|[{_SPACE}{_LINE_END}\x85])"
APOSTROPHE = r"(?:['\u2019\x92]|(?i:&apos;))"
ANY_APOSTROPHE = r"(?:['\u2019\x92`\u2018\u201b\x91]|(?i:&apos;))"
CLITIC = rf"{APOSTROPHE}(?:[msdMSD]|(?i:re|ve|ll))"
NOT = rf"(?i:n){ANY_APOSTROPHE}(?i:t)"
MID = r"[,;:\u3001]"
HYPHEN = r"[-_\u058a\u2010\u2011]"
_COUNTRIES = r"(?i:canada|sino|korean|eu|japan|non)-(?i:U\.S)|(?i:U\.S\.-U\.(?:K|S\.S\.R))"
#: An acronym without its last period.
ACRONYM = rf"(?:{_COUNTRIES}|[{LETTER}](?:\.[{LETTER}])*)"
FILE_EXTENSION = any_of(DATA["words"]["file extensions"])
