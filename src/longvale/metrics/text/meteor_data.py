"""METEOR's word lists and paraphrase table, read from the installed pycocoevalcap.

The lists are read directly from the jar. The paraphrase table is 62 MB of compressed text. It is converted once to
integer arrays that later runs map into memory: a trie of phrases (a node is its parent and one more word) and, for each
node, the row of nodes that paraphrase it.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import logging
import mmap
import os
import shutil
import tempfile
import time
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np

logger = logging.getLogger(__name__)

#: Probability, phrase, paraphrase; the score does not use the probability.
ParaphraseLines: TypeAlias = Iterable[tuple[str, str, str]]

MAX_PHRASE_WORDS = 7
_JAR = "meteor/meteor-1.5.jar"
_PARAPHRASES = "meteor/data/paraphrase-en.gz"
_MD5 = {
    "function/english.words": "0bdd0980b195aea3003fa14ca2754b6c",
    "nonbreaking/english.prefixes": "7ba58640093c5ca8683bc51b86002844",
    "synonym/english.exceptions": "0243a7c02e69849e9e9769ac29f5a659",
    "synonym/english.synsets": "d4d5360711418307e9d79180d5e904e8",
}
_REMEDY = "reinstall it with `pip install --force-reinstall pycocoevalcap==1.2`"
_CACHE_VERSION = 1
_MANIFEST = "manifest.json"
_WORDS = "words.txt"
#: A temporary folder older than this belongs to a build that was killed.
_STALE_SECONDS = 3600
#: A trie key consists of the parent's number and, in the lower bits, the word's number.
_WORD_BITS = 24


@dataclass(frozen=True, eq=False)
class WordLists:
    """METEOR's English word lists.

    Args:
        function_words: words with a lower weight.
        prefixes: words after which a dot does not end a sentence.
        numeric_prefixes: words after which a dot does not end a sentence if a digit follows.
        bases: base forms of irregular forms.
        synset_ids: synsets of a word as numbers separated by spaces, parsed on access.
    """

    function_words: frozenset[str]
    prefixes: frozenset[str]
    numeric_prefixes: frozenset[str]
    bases: Mapping[str, Sequence[str]]
    synset_ids: Mapping[str, str]


@dataclass(frozen=True)
class ParaphraseTable:
    """Paraphrase table with integer phrases.

    Phrases are nodes of a trie. Node n has the key `(parent + 1) << 24 | word`; the parent of a single word is -1. The
    keys are sorted, so that a node's number is the position of its key.

    Args:
        words: the words of all phrases; a word's number is its index.
        keys: int64 [nodes], ascending.
        row_starts: int32 [nodes + 1]; node n's paraphrases are `rows[row_starts[n]:row_starts[n + 1]]`.
        rows: int32 [entries], nodes of the paraphrases; each row is in the order of the source.

    Example:
        >>> table = build_table([("0.5", "ran away", "fled"), ("0.2", "ran away", "escaped")])
        >>> table.phrases(["he", "ran", "away"])[1, :3].tolist(), table.paraphrases("ran away")
        ([0, 3, -1], ['fled', 'escaped'])
    """

    words: tuple[str, ...]
    keys: np.ndarray
    row_starts: np.ndarray
    rows: np.ndarray

    @cached_property
    def word_ids(self) -> dict[str, int]:
        """Return a mapping of words to their numbers."""
        return dict(zip(self.words, range(len(self.words)), strict=True))

    def phrases(self, words: Sequence[str]) -> np.ndarray:
        """Return the nodes of the phrases that start at each word.

        Args:
            words: words of a sentence.

        Returns:
            int32 [words, 7]; column n - 1 has the node of the n words from this position, or -1 if there is none.
        """
        return self.phrase_nodes(self.numbers(words), np.array([len(words)]))

    def numbers(self, words: Sequence[str]) -> np.ndarray:
        """Return the numbers of words, int64; -1 for words that are in no phrase."""
        return np.array([self.word_ids.get(word, -1) for word in words], np.int64)

    def phrase_nodes(self, numbers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return [`ParaphraseTable.phrases`] of concatenated sentences.

        Args:
            numbers: numbers of the words of all sentences, [words].
            lengths: number of words per sentence.

        Returns:
            int32 [words, 7]
        """
        ends = np.repeat(np.cumsum(lengths), lengths)
        nodes = np.full((len(numbers), MAX_PHRASE_WORDS), -1, np.int32)
        starts = np.flatnonzero(numbers >= 0)
        parents = np.full(len(starts), -1)
        for column in range(MAX_PHRASE_WORDS):
            inside = starts + column < ends[starts]
            starts, parents = starts[inside], parents[inside]
            # Each distinct key is looked up once, in ascending order, for better cache locality.
            keys, place = np.unique(_key(parents, numbers[starts + column]), return_inverse=True)
            found = np.searchsorted(self.keys, keys)
            known = found < len(self.keys)
            known[known] = self.keys[found[known]] == keys[known]
            known, found = known[place], found[place]
            starts, parents = starts[known], found[known]
            if not len(starts):
                break
            nodes[starts, column] = parents
        return nodes

    def paraphrases(self, phrase: str) -> list[str]:
        """Return the paraphrases of a phrase as text, for inspection; scoring compares nodes."""
        words = phrase.split(" ")
        node = self.phrases(words)[0, len(words) - 1] if len(words) <= MAX_PHRASE_WORDS else -1
        if node < 0:
            return []
        return [self._text(int(other)) for other in self.rows[self.row_starts[node] : self.row_starts[node + 1]]]

    def _text(self, node: int) -> str:
        words = []
        while node >= 0:
            key = int(self.keys[node])
            words.append(self.words[key & (1 << _WORD_BITS) - 1])
            node = (key >> _WORD_BITS) - 1
        return " ".join(reversed(words))


