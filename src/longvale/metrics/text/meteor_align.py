"""METEOR's alignment of two sentences, over integer arrays.

A candidate is a match of a reference phrase and a hypothesis phrase. An alignment is a set of candidates that share no
word, found by a beam search from left to right through the reference. Ties are broken by the published scorer's order
of candidates and paths, so every loop here keeps that order.

The functions are compiled by numba and cached on disk. Without numba, or with the environment variable
LONGVALE_NO_NUMBA set, they run uncompiled and return the same numbers.

Arrays of a sentence of n words:
    words: int32 [n, 3], a word's key, its stem's key, and 1 if it is a function word
    synsets: int32 [m, 2], a synset and the position in the sentence of a word in the synset, ascending
    phrases: int32 [n, 7], nodes of the paraphrase table for the 1 to 7 words from this position, -1 if there is none
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType

import numpy as np

BEAM = 40
MODULES = 4
STATISTICS = 23

_EXACT, _STEM, _SYNONYM, _PARAPHRASE = range(MODULES)
#: Columns of a candidate.
_REF, _REF_LENGTH, _HYP, _HYP_LENGTH, _MODULE = range(5)
#: Columns of a path: gain, closed chunks, distance, next reference position, end of the open chunk in the hypothesis or
#: -1, parent path, and selected candidate or -1.
_GAIN, _CHUNKS, _DISTANCE, _NEXT, _END, _PARENT, _TAKEN = range(7)
_HASH_SLOTS = 2048
#: Number of bits used per int64, without the sign bit.
_BITS = 32


def _load_numba() -> ModuleType | None:
    if os.environ.get("LONGVALE_NO_NUMBA"):
        return None
    try:
        import numba
    except ImportError:
        return None
    return numba


_NUMBA = _load_numba()


def _compiled(function: Callable) -> Callable:
    return _NUMBA.njit(function) if _NUMBA else function


def _inlined(function: Callable) -> Callable:
    """Inline a function into its compiled callers, to avoid reference counting of every array in the inner loops."""
    return _NUMBA.njit(inline="always")(function) if _NUMBA else function


def _compiled_once(function: Callable) -> Callable:
    """Compile a function with all its callees and cache it on disk; it runs without the GIL."""
    if not _NUMBA:
        return function
    try:
        return _NUMBA.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return _NUMBA.njit(nogil=True)(function)


@_compiled_once
def batch(
    pairs: np.ndarray,
    starts: np.ndarray,
    words: np.ndarray,
    synsets: np.ndarray,
    phrases: np.ndarray,
    row_starts: np.ndarray,
    rows: np.ndarray,
) -> np.ndarray:
    """Compute [`statistics`] of many pairs of sentences.

    Args:
        pairs: int64 [n, 2], indices of the hypothesis and the reference.
        starts: int64 [sentences + 1, 2], start of the words and the synsets of each sentence, and the end of all.
        words, synsets, phrases: concatenated arrays of the sentences.
        row_starts, rows: arrays of the paraphrase table.

    Returns:
        int64 [n, 23]
    """
    counts = np.empty((len(pairs), STATISTICS), np.int64)
    for pair in range(len(pairs)):
        hyp, ref = pairs[pair, 0], pairs[pair, 1]
        found = statistics(
            words[starts[hyp, 0] : starts[hyp + 1, 0]],
            synsets[starts[hyp, 1] : starts[hyp + 1, 1]],
            phrases[starts[hyp, 0] : starts[hyp + 1, 0]],
            words[starts[ref, 0] : starts[ref + 1, 0]],
            synsets[starts[ref, 1] : starts[ref + 1, 1]],
            phrases[starts[ref, 0] : starts[ref + 1, 0]],
            row_starts,
            rows,
        )
        for n in range(STATISTICS):  # loops compile in a fraction of the seconds that assigning slices takes
            counts[pair, n] = found[n]
    return counts


@_compiled
def statistics(
    hyp_words: np.ndarray,
    hyp_synsets: np.ndarray,
    hyp_phrases: np.ndarray,
    ref_words: np.ndarray,
    ref_synsets: np.ndarray,
    ref_phrases: np.ndarray,
    row_starts: np.ndarray,
    rows: np.ndarray,
) -> np.ndarray:
    """Align two sentences and count words, matches and chunks.

    Args:
        hyp_words, hyp_synsets, hyp_phrases: arrays of the hypothesis.
        ref_words, ref_synsets, ref_phrases: arrays of the reference.
        row_starts, rows: arrays of the paraphrase table.

    Returns:
        int64 [23]: words of the hypothesis and the reference; function words of each; then for each of exact, stem,
        synonym and paraphrase the matched content words of each and the matched function words of each; chunks; all
        matched words of each.
    """
    flat = _find_candidates(hyp_words, hyp_synsets, hyp_phrases, ref_words, ref_synsets, ref_phrases, row_starts, rows)
    candidates, starts = _by_reference_word(flat, len(ref_words))
    chosen, chunks = _search(candidates, starts, len(hyp_words), len(ref_words))
    counts = np.zeros(STATISTICS, np.int64)
    counts[0], counts[1], counts[20] = len(hyp_words), len(ref_words), chunks
    for i in range(len(hyp_words)):
        counts[2] += hyp_words[i, 2]
    for j in range(len(ref_words)):
        counts[3] += ref_words[j, 2]
    for c in chosen:
        module = 4 + 4 * candidates[c, _MODULE]
        first, length = candidates[c, _HYP], candidates[c, _HYP_LENGTH]
        for i in range(first, first + length):
            counts[module + 2 * hyp_words[i, 2]] += 1
        counts[21] += length
        first, length = candidates[c, _REF], candidates[c, _REF_LENGTH]
        for j in range(first, first + length):
            counts[module + 1 + 2 * ref_words[j, 2]] += 1
        counts[22] += length
    return counts


# --- candidates -------------------------------------------------------------------------------------------------------


@_compiled
def _find_candidates(
    hyp_words, hyp_synsets, hyp_phrases, ref_words, ref_synsets, ref_phrases, row_starts, rows
):  # fmt: skip
    """Return all candidates, int32 [n, 5], in the order of the published scorer's modules."""
    found = np.empty((64 + 2 * (len(hyp_words) + len(ref_words)), 5), np.int32)
    count = 0
    for j in range(len(ref_words)):
        for i in range(len(hyp_words)):
            if ref_words[j, 0] == hyp_words[i, 0]:
                found = _room(found, count)
                count = _put(found, count, j, 1, i, 1, _EXACT)
    if _same(hyp_words, ref_words):
        return found[:count]
    for j in range(len(ref_words)):
        for i in range(len(hyp_words)):
            if ref_words[j, 1] == hyp_words[i, 1] and ref_words[j, 0] != hyp_words[i, 0]:
                found = _room(found, count)
                count = _put(found, count, j, 1, i, 1, _STEM)
    synonyms = _share_synset(hyp_synsets, ref_synsets, len(hyp_words), len(ref_words))
    for j in range(len(ref_words)):
        for i in range(len(hyp_words)):
            if synonyms[j, i] and ref_words[j, 0] != hyp_words[i, 0]:
                found = _room(found, count)
                count = _put(found, count, j, 1, i, 1, _SYNONYM)
    found, count = _find_paraphrases(found, count, ref_phrases, hyp_phrases, row_starts, rows, True)
    found, count = _find_paraphrases(found, count, hyp_phrases, ref_phrases, row_starts, rows, False)
    return found[:count]


