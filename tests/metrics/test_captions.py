import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvale.metrics.text import meteor
from longvale.metrics.text.captions import NAMES, CaptionScorer, score_captions, tokenize

REFERENCES = ["A bell rings in the old tower.", "A dog runs over the green field.", "A voice says hello."]


def test_tokenize():
    assert tokenize(["Don't stop!", "Où est-il?", "Don't stop!"]) == ["do n't stop", "où est-il", "do n't stop"]
    assert tokenize(["Où est-il?"], ascii_only=True) == ["o est-il"]


def test_one_batch_reads_across_captions():
    assert tokenize(["vitamin C.", "The end"]) == ["vitamin c.", "the end"]
    assert tokenize(["vitamin C.", "The end"], one_batch=True) == ["vitamin c", "the end"]
    assert tokenize(["one\vtwo", "three"], one_batch=True) == ["one", "two"]


def test_same_captions_reach_the_top():
    scores = score_captions(REFERENCES[:2], REFERENCES[:2])
    expected = {name: 10 if name == "CIDEr" else 1 for name in NAMES}
    assert scores.corpus == pytest.approx(expected)
    assert all(scores.pairs[name] == pytest.approx([expected[name]] * 2) for name in NAMES)


def test_case_and_punctuation_do_not_count():
    assert score_captions([text.upper().strip(".") for text in REFERENCES], REFERENCES) == score_captions(
        REFERENCES, REFERENCES
    )


def test_the_better_of_two_references_counts():
    scores = score_captions(["a dog runs", "a bell"], [["a cat sleeps", "a dog runs"], "a bell"]).pairs
    assert scores["METEOR"][0] == scores["ROUGE_L"][0] == 1
    assert scores["METEOR"] == meteor.scores(["a dog runs", "a bell"], ["a dog runs", "a bell"])


def test_empty_predictions_score_zero_and_stay_in_the_mean():
    assert score_captions(["", "..."], REFERENCES[:2]).corpus == dict.fromkeys(NAMES, 0)
    assert score_captions(["", "!"], ["", "?"]).corpus == dict.fromkeys(NAMES, 0)
    assert score_captions([REFERENCES[0], ""], REFERENCES[:2]).corpus["ROUGE_L"] == pytest.approx(0.5)


def test_empty_alike():
    assert score_captions(["", "!"], ["", "?"], empty_alike=True).corpus["ROUGE_L"] == 1


def test_selections_of_a_scorer_score_as_by_themselves():
    """A scorer that knows more pairs gives what one made of the selection alone gives."""
    pairs = [("a dog runs", ("the dog runs",)), ("a bell", ("a bell rings",)), ("x", ("a voice",))]
    assert CaptionScorer(pairs).corpus(pairs[:2]) == pytest.approx(CaptionScorer(pairs[:2]).corpus(pairs[:2]))
    assert CaptionScorer(pairs).corpus([]) == dict.fromkeys(NAMES, 0)


def test_a_pair_is_scored_once(monkeypatch):
    asked = []
    statistics = meteor.batch_statistics
    monkeypatch.setattr(meteor, "batch_statistics", lambda *texts: asked.append(texts) or statistics(*texts))
    pair = ("a dog runs", ("the dog runs",))
    scorer = CaptionScorer([pair] * 3)
    scorer.corpus([pair, pair])
    scorer.each([pair])
    assert [[*zip(*texts, strict=True)] for texts in asked] == [[pair]]


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4), st.booleans())
def test_no_text_raises_and_scores_stay_in_range(pairs, one_batch):
    scores = score_captions(*zip(*pairs, strict=True), one_batch=one_batch)
    for name in NAMES:
        assert all(0 <= score <= (10 if name == "CIDEr" else 1) + 1e-9 for score in scores.pairs[name])
        assert 0 <= scores.corpus[name] <= (10 if name == "CIDEr" else 1) + 1e-9


def test_nothing_is_printed(capsys):
    score_captions(REFERENCES, REFERENCES)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_refusals():
    with pytest.raises(ValueError, match="1 captions but 2 references"):
        score_captions(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="no caption to score"):
        score_captions([], [])
