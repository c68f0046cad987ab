"""PTB tokenization of captions, as in the published evaluation before METEOR and CIDEr.

Equals pycocoevalcap's `PTBTokenizer`, which runs the Stanford tokenizer 3.4.1 (`-preserveLines -lowerCase`) in Java and
then removes punctuation, but does not need Java. Published scores are computed on the whole list of captions as one
text, in which captions are not independent of each other, see [`tokenize`].
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from .ptb_parts import DATA, DIGIT, LINE_END, SPACE, SPACE_OR_LINE_END, compiled
from .ptb_rules import ABBREVIATION, NEW_LINE, SPLIT_WORD, rules_for
from .ptb_runs import Source

_SURROGATE = r"[\ud800-\udfff]"
_REPLACEMENT = "\ufffd"  # not in the output, but separates words like any unknown character

#: Maximum length in characters of a cached stretch, which is the text between two spaces.
_MAX_STRETCH = 64
#: Boundary of two stretches that may form one token: `. . .`, `555 1234`, `(555) 1234`, `1 1/2`.
_JOINED = rf"(?:(?<=\.) \.|(?<=[0-9)]) [{DIGIT}])"
#: Text up to the next space or line feed, if it is short enough to be cached and not joined to the next stretch.
#: Preceding spaces are skipped together: a token may start with a no-break space, but not after another space.
_STRETCH = rf"(?: {SPACE}*+)?+((?:[^ \n]{{1,{_MAX_STRETCH}}}+(?=[ \n]|\Z)(?!{_JOINED}))?)"
#: Stretches whose tokens do not depend on the following text: a word with at most one punctuation mark, ...
_PLAIN = rf"(?!{SPLIT_WORD}(?![A-Za-z]))(?:([A-Za-z]+)([,;:?!]?)|(?!{ABBREVIATION})([A-Za-z]{{2,}})(\.))"
#: ... and stretches that need the rules. Only tags, odd faces and abbreviations before their period look further ahead.
_INDEPENDENT = (
    r"[!-%'-;=?-Z\\_`a-z{|}~\xb0\xc0-\xff\u2013\u2014\u2018\u2019\u201c\u201d\u2026]++"
    rf"(?<![A-Za-z]\.)|[\"(\u201c]*+(?!{ABBREVIATION})[A-Za-z]{{2,}}\."
)

#: Start of tokens that may span lines: tags and one emoticon.
_SPANNING = r"<|\.\[\^"
_NEXT_WORD = rf"{SPACE_OR_LINE_END}*+(?:(?!{SPACE_OR_LINE_END})[\s\S])*+{SPACE_OR_LINE_END}?+"

_JAVA_LETTER = r"[^\W\d_\u3040-\u30ff\u3400-\u9fff][\u0300-\u036f\u200d]*+"
_JAVA_WORD = rf"(?:{_JAVA_LETTER}(?:[-'._\u2010-\u2015\u2027\xad](?={_JAVA_LETTER}))?+|[\d\u0300-\u036f\u200d])++"

_PUNCTUATION = frozenset(DATA["removed"])


def tokenize(sentences: Iterable[str], official_batch: bool = False) -> list[str]:
    """Split sentences into lower-case words separated by one space, without punctuation.

    Clitics become words (`it 's`, `ca n't`), hyphenated words are kept, round brackets become `-lrb-` and `-rrb-`, and
    abbreviations keep their period. A lone surrogate, for which pycocoevalcap raises an error, counts as U+FFFD: it
    separates words and is omitted. No text raises an error.

    Args:
        sentences: any texts.
        official_batch: tokenize as for the published scores. All sentences form one text with one line per sentence (a
            line feed in a sentence becomes a space), and the tokenizer looks ahead across lines: "vitamin C." loses its
            period if the next sentence starts with "The". A carriage return, a vertical tab, a form feed, U+2028 or
            U+2029 in a sentence ends a line, so that later sentences are paired with lines of earlier ones and the last
            lines are lost. By default each sentence is tokenized separately, and its line breaks are spaces.

    Returns:
        One text per sentence. With `official_batch` it is the line at the sentence's index, as in pycocoevalcap, which
        can belong to another sentence. There are never fewer lines than sentences; extra lines are dropped.

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
    """Tokenize the lines of a text; repeated lines are cached."""
    source, pieces, pos = Source(text), [], 0
    while pos < len(text):
        end = text.find("\n", pos) + 1 or len(text)
        line = text[pos:end]
        plain = _plain_line(line)
        if plain is not None:
            pieces.append(plain)
            pos = end
            continue
        following = _following(text, pos, end)
        if compiled(_SPANNING).search(line + following):
            tokens, pos = _tokens(source, pos, end)
            pieces.append(_written(tokens))
        else:
            pieces.append(_line_before(line, following))
            pos = end
    return "".join(pieces).split("\n")


