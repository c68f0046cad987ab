import json
import math
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longvale.metrics.text import meteor as module
from longvale.metrics.text.meteor import (
    Meteor,
    aggregate,
    batch_statistics,
    key_of,
    normalise,
    score_of,
    scores,
    statistics,
    synsets_of,
)
from longvale.metrics.text.meteor_data import build_table, find_package, load_word_lists

#: Runs of METEOR 1.5's jar: groups of pairs with statistics and scores, and each group's aggregate.
GROUPS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "fixtures/metrics/meteor_groups.jsonl").read_text("utf-8").splitlines()
]
PAIRS = [pair for group in GROUPS for pair in group["pairs"]]
#: The power function of Java and of C may differ in the last bit.
EXACT = {"rel": 1e-12, "abs": 1e-15}

pieces = st.sampled_from(
    ["the", "Dog", "dogs'", "it's", "U.S.", "Mr.", "No.", "5", ".", "...", ",", "1,000", "a,b", "-", "--", "x-y-z", "'",
     "''", "`", "“", "\ud800", "\0", "\x0b", "\n", "\r\n", "\u2028", "\u00a0", "İ", "ΑΣ", "ﬁ", "٣", "😀", "|||", "|",
     " ",
     "'s", "  ", "DOTMULTI"]
)  # fmt: skip
hostile = st.text() | st.lists(pieces | st.text(max_size=3), max_size=20).map(" ".join) | st.lists(pieces).map("".join)


@pytest.fixture(scope="module")
def lists():
    return load_word_lists(find_package())


@pytest.fixture(scope="module")
def small(lists):
    """With a small paraphrase table."""
    return Meteor(lists, build_table([("1", "to win", "in order to win"), ("1", "a", "the")]))


# --- against the published scorer -------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS, ids=range(len(GROUPS)))
def test_published_numbers(group):
    pairs = group["pairs"]
    counts = batch_statistics([pair["hypothesis"] for pair in pairs], [pair["references"] for pair in pairs])
    assert [list(vector) for vector in counts] == [pair["statistics"] for pair in pairs]
    assert [score_of(vector) for vector in counts] == pytest.approx([pair["score"] for pair in pairs], **EXACT)
    assert aggregate(counts) == pytest.approx(group["aggregate"], **EXACT)


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        ("the big dogs ran", "a large dog runs", 0.3242076180145036),
        ("to win a game", "in order to win games", 0.29616963021814857),
        ("as c5", "c5 as", 1.0),  # two words with the same key
        ("a man is riding a horse on the beach", "a person rides a horse along the beach", 0.4505376373552965),
        ("the the cat", "the cat the", 0.4467352531109634),
        ("U.S.-based firms lost $1,000.50 .", "us based firm loses 1,000.50 dollars", 0.3700940390687488),
        ("quick foxes jump", "fox jumping quickly", 0.0),
    ],
)
def test_published_scores(hypothesis, reference, expected):
    assert scores([hypothesis], [reference]) == pytest.approx([expected], **EXACT)


