from types import SimpleNamespace

from longvale.annotation.tracks import Span
from longvale.annotation.tracks.finding import find_track


def test_spans_end_with_the_video_and_later_ones_are_left_out():
    reader = SimpleNamespace(duration=60.13968253968254)
    heard = [Span(2.0, 60.5, "Music"), Span(60.2, 60.5, "Dog")]
    assert find_track(lambda *_: heard, reader, [], {}) == ([Span(2.0, 60.14, "Music")], "")
