"""The words of captions, as the published evaluation finds them before METEOR and CIDEr count them.

Behaves as pycocoevalcap's `PTBTokenizer`, which runs the Stanford tokenizer 3.4.1 (`-preserveLines -lowerCase`) in
Java and then takes punctuation out, but needs no Java. Published scores are computed on the whole list of captions as
one text, where captions are not independent of each other: see [`tokenize`].
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from .ptb_parts import DATA, LINE_END, SPACE, compiled
from .ptb_rules import ABBREVIATION, NEW_LINE, SPLIT_WORD, rules_for
from .ptb_runs import Source

_SURROGATE = r"[\ud800-\udfff]"
_REPLACEMENT = "\ufffd"  # not written, but separates words as any unknown character does

#: What stands up to the next space or line feed, if short enough to be remembered and no `. . .` begins at its end.
#: Spaces before it go in one run: a token may begin with a fixed space, but not with one that follows another space.
_STRETCH = rf"(?: {SPACE}*+)?+((?:[^ \n]{{1,64}}+(?=[ \n]|\Z)(?! \.))?)"
#: Stretches that give the same tokens whatever follows them: a word with at most one mark after it, ...
_PLAIN = rf"(?!{SPLIT_WORD}(?![A-Za-z]))(?:([A-Za-z]+)([,;:?!]?)|(?!{ABBREVIATION})([A-Za-z]{{2,}})(\.))"
#: ... and what the rules have to read.
_INDEPENDENT = r"[A-Za-z'\"(),;:?!\-/\u2019\u201c\u201d]+"

_JAVA_LETTER = r"[^\W\d_\u3040-\u30ff\u3400-\u9fff][\u0300-\u036f\u200d]*+"
_JAVA_WORD = rf"(?:{_JAVA_LETTER}(?:[-'._\u2010-\u2015\u2027\xad](?={_JAVA_LETTER}))?+|[\d\u0300-\u036f\u200d])++"

_PUNCTUATION = frozenset(DATA["removed"])


def tokenize(sentences: Iterable[str], official_batch: bool = False) -> list[str]:
    """Split sentences into lower-case words separated by one space, without punctuation.

    Clitics become words (`it 's`, `ca n't`), hyphenated words stay whole, round brackets become `-lrb-` and `-rrb-`, an
    abbreviation keeps its period. A lone surrogate, at which pycocoevalcap raises, counts as U+FFFD: it separates words
    and is left out. No text raises.

    Args:
        sentences: any texts.
        official_batch: how published scores are computed, quirks included. All sentences are one text, a line each (a
            line feed within one becomes a space), and the tokenizer looks ahead across lines: "vitamin C." loses its
            period if the next sentence begins with "The". A carriage return, a vertical tab, a form feed, U+2028 or
            U+2029 within a sentence ends a line, so that later sentences are paired with the lines of earlier ones and
            what is on the last lines is lost. By default each sentence is a text of its own, and line breaks in it are
            spaces.

    Returns:
        One text a sentence. With `official_batch` it is the line at the sentence's place, as pycocoevalcap pairs them,
        which need not be the sentence's own. There are never fewer lines than sentences; what is left over is dropped.

    Example:
        >>> tokenize(["A man isn't playing; he's resting.", "Vitamin C.", "The end"])
        ["a man is n't playing he 's resting", 'vitamin c.', 'the end']
        >>> tokenize(["Vitamin C.", "The end"], official_batch=True)
        ['vitamin c', 'the end']
        >>> tokenize(["first\\rline", "second", "third"], official_batch=True)
        ['first', 'line', 'second']
    """
    texts = [compiled(_SURROGATE).sub(_REPLACEMENT, sentence) for sentence in sentences]
    if official_batch:
        lines = _lines("\n".join(text.replace("\n", " ") for text in texts))
        return lines[: len(texts)]
    return [_lines(compiled(LINE_END).sub(" ", text))[0] for text in texts]


def _lines(text: str) -> list[str]:
    """The lines of a text, tokenized."""
    lines: list[list[str]] = [[]]
    for token in _tokens(text):
        if token == NEW_LINE:
            lines.append([])
        else:
            lines[-1].append(token)
    # A tag may span lines: a line feed in it counts as any other.
    return [_without_punctuation(line) for line in "\n".join(" ".join(line) for line in lines).split("\n")]


def _tokens(text: str) -> list[str]:
    """All tokens of a text in lower case, punctuation and line ends (`NEW_LINE`) included."""
    source, tokens, pos = Source(text), [], 0
    stretch_at = compiled(_STRETCH).match
    while True:
        stretch = stretch_at(text, pos)
        remembered = _tokens_of_stretch(stretch[1], stretch.end() == len(text)) if stretch[1] else None
        if remembered is not None:
            tokens += remembered
            pos = stretch.end()
        elif stretch.end() == len(text):
            return tokens
        else:
            token, pos = _next_token(source, stretch.start(1))
            if token:
                tokens.append(token)


@lru_cache(maxsize=2**16)
def _tokens_of_stretch(stretch: str, is_last: bool) -> tuple[str, ...] | None:
    """The tokens of a stretch if they do not depend on what follows, else None."""
    plain = compiled(_PLAIN).fullmatch(stretch)
    if plain:
        return tuple(part.lower() for part in plain.groups() if part)
    if not is_last:
        if not compiled(_INDEPENDENT).fullmatch(stretch):
            return None
        stretch += " "
    source, tokens, pos = Source(stretch), [], 0
    while pos < len(stretch):
        token, pos = _next_token(source, pos)
        if token:
            tokens.append(token)
    return tuple(tokens)


def _next_token(source: Source, pos: int) -> tuple[str, int]:
    """The token at a place, "" for one that is not written, and where the next one begins."""
    best, reach, end = None, -1, -1
    for rule in rules_for(source.text[pos]):
        found = rule.match(source, pos)
        if found and found[0] > reach:
            best, (reach, end) = rule, found
    return _lower_case(best.write(source.text[pos:end])), end - best.reread


def _lower_case(token: str) -> str:
    """As Java, for which other words than for Python end in a final sigma: `r-Σ_` has one, `aΣ1b` has not."""
    return (compiled(_JAVA_WORD).sub(_end_in_final_sigma, token) if "Σ" in token else token).lower()


def _end_in_final_sigma(word: re.Match[str]) -> str:
    before, sigma, after = word[0].rpartition("Σ")
    is_final = sigma and _has_cased(before) and not _has_cased(after)
    return (before + ("ς" if is_final else sigma) + after).replace("Σ", "σ")


def _has_cased(text: str) -> bool:
    return text.lower() != text.upper()


def _without_punctuation(line: str) -> str:
    return " ".join(word for word in line.rstrip().split(" ") if word not in _PUNCTUATION)
