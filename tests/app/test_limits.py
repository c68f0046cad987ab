import pytest

from longvale.app.limits import Limits


def test_what_is_taken(clips):
    for name in ("clip.mp4", "silent.mp4", "sound.m4a"):
        Limits().check(clips / name)


@pytest.mark.parametrize(
    ("name", "limits", "message"),
    [
        ("huge.mp4", Limits(), "huge.mp4: is 2048 MB large, the limit is 500 MB; cut or compress it"),
        ("clip.mp4", Limits(length=10), "clip.mp4: lasts 32 s, the limit is 10 s; cut out the part you need"),
        ("text.mp4", Limits(), "text.mp4: not a media file"),
        ("notes.txt", Limits(), "notes.txt: files ending in .mp4, .mov"),
    ],
)
def test_what_is_refused_and_why(clips, name, limits, message):
    with pytest.raises(ValueError) as error:
        limits.check(clips / name)
    assert str(error.value).startswith(message)
    assert str(clips) not in str(error.value)  # visitors are not told where their files lie


def test_limits_for_people():
    assert Limits(size=8 * 2**20, length=60).sentence == "Up to 8 MB and 60 seconds."
    assert Limits(size=8).stored == 80 and Limits(size=8, total=8).stored == 8
    with pytest.raises(ValueError, match="raise --max-total or lower --max-size"):
        Limits(size=8, total=7)
    for wrong in ({"size": 0}, {"length": 0}, {"length": float("nan")}):
        with pytest.raises(ValueError, match="limit must be"):
            Limits(**wrong)
