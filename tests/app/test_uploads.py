import os

import pytest

from longvale.app.limits import Limits
from longvale.app.sessions import Sessions, Video
from longvale.app.uploads import NoRoomError, Uploads


@pytest.fixture
def sessions():
    return Sessions()


@pytest.fixture
def uploads(tmp_path, sessions):
    return Uploads(tmp_path, Limits(size=10, total=25), sessions)


def store(uploads, name, size=10, age_s=0.0):
    path = uploads.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    for aged in (path, path.parent):
        os.utime(aged, (aged.stat().st_atime, aged.stat().st_mtime - age_s))
    return path


def test_there_is_room_for_so_much(uploads):
    store(uploads, "a/a.mp4")
    with uploads.receive(10), pytest.raises(NoRoomError), uploads.receive(6):  # the one that arrives counts, too
        pass
    with uploads.receive(15):
        pass
    store(uploads, "b/b.mp4")
    with pytest.raises(NoRoomError), uploads.receive(6):
        pass


def test_what_nobody_claims_makes_room(uploads, sessions):
    kept = store(uploads, "a/a.mp4", age_s=1000)
    sessions.choose("tab", Video(kept, "a.mp4", True))
    lost = store(uploads, "b/b.mp4", age_s=1000)
    with uploads.receive(10):
        assert kept.exists() and not lost.exists()


def test_what_is_torn_off_is_deleted_when_nothing_arrives(uploads):
    whole = store(uploads, "a/a.mp4")
    with uploads.receive(5):
        torn = uploads.folder / "tmp1"
        torn.write_bytes(b"x")
        with uploads.receive(5):
            pass
        assert torn.exists()  # it may be the one that still arrives
    assert not torn.exists() and whole.exists()


def test_clean_up_deletes_old_and_unclaimed_files(uploads, sessions):
    claimed, fresh = store(uploads, "a/a.mp4", age_s=1000), store(uploads, "b/b.mp4")
    store(uploads, "c/c.mp4", age_s=1000)
    sessions.choose("tab", Video(claimed, "a.mp4", True))
    uploads.clean_up()
    uploads.clean_up()
    assert claimed.exists() and fresh.exists() and not (uploads.folder / "c" / "c.mp4").exists()


def test_the_upload_of_a_tab_in_which_nothing_happens_is_deleted(uploads, sessions):
    path = store(uploads, "a/a.mp4")
    sessions.choose("tab", Video(path, "a.mp4", True))
    uploads.clean_up(idle_s=1000)
    assert path.exists()
    uploads.clean_up(idle_s=0)
    assert not path.exists() and len(sessions) == 0