@pytest.mark.slow
@pytest.mark.java
@pytest.mark.skipif(shutil.which("java") is None, reason="no Java runtime")
def test_fresh_pairs_as_the_jar_scores_them():
    rng = random.Random(time.time_ns())
    sentences = [text for pair in PAIRS for text in (pair["hypothesis"], *pair["references"])]
    words = " ".join(sentences).split()
    fresh = []
    for _ in range(300):
        text = rng.choice(sentences).split()
        changed = [rng.choice(words) if rng.random() < 0.2 else word for word in text if rng.random() < 0.9]
        fresh.append((" ".join(changed), " ".join(text).replace("|||", "")))
    lines = [f"SCORE ||| {reference} ||| {hypothesis.replace('|||', '')}" for hypothesis, reference in fresh]
    command = ["java", "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
    jar = subprocess.run(
        command, cwd=find_package() / "meteor", input="\n".join(lines) + "\n", capture_output=True, encoding="utf-8"
    )
    published = [[int(float(count)) for count in line.split()] for line in jar.stdout.splitlines()]
    assert len(published) == len(fresh), jar.stderr
    for (hypothesis, reference), expected in zip(fresh, published, strict=True):
        assert list(statistics(hypothesis, reference)) == expected, (hypothesis, reference)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_best_of_several_references(small):
    references = ["a bird", "mouse cat", "cat"]
    every = [small.pair("cat mouse", reference) for reference in references]
    assert small.statistics("cat mouse", references) == max(every, key=score_of)
    assert small.statistics("x", ["a b", "c"]) == small.pair("x", "a b")  # the first of equals


def test_bars(small):
    assert small.pair("a ||| dog", "a dog") == small.pair("a dog", "a dog")
    assert small.pair("a dog", "cat ||| a dog ||| bird") == small.pair("a dog", "a dog")


def test_perfect_pairs_add_no_chunk():
    """(2 words, 1 chunk) and (2 words, 2 chunks): two chunks of four words, where three would give another score."""
    pairs = [statistics("a dog", "a dog"), statistics("cat mouse", "mouse cat")]
    assert aggregate(pairs) == pytest.approx(1 - 0.6 * 0.5**0.2)
    assert aggregate(pairs[:1] * 3) == 1
    assert aggregate([]) == 0


def test_mismatched_arguments():
    with pytest.raises(ValueError, match="2 captions but 1 references"):
        scores(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="has no reference"):
        scores(["a"], [[]])


def test_pairs_are_remembered(small, monkeypatch):
    first = small.pair("a remembered dog", "the remembered dog")
    monkeypatch.setattr(module.meteor_align, "batch", None)  # another alignment would fail
    assert small.pair("a remembered dog", "the remembered dog") == first


@settings(max_examples=50)
@given(st.lists(st.tuples(hostile, st.lists(hostile, min_size=1, max_size=3)), max_size=5))
def test_a_batch_gives_what_its_pairs_give(lists, pairs):
    table = build_table([("1", "to win", "in order to win"), ("1", "a", "the")])
    batch = Meteor(lists, table).batch([hypothesis for hypothesis, _ in pairs], [given for _, given in pairs])
    one = Meteor(lists, table)
    assert batch == [one.statistics(hypothesis, given) for hypothesis, given in pairs]


def test_blocks_and_forgetting_change_nothing(lists, monkeypatch):
    texts = [f"the dog {place} ran {'away ' * (place % 4)}" for place in range(40)]
    table = build_table([("1", "ran away", "fled")])
    expected = Meteor(lists, table).batch(texts, texts[::-1])
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_KEPT_PAIRS", 5)
    monkeypatch.setattr(module, "_KEPT_SENTENCES", 3)
    small = Meteor(lists, table)
    assert small.batch(texts, texts[::-1]) == small.batch(texts, texts[::-1]) == expected
    assert len(small._pairs) == 5 and len(small._sentences) == 3


@settings(max_examples=200)
@given(hostile, hostile)
def test_any_text_has_a_score(small, hypothesis, reference):
    score = score_of(small.pair(hypothesis, reference))
    assert 0 <= score <= 1 and not math.isnan(score)


@settings(max_examples=100)
@given(hostile)
def test_text_without_bars_equals_itself(small, text):
    text = " ".join(text.replace("|", "").split(" "))
    counts = small.pair(text, text.replace("  ", " "))
    assert counts[0] == counts[1] == counts[21] == counts[22]
    assert score_of(counts) == (1 if counts[0] else 0)


# --- words ------------------------------------------------------------------------------------------------------------


def test_keys():
    assert key_of("") == 0
    assert key_of("ab") == 31 * 97 + 98
    assert key_of("10s") == key_of("125")
    assert key_of("😀") == 31 * 0xD83D + 0xDE00
    assert -(2**31) <= key_of("a long word that overflows") < 2**31


def test_synsets(lists):
    run, dog = synsets_of("run", lists), synsets_of("dog", lists)
    assert synsets_of("ran", lists) >= run and synsets_of("dogs", lists) >= dog and run and dog
    assert not synsets_of("\ud800s", lists) and not synsets_of("", lists)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" \t\0 ", ""),
        ("it's it 's dogs' 5's O'Neil", "it 's it ' s dogs ' 5 's o 'neil"),
        ("x-y-z well--known a – b", "x y-z well known a - b"),
        ("a,b 1,000 a,1 1,a a,,b", "a , b 1,000 a , 1 1 , a a , ,b"),
        ("“So” ''he'' `said'", '" so " " he " \' said \''),
        ("Wait... what..", "wait ... what .."),
        ("U.S. Mr. Lee left. he No. 5 No. it.", "us mr. lee left. he no. 5 no. it ."),
        ("left. He No. It", "left . he no . it"),
        ("a\u00a0b\u3000c $5 50%", "a b c $ 5 50 %"),
    ],
)
def test_normalise(lists, text, expected):
    assert " ".join(normalise(text, lists)) == expected
