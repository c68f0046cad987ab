"""METEOR 1.5 for English without Java; equals `meteor-1.5.jar - - -stdio -l en -norm` as called by pycocoevalcap.

Sources: Denkowski and Lavie, "Meteor Universal" (WMT 2014), for the score and its parameters; the published scorer's
behavior for tie-breaking. Words match exactly, by stem, by WordNet synset or by a table of paraphrases. The table and
the word lists are those that pycocoevalcap installs (`longvale.metrics.text.meteor_data`).

Sentences are strings of tokens separated by spaces, as returned by the PTB tokenizer. They are normalized again, as
with the option -norm. Any text has a score. A line break inside a sentence counts as a space.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import zip_longest
from typing import TypeAlias

import numpy as np

from longvale.metrics.text import meteor_align
from longvale.metrics.text.meteor_data import (
    ParaphraseTable,
    WordLists,
    find_package,
    load_table,
    load_word_lists,
)
from longvale.metrics.text.porter2 import stem
from longvale.metrics.text.references import as_lists

#: 23 counts, see [`meteor_align.statistics`].
Statistics: TypeAlias = tuple[int, ...]

# The parameters of the task "rank" for English (Meteor Universal, table 1).
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MODULE_WEIGHTS = (1.0, 0.6, 0.8, 0.6)

_CHUNKS, _HYP_MATCHED, _REF_MATCHED = 20, 21, 22
#: Field separator in the lines of the published scorer.
_FIELD_MARK = "|||"

#: Cache sizes for pair results, prepared sentences and words; larger than the benchmark's test split.
_KEPT_PAIRS, _KEPT_SENTENCES, _KEPT_WORDS = 1 << 19, 1 << 16, 1 << 18
_BLOCK = 4096  # pairs per block, to limit memory
_SHARE = 128  # minimum number of pairs of a block per thread


def scores(hypotheses: Sequence[str], references: Sequence[str | Sequence[str]]) -> list[float]:
    """Compute METEOR of each hypothesis, from 0 to 1.

    Args:
        hypotheses: tokenized text.
        references: one or several references per hypothesis; the best reference counts.

    Raises:
        ValueError: if the numbers of references and hypotheses differ, or a hypothesis has no reference.
        ModuleNotFoundError: if pycocoevalcap is not installed.

    Example:
        >>> scores(["it's a dog", "cat mouse"], ["it 's a dog", ["a bird", "mouse cat"]])
        [0.3260841263583675, 0.4]
    """
    return [score_of(counts) for counts in batch_statistics(hypotheses, references)]


def statistics(hypothesis: str, references: str | Sequence[str]) -> Statistics:
    """Return the 23 counts of a hypothesis and its best reference, see [`Meteor.statistics`]."""
    return _shared().statistics(hypothesis, references)


def batch_statistics(hypotheses: Sequence[str], references: Sequence[str | Sequence[str]]) -> list[Statistics]:
    """Return [`statistics`] of each hypothesis and its references.

    Raises:
        ValueError: if the numbers of references and hypotheses differ, or a hypothesis has no reference.
    """
    return _shared().batch(hypotheses, references)


def score_of(statistics: Sequence[float]) -> float:
    """Compute the score of 23 counts, from 0 to 1.

    With weighted precision P and recall R (content words .75, function words .25), F = 1 / (.15 / P + .85 / R) and the
    score is F * (1 - .6 * fragmentation ** .2).

    Args:
        statistics: counts of a pair, or sums over pairs.
    """
    counts = [float(count) for count in statistics]
    hyp_length, ref_length, hyp_function, ref_function = counts[:4]
    precision = _weigh(counts[4:20:4], counts[6:20:4], hyp_length, hyp_function)
    recall = _weigh(counts[5:20:4], counts[7:20:4], ref_length, ref_function)
    if not precision or not recall:
        return 0.0
    f_mean = 1.0 / ((1.0 - _ALPHA) / precision + _ALPHA / recall)
    matched = (counts[_HYP_MATCHED] + counts[_REF_MATCHED]) / 2
    fragmentation = 0.0 if _is_perfect(counts) else counts[_CHUNKS] / matched
    return max(0.0, f_mean * (1.0 - _GAMMA * math.pow(fragmentation, _BETA)))


def _weigh(content: Sequence[float], function: Sequence[float], length: float, function_words: float) -> float:
    """Return the weighted share of matched words of one side; 0 for an empty side."""
    total = _DELTA * (length - function_words) + (1.0 - _DELTA) * function_words
    if not total:
        return 0.0
    matched = 0.0  # summed in the published scorer's order, for bit-identical results
    for counts, share in ((content, _DELTA), (function, 1.0 - _DELTA)):
        for weight, count in zip(_MODULE_WEIGHTS, counts, strict=True):
            matched += weight * count * share
    return matched / total


def _is_perfect(counts: Sequence[float]) -> bool:
    return counts[_HYP_MATCHED] == counts[0] and counts[_REF_MATCHED] == counts[1] and counts[_CHUNKS] == 1


def aggregate(statistics_list: Iterable[Sequence[float]]) -> float:
    """Compute corpus METEOR: the score of the summed counts. The chunk of a perfect pair is not counted.

    Args:
        statistics_list: 23 counts per pair; an empty list scores 0.

    Example:
        >>> aggregate([statistics("a dog", "a dog"), statistics("cat mouse", "mouse cat")])
        0.4776696620223255
    """
    counts = np.array(list(statistics_list), float).reshape(-1, meteor_align.STATISTICS)
    matched = counts[:, [_HYP_MATCHED, _REF_MATCHED]] == counts[:, :2]
    counts[matched.all(axis=1) & (counts[:, _CHUNKS] == 1), _CHUNKS] = 0
    return score_of(counts.sum(axis=0).tolist())


# --- caching scorer ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sentence:
    """A sentence in the input format of [`meteor_align`].

    Args:
        words: int32 [n, 3], a word's key, its stem's key, and 1 if it is a function word.
        synsets: int32 [m, 2], a synset and the position in the sentence of a word in the synset, ascending.
        phrases: int32 [n, 7], nodes of the paraphrase table for the 1 to 7 words from this position, or -1.
    """

    words: np.ndarray
    synsets: np.ndarray
    phrases: np.ndarray


class Meteor:
    """A scorer that caches prepared sentences and the results of pairs.

    Args:
        lists: METEOR's word lists; None reads those of the installed pycocoevalcap.
        table: the paraphrase table; None loads that of the installed pycocoevalcap. The first load takes half a minute;
            the result is cached in the user's cache folder.

    Raises:
        ModuleNotFoundError: if pycocoevalcap is not installed.
        FileNotFoundError: if one of its files is missing.
        ValueError: if one of its files is damaged or belongs to another version.

    Example:
        >>> meteor = Meteor()
        >>> score_of(meteor.pair("to win a game", "in order to win games"))
        0.29616963021814857
    """

    def __init__(self, lists: WordLists | None = None, table: ParaphraseTable | None = None) -> None:
        self.lists = load_word_lists(find_package()) if lists is None else lists
        self.table = load_table(find_package()) if table is None else table
        self._pairs: dict[tuple[str, str], Statistics] = {}
        self._sentences: dict[str, Sentence] = {}
        self._word = lru_cache(_KEPT_WORDS)(self._look_up)
        self._synset_numbers: dict[int, int] = {}

    def pair(self, hypothesis: str, reference: str) -> Statistics:
        """Return the 23 counts of a hypothesis and one reference.

        As in the published scorer, `|||` is removed from the hypothesis, but splits the reference into several
        references, of which the best counts.
        """
        return self.batch([hypothesis], [reference])[0]

    def statistics(self, hypothesis: str, references: str | Sequence[str]) -> Statistics:
        """Return the 23 counts of a hypothesis and its best reference; of equal references, the first counts.

        Raises:
            ValueError: if there are no references.
        """
        return self.batch([hypothesis], [references])[0]

    def batch(self, hypotheses: Sequence[str], references: Sequence[str | Sequence[str]]) -> list[Statistics]:
        """Return [`Meteor.statistics`] of each hypothesis and its references, much faster than separate calls.

        Raises:
            ValueError: if the numbers of references and hypotheses differ, or a hypothesis has no reference.
        """
        lists = as_lists(hypotheses, references)
        asked = [[(text, reference) for reference in given] for text, given in zip(hypotheses, lists, strict=True)]
        known = {pair: self._pairs.get(pair) for pairs in asked for pair in pairs}
        new = [pair for pair, counts in known.items() if counts is None]
        known.update(zip(new, self._align(new), strict=True))
        _keep(self._pairs, known, _KEPT_PAIRS)
        return [_best([known[pair] for pair in pairs]) for pairs in asked]

    def prepare(self, text: str) -> Sentence:
        """Convert a sentence to the input format of the alignment."""
        return self._prepare([text])[0]

    def _align(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Statistics]:
        """Yield the counts of pairs, in blocks; the next block is prepared while the current block is aligned."""
        aligned = None
        with ThreadPoolExecutor(_threads(len(pairs)), thread_name_prefix="meteor") as pool:
            for start in range(0, len(pairs), _BLOCK):
                following = self._start(pairs[start : start + _BLOCK], pool)
                if aligned:
                    yield from aligned()
                aligned = following
            if aligned:
                yield from aligned()

    def _start(self, pairs: Sequence[tuple[str, str]], pool: Executor) -> Callable[[], list[Statistics]]:
        """Start the alignment of pairs; return a function that waits for their counts."""
        hypotheses = [hypothesis.replace(_FIELD_MARK, "").replace("  ", " ") for hypothesis, _ in pairs]
        references = [reference.split(_FIELD_MARK) for _, reference in pairs]
        number: dict[str, int] = {}
        numbers = [
            (number.setdefault(text, len(number)), number.setdefault(part, len(number)))
            for text, parts in zip(hypotheses, references, strict=True)
            for part in parts
        ]
        found = self._count(np.array(numbers), self._prepare(list(number)), pool)

        def wait() -> list[Statistics]:
            counts = iter(map(tuple, np.concatenate(list(found)).tolist()))
            return [_best(list(itertools.islice(counts, len(parts)))) for parts in references]

        return wait

    def _count(self, pairs: np.ndarray, sentences: Sequence[Sentence], pool: Executor) -> Iterator[np.ndarray]:
        """Yield counts, [some pairs, 23], of the hypothesis and reference in each row of `pairs`, [pairs, 2]."""
        ends = [[len(sentence.words), len(sentence.synsets)] for sentence in sentences]
        arrays = (
            np.cumsum([[0, 0], *ends], axis=0),
            np.concatenate([sentence.words for sentence in sentences]),
            np.concatenate([sentence.synsets for sentence in sentences]),
            np.concatenate([sentence.phrases for sentence in sentences]),
            self.table.row_starts,
            self.table.rows,
        )
        parts = np.array_split(pairs, _threads(len(pairs)))
        return pool.map(lambda part: meteor_align.batch(part, *arrays), parts)

    def _prepare(self, texts: Sequence[str]) -> list[Sentence]:
        texts = [text.strip(_CONTROLS) for text in texts]
        known = {text: self._sentences.get(text) for text in texts}
        new = [text for text, sentence in known.items() if sentence is None]
        if new:
            known.update(zip(new, self._read([normalise(text, self.lists) for text in new]), strict=True))
        _keep(self._sentences, known, _KEPT_SENTENCES)
        return [known[text] for text in texts]

    def _read(self, texts: Sequence[Sequence[str]]) -> Iterator[Sentence]:
        """Build sentences from normalized words."""
        number: dict[str, int] = {}
        codes = np.array([number.setdefault(word, len(number)) for words in texts for word in words], np.int64)
        lengths = np.array([len(words) for words in texts], np.int64)
        known = [self._word(word) for word in number]
        words = np.array([numbers for numbers, _ in known], np.int32).reshape(-1, 3)[codes]
        phrases = self.table.phrase_nodes(self.table.numbers(list(number))[codes], lengths)
        synsets, sizes = _sorted_synsets([ids for _, ids in known], codes, lengths)
        word_ends, synset_ends = np.cumsum(lengths)[:-1], np.cumsum(sizes)[:-1]
        parts = np.split(words, word_ends), np.split(synsets, synset_ends), np.split(phrases, word_ends)
        return map(Sentence, *parts)

    def _look_up(self, word: str) -> tuple[tuple[int, int, int], np.ndarray]:
        """Return a word's row of [`Sentence.words`] and its synsets, numbered in order of appearance."""
        numbers = key_of(word), key_of(stem(word)), int(word in self.lists.function_words)
        ids = [
            self._synset_numbers.setdefault(synset, len(self._synset_numbers))
            for synset in synsets_of(word, self.lists)
        ]
        return numbers, np.array(ids, np.int64)


