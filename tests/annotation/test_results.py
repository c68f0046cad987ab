import pytest
from annotated_stages import BOUNDARIES, EVENTS, TRACKS, write

from longvale.annotation.review.results import load_annotated
from longvale.events import Event


def test_what_was_found_and_where_it_comes_from(tmp_path):
    found = load_annotated(write(tmp_path / "out.stages"))["clip"]
    assert found.annotation.events == (
        Event(0.0, 22.5, "A <b>.", ("visual", "audio"), "causality"),
        Event(22.5, 32.0, "B."),
    )
    assert found.boundaries == {"visual": ((0.0, 22.5), (22.5, 32.0)), "audio": ((3.2, 9.6),), "speech": ()}
    assert found.sources == (
        (
            ("seen", "A ring."),
            ("heard", "A bell."),
            ("measured", "motion 3.2, colours grey and red"),
            ("relations", "causality"),
        ),
        (),
    )
    assert found.cuts == (22.5,)
    assert found.tracks == {"sounds": ((3.0, 9.0, "Bell"),), "text": ((1.0, 5.5, "THE <END>"),), "speakers": ()}


def test_a_run_that_goes_on_is_read_as_far_as_it_is(tmp_path):
    folder = write(tmp_path / "out.stages", events=(), captions=())
    with open(folder / "boundaries.jsonl", "a") as file:
        file.write('{"video_id": "next", "dur')
    (folder / "events.jsonl").unlink()
    assert {video_id: found.annotation.events for video_id, found in load_annotated(folder).items()} == {"clip": ()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boundaries": ({**BOUNDARIES, "duration": 0},)}, "boundaries.jsonl: line 1: duration must be above 0 s"),
        ({"boundaries": ({**BOUNDARIES, "audio": [[5, 2]]},)}, r"line 1: field 'audio' must hold \[start, end\]"),
        ({"boundaries": ({"video_id": "clip"},)}, "line 1: field 'duration' is missing"),
        ({"boundaries": ({**BOUNDARIES, "video_id": "../x"},)}, "must not hold a path"),
        ({"events": ({**EVENTS[0], "end": "late"},)}, "events.jsonl: line 1: end must be a finite number"),
        (
            {"tracks": ({**TRACKS[0], "spans": [{"start": 1}]},)},
            "tracks.jsonl: line 1: field 'spans' must hold objects",
        ),
        (
            {"tracks": ({**TRACKS[0], "spans": [{"start": 5, "end": 1, "text": ""}]},)},
            "line 1: field 'spans' must hold",
        ),
        ({"captions": ([1],)}, "captions.jsonl: line 1: field 'video_id' is missing"),
    ],
)
def test_damaged_stages_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_annotated(write(tmp_path / "out.stages", **change))
