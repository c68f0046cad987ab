import pytest

from longvale.metrics.text.captions import score_captions, tokenize

REFERENCES = ["A bell rings in the old tower.", "A dog runs over the green field.", "A voice says hello."]


def test_tokenize():
    assert tokenize("Don't stop: 2,500 well-known café's!") == ["don't", "stop", "2,500", "well-known", "café's"]
    assert tokenize("rings.Then ... -- '") == ["rings", "then"]


def test_same_captions_reach_the_top():
    assert score_captions(REFERENCES[:2], REFERENCES[:2]) == pytest.approx({"CIDEr": 10, "BLEU_4": 1, "ROUGE_L": 1})


def test_case_and_punctuation_do_not_count():
    assert score_captions([text.upper().strip(".") for text in REFERENCES], REFERENCES) == score_captions(
        REFERENCES, REFERENCES
    )


def test_cider_by_hand():
    """Two pairs, every n-gram in one reference only: all weights are log 2 and the cosine is that of plain counts."""
    scores = score_captions(["red red", "blue"], ["red green", "blue"])
    # Pair 1: unigrams: min(2, 1) * 1 / (2 * sqrt 2) = .354, other orders 0. Pair 2: unigrams 1, other orders 0.
    assert scores["CIDEr"] == pytest.approx(10 * ((1 / (2 * 2**0.5)) / 4 + 1 / 4) / 2)


def test_rouge_by_hand():
    # LCS "a rings" = 2, precision 2/3, recall 2/4, beta 1.2.
    expected = (1 + 1.44) * (2 / 3) * 0.5 / (0.5 + 1.44 * (2 / 3))
    assert score_captions(["a rings loudly"], ["a big bell rings"])["ROUGE_L"] == pytest.approx(expected)


def test_empty_predictions_score_zero_and_stay_in_the_mean():
    assert score_captions(["", "..."], REFERENCES[:2]) == {"CIDEr": 0, "BLEU_4": 0, "ROUGE_L": 0}
    assert score_captions(["", "!"], ["", "?"]) == {"CIDEr": 0, "BLEU_4": 0, "ROUGE_L": 0}
    assert score_captions([REFERENCES[0], ""], REFERENCES[:2])["ROUGE_L"] == pytest.approx(0.5)


def test_nothing_is_printed(capsys):
    score_captions(REFERENCES, REFERENCES)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_refusals():
    with pytest.raises(ValueError, match="1 captions but 2 references"):
        score_captions(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="no caption to score"):
        score_captions([], [])