def _threads(pairs: int) -> int:
    return min(os.cpu_count() or 1, max(1, pairs // _SHARE))


def _sorted_synsets(
    synsets: Sequence[np.ndarray], codes: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return concatenated [`Sentence.synsets`] of consecutive sentences, and the number of rows per sentence.

    Args:
        synsets: synsets of each distinct word.
        codes: index of the distinct word at each position.
        lengths: number of words per sentence.
    """
    sizes = np.array([len(ids) for ids in synsets], np.int64)
    flat, starts = np.concatenate([*synsets, np.zeros(0, np.int64)]), np.cumsum(sizes) - sizes
    counts = sizes[codes]  # [places]
    entry = np.arange(counts.sum()) + np.repeat(starts[codes] - np.cumsum(counts) + counts, counts)
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kinds, longest = flat.max(initial=0) + 1, lengths.max(initial=0) + 1
    keys = (np.repeat(sentence, counts) * kinds + flat[entry]) * longest + np.repeat(place, counts)
    keys.sort()
    rest, places = np.divmod(keys, longest)
    rows = np.column_stack([rest % kinds, places]).astype(np.int32)
    return rows, np.bincount(rest // kinds, minlength=len(lengths))


def _keep(kept: dict, known: dict, limit: int) -> None:
    """Add entries to a cache, and remove the oldest entries beyond the limit."""
    kept.update(known)
    for key in list(itertools.islice(kept, max(0, len(kept) - limit))):
        del kept[key]


@cache
def _shared() -> Meteor:
    return Meteor()


def _best(candidates: Sequence[Statistics]) -> Statistics:
    return candidates[0] if len(candidates) == 1 else max(candidates, key=score_of)


# --- words ------------------------------------------------------------------------------------------------------------


def key_of(word: str) -> int:
    """Return the hash by which words are compared, as a signed 32-bit integer.

    The hash is the polynomial over UTF-16 units with base 31. Some words collide, and then they match.

    Example:
        >>> key_of("as") == key_of("c5"), key_of("dog") == key_of("dogs")
        (True, False)
    """
    encoded = word.encode("utf-16-le", "surrogatepass")
    key = 0
    for low, high in zip(encoded[::2], encoded[1::2], strict=True):
        key = (31 * key + low + 256 * high) & 0xFFFFFFFF
    return key - (key >> 31 << 32)


#: WordNet's detachment rules in the order of application: ending, replacement.
_DETACHMENTS = [
    tuple(rule.split(">"))
    for rule in (
        "s>", "ses>s", "xes>x", "zes>z", "ches>ch", "shes>sh", "men>man", "ies>y", "s>", "ies>y", "es>e", "es>",
        "ed>e", "ed>", "ing>e", "ing>", "er>", "est>", "er>e", "est>e",
    )
]  # fmt: skip


def synsets_of(word: str, lists: WordLists) -> frozenset[int]:
    """Return the WordNet synsets of a word and of its base form.

    Irregular forms have listed bases; for other words, the first rule that yields a listed word is used.
    """
    ids = _listed(word, lists)
    if word in lists.bases:
        return ids.union(*(_listed(base, lists) for base in lists.bases[word]))
    if word.endswith("ss") or len(word) <= 2:
        return ids
    for ending, replacement in _DETACHMENTS:
        base = word[: len(word) - len(ending)] + replacement
        if word.endswith(ending) and base in lists.synset_ids:
            return ids | _listed(base, lists)
    return ids


def _listed(word: str, lists: WordLists) -> frozenset[int]:
    return frozenset(map(int, lists.synset_ids.get(word, "").split()))


# --- normalisation ----------------------------------------------------------------------------------------------------

# Explicit classes: the published scorer uses only these letters, ASCII digits and these five blanks.
_L = (
    "A-Za-z\u0160\u0161\u017d\u017e\u0178\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017e\u0400-\u0527\ua640-\ua66e\ua67e-\ua697"
    "\u1d00-\u1d7f"
)
_D = "0-9"
_W = _L + _D
_BLANK = " \t\n\r\f"

_SYMBOL = re.compile(rf"([^{_W}{_BLANK}\v.'`,‘’-])")
_DOTS = re.compile(r"\.{2,}")
#: Substitutions in order of application, each in one sweep from left to right: a required character (without it, the
#: sweep is skipped), the pattern, its replacement.
_SWEEPS: list[tuple[str, re.Pattern[str], str]] = [
    (sign, re.compile(pattern), replacement)
    for sign, pattern, replacement in (
        (",", rf"([^{_D}]),([^{_D}])", r"\1 , \2"),
        (",", rf"([{_D}]),([^{_D}])", r"\1 , \2"),
        (",", rf"([^{_D}]),([{_D}])", r"\1 , \2"),
        ("", r"[`‘’]", "'"),
        ("", r"[“”]|''", ' " '),
        ("–", r"–", "-"),
        ("--", r"--", "-"),
        ("-", rf"([{_W}.])-([{_W}])", r"\1 \2"),
        ("'", rf"([^{_L}])'([^{_L}])", r"\1 ' \2"),
        ("'", rf"([^{_W}])'([{_L}])", r"\1 ' \2"),
        ("'", rf"([{_L}])'([^{_L}])", r"\1 ' \2"),
        ("'", rf"([{_L}])'([{_L}])", r"\1 '\2"),
        ("'", rf"([{_D}])'(s)", r"\1 '\2"),
    )
]
#: A text of plain words, which no sweep changes.
_PLAIN = re.compile("[a-z0-9 ]*")
#: A text whose words can be normalized separately: sweeps use the context of commas, quotation marks and dots only.
_APART = re.compile(r"(?: *+(?:'(?=[a-z]))?+(?!['`,.])[!-@\[-~]++(?<!['`,.]))*+ *+")
_MARKED_DOTS = re.compile(r"((?:DOT)+)MULTI")
_BLANKS = re.compile(rf"[{_BLANK}]+")
_SPACES = re.compile("[ \u2000-\u200a\u202f\u205f\u3000\u00a0]+")
_LETTER = re.compile(f"[{_L}]")
_SMALL_LETTER, _DIGIT = re.compile("[a-z]"), re.compile(f"[{_D}]")
_CONTROLS = "".join(map(chr, range(0x21)))


def normalise(text: str, lists: WordLists) -> list[str]:
    """Return the lower-case words of a text, normalized as with the option -norm.

    Hyphenated words are split, symbols become separate tokens, and dots become separate tokens unless they belong to an
    abbreviation.

    Example:
        >>> normalise("U.S.-based firms lost $1,000.50, Mr. Lee's ...", load_word_lists(find_package()))
        ['us', 'based', 'firms', 'lost', '$', '1,000.50', ',', 'mr.', 'lee', "'s", '...']
    """
    if _PLAIN.fullmatch(text):
        return text.split()
    if _APART.fullmatch(text):
        return [part for word in text.split() for part in _normalised_word(word, lists)]
    return _normalised(text, lists)


@lru_cache(_KEPT_WORDS)
def _normalised_word(word: str, lists: WordLists) -> list[str]:
    return _normalised(word, lists)


def _normalised(text: str, lists: WordLists) -> list[str]:
    line = _SYMBOL.sub(r" \1 ", f" {text} ")
    line = _DOTS.sub(lambda dots: f" {'DOT' * len(dots[0])}MULTI ", line)  # as a word without a final dot
    for sign, pattern, replacement in _SWEEPS:
        if sign in line:
            line = pattern.sub(replacement, line)
    words = _split(line)
    if "." in line:
        words = list(_split_final_dots(words, lists))
    line = _MARKED_DOTS.sub(lambda marks: "." * (len(marks[1]) // len("DOT")), " ".join(words))
    return _split(_SPACES.sub(" ", line).strip(_CONTROLS).lower())


def _split(line: str) -> list[str]:
    return [token for token in _BLANKS.split(line) if token]


def _split_final_dots(tokens: Sequence[str], lists: WordLists) -> Iterator[str]:
    """Split final dots from tokens that are not abbreviations; remove the dots from acronyms such as U.S."""
    for token, after in zip_longest(tokens, tokens[1:], fillvalue=""):
        prefix = token[:-1]
        if not prefix or token[-1] != ".":
            yield token
        elif "." in prefix and _LETTER.search(prefix):
            yield token.replace(".", "")
        elif (
            prefix in lists.prefixes
            or _SMALL_LETTER.match(after)
            or (prefix in lists.numeric_prefixes and _DIGIT.match(after))
        ):
            yield token
        else:
            yield prefix
            yield "."
