"""Check of a caption against facts: words, numbers, quotations, speakers, and what is seen but was only heard.

What it finds: words of content that no fact contains, neither by their stem nor by a short list of words that imply
them; numbers, times and speakers that no fact has; quotations of what nobody said or wrote; sight claimed for what was
only heard, and the reverse; a fact that is denied; "throughout" of what is a part of the event.

What it cannot find: a wrong relation between words that the facts contain, such as who does what, which of two things
comes first, or a supported word in another sense; claims made with the words of grammar alone; a fact that is wrong
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from ...events import Modality
from ...metrics.text.porter2 import stem
from .fact import Fact, clock, is_whole, phrase
from .vocabulary import AUDIBLE, FRAMING, FUNCTION_WORDS, HEARING, IMPLIED, NEGATIONS, NUMBERS, OF_SOURCE, SEEING

_QUOTED = re.compile(r'"([^"]*)"|“([^”]*)”|(?<!\w)\'([^\']+)\'(?!\w)')
_SPEAKER = re.compile(r"\bspeaker (\w+)\b", re.IGNORECASE)
_TIME = re.compile(r"\b\d{1,2}(?::\d{2}){1,2}\b")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+(?:[.,]\d+)?")
#: Things of which "one" is a count, not an article.
_COUNTED = ("voice", "speaker", "shot", "person", "people", "scene", "cut")
_WHOLE = re.compile(
    r"\b(?:throughout|(?:all|whole|entire) (?:the )?time|(?:beginning|start) to (?:end|finish))\b", re.IGNORECASE
)
#: Clauses: each claims sight, sound or neither of its nouns.
_SENTENCE = re.compile(r"[.!?]\s+")
_CLAUSE = re.compile(
    r"[;:,]\s+|\s+(?:while|but|when|whereas|and|with|as|(?:accompanied|followed) by|along(?:side| with))\s+"
)


def unsupported(caption: str, facts: Sequence[Fact]) -> list[str]:
    """Return what a caption says that the facts do not support, one line per problem; nothing if all is supported.

    Args:
        caption: one or more sentences.
        facts: facts of the event.

    Example:
        >>> known = [Fact("visual", "video", "A man waves.", 0, 9), Fact("audio", "sounds", "Siren", 0, 9)]
        >>> unsupported("A man waves while a siren is heard.", known)
        []
        >>> unsupported("A siren is visible behind two men.", known)
        ['no fact has: behind, two, men', 'only heard, not seen: siren']
    """
    problems = _quotations(caption, facts) + _speakers(caption, facts) + _times(caption, facts)
    bare = _TIME.sub(" ", _SPEAKER.sub(" speaker ", _QUOTED.sub(" ", caption)))
    known = _known(facts)
    missing = [word for word in _words(bare) if not _supports(word, known)]
    missing += _counts(bare, known)
    if missing:
        problems.append(f"no fact has: {', '.join(dict.fromkeys(missing))}")
    return problems + _senses(bare, known) + _denials(bare, known) + _extents(bare, facts)


def _quotations(caption: str, facts: Sequence[Fact]) -> list[str]:
    """Return quotations that are neither on the screen nor said."""
    sources = ("text", "transcript", "speech", "video", "keyframe")
    texts = [_plain_words(fact.text) for fact in facts if fact.source in sources]
    texts.append(" ".join(_plain_words(f.text) for f in facts if f.source in ("transcript", "speech")))
    quoted = [" ".join(filter(None, groups)) for groups in _QUOTED.findall(caption)]
    parts = [part for text in quoted for part in re.split(r"\.\.\.|…", text) if _plain_words(part)]
    return [f'nobody wrote or said: "{p}"' for p in parts if not any(f" {_plain_words(p)} " in f" {t} " for t in texts)]


def _plain_words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _speakers(caption: str, facts: Sequence[Fact]) -> list[str]:
    known = {fact.speaker.lower() for fact in facts}
    known |= {fact.text.lower() for fact in facts if fact.source == "speakers"}
    found = _SPEAKER.finditer(_QUOTED.sub(" ", caption))
    named = [match[0] for match in found if match[1].isdigit() or match[1].isupper()]
    return [f"no such speaker: {name}" for name in dict.fromkeys(named) if name.lower() not in known]


def _times(caption: str, facts: Sequence[Fact]) -> list[str]:
    known = {clock(time) for fact in facts for time in (fact.start, fact.end)}
    known |= {time for fact in facts for time in _TIME.findall(fact.text)}  # on a clock that is seen
    given = dict.fromkeys(re.sub(r"^0(?=\d)", "", time) for time in _TIME.findall(_QUOTED.sub(" ", caption)))
    return [f"no fact begins or ends at: {time}" for time in given if time not in known]


def _known(facts: Sequence[Fact]) -> dict[str, set[Modality]]:
    """Return the stems that the facts contain, and in which modality."""
    known: dict[str, set[Modality]] = {}
    for fact in facts:
        whole = f"{phrase(fact)} {fact.text if fact.source == 'sounds' else ''} {OF_SOURCE.get(fact.source, '')}"
        for word in _WORD.findall(whole.lower()):
            known.setdefault(_stem(NUMBERS.get(word, word)), set()).add(fact.modality)
    return known


@cache
def _stem(word: str) -> str:
    return stem(re.sub(r"['’]s?$", "", word.lower()))


def _words(text: str) -> Iterable[str]:
    """Yield words of content in lower case."""
    for word in _WORD.findall(text):
        low = re.sub(r"['’](s|re|ve|ll|d|m)?$", "", word.lower())
        if low not in FUNCTION_WORDS and low not in FRAMING and low not in NEGATIONS and not low.endswith("n't"):
            yield low


def _supporting(word: str) -> set[str]:
    """Return the stems one of which a fact must have for a word: its own, and those that imply it."""
    own = _stem(NUMBERS.get(word, word))
    return {own, *(_stem(other) for other in IMPLIED.get(word, IMPLIED.get(own, "")).split())}


def _supports(word: str, known: Mapping[str, set[Modality]]) -> bool:
    return any(stem_ in known for stem_ in _supporting(word))


def _modalities(word: str, known: Mapping[str, set[Modality]]) -> set[Modality]:
    return set().union(*(known.get(stem_, set()) for stem_ in _supporting(word)))


def _counts(text: str, known: Mapping[str, set[Modality]]) -> list[str]:
    """Return "one voice" and the like if no fact has this number."""
    counted = re.findall(rf"\b(one|single) ((?:{'|'.join(_COUNTED)})s?)\b", text, re.IGNORECASE)
    return [f"{number} {noun}".lower() for number, noun in counted if _stem("1") not in known]


def _senses(text: str, known: Mapping[str, set[Modality]]) -> list[str]:
    """Return what is said to be seen but was only heard, and what is said to be heard but was only seen."""
    unseen: list[str] = []
    unheard: list[str] = []
    for sentence in _SENTENCE.split(text):
        mode, last = "", []  # "and", "with" and commas continue the verb of the clause before
        for clause in _CLAUSE.split(sentence):
            words = _WORD.findall(clause.lower())
            stems = {_stem(word) for word in words}
            denied = any(word in NEGATIONS for word in words)
            seeing, hearing = stems & SEEING, stems & HEARING
            mode = "" if denied or (seeing and hearing) else "see" if seeing else "hear" if hearing else mode
            nouns = [w for w in _words(clause) if _stem(w) not in SEEING | HEARING]
            if (seeing or hearing) and not nouns and not denied:  # "is heard and seen": of what was named before
                nouns = last
            if mode == "see" and not seeing:  # "a man is shown, and music": only heard by nature
                nouns = [noun for noun in nouns if _stem(noun) not in AUDIBLE]
            found = {noun: _modalities(noun, known) for noun in nouns}
            unseen += [noun for noun in nouns if mode == "see" and found[noun] and "visual" not in found[noun]]
            unheard += [noun for noun in nouns if mode == "hear" and hearing and found[noun] == {"visual"}]
            last = nouns or last
    problems = [f"only heard, not seen: {', '.join(dict.fromkeys(unseen))}"] if unseen else []
    return problems + ([f"only seen, not heard: {', '.join(dict.fromkeys(unheard))}"] if unheard else [])


def _denials(text: str, known: Mapping[str, set[Modality]]) -> list[str]:
    """Return facts that the caption denies: a negation at most two words before a word of a fact."""
    denied: list[str] = []
    for clause in _CLAUSE.split(text):
        words = _WORD.findall(clause.lower())
        for index, word in enumerate(words):
            if word in NEGATIONS or word.endswith("n't"):
                after = [w for w in words[index + 1 : index + 3] if w in list(_words(w))]
                denied += [w for w in after if _stem(w) in known and _stem(w) not in SEEING | HEARING]
    return [f"denied, although a fact: {', '.join(dict.fromkeys(denied))}"] if denied else []


def _extents(text: str, facts: Sequence[Fact]) -> list[str]:
    """Return what is said to be throughout, although no fact about it is of the whole event."""
    start, end = min((f.start for f in facts), default=0.0), max((f.end for f in facts), default=0.0)
    partial: list[str] = []
    for clause in (part for sentence in _SENTENCE.split(text) for part in _CLAUSE.split(sentence)):
        if _WHOLE.search(clause):
            words = [word for word in _words(clause) if _stem(word) not in SEEING | HEARING]
            found = {word: [fact for fact in facts if _supports(word, _known([fact]))] for word in words}
            named = [fact for some in found.values() for fact in some]
            if named and not any(is_whole(fact, start, end) for fact in named):
                partial += [word for word, some in found.items() if some]
    return [f"not throughout: {', '.join(dict.fromkeys(partial))}"] if partial else []
