import gzip
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvale.metrics.text import meteor_data
from longvale.metrics.text.meteor_data import build_table, find_package, load_table, load_word_lists

ENTRIES = [
    ("0.1", "a dog", "the dog"),
    ("0.1", "a dog", "dogs"),
    ("0.2", "in order to", "to"),
    ("0.3", "to", "in order to"),
    ("0.3", "to", "a dog"),
]
words = st.sampled_from(["a", "b", "c", "é", "日"])
phrases = st.lists(words, min_size=1, max_size=7).map(" ".join)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder like pycocoevalcap's with a small paraphrase table; the cache is in `tmp_path`."""
    monkeypatch.setenv("LONGVALE_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "package" / "meteor" / "data" / "paraphrase-en.gz"
    source.parent.mkdir(parents=True)
    source.write_bytes(gzip.compress("".join(f"{p}\n{a}\n{b}\n" for p, a, b in ENTRIES).encode()))
    return tmp_path / "package"


def cache_folders(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache" / "longvale").iterdir())


def rows_of(table):
    return {phrase: table.paraphrases(phrase) for _, phrase, _ in ENTRIES}


EXPECTED = {"a dog": ["the dog", "dogs"], "in order to": ["to"], "to": ["in order to", "a dog"]}


# --- the table --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(phrases, phrases), max_size=30), st.lists(words, max_size=9))
def test_table_holds_what_it_was_built_from(pairs, sentence):
    table = build_table([("1", *pair) for pair in pairs])
    rows = {}
    for phrase, paraphrase in pairs:
        rows.setdefault(phrase, []).append(paraphrase)
    assert {phrase: table.paraphrases(phrase) for phrase in rows} == rows
    assert table.row_starts[-1] == len(table.rows) == len(pairs)
    known = {side for pair in pairs for side in pair}
    nodes = table.phrases(sentence)
    assert nodes.shape == (len(sentence), 7)
    for start in range(len(sentence)):
        for length in range(1, 8):
            phrase = " ".join(sentence[start : start + length])
            inside = start + length <= len(sentence)
            beginning = inside and any(f"{other} ".startswith(f"{phrase} ") for other in known)
            assert (nodes[start, length - 1] >= 0) == beginning


def test_phrases_of_unknown_words():
    table = build_table(ENTRIES)
    assert (table.phrases(["\ud800", "", "cat"]) == -1).all()
    assert table.paraphrases("in order") == table.paraphrases("cat") == table.paraphrases("to " * 9) == []


def test_too_long_phrase():
    with pytest.raises(ValueError, match="8 words, more than 7"):
        build_table([("1", "a b c d e f g h", "a")])


# --- the cache --------------------------------------------------------------------------------------------------------


def test_table_is_built_once(package, tmp_path, monkeypatch):
    assert rows_of(load_table(package)) == EXPECTED
    (folder,) = cache_folders(tmp_path)
    assert folder.startswith(f"meteor-{meteor_data._CACHE_VERSION}-")
    monkeypatch.setattr(meteor_data, "build_table", None)  # a second build would fail
    table = load_table(package)
    assert rows_of(table) == EXPECTED
    assert not table.rows.flags.writeable


def test_new_source_gets_a_new_cache(package, tmp_path):
    load_table(package)
    (package / "meteor/data/paraphrase-en.gz").write_bytes(gzip.compress(b"1\na\nb\n"))
    assert load_table(package).paraphrases("a") == ["b"]
    assert len(cache_folders(tmp_path)) == 2


@pytest.mark.parametrize("name", ["keys.npy", "row_starts.npy", "rows.npy", "words.txt", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "changed", "deleted"])
def test_damaged_cache_is_built_anew(package, tmp_path, name, damage, caplog):
    load_table(package)
    (folder,) = cache_folders(tmp_path)
    file = tmp_path / "cache" / "longvale" / folder / name
    content = file.read_bytes()
    if damage == "deleted":
        file.unlink()
    else:
        changed = {
            "cut": content[:-1],
            "emptied": b"",
            "changed": content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
        }
        file.write_bytes(changed[damage])
    assert rows_of(load_table(package)) == EXPECTED
    assert "it is rebuilt" in caplog.text
    assert cache_folders(tmp_path) == [folder]
    assert file.read_bytes() == content


def test_killed_builds_are_cleared_away(package, tmp_path):
    load_table(package)
    (folder,) = cache_folders(tmp_path)
    root = tmp_path / "cache" / "longvale"
    (root / folder / "rows.npy").write_bytes(b"")
    killed, running = root / f".{folder}-killed", root / f".{folder}-running"
    killed.mkdir()
    running.mkdir()
    os.utime(killed, (0, 0))
    load_table(package)
    assert cache_folders(tmp_path) == [running.name, folder]


def test_build_that_fails_leaves_nothing(package, tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    assert rows_of(load_table(package)) == EXPECTED
    assert "No space left" in caplog.text
    assert cache_folders(tmp_path) == []


def test_cache_folder_that_cannot_be_written(package, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LONGVALE_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert rows_of(load_table(package)) == EXPECTED
    assert "set LONGVALE_CACHE" in caplog.text


def test_other_process_was_faster(package, tmp_path, monkeypatch):
    """Its sound folder stays, and ours goes without a trace."""
    load_table(package)
    (folder,) = cache_folders(tmp_path)
    path = tmp_path / "cache" / "longvale" / folder
    inode = path.stat().st_ino
    meteor_data.write_table(build_table(ENTRIES), path)
    assert path.stat().st_ino == inode
    assert cache_folders(tmp_path) == [folder]


def test_two_processes_at_once(package, tmp_path):
    code = (
        "import pathlib, sys; from longvale.metrics.text.meteor_data import load_table;"
        "print(load_table(pathlib.Path(sys.argv[1])).paraphrases('a dog'))"
    )
    command = [sys.executable, "-c", code, str(package)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in processes] == ["['the dog', 'dogs']\n"] * 2
    assert [process.returncode for process in processes] == [0, 0]
    assert len(cache_folders(tmp_path)) == 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LONGVALE_CACHE": "/l", "XDG_CACHE_HOME": "/x"}, "/l"),
        ({"XDG_CACHE_HOME": "/x"}, "/x"),
        ({}, str(Path.home() / ".cache")),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, expected):
    for name in ("LONGVALE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(meteor_data.cache_root()) == expected


# --- pycocoevalcap's files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"no gzip file at all", gzip.compress(b"1\na\nb\n" * 50)[:-12] + b"x" * 8],
    ids=["empty", "short", "no gzip file", "end damaged"],
)
def test_damaged_source(package, content):
    (package / "meteor/data/paraphrase-en.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"paraphrase-en.gz is damaged .*pip install"):
        load_table(package)


def test_source_that_ends_inside_an_entry(package):
    (package / "meteor/data/paraphrase-en.gz").write_bytes(gzip.compress(b"1\na\nb\n1\na\n"))
    with pytest.raises(ValueError, match="is damaged"):
        load_table(package)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"paraphrase-en.gz is missing: .*pip install"):
        load_table(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"meteor-1.5.jar is missing: .*pip install"):
        load_word_lists(tmp_path)


def test_phrases_do_not_run_from_one_sentence_into_the_next():
    table = build_table([("0.5", "ran away", "fled"), ("0.5", "away from", "off")])
    texts = [["he", "ran"], [], ["away", "from", "ran"], ["away"], ["ran", "away"]]
    numbers = table.numbers([word for words in texts for word in words])
    nodes = table.phrase_nodes(numbers, np.array([len(words) for words in texts]))
    np.testing.assert_array_equal(nodes, np.concatenate([table.phrases(words) for words in texts]))
    assert (nodes[:, 1] >= 0).tolist() == [False, False, True, False, False, False, True, False]


def test_wrong_jar(tmp_path):
    jar = tmp_path / "meteor" / "meteor-1.5.jar"
    jar.parent.mkdir()
    jar.write_bytes(b"no zip file")
    with pytest.raises(ValueError, match=r"not METEOR 1.5's jar"):
        load_word_lists(tmp_path)
    with zipfile.ZipFile(jar, "w") as archive:
        for name in meteor_data._MD5:
            archive.writestr(name, "other\n")
    with pytest.raises(ValueError, match=r"function/english.words has the MD5 sum .*pip install"):
        load_word_lists(tmp_path)


def test_package_is_not_installed(monkeypatch):
    monkeypatch.setattr(meteor_data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install pycocoevalcap"):
        find_package()


def test_word_lists():
    lists = load_word_lists(find_package())
    assert len(lists.function_words) == 93
    assert "Mr" in lists.prefixes and "No" in lists.numeric_prefixes and "No" not in lists.prefixes
    assert lists.bases["ran"] == ["run"]
    assert "8950407" in lists.synset_ids["'s_gravenhage"]
