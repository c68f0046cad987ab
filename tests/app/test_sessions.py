import os

from longvale.app.sessions import Sessions, Video


def upload(folder, name="a.mp4"):
    path = folder / name
    path.write_bytes(b"x")
    return Video(path, name, True, 1.0, None)


def test_uploads_are_deleted_with_their_session(tmp_path):
    sessions, video = Sessions(), upload(tmp_path)
    sessions.choose("tab", video)
    stop = sessions.get("tab").stop
    sessions.close("tab")
    assert stop.is_set() and not video.path.exists() and len(sessions) == 0
    sessions.close("tab")  # again, as browsers do


def test_another_video_deletes_the_one_before(tmp_path):
    sessions, first, second = Sessions(), upload(tmp_path, "a.mp4"), upload(tmp_path, "b.mp4")
    sessions.choose("tab", first)
    sessions.choose("tab", second)
    assert not first.path.exists() and second.path.exists()
    sessions.choose("tab", second)  # itself again
    assert second.path.exists()


def test_equal_uploads_of_two_visitors_are_one_file(tmp_path):
    sessions, video = Sessions(), upload(tmp_path)
    for tab in ("one", "two"):
        sessions.choose(tab, Video(video.path, "a.mp4", True, 1.0, None))
    sessions.close("one")
    assert video.path.exists()
    sessions.close("two")
    assert not video.path.exists()


def test_an_equal_upload_that_no_tab_has_named_yet_is_kept(tmp_path):
    sessions, video = Sessions(), upload(tmp_path)
    sessions.choose("one", video)
    os.utime(video.path, ns=(1, 1))  # it arrives again, for somebody else
    sessions.close("one")
    assert video.path.exists()
    sessions.choose("two", Video(video.path, "a.mp4", True, 1.0, None))
    sessions.close("two")
    assert not video.path.exists()


def test_examples_are_never_deleted(tmp_path):
    sessions, video = Sessions(), upload(tmp_path)
    sessions.choose("tab", Video(video.path, "a.mp4", False, 1.0, None))
    sessions.close("tab")
    assert video.path.exists()


def test_the_idlest_is_forgotten_when_there_are_too_many(tmp_path):
    sessions = Sessions(capacity=2)
    videos = {tab: upload(tmp_path, f"{tab}.mp4") for tab in "abc"}
    for tab in "ab":
        sessions.choose(tab, videos[tab])
    sessions.get("a")
    sessions.choose("c", videos["c"])
    assert [tab for tab in "abc" if videos[tab].path.exists()] == ["a", "c"]


def test_new_work_ends_the_old():
    sessions = Sessions()
    old = sessions.begin("tab").stop
    new = sessions.begin("tab").stop
    assert old.is_set() and not new.is_set()