@_compiled
def _room(found, count):
    """Return the array, with twice the length if it is full."""
    if count < len(found):
        return found
    longer = np.empty((2 * len(found), 5), np.int32)
    for c in range(count):
        for column in range(5):
            longer[c, column] = found[c, column]
    return longer


@_compiled
def _put(found, count, j, ref_length, i, hyp_length, module):
    found[count, _REF] = j
    found[count, _REF_LENGTH] = ref_length
    found[count, _HYP] = i
    found[count, _HYP_LENGTH] = hyp_length
    found[count, _MODULE] = module
    return count + 1


@_compiled
def _same(hyp_words, ref_words):
    if len(hyp_words) != len(ref_words):
        return False
    for i in range(len(hyp_words)):  # noqa: SIM110 - numba does not compile generator expressions
        if hyp_words[i, 0] != ref_words[i, 0]:
            return False
    return True


@_compiled
def _share_synset(hyp_synsets, ref_synsets, hyp_length, ref_length):
    """Return uint8 [reference words, hypothesis words], 1 for words with a common synset; merges sorted lists."""
    share = np.zeros((ref_length, hyp_length), np.uint8)
    h = r = 0
    while h < len(hyp_synsets) and r < len(ref_synsets):
        synset = hyp_synsets[h, 0]
        if synset < ref_synsets[r, 0]:
            h += 1
        elif synset > ref_synsets[r, 0]:
            r += 1
        else:
            first = h
            while r < len(ref_synsets) and ref_synsets[r, 0] == synset:
                h = first
                while h < len(hyp_synsets) and hyp_synsets[h, 0] == synset:
                    share[ref_synsets[r, 1], hyp_synsets[h, 1]] = 1
                    h += 1
                r += 1
    return share