@lru_cache(maxsize=2**16)
def _plain_line(line: str) -> str | None:
    """Tokenize a line if no stretch of it depends on the following text; otherwise return None."""
    if not line.endswith("\n") or compiled(_JOINED).search(line):
        return None
    parts = [_words_of_stretch(stretch) for stretch in line[:-1].split(" ")]
    return None if None in parts else " ".join(filter(None, parts)) + "\n"


@lru_cache(maxsize=2**16)
def _words_of_stretch(stretch: str) -> str | None:
    """Return the words of a stretch without punctuation, or None if they depend on the following text."""
    tokens = _tokens_of_stretch(stretch, False) if len(stretch) <= _MAX_STRETCH else None
    return None if tokens is None else _without_punctuation(" ".join(tokens))


def _following(text: str, pos: int, end: int) -> str:
    """Return the text after a line, from `pos` to `end`, that can change the tokens of the line.

    Except for [`_SPANNING`], only abbreviation rules look past a line feed: at the next word and one character after
    it. All of them end with a letter and a period.
    """
    words = text[pos:end].rstrip()
    if not words.endswith(".") or not words[-2:-1].isalpha():
        return ""
    if compiled(_PLAIN).fullmatch(words, words.rfind(" ") + 1):
        return ""
    return compiled(_NEXT_WORD).match(text, end)[0]


@lru_cache(maxsize=2**16)
def _line_before(line: str, following: str) -> str:
    """Tokenize a line that is followed by the start of another line."""
    return _written(_tokens(Source(line + following), 0, len(line))[0])


def _written(tokens: Iterable[str]) -> str:
    """Join the words of tokens with spaces, with a line feed at the end of each line."""
    lines: list[list[str]] = [[]]
    for token in tokens:
        if token == NEW_LINE:
            lines.append([])
        else:
            lines[-1].append(token)
    # A tag may span lines: a line feed in a tag counts like any other.
    return "\n".join(_without_punctuation(line) for words in lines for line in " ".join(words).split("\n"))


def _tokens(source: Source, pos: int, end: int) -> tuple[list[str], int]:
    """Return the lower-case tokens from `pos` to `end`, including punctuation and line ends (`NEW_LINE`).

    Both positions are starts of lines or the end of the text; a tag that spans lines moves the end. The second result
    is the actual end.
    """
    text = source.text
    tokens: list[str] = []
    stretch_at = compiled(_STRETCH).match
    while pos < end or (pos < len(text) and text[pos - 1] != "\n"):
        stretch = stretch_at(text, pos)
        remembered = _tokens_of_stretch(stretch[1], stretch.end() == len(text)) if stretch[1] else None
        if remembered is not None:
            tokens += remembered
            pos = stretch.end()
        elif stretch.end() == len(text):
            pos = len(text)
        elif not stretch[1] and text[stretch.end()] == "\n":
            tokens.append(NEW_LINE)
            pos = stretch.end() + 1
        else:
            token, pos = _next_token(source, stretch.start(1))
            if token:
                tokens.append(token)
    return tokens, pos


@lru_cache(maxsize=2**16)
def _tokens_of_stretch(stretch: str, is_last: bool) -> tuple[str, ...] | None:
    """Return the tokens of a stretch, or None if they depend on the following text."""
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
    """Return the token at a position ("" if it is omitted from the output) and the start of the next token."""
    best, reach, end = None, -1, -1
    for rule in rules_for(source.text[pos]):
        found = rule.match(source, pos)
        if found and found[0] > reach:
            best, (reach, end) = rule, found
    return _lower_case(best.write(source.text[pos:end])), end - best.reread


def _lower_case(token: str) -> str:
    """Convert to lower case as in Java, whose final sigma rule differs from Python's: `r-Σ_` has one, not `aΣ1b`."""
    return (compiled(_JAVA_WORD).sub(_end_in_final_sigma, token) if "Σ" in token else token).lower()


def _end_in_final_sigma(word: re.Match[str]) -> str:
    before, sigma, after = word[0].rpartition("Σ")
    is_final = sigma and _has_cased(before) and not _has_cased(after)
    return (before + ("ς" if is_final else sigma) + after).replace("Σ", "σ")


def _has_cased(text: str) -> bool:
    return text.lower() != text.upper()


def _without_punctuation(line: str) -> str:
    return " ".join(word for word in line.rstrip().split(" ") if word not in _PUNCTUATION)
