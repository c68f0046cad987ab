"""Lanes of events on a time axis."""

from itertools import combinations

import numpy as np

from longvale.events import Annotation, Event
from longvale.plotting.timeline import Answered, Boundaries, TrackLane, timeline_figure

VIDEO = Annotation("v", 40.0, (Event(0, 10, "A bell."), Event(10, 30, "A $dog$\x00 barks.")))


def axes_texts(axes):
    return [text.get_text() for text in axes.texts]


def test_timeline_lanes():
    events = (
        Event(0, 10, "a", ("visual",)),
        Event(5, 20, "b", ("audio", "speech")),
        Event(6, 12, "c", ("audio",)),
    )
    annotation = Annotation("v", 30.0, events)
    figure = timeline_figure(annotation, Answered([Event(0, 9, "x")], {0: Event(0, 9, ""), 2: None}))
    top, bottom = figure.axes
    assert [label.get_text() for label in top.get_yticklabels()] == ["seen", "heard", "said", "predicted"]
    assert axes_texts(top) == ["1", "2", "3", "2", "P1"]
    assert len({(p.get_hatch(), p.get_facecolor()) for p in top.patches}) == 4  # each lane told by colour and hatching
    assert top.get_xlim() == (0, 30.0) and bottom.get_xlabel() == "seconds"
    assert [label.get_text() for label in bottom.get_yticklabels()] == ["1", "3"]
    assert any("no interval" in text for text in axes_texts(bottom))
    heard = [p for p in top.patches if p.get_hatch() == "///"]
    assert len({p.get_y() for p in heard}) == 2  # overlapping events do not cover each other


def test_timeline_without_modalities_has_one_lane():
    annotation = Annotation("v", 30.0, (Event(0, 10, "a"), Event(10, 20, "b")))
    (axes,) = timeline_figure(annotation).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["reference"]
    assert timeline_figure(Annotation("v", 30.0), Answered([])).axes


def test_runs_are_told_apart_without_colour():
    video = Annotation("v", 30.0, (Event(0, 10, "a"), Event(10, 20, "b")))
    letters = "ABCDEF"
    answered = Answered([Event(1, 9, "x")], {0: Event(0, 9, ""), 1: None})
    top, bottom = timeline_figure(video, dict.fromkeys(letters, answered)).axes
    assert [label.get_text() for label in top.get_yticklabels()] == ["reference", *letters]
    assert [text.get_text() for text in top.texts][2:] == [f"{letter}1" for letter in letters]
    bars = [patch for patch in bottom.patches if patch.get_y() < 0.5][1:7]
    looks = {(patch.get_hatch(), patch.get_facecolor()) for patch in bars}
    assert len({hatch for hatch, _ in looks}) == 6
    assert sum("no interval" in text.get_text() for text in bottom.texts) == 6


def test_captions_are_listed_as_they_are():
    figure = timeline_figure(VIDEO, Answered([Event(0, 10, "word " * 60)]), captions=True)
    _, left, right = figure.axes
    assert [text.get_text() for text in left.texts] == ["1", "0.0-10.0 s A bell.", "2", "10.0-30.0 s A $dog$ barks."]
    assert not any(text.get_parse_math() for text in left.texts[1::2])
    number, *lines = [text.get_text() for text in right.texts]
    assert number == "P1" and len(lines) == 3 and lines[2].endswith("word ...") and max(map(len, lines)) <= 68


def test_long_lines_end_before_the_next_column_and_the_edge():
    captions = ("WWW MMM HE SAYS " * 20, "Ww mm word " * 30, "a few lower words " * 20)
    video = Annotation("v", 40.0, tuple(Event(n, n + 1, caption) for n, caption in enumerate(captions)))
    figure = timeline_figure(video, Answered([Event(0, 10, caption) for caption in captions]), captions=True)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for axes in figure.axes[1:] for text in axes.texts]
    assert len(boxes) == 6 + 6 * 3
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_no_two_numbers_of_many_events_overlap():
    """59 short events in a row, and some at the edges: numbers are wider than bars."""
    rng = np.random.default_rng(0)
    starts = np.sort(rng.uniform(0, 598, 57))
    spans = [(0.0, 0.1), *zip(starts, starts + rng.uniform(0.5, 2, 57), strict=True), (599.9, 600.0)]
    figure = timeline_figure(Annotation("v", 600.0, tuple(Event(a, b, "A $5 bell.") for a, b in spans)), captions=True)
    figure.draw_without_rendering()
    axes, left, right = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts if text.get_text() in ("1", "59")] == ["1", "59"] and len(
        boxes
    ) == 59
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    frame = axes.get_window_extent()
    assert all(frame.x0 - 1 <= box.x0 and box.x1 <= frame.x1 + 1 for box in boxes)
    assert [len(column.texts) // 2 for column in (left, right)] == [30, 29]


def test_boundaries_lie_above_the_events_and_pictures_above_all():
    boundaries = Boundaries({"visual": [(0, 20), (20, 40)], "audio": [[5, 9], [7, 12]], "speech": []}, (20.0,))
    frames = np.zeros((16, 9, 16, 3), np.uint8)
    strip, axes = timeline_figure(VIDEO, frames=frames, boundaries=boundaries, title="$v$").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["seen", "heard", "said", "events"]
    assert axes.get_title(loc="left") == "$v$" and [text.get_text() for text in axes.texts] == ["1", "2"]
    assert len({bar.get_y() for bar in axes.patches}) == 4  # sounds that overlap lie in two rows
    assert [line.get_xdata()[0] for line in axes.lines if line.get_color() == "black"] == [20.0]
    assert [tuple(image.get_extent()[:2]) for image in strip.images] == [(n * 2.5, n * 2.5 + 2.5) for n in range(16)]


def test_tracks_lie_under_the_lane_of_their_modality():
    events = (Event(0, 10, "a", ("visual", "audio")), Event(10, 40, "b", ("speech",)))
    text = TrackLane("text", "visual", [Event(1, 4, "STOP"), Event(4.1, 4.2, "$GO\x00"), Event(4.3, 4.4, "END")], True)
    tracks = [text, TrackLane("A label that is much too long", "audio", [Event(0, 5, "x")])]
    tracks.append(TrackLane("speaker 1", "speech", [Event(10, 20, "speaker 1")]))
    figure = timeline_figure(Annotation("v", 40.0, events), captions=True, tracks=tracks)
    axes, _, right = figure.axes
    names = ["seen", "text", "heard", "A label that is...", "said", "speaker 1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert [text.get_text() for text in right.texts] == [
        "t1",
        "1.0-4.0 s STOP",
        "t2",
        "4.1-4.2 s $GO",
        "t3",
        "4.3-4.4 s END",
    ]
    assert len({patch.get_facecolor() for patch in axes.patches}) == 6  # lighter than the lane above
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 6 and not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    (plain,) = timeline_figure(Annotation("v", 40.0, (Event(0, 10, "a"),)), tracks=tracks[2:]).axes
    assert [label.get_text() for label in plain.get_yticklabels()] == ["reference", "speaker 1"]
