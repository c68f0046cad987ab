import doctest
import json
import random
import re
import shutil
import string
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longvale.metrics.text import ptb
from longvale.metrics.text.ptb import tokenize

#: Batches as pycocoevalcap 1.2 with Java tokenizes them: sentences, and the lines that it pairs with them.
BATCHES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "fixtures/metrics/ptb_batches.jsonl").read_text().splitlines()
]
LINE_BREAKS = "\n\r\x0b\x0c\u2028\u2029"

quick = settings(max_examples=150)

#: What the rules look for, what tempts them, and anything else.
PIECES = [
    " ", " ", " ", "  ", "\t", "\xa0", "\x85", "\u3000", "\u200b", "\xad", "\x00", "\x1c", ".", ". . .", "...", ",",
    ";", ":", "?!", "-", "--", "---", "_", "'", "`", "\"", "’", "‘", "“”", "«", "–", "/", "\\/", "(", ")", "[", "{",
    "<", ">", "<b>", "<a b='", "<!-- x -->", "</b>", "&amp;", "&AMP;", "&lt;", "&quot;", "&apos;", "&eacute;",
    "&nbsp;", "&", "#", "@", "$", "€", "£", "¢", "%", "*", "+", "=", "~", "^_^", "(^_^)", ":)", ":-D", "a", "I", "C",
    "U.S", "p.m", "Inc", "Miss", "no", "fig", "pty", "The", "the", "can't", "cannot", "'tis", "gonna", "they'll",
    "o'clock", "d'you", "y'all", "Hawai'i", "'em", "'90", "well-known", "R", "D", "www", "com", "http://", "jpg",
    "ltd", "1", "12", "345", "6789", "½", "²", "٣", "é", "中", "İ", "Σ", "ſ", "\u0301", "😀", "�",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=14).map("".join)
hostile = texts | st.text() | st.lists(texts | st.sampled_from([*LINE_BREAKS, "\ud800", "\udfff"])).map("".join)


def joined(sentences):
    return [re.sub(f"[{LINE_BREAKS}]", " ", sentence) for sentence in sentences]


# --- as the published tokenizer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: ascii(batch["sentences"][0])[:40])
def test_official_batches(batch):
    assert tokenize(batch["sentences"], official_batch=True) == batch["lines"]


def test_a_sentence_alone_is_a_batch_of_its_own():
    alone = [batch for batch in BATCHES if len(batch["sentences"]) == 1]
    assert len(alone) > 50
    assert tokenize(batch["sentences"][0] for batch in alone) == [batch["lines"][0] for batch in alone]


@pytest.mark.parametrize("line_break", LINE_BREAKS[1:])
def test_a_line_break_shifts_an_official_batch_only(line_break):
    sentences = [f"one{line_break}two", "three", "four"]
    assert tokenize(sentences, official_batch=True) == ["one", "two", "three"]
    assert tokenize(sentences) == ["one two", "three", "four"]


def test_a_carriage_return_at_the_end_of_a_sentence_shifts_nothing():
    # Together with the line feed that joins the sentences it is one line break; one inside a sentence is one more.
    assert tokenize(["a\r", "b", "c"], official_batch=True) == ["a", "b", "c"]
    assert tokenize(["a\rb\r", "c"], official_batch=True) == ["a", "b"]


def test_what_follows_counts_in_an_official_batch_only():
    sentences = ["Vitamin C.", "The end", "Apples no.", "5 is"]
    assert tokenize(sentences, official_batch=True) == ["vitamin c", "the end", "apples no.", "5 is"]
    assert tokenize(sentences) == ["vitamin c.", "the end", "apples no", "5 is"]


@pytest.mark.java
@pytest.mark.skipif(shutil.which("java") is None, reason="needs a Java runtime (`java` on PATH) for pycocoevalcap")
@pytest.mark.parametrize("breaks", ["", LINE_BREAKS], ids=["without line breaks", "with line breaks"])
def test_agrees_with_java(breaks):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    rng = random.Random(5)
    pieces = PIECES + list(string.printable[:95]) + list(breaks)
    sentences = ["".join(rng.choices(pieces, k=rng.randint(1, 14))) for _ in range(4000)]
    sentences += [sentence for batch in BATCHES for sentence in batch["sentences"]] if breaks else []
    lines = PTBTokenizer().tokenize({i: [{"caption": sentence}] for i, sentence in enumerate(sentences)})
    expected = [line for i in range(len(sentences)) for line in lines.get(i, [])]
    got = tokenize(sentences, official_batch=True)
    assert len(got) == len(expected)
    wrong = [(sentence, a, b) for sentence, a, b in zip(sentences, got, expected, strict=False) if a != b]
    assert not wrong, wrong[:5]


# --- any text ---------------------------------------------------------------------------------------------------------


@quick
@given(st.lists(hostile, max_size=6))
@example(["\ud800", "a\udc00b"])
@example(["a\r"])
def test_no_text_raises(sentences):
    alone = tokenize(sentences)
    assert len(alone) == len(sentences)
    assert len(tokenize(sentences, official_batch=True)) == len(sentences)
    for line in alone:
        assert not set(line) & set("\n\r\u2028\u2029")
        assert line == line.strip(" ") and "  " not in line
        assert line == line.lower()