def _key(parents: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return trie keys; a word that is not in the table (-1) gives a negative key, which matches no node."""
    return (parents + 1 << _WORD_BITS) | words


def build_table(lines: ParaphraseLines) -> ParaphraseTable:
    """Number the phrases and build the table.

    Args:
        lines: probability, phrase, paraphrase; phrases have 1 to 7 words with one space between them.

    Raises:
        ValueError: if a phrase has more than 7 words.
    """
    numbers: dict[str, int] = {}
    left, right = [np.array(side, np.int32) for side in _number_pairs(lines, numbers)]
    words: dict[str, int] = {}
    ids = np.full((len(numbers), MAX_PHRASE_WORDS), -1, np.int32)
    for row, phrase in enumerate(numbers):
        parts = phrase.split(" ")
        if len(parts) > MAX_PHRASE_WORDS:
            raise ValueError(f"paraphrase table: {phrase!r} has {len(parts)} words, more than {MAX_PHRASE_WORDS}")
        for column, word in enumerate(parts):
            ids[row, column] = words.setdefault(word, len(words))
    vocabulary = tuple(words)
    keys, node_of = _build_trie(ids)
    left, right = node_of[left], node_of[right]
    row_starts = np.zeros(len(keys) + 1, np.int32)
    np.cumsum(np.bincount(left, minlength=len(keys)), out=row_starts[1:])
    arrays = keys, row_starts, right[np.argsort(left, kind="stable")]
    for part in arrays:
        part.flags.writeable = False  # read-only like mapped arrays, otherwise numba compiles for both types
    return ParaphraseTable(vocabulary, *arrays)


def _number_pairs(lines: ParaphraseLines, numbers: dict[str, int]) -> tuple[array, array]:
    """Convert each line's phrase and paraphrase to numbers; adds the phrases to `numbers` in order of appearance."""
    left, right = array("i"), array("i")
    for _, phrase, paraphrase in lines:
        left.append(numbers.setdefault(phrase, len(numbers)))
        right.append(numbers.setdefault(paraphrase, len(numbers)))
    return left, right


def _build_trie(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of all phrases and their prefixes, and the node of each phrase.

    Args:
        ids: int32 [phrases, 7], word numbers, -1 after a phrase's end.
    """
    levels, total = [], 0
    node_of = np.full(len(ids), -1, np.int64)
    for column in range(MAX_PHRASE_WORDS):
        longer = np.flatnonzero(ids[:, column] >= 0)
        # A level's keys are larger than those of the previous level, because its parents are that level's nodes.
        level, place = np.unique(_key(node_of[longer], ids[longer, column]), return_inverse=True)
        node_of[longer] = total + place
        levels.append(level)
        total += len(level)
    return np.concatenate(levels), node_of.astype(np.int32)


# --- pycocoevalcap's files --------------------------------------------------------------------------------------------


def find_package() -> Path:
    """Return the folder of the installed pycocoevalcap, without importing it.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("METEOR's word lists come with pycocoevalcap: `pip install pycocoevalcap`")
    return Path(spec.submodule_search_locations[0])


def load_word_lists(package: Path) -> WordLists:
    """Read the lists from METEOR's jar.

    Args:
        package: the folder of pycocoevalcap.

    Raises:
        FileNotFoundError: if the jar is missing.
        ValueError: if the jar cannot be read or belongs to another version.
    """
    jar = package / _JAR
    try:
        with zipfile.ZipFile(jar) as archive:
            contents = {name: archive.read(name) for name in _MD5}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{jar} is missing: {_REMEDY}") from error
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise ValueError(f"{jar} is not METEOR 1.5's jar ({error}): {_REMEDY}") from error
    for name, content in contents.items():
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 != _MD5[name]:
            raise ValueError(f"{jar}: {name} has the MD5 sum {md5}, METEOR 1.5's has {_MD5[name]}: {_REMEDY}")
    words, prefixes, exceptions, synsets = (content.decode("utf-8").split("\n") for content in contents.values())
    always, numeric = _read_prefixes(prefixes)
    synset_ids = dict(zip(synsets[::2], synsets[1::2], strict=False))
    return WordLists(frozenset(filter(None, words)), always, numeric, _read_exceptions(exceptions), synset_ids)


def _read_prefixes(lines: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    entries = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    numeric = frozenset(entry[0] for entry in entries if entry[1:2] == ["#NUMERIC_ONLY#"])
    return frozenset(entry[0] for entry in entries if entry[1:2] != ["#NUMERIC_ONLY#"]), numeric


def _read_exceptions(lines: Sequence[str]) -> dict[str, list[str]]:
    bases: dict[str, list[str]] = {}
    for base, forms in zip(lines[::2], lines[1::2], strict=False):
        for form in forms.split():
            bases.setdefault(form, []).append(base)
    return bases


def _read_paraphrases(path: Path) -> ParaphraseLines:
    """Yield the lines of the .gz file in groups of three.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            lines = (line[:-1] for line in file)
            yield from zip(lines, lines, lines, strict=True)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): {_REMEDY}") from error


# --- the table's cache ------------------------------------------------------------------------------------------------


def load_table(package: Path) -> ParaphraseTable:
    """Load the paraphrase table from the cache; the first call builds it and writes it to the cache.

    The build takes half a minute and 1 GB of memory. The cache is `longvale/meteor-<version>-<key>` in the folder of
    the environment variable LONGVALE_CACHE, else XDG_CACHE_HOME, else ~/.cache; the key identifies the content of the
    source. If the cache is not writable, the table is kept in memory and a warning is logged.

    Args:
        package: the folder of pycocoevalcap.

    Raises:
        FileNotFoundError: if the source is missing.
        ValueError: if the source is damaged.
    """
    source = package / _PARAPHRASES
    folder = cache_root() / "longvale" / f"meteor-{_CACHE_VERSION}-{_content_key(source)}"
    try:
        return read_table(folder)
    except FileNotFoundError:
        pass
    except (ValueError, OSError) as error:
        logger.warning("%s: %s; it is rebuilt", folder, error)
    logger.info("building METEOR's paraphrase table in %s, once", folder)
    table = build_table(_read_paraphrases(source))
    try:
        write_table(table, folder)
        return read_table(folder)
    except OSError as error:
        remedy = "every start takes half a minute; set LONGVALE_CACHE to a folder that can be written"
        logger.warning("cannot keep METEOR's paraphrase table (%s): %s", error, remedy)
        return table


def cache_root() -> Path:
    """Return the root of the caches: LONGVALE_CACHE, else XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("LONGVALE_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _content_key(source: Path) -> str:
    """Return a key of the content: a gzip file ends with the checksum and the length of its content."""
    try:
        with source.open("rb") as file:
            file.seek(-8, os.SEEK_END)
            return file.read(8).hex()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source} is missing: {_REMEDY}") from error
    except OSError as error:
        raise ValueError(f"{source} is damaged ({error}): {_REMEDY}") from error


def write_table(table: ParaphraseTable, folder: Path) -> None:
    """Write the table to a folder, atomically.

    An existing folder is replaced, unless it is valid, for example written by another process in the meantime.

    Raises:
        OSError: if the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new = temporary / "new"
        new.mkdir()
        (new / _WORDS).write_bytes("\n".join(table.words).encode())
        for name in _array_names():
            np.save(new / f"{name}.npy", getattr(table, name), allow_pickle=False)
        manifest = {path.name: _checksum(path.read_bytes()) for path in sorted(new.iterdir())}
        (new / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        _put_in_place(new, folder, temporary / "old")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(new: Path, folder: Path, old: Path) -> None:
    """Rename `new` to `folder`. A damaged `folder` is moved to `old`; processes that map its files keep them."""
    try:
        new.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        if not _is_sound(folder):
            folder.rename(old)
            new.rename(folder)


def _is_sound(folder: Path) -> bool:
    try:
        read_table(folder)
    except (OSError, ValueError):
        return False
    return True


def _remove_stale(folder: Path) -> None:
    """Remove temporary folders of builds that were killed."""
    for left in folder.parent.glob(f".{folder.name}-*"):
        try:
            stale = time.time() - left.stat().st_mtime > _STALE_SECONDS
        except FileNotFoundError:  # removed by another process
            continue
        if stale:
            shutil.rmtree(left, ignore_errors=True)


def read_table(folder: Path) -> ParaphraseTable:
    """Map a table in the cache into memory.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if files are missing or have changed since they were written.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except FileNotFoundError:
        if folder.exists():
            raise ValueError(f"{_MANIFEST} is missing") from None
        raise
    names = {_WORDS, *(f"{name}.npy" for name in _array_names())}
    if not isinstance(manifest, dict) or set(manifest) != names:
        raise ValueError(f"{_MANIFEST} does not name {', '.join(sorted(names))}")
    missing = [name for name in manifest if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing")
    for name, written in manifest.items():
        found = _file_checksum(folder / name)
        if found != written:
            raise ValueError(f"{name} has the size and checksum {found}, written was {written}")
    arrays = {
        # Plain arrays, because numba dispatches them faster than memmaps.
        name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
        for name in _array_names()
    }
    return ParaphraseTable(tuple((folder / _WORDS).read_bytes().decode().split("\n")), **arrays)


def _array_names() -> list[str]:
    return [field.name for field in fields(ParaphraseTable) if field.name != "words"]


def _file_checksum(path: Path) -> str:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _checksum(content)


def _checksum(content: bytes | mmap.mmap) -> str:
    return f"{len(content)} {zlib.crc32(content):08x}"