@_compiled
def _find_paraphrases(found, count, phrases, others, row_starts, rows, from_reference):
    """Add each phrase of one sentence whose paraphrase occurs in the other sentence.

    The other sentence's nodes are in a chained hash table whose chains run from left to right through the sentence.
    """
    columns = others.shape[1]
    first = np.full(_HASH_SLOTS, -1, np.int32)
    following = np.empty(others.size, np.int32)
    for place in range(others.size - 1, -1, -1):
        node = others[place // columns, place % columns]
        if node >= 0:
            following[place] = first[node % _HASH_SLOTS]
            first[node % _HASH_SLOTS] = place
    for start in range(len(phrases)):
        for column in range(columns):
            node = phrases[start, column]
            if node < 0:  # no longer phrase exists either
                break
            for entry in range(row_starts[node], row_starts[node + 1]):
                paraphrase = rows[entry]
                place = first[paraphrase % _HASH_SLOTS]
                while place >= 0:
                    other, length = place // columns, place % columns
                    if others[other, length] == paraphrase:
                        found = _room(found, count)
                        if from_reference:
                            count = _put(found, count, start, column + 1, other, length + 1, _PARAPHRASE)
                        else:
                            count = _put(found, count, other, length + 1, start, column + 1, _PARAPHRASE)
                    place = following[place]
    return found, count


@_compiled
def _by_reference_word(found, ref_length):
    """Group candidates by their first reference word, in stable order; also return the start of each group."""
    starts = np.zeros(ref_length + 1, np.int32)
    for c in range(len(found)):
        starts[found[c, _REF] + 1] += 1
    for j in range(ref_length):
        starts[j + 1] += starts[j]
    place = np.empty(ref_length, np.int32)
    for j in range(ref_length):
        place[j] = starts[j]
    grouped = np.empty((len(found), 5), np.int32)
    for c in range(len(found)):
        j = found[c, _REF]
        for column in range(5):
            grouped[place[j], column] = found[c, column]
        place[j] += 1
    return grouped, starts


# --- beam search ------------------------------------------------------------------------------------------------------


@_compiled
def _fixed_candidates(candidates, starts, hyp_length, ref_length):
    """Find the candidates without alternative: no other candidate covers any of their words.

    Returns:
        int32 [reference words]: the candidate that starts at the word; -1 if there is none; -2 inside its phrase.
    """
    ref_cover = np.zeros(ref_length, np.int32)
    hyp_cover = np.zeros(hyp_length, np.int32)
    for c in range(len(candidates)):
        j, i = candidates[c, _REF], candidates[c, _HYP]
        for word in range(j, j + candidates[c, _REF_LENGTH]):
            ref_cover[word] += 1
        for word in range(i, i + candidates[c, _HYP_LENGTH]):
            hyp_cover[word] += 1
    fixed = np.full(ref_length, -1, np.int32)
    for j in range(ref_length):
        c = starts[j]
        if starts[j + 1] - c != 1:
            continue
        ref_end, i = j + candidates[c, _REF_LENGTH], candidates[c, _HYP]
        alone = True
        for word in range(j, ref_end):
            alone = alone and ref_cover[word] == 1
        for word in range(i, i + candidates[c, _HYP_LENGTH]):
            alone = alone and hyp_cover[word] == 1
        if alone:
            fixed[j] = c
            for word in range(j + 1, ref_end):
                fixed[word] = -2
    return fixed


@_compiled
def _search(candidates, starts, hyp_length, ref_length):
    """Return the candidates of the best path, from the last to the first, and the number of chunks.

    Only the used words of the hypothesis are stored, as bits. A reference word is used if it is before the path's next
    position or belongs to a fixed candidate; no other candidate covers the words of a fixed candidate.
    """
    fixed = _fixed_candidates(candidates, starts, hyp_length, ref_length)
    numbers = hyp_length // _BITS + 1
    paths, children = np.zeros((BEAM, 7), np.int64), np.zeros((BEAM, 7), np.int64)
    order, children_order = np.zeros(BEAM, np.int32), np.zeros(BEAM, np.int32)
    used, children_used = np.zeros((BEAM, numbers), np.int64), np.zeros((BEAM, numbers), np.int64)
    last, children_last = np.full(BEAM, -1, np.int32), np.full(BEAM, -1, np.int32)
    links = np.empty((1 + BEAM * ref_length, 2), np.int32)  # a selected candidate and the previous link
    link_count = 0
    paths[0, _END] = -1
    width = 1
    for j in range(ref_length):
        count = 0
        for p in order[:width]:
            count = _expand(children, children_order, count, paths, p, j, fixed[j], candidates, starts, used)
        for child in range(count):
            parent, taken = children[child, _PARENT], children[child, _TAKEN]
            for n in range(numbers):
                children_used[child, n] = used[parent, n]
            children_last[child] = last[parent]
            if taken >= 0:
                links[link_count, 0], links[link_count, 1] = taken, last[parent]
                children_last[child] = link_count
                link_count += 1
                i = candidates[taken, _HYP]
                for word in range(i, i + candidates[taken, _HYP_LENGTH]):
                    children_used[child, word // _BITS] |= 1 << word % _BITS
        paths, children = children, paths
        order, children_order = children_order, order
        used, children_used = children_used, used
        last, children_last = children_last, last
        width = count
    best = _best(paths, order[:width])
    chosen = np.empty(ref_length, np.int32)
    count = 0
    link = last[best]
    while link >= 0:
        chosen[count] = links[link, 0]
        count += 1
        link = links[link, 1]
    return chosen[:count], paths[best, _CHUNKS]


@_inlined
def _expand(children, order, count, paths, p, j, fixed, candidates, starts, used):
    """Add the extensions of path p at reference word j: one per free candidate, and one without a candidate.

    A fixed candidate is the only extension. Words of an inexact match count half, rounded down per side. The only call
    of `_insert` is in the loop, since each copy of the inlined function takes seconds to compile.
    """
    distance = paths[p, _DISTANCE]
    inside = j < paths[p, _NEXT]  # a phrase that the path has taken
    begin, stop = starts[j], starts[j + 1]
    if inside:
        begin = stop
    for c in range(begin, stop if fixed >= 0 and not inside else stop + 1):
        gain, chunks, following, end = paths[p, _GAIN], paths[p, _CHUNKS], paths[p, _NEXT], paths[p, _END]
        skipped = 0
        taken = -1
        if c < stop:
            taken, i, hyp_length = c, candidates[c, _HYP], candidates[c, _HYP_LENGTH]
            free = True
            for word in range(i, i + hyp_length):
                free = free and not used[p, word // _BITS] >> word % _BITS & 1
            if not free:
                continue
            ref_length = candidates[c, _REF_LENGTH]
            if candidates[c, _MODULE] == _EXACT:
                gain += ref_length + hyp_length
            else:
                gain += ref_length // 2 + hyp_length // 2
            if end != -1 and end != i:
                chunks += 1
            following, end = candidates[c, _REF] + ref_length, i + hyp_length
            skipped = abs(j - i)
        elif not inside:
            if end != -1:
                chunks += 1
            following, end = following + 1, -1
        count = _insert(children, order, count, gain, chunks, distance, following, end, p, taken)
        # The published scorer adds the distance to the parent, so that later siblings inherit it.
        distance += skipped
    return count


@_inlined
def _insert(children, order, count, gain, chunks, distance, following, end, p, taken):
    """Insert a path into the best 40, after equal paths; `order` lists the rows of `children`, the best first."""
    slot = count
    if count == BEAM:
        slot = order[BEAM - 1]
        if not _beats(gain, chunks, distance, children, slot):
            return count
        count -= 1
    place = count
    while place > 0 and _beats(gain, chunks, distance, children, order[place - 1]):
        order[place] = order[place - 1]
        place -= 1
    order[place] = slot
    children[slot, _GAIN] = gain
    children[slot, _CHUNKS] = chunks
    children[slot, _DISTANCE] = distance
    children[slot, _NEXT] = following
    children[slot, _END] = end
    children[slot, _PARENT] = p
    children[slot, _TAKEN] = taken
    return count + 1


@_inlined
def _beats(gain, chunks, distance, paths, p):
    if gain != paths[p, _GAIN]:
        return gain > paths[p, _GAIN]
    if chunks != paths[p, _CHUNKS]:
        return chunks < paths[p, _CHUNKS]
    return distance < paths[p, _DISTANCE]


@_compiled
def _best(paths, order):
    """Close the open chunks and return the first of the best paths."""
    best = order[0]
    for p in order:
        if paths[p, _END] != -1:
            paths[p, _CHUNKS] += 1
        if _beats(paths[p, _GAIN], paths[p, _CHUNKS], paths[p, _DISTANCE], paths, best):
            best = p
    return best
