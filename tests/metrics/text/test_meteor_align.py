import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvale.metrics.text import meteor as module
from longvale.metrics.text import meteor_align
from longvale.metrics.text.meteor import Meteor, score_of
from longvale.metrics.text.meteor_data import WordLists, build_table

LISTS = WordLists(
    function_words=frozenset({"the", "to"}),
    prefixes=frozenset(),
    numeric_prefixes=frozenset(),
    bases={"ran": ["run"]},
    synset_ids={"dog": "1 2", "hound": "2", "run": "3 4", "flee": "4", "cat": "5"},
)
TABLE = build_table(
    [
        ("1", "dog", "hound"),
        ("1", "the dog", "dog"),
        ("1", "the dog", "the hound"),
        ("1", "to run", "flee"),
        ("1", "flee", "to run"),
        ("1", "run to the", "flee"),
        ("1", "cat cat", "cat"),
        ("1", "cat", "the cat"),
    ]
)
words = st.sampled_from(["the", "to", "dog", "dogs", "hound", "run", "runs", "ran", "flee", "cat", "cats"])
sentences = st.lists(words, max_size=30).map(" ".join)


@pytest.fixture(scope="module")
def meteor():
    return Meteor(LISTS, TABLE)


@pytest.fixture(scope="module")
def plain():
    """The alignment without numba."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGVALE_NO_NUMBA", "1")
        spec = importlib.util.spec_from_file_location("plain_meteor_align", meteor_align.__file__)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def count(align, meteor, hypothesis, reference):
    """Counts by `batch`, which numba keeps on disk; `statistics`, which it calls, would be compiled in each process."""
    pair = [meteor.prepare(hypothesis), meteor.prepare(reference)]
    starts = np.cumsum([[0, 0], *([len(sentence.words), len(sentence.synsets)] for sentence in pair)], axis=0)
    arrays = [
        np.concatenate([getattr(sentence, name) for sentence in pair]) for name in ("words", "synsets", "phrases")
    ]
    return align.batch(np.array([[0, 1]]), starts, *arrays, TABLE.row_starts, TABLE.rows)[0]


def matched(counts):
    """Words matched in the hypothesis and the reference, and chunks."""
    return int(counts[21]), int(counts[22]), int(counts[20])


@settings(max_examples=150)
@given(sentences, sentences)
def test_plain_and_compiled_give_the_same(meteor, plain, hypothesis, reference):
    assert not hasattr(plain.batch, "py_func") and not hasattr(plain.statistics, "py_func")
    expected = count(plain, meteor, hypothesis, reference)
    np.testing.assert_array_equal(count(meteor_align, meteor, hypothesis, reference), expected)


def test_numba_is_in_use():
    assert hasattr(meteor_align.batch, "py_func") and hasattr(meteor_align.statistics, "py_func")


@settings(max_examples=50)
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=6))
def test_a_batch_without_numba(meteor, plain, pairs):
    hypotheses, references = zip(*pairs, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "meteor_align", plain)
        expected = Meteor(LISTS, TABLE).batch(hypotheses, references)
    assert meteor.batch(hypotheses, references) == expected


@settings(max_examples=150)
@given(sentences, sentences)
def test_counts_are_possible(meteor, hypothesis, reference):
    counts = count(meteor_align, meteor, hypothesis, reference)
    lengths = len(hypothesis.split()), len(reference.split())
    assert (counts[0], counts[1]) == lengths
    assert (counts >= 0).all()
    assert sum(counts[4:20:4]) + sum(counts[6:20:4]) == counts[21] <= lengths[0]
    assert sum(counts[5:20:4]) + sum(counts[7:20:4]) == counts[22] <= lengths[1]
    assert (counts[20] > 0) == (counts[21] > 0) and counts[20] <= counts[22]
    assert 0 <= score_of(counts) <= 1


@given(sentences)
def test_sentence_against_itself(meteor, text):
    length = len(text.split())
    assert matched(count(meteor_align, meteor, text, text)) == (length, length, min(length, 1))


def test_lone_inexact_pair_in_doubt_is_dropped(meteor):
    """Stem and synonym both match, so it is not fixed, it gains nothing, and it would cost a chunk."""
    assert matched(count(meteor_align, meteor, "runs", "run")) == (0, 0, 0)
    assert matched(count(meteor_align, meteor, "the runs", "the run")) == (2, 2, 1)


def test_phrases(meteor):
    counts = count(meteor_align, meteor, "cat to run", "cat flee")
    assert matched(counts)[2] == 1
    assert counts[16:20].tolist() == [1, 1, 1, 0]  # "to" is a function word


def test_order_makes_chunks(meteor):
    assert matched(count(meteor_align, meteor, "cat hound to", "to hound cat")) == (3, 3, 3)


def test_long_repetitive_sentences_end(meteor):
    """Two hundred times the same word gives 40,000 candidates."""
    assert matched(count(meteor_align, meteor, "dog " * 200, "dog " * 199)) == (199, 199, 1)
