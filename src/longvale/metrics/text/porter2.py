"""The Snowball English stemmer ("Porter2") in the version that METEOR uses.

Implements the description of the algorithm (https://snowballstem.org/algorithms/english/stemmer.html) up to Snowball
2.2; later versions changed some rules, but METEOR compares stems of the older version.

R1 and R2 are the parts of a word in which suffixes may be removed: R1 starts after the first consonant that follows a
vowel, R2 after the first such consonant inside R1.
"""

from __future__ import annotations

import re

_VOWELS = frozenset("aeiouy")
_WHOLE_WORDS = {
    "skis": "ski", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "idly": "idl", "gently": "gentl",
    "ugly": "ugli", "early": "earli", "only": "onli", "singly": "singl",
    **{word: word for word in ("sky", "news", "howe", "atlas", "cosmos", "bias", "andes")},
}  # fmt: skip
#: Words that are not changed after step 1a.
_DONE_AFTER_1A = frozenset(("inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed"))
_R1_PREFIXES = ("gener", "commun", "arsen")
_VOWEL_CONSONANT = re.compile(r"[aeiouy][^aeiouy]")
_SHORT_SYLLABLE = re.compile(r"(?:[^aeiouy][aeiouy][^aeiouywxY]|^[aeiouy][^aeiouy])\Z")
_DOUBLES = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")


def _longest_first(rules: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Convert `suffixes` -> replacement to (suffix, replacement) pairs, with the longest suffix first."""
    pairs = [(suffix, to) for suffixes, to in rules.items() for suffix in suffixes.split()]
    return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))


_STEP_2 = _longest_first({
    "tional": "tion", "enci": "ence", "anci": "ance", "abli": "able", "entli": "ent", "izer ization": "ize",
    "ational ation ator": "ate", "alism aliti alli": "al", "fulness fulli": "ful", "ousli ousness": "ous",
    "iveness iviti": "ive", "biliti bli": "ble", "ogi": "og", "lessli": "less", "li": "",
})  # fmt: skip
_STEP_3 = _longest_first({
    "tional": "tion", "ational": "ate", "alize": "al", "icate iciti ical": "ic", "ful ness ative": "",
})  # fmt: skip
_STEP_4 = _longest_first({
    "al ance ence er ic able ible ant ement ment ent ism ate iti ous ive ize ion": "",
})  # fmt: skip
#: Suffixes of steps 2 and 4 that are replaced only after one of these letters.
_ONLY_AFTER = {"ogi": "l", "li": "cdeghkmnrt", "ion": "st"}


def stem(word: str) -> str:
    """Return the stem of a lower-case word.

    Args:
        word: any text without spaces; characters other than a e i o u y count as consonants.

    Example:
        >>> [stem(word) for word in ("riding", "horses", "happily", "generously", "skies", "o'clock")]
        ['ride', 'hors', 'happili', 'generous', 'sky', "o'clock"]
    """
    if word in _WHOLE_WORDS:
        return _WHOLE_WORDS[word]
    if len(word) < 3:
        return word
    word = _mark_consonant_y(word.removeprefix("'"))
    r1, r2 = _regions(word)
    word = _step_1a(word)
    if word not in _DONE_AFTER_1A:
        word = _step_1c(_step_1b(word, r1))
        word = _step_3(_step_2(word, r1), r1, r2)
        word = _step_5(_step_4(word, r2), r1, r2)
    return word.replace("Y", "y")


def _mark_consonant_y(word: str) -> str:
    """Replace y by Y where it is a consonant: at the start or after a vowel (a replaced Y is not a vowel)."""
    marked = ""
    for letter in word:
        marked += "Y" if letter == "y" and (not marked or marked[-1] in _VOWELS) else letter
    return marked


def _regions(word: str) -> tuple[int, int]:
    """Return the start positions of R1 and R2."""
    prefix = next((prefix for prefix in _R1_PREFIXES if word.startswith(prefix)), None)
    r1 = len(prefix) if prefix else _after_vowel_consonant(word, 0)
    return r1, _after_vowel_consonant(word, r1)


def _after_vowel_consonant(word: str, start: int) -> int:
    match = _VOWEL_CONSONANT.search(word, start)
    return match.end() if match else len(word)


def _has_vowel(text: str) -> bool:
    return not _VOWELS.isdisjoint(text)


def _find(word: str, rules: tuple[tuple[str, str], ...]) -> tuple[str, str, str] | None:
    """Return the text before the longest matching suffix, the suffix and its replacement."""
    for suffix, replacement in rules:
        if word.endswith(suffix):
            return word[: len(word) - len(suffix)], suffix, replacement
    return None


def _step_1a(word: str) -> str:
    for suffix in ("'s'", "'s", "'"):
        if word.endswith(suffix):
            word = word[: -len(suffix)]
            break
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) >= 5 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and _has_vowel(word[:-2]):
        return word[:-1]
    return word


def _step_1b(word: str, r1: int) -> str:
    for suffix in ("eedly", "eed"):
        if word.endswith(suffix):
            before = word[: -len(suffix)]
            return before + "ee" if len(before) >= r1 else word
    for suffix in ("ingly", "edly", "ing", "ed"):
        if word.endswith(suffix):
            before = word[: -len(suffix)]
            return _mend(before, r1) if _has_vowel(before) else word
    return word


def _mend(word: str, r1: int) -> str:
    """Restore the base form after an -ed or -ing was removed: hop(p), hop(e), conflat(e)."""
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if word.endswith(_DOUBLES):
        return word[:-1]
    if len(word) == r1 and _SHORT_SYLLABLE.search(word):
        return word + "e"
    return word


def _step_1c(word: str) -> str:
    if len(word) > 2 and word[-1] in "yY" and word[-2] not in _VOWELS:
        return word[:-1] + "i"
    return word


def _step_2(word: str, r1: int) -> str:
    found = _find(word, _STEP_2)
    if not found or len(found[0]) < r1 or not _letter_allows(*found[:2]):
        return word
    return found[0] + found[2]


def _step_3(word: str, r1: int, r2: int) -> str:
    found = _find(word, _STEP_3)
    if not found or len(found[0]) < (r2 if found[1] == "ative" else r1):
        return word
    return found[0] + found[2]


def _step_4(word: str, r2: int) -> str:
    found = _find(word, _STEP_4)
    return found[0] if found and len(found[0]) >= r2 and _letter_allows(*found[:2]) else word


def _letter_allows(before: str, suffix: str) -> bool:
    letters = _ONLY_AFTER.get(suffix)
    return letters is None or (before != "" and before[-1] in letters)


def _step_5(word: str, r1: int, r2: int) -> str:
    before, start = word[:-1], len(word) - 1
    if word.endswith("e"):
        return before if start >= r2 or (start >= r1 and not _SHORT_SYLLABLE.search(before)) else word
    return before if word.endswith("ll") and start >= r2 else word
