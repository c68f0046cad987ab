"""What `longvale data stats` tells of a corpus, and the picture of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvale.data.statistics import (
    LENGTH_CLASSES,
    format_statistics,
    length_class,
    measure,
    read_splits,
    seconds_at_once,
    statistics_figure,
)
from longvale.events import Annotation, Event

#: 60 s: 10 s of nothing, 20 s of the first alone, 10 s of both, 20 s of the second alone.
VIDEO = Annotation(
    "v",
    60.0,
    (
        Event(10, 40, "A bell rings while a car passes.", ("visual", "audio"), "synchronicity"),
        Event(30, 60, "A dog barks.", ("audio",), "audio-only"),
    ),
)
OTHER = Annotation("w", 100.0, (Event(0, 5, "A voice says yes."), Event(20, 95, "A train.")))


def test_measurements():
    summary = measure([VIDEO, OTHER]).summary()
    assert (summary["videos"], summary["events"], summary["hours"]) == (2, 4, pytest.approx(160 / 3600))
    assert summary["video_length_s"] == {"mean": 80.0, "median": 80.0, "min": 60.0, "max": 100.0}
    assert summary["event_length_s"] == {"mean": 35.0, "median": 30.0, "min": 5, "max": 75}
    assert summary["event_length_classes"] == dict(zip(LENGTH_CLASSES, (1, 2, 0, 1), strict=True))
    assert summary["caption_words"]["max"] == 7
    assert summary["coverage"]["min"] == pytest.approx(0.8) and summary["coverage"]["max"] == pytest.approx(50 / 60)
    assert summary["seconds_at_once"] == {"0": 30.0, "1": 120.0, "2": 10.0}
    assert summary["overlap"] == pytest.approx(10 / 130)
    assert summary["relations"] == {"synchronicity": 1, "audio-only": 1}
    assert summary["modalities"] == {"visual": 1, "audio": 2}


def test_bounds_of_length_classes():
    assert [length_class(length) for length in (10, 10.01, 30, 60, 60.5)] == [
        LENGTH_CLASSES[i] for i in (0, 1, 1, 2, 3)
    ]


spans = st.tuples(st.floats(0, 90), st.floats(0.1, 30)).map(lambda pair: Event(pair[0], pair[0] + pair[1], ""))


@given(st.lists(spans, max_size=12))
def test_seconds_add_up_whatever_the_events(events):
    at_once = seconds_at_once(events, 100.0)
    assert sum(at_once.values()) == pytest.approx(100.0)
    inside = sum(min(event.end, 100.0) - event.start for event in events)
    assert sum(count * seconds for count, seconds in at_once.items()) == pytest.approx(inside, abs=1e-6)
    assert all(0 <= count <= len(events) for count in at_once)


def test_table_and_picture_without_events_or_relations():
    splits = {"train": measure([OTHER]), "$x$": measure([Annotation("e", 30.0)])}
    table = format_statistics(splits)
    assert "relations" in table and "not known" in table
    axes = statistics_figure(splits).axes
    assert [text.get_text() for text in axes[3].texts] == ["not known from these files"]


def test_the_picture_shows_the_numbers_with_units_and_in_black_and_white():
    figure = statistics_figure({"train": measure([VIDEO, OTHER]), "test": measure([VIDEO])})
    lengths, events, classes, relations, covered, at_once = figure.axes
    assert sum(bar.get_height() for bar in lengths.containers[0]) == pytest.approx(100)
    assert [bar.get_height() for bar in classes.containers[0]] == [25.0, 50.0, 0.0, 25.0]
    assert [label.get_text() for label in relations.get_yticklabels()] == ["synchronicity", "audio-only"]
    assert [bar.get_height() for bar in at_once.containers[1]] == pytest.approx([100 / 6, 400 / 6, 100 / 6, 0, 0])
    assert [axes.get_xlabel() for axes in (lengths, events, covered)] == ["seconds", "events", "% of the video"]
    assert {axes.get_ylabel() for axes in (lengths, classes, at_once)} == {"% of videos", "% of events", "% of time"}
    for axes in figure.axes:
        train, test = axes.containers
        assert (train[0].get_hatch() or "") != test[0].get_hatch()
        assert train[0].get_facecolor() != test[0].get_facecolor()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "train: 2 videos, 4 events",
        "test: 1 videos, 2 events",
    ]
    with pytest.raises(ValueError, match="one to 5 splits, not 6"):
        statistics_figure({str(i): measure([VIDEO]) for i in range(6)})


def test_command(longvale, tiny_corpus, tmp_path):
    result = longvale("data", "stats", tiny_corpus, "--output", tmp_path / "statistics")
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[:2] == ["train", "test"]
    told = json.loads((tmp_path / "statistics" / "statistics.json").read_text())
    assert {name: split["videos"] for name, split in told.items()} == {"train": 1, "test": 3}
    assert sum(told["test"]["relations"].values()) == told["test"]["events"]
    assert (tmp_path / "statistics" / "statistics.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "statistics" / "statistics.svg").read_bytes()
    one = read_splits(tiny_corpus / "longvale-annotations-eval.json")
    assert list(one) == ["longvale-annotations-eval"]
    assert longvale("data", "stats", tmp_path / "nowhere").exit_code == 2
