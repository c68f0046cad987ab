"""Files by their content."""

import os

import pytest

from longvale.system.checksums import file_identity, identities


def test_names_and_times_are_no_part_of_an_identity(tmp_path):
    first, second = tmp_path / "a.mp4", tmp_path / "b.mp4"
    first.write_bytes(b"one recording")
    second.write_bytes(b"one recording")
    os.utime(second, (0, 0))
    assert file_identity(first) == file_identity(second)
    second.write_bytes(b"two recording")
    os.utime(second, (0, 0))
    assert file_identity(first) != file_identity(second)


@pytest.mark.parametrize("place", [0, 4 << 20, -1])
def test_large_files_are_told_apart_by_their_ends_their_middle_and_their_size(tmp_path, place):
    path, content = tmp_path / "a.mp4", bytearray(9 << 20)
    path.write_bytes(content)
    before = file_identity(path)
    content[place] = 1
    if place == 4 << 20:  # another recording differs everywhere, and so in some block
        content[place : 6 << 20] = b"x" * (2 << 20)
    path.write_bytes(content)
    changed = file_identity(path)
    path.write_bytes(content + b"x")
    assert len({before, changed, file_identity(path)}) == 3


def test_what_cannot_be_read_has_no_identity(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a")
    os.mkfifo(tmp_path / "pipe.mp4")  # would be waited for
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    found = identities({name: tmp_path / f"{name}.mp4" for name in ("a", "pipe", "gone", "none")})
    assert list(found) == ["a"]
    with pytest.raises(FileNotFoundError, match="pipe"):
        file_identity(tmp_path / "pipe.mp4")
