"""The resumable log: what a kill leaves, what is repeated, and settings that differ."""

import errno
import io
import json
import threading

import pytest

from longvale.run_log import RunLog, check_folder, claim, find_difference, fingerprint, load_settings
from longvale.system.locks import hold, lock_path


def open_log(path, **options):
    return RunLog(path, lambda record: record["id"], **options)


def test_records_are_found_by_key_and_written_at_once(tmp_path):
    path = tmp_path / "log.jsonl"
    log = open_log(path)
    log.add({"id": "a", "n": 1}, {"id": "é", "n": 2})
    assert path.read_text() == '{"id": "a", "n": 1}\n{"id": "\\u00e9", "n": 2}\n'
    assert open_log(path).records == log.records == {"a": {"id": "a", "n": 1}, "é": {"id": "é", "n": 2}}
    with pytest.raises(ValueError, match=r"log\.jsonl: 'a' is there already"):
        log.add({"id": "b"}, {"id": "a", "n": 1})
    with pytest.raises(ValueError, match=r"log\.jsonl: 'b' is there already"):
        log.add({"id": "b", "n": 1}, {"id": "b", "n": 2})
    assert "b" not in log.records and len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("rest", [b'{"id": "b", "n', b'{"id": "b", "n": 3}', b"\xc3"])
def test_an_incomplete_last_line_is_ignored_and_overwritten_by_the_next_record(tmp_path, rest):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"id": "a"}\n' + rest)
    log = open_log(path)
    assert list(log.records) == ["a"] and path.read_bytes().endswith(rest)  # another run may be writing it
    log.add({"id": "c"})
    log.add({"id": "d"})
    assert path.read_bytes() == b'{"id": "a"}\n{"id": "c"}\n{"id": "d"}\n'


def test_lines_of_another_run_are_kept(tmp_path):
    log = open_log(tmp_path / "log.jsonl")
    log.add({"id": "a"})
    open_log(tmp_path / "log.jsonl").add({"id": "b"})
    log.add({"id": "c"})
    assert list(open_log(tmp_path / "log.jsonl").records) == ["a", "b", "c"]


def test_what_a_full_disk_leaves_of_a_line_is_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    log = open_log(path)
    log.add({"id": "a"})
    original = type(path).open

    class Full(io.BufferedWriter):
        def write(self, content):
            super().write(content[:5])
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(self, *arguments, **options):
        file = original(self, *arguments, **options)
        return Full(file.detach()) if "a" in file.mode else file

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "open", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*log\.jsonl'"):
            log.add({"id": "b"})
    assert path.read_bytes() == b'{"id": "a"}\n{"id"'
    log.add({"id": "b"})
    assert list(open_log(path).records) == ["a", "b"] and path.read_bytes() == b'{"id": "a"}\n{"id": "b"}\n'


def test_repeated_keys(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"id": "a", "n": 1}\n\n{"id": "a", "n": 1}\n')  # of two runs at once
    assert len(open_log(path).records) == 1
    with path.open("a") as file:
        file.write('{"id": "a", "n": 2}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl: line 4: repeats 'a' with another value; delete the line"):
        open_log(path)
    latest = open_log(path, same=None)
    assert latest.records["a"]["n"] == 2
    latest.add({"id": "a", "n": 3})
    assert open_log(path, same=None).records == {"a": {"id": "a", "n": 3}}
    assert open_log(path, same=lambda before, now: True).records["a"]["n"] == 3


def test_a_log_is_merged_once_and_only_with_the_same_records(tmp_path):
    log, part = open_log(tmp_path / "log"), open_log(tmp_path / "part")
    log.add({"id": "a", "n": 1})
    part.add({"id": "b", "n": 2}, {"id": "a", "n": 1})
    log.merge(open_log(tmp_path / "part"))
    assert list(open_log(tmp_path / "log").records) == ["a", "b"] and not (tmp_path / "part").exists()
    (tmp_path / "part").write_text('{"id": "a", "n": 9}\n')
    with pytest.raises(ValueError, match=r"part: repeats 'a' with another value than .*log; delete one of them"):
        log.merge(open_log(tmp_path / "part"))
    assert (tmp_path / "part").exists()


def test_a_log_is_rewritten_in_an_order(tmp_path):
    (tmp_path / "log").write_bytes(b'{"id": "b"}\n{"id": "a"}\n{"id"')
    log = open_log(tmp_path / "log")
    log.write(sorted(log.records.values(), key=lambda record: record["id"]))
    log.add({"id": "c"})
    assert (tmp_path / "log").read_bytes() == b'{"id": "a"}\n{"id": "b"}\n{"id": "c"}\n'


def test_threads_do_not_mix_their_lines(tmp_path):
    log = open_log(tmp_path / "log")
    threads = [
        threading.Thread(target=lambda i=i: [log.add({"id": f"{i}-{n}", "x": "y" * 999}) for n in range(40)])
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(open_log(tmp_path / "log").records) == 160


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        ({"model": "a"}, {"model": "b"}, "model 'a', not 'b'"),
        ({"model": "a"}, {"model": "a", "server": "s"}, "server None, not 's'"),
        ({"model": "a", "server": "s"}, {"model": "a"}, "server 's', not None"),
        ({"options": {"size": {"w": 1, "h": 2}}}, {"options": {"size": {"w": 1, "h": 3}}}, "options.size.h 2, not 3"),
        ({"options": {"size": 1}}, {"options": None}, "options {'size': 1}, not None"),
        ({"options": {"limit": None}, "x": None}, {"options": {}}, None),  # of an earlier version
        ({"seconds": 1}, {"seconds": 2}, None),
    ],
)
def test_the_first_difference_of_settings_is_named(tmp_path, before, now, difference):
    assert find_difference(before, now, ["seconds"]) == difference
    path = tmp_path / "new" / "settings.json"
    assert claim(path, before) == before
    written = path.read_bytes()
    if difference is None:
        assert claim(path, now, recorded=["seconds"]) == before
    else:
        with pytest.raises(ValueError) as refused:
            claim(path, now, remedy="do this", recorded=["seconds"])
        assert str(refused.value) == f"{path}: was made with {difference}; do this"
    assert path.read_bytes() == written


def test_settings_are_compared_as_json_and_long_values_are_shortened(tmp_path):
    path = tmp_path / "settings.json"
    claim(path, {"epochs": (1, 2)})
    assert claim(path, {"epochs": [1, 2]}) == {"epochs": [1, 2]}
    with pytest.raises(ValueError) as refused:
        claim(path, {"epochs": ["x" * 1000]})
    assert len(str(refused.value)) < 300 + len(str(path))
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"settings\.json: must be an object of settings; copy it again"):
        load_settings(path)


def test_fingerprints_tell_contents_apart():
    assert fingerprint("a") == fingerprint(b"a") != fingerprint("b")
    assert fingerprint("\ud83d") == fingerprint("?")  # half of a character, which UTF-8 cannot hold


def test_a_folder_with_other_files_is_refused_but_not_one_with_a_lock(tmp_path):
    check_folder(tmp_path / "new", "settings.json")
    with hold(tmp_path, "work", work="test"):
        assert lock_path(tmp_path, "work").exists()
        check_folder(tmp_path, "settings.json")
    (tmp_path / "notes.txt").touch()
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match="is not an empty directory and not of an earlier run; give another"):
            check_folder(path, "settings.json")
    (tmp_path / "settings.json").write_text(json.dumps({}))
    check_folder(tmp_path, "settings.json")
