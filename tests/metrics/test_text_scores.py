"""CIDEr, BLEU and ROUGE-L against the pure-Python scorers of pycocoevalcap, the peer that defines the numbers."""

import math
import string

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from longvale.metrics.text import bleu, cider, rouge
from longvale.metrics.text.ngrams import NgramTable

#: Few words, so that texts share some; "" stands for a caption without a word.
texts = st.lists(st.sampled_from(["a", "b", "c", "dog", "é"]), max_size=12).map(" ".join)
cases = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=8)


def peer_form(case):
    references = {place: wanted for place, (_, wanted) in enumerate(case)}
    return references, {place: [found] for place, (found, _) in enumerate(case)}


@given(cases)
@example([("a b", ["a b", "a b c"])])
@example([("", [""]), ("a", ["a", ""])])
def test_cider_is_that_of_the_peer(case):
    scores = cider.scores(*zip(*case, strict=True))
    if any(text for _, wanted in case for text in wanted):  # the peer fails without a single word
        assert scores == pytest.approx(Cider().compute_score(*peer_form(case))[1].tolist(), abs=1e-9)
    assert all(0 <= score <= 10 + 1e-9 for score in scores)


@given(cases)
@example([("a b", ["a b c d", "a"])])
def test_bleu_is_that_of_the_peer(case):
    corpus, pairs = Bleu(4).compute_score(*peer_form(case), verbose=0)
    assert bleu.corpus(*zip(*case, strict=True)) == pytest.approx(corpus, abs=1e-9)
    assert bleu.scores(*zip(*case, strict=True)) == pytest.approx(np.array(pairs).T, abs=1e-9)


@given(cases)
@example([("", [""])])
def test_rouge_is_that_of_the_peer(case):
    assert rouge.scores(*zip(*case, strict=True)) == pytest.approx(
        Rouge().compute_score(*peer_form(case))[1].tolist(), abs=1e-9
    )


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4))
def test_no_text_raises(pairs):
    found, wanted = zip(*pairs, strict=True)
    assert all(0 <= score <= 1 for score in rouge.scores(found, wanted))
    assert all(0 <= score <= 10 + 1e-9 for score in cider.scores(found, wanted))
    assert ((bleu.scores(found, wanted) >= 0) & (bleu.scores(found, wanted) <= 1)).all()


def test_long_captions_and_many_pairs_cross_blocks():
    """2,001 pairs: one more than is scored at a time."""
    words = [a + b for a in string.ascii_lowercase for b in string.ascii_lowercase]
    found = [" ".join(words[place % 600 : place % 600 + 30]) for place in range(2001)]
    wanted = [[" ".join(words[place % 599 : place % 599 + 31])] for place in range(2001)]
    case = list(zip(found, wanted, strict=True))
    assert cider.scores(found, wanted) == pytest.approx(Cider().compute_score(*peer_form(case))[1].tolist(), abs=1e-9)
    assert bleu.corpus(found, wanted) == pytest.approx(Bleu(4).compute_score(*peer_form(case), verbose=0)[0], abs=1e-9)


def test_cider_by_hand():
    """Two pairs, every n-gram in one reference only: all weights are log 2 and the cosine is that of plain counts."""
    # Pair 1: unigrams: min(2, 1) * 1 / (2 * sqrt 2) = .354, other orders 0. Pair 2: unigrams 1, other orders 0.
    assert cider.scores(["red red", "blue"], ["red green", "blue"]) == pytest.approx([10 / (8 * 2**0.5), 10 / 4])


def test_cider_of_one_pair_is_zero():
    assert cider.scores(["a dog"], ["a dog"]) == [0]


def test_cider_with_frequencies_of_a_larger_corpus():
    """A pair scores as within the corpus whose frequencies it is given."""
    found, wanted = ["a dog barks", "a bell"], ["a dog barks loud", "a bell rings"]
    table = NgramTable([*found, *wanted])
    known = cider.frequencies(table, [table.rows([text]) for text in wanted])
    alone = cider.score_rows(table, table.rows(found[:1]), [table.rows(wanted[:1])], known)
    assert alone.tolist() == pytest.approx(cider.scores(found, wanted)[:1])
    assert known.weights(np.array([table.size + 5])) == pytest.approx(math.log(2))  # in no document


def test_rouge_by_hand():
    # LCS "a rings" = 2, precision 2/3, recall 2/4, beta 1.2.
    expected = (1 + 1.44) * (2 / 3) * 0.5 / (0.5 + 1.44 * (2 / 3))
    assert rouge.scores(["a rings loudly"], ["a big bell rings"]) == pytest.approx([expected])


def test_a_text_given_twice_is_counted_once():
    table = NgramTable(["a b", "a b", "c"])
    assert table.lengths.tolist() == [2, 1]
    assert table.rows(["c", "a b"]).tolist() == [1, 0]
    entries = table.entries(table.rows(["a b", "c", "a b"]))
    assert entries.owner.tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert entries.orders.tolist() == [0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("scores", [cider.scores, bleu.scores, bleu.corpus, rouge.scores])
def test_refusals(scores):
    with pytest.raises(ValueError, match="1 captions but 2 references"):
        scores(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="caption 1 has no reference"):
        scores(["a", "b"], ["a", []])