@quick
@given(st.lists(hostile, min_size=1, max_size=6))
def test_an_official_line_has_no_line_feed(sentences):
    assert not any("\n" in line for line in tokenize(sentences, official_batch=True))


@quick
@given(st.lists(hostile, max_size=6))
def test_sentences_are_independent(sentences):
    assert tokenize(sentences) == [tokenize([sentence])[0] for sentence in sentences]


@quick
@given(hostile)
def test_a_sentence_alone_reads_as_an_official_batch_of_one(sentence):
    assert tokenize([sentence]) == tokenize(joined([sentence.replace("\r\n", " ")]), official_batch=True)


@quick
@given(texts)
def test_what_is_remembered_changes_nothing(sentence):
    # A stretch of text is read by the rules alone where it is too long to be remembered.
    long = "x" * 100
    for following in ["", " y", " The y", " 5"]:
        glued = tokenize([f"{long} {sentence}{following}"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ptb, "_tokens_of_stretch", lambda stretch, is_last: None)
            patch.setattr(ptb, "_STRETCH", rf"(?: {ptb.SPACE}*+)?+()")
            patch.setattr(ptb, "_line_before", ptb._line_before.__wrapped__)
            assert tokenize([f"{long} {sentence}{following}"]) == glued


def read_at_once(text):
    """The lines of a text of which no line is read by itself."""
    return ptb._written(ptb._tokens(ptb.Source(text), 0, len(text))[0]).split("\n")


#: How a line may end whose tokens depend on the next one, and how that may begin.
EDGES = [
    "Vitamin C.", "U.S. ", "Inc.\t", "no.", "(Fig.", "Miss.", "etc. \u3000", "a.k.a.", "x.\x85", "T-shirt.", "J.\r",
    "Co.", "The end", "Mr. X", "5", "<b> x", "x", "", " ", "\xa0", "<a b='", "'>y", "x.[^x=", "<>]", "Ltd.", "'90",
    "A.\u2028", "\x85",
]  # fmt: skip


@quick
@given(st.lists(st.sampled_from(EDGES) | st.sampled_from(PIECES) | hostile, max_size=12))
@example(["Vitamin C.", " ", "", "The", "Vitamin C.", "the"])
@example(["<a b='", "C.", "'> The"])
def test_lines_read_by_themselves_give_what_the_whole_text_gives(lines):
    text = "\n".join(lines)
    assert ptb._lines(text) == read_at_once(text)


def test_lines_of_many_texts_in_any_order():
    rng = random.Random(8)
    lines = [sentence.replace("\n", " ") for batch in BATCHES for sentence in batch["sentences"]] + EDGES * 40
    for _ in range(3):
        rng.shuffle(lines)
        text = "\n".join(lines).encode("utf-8", "replace").decode()
        assert ptb._lines(text) == read_at_once(text)


@quick
@given(st.lists(st.text(string.ascii_letters, min_size=1, max_size=12), max_size=20))
def test_words_stay_as_they_are(words):
    once = tokenize([" ".join(words)])
    assert tokenize(once) == once
    assert once[0].replace(" ", "") == "".join(words).lower()


def test_lone_surrogates_separate_words_and_are_left_out():
    for official_batch in (False, True):
        assert tokenize(["a\ud83db", "\udc00"], official_batch) == ["a b", ""]


def test_nothing_to_tokenize():
    for official_batch in (False, True):
        assert tokenize([], official_batch) == []
        assert tokenize([""], official_batch) == [""]


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "-", "(", "<a ", "<!a ", "A. <!a ", "<a b='", "a.a.a.", "1.a.", "1,a.", "&", "&.", "www.&", "&.com/,",
     "a&", "@.", "a@.", "x.[^x=", "n't", "\xada", "A. ", "\r", "\xa0&", "&eacute;.1."],
)  # fmt: skip
def test_time_is_linear(unit):
    # Quadratic time would take 10 seconds and more here; linear time takes 2 at most on a slow core.
    started = time.process_time()
    tokenize([unit * (40_000 // len(unit)) + "\x01)"])
    assert time.process_time() - started < 6


def test_fourteen_thousand_captions_take_seconds_at_most():
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 9))) for _ in range(10_000)]
    captions = [" ".join(rng.choices(vocabulary, k=30)).capitalize() + "." for _ in range(14_000)]
    started = time.process_time()
    lines = tokenize(captions, official_batch=True)
    assert time.process_time() - started < 10  # about 0.6 s, with room for slow machines
    assert len(lines) == len(captions)


def test_import_compiles_no_pattern():
    code = """
import sys
import longvale.metrics.text
import longvale.metrics.text.ptb
from longvale.metrics.text.ptb_parts import compiled
sys.exit(compiled.cache_info().currsize)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_docstrings():
    assert doctest.testmod(ptb).failed == 0
