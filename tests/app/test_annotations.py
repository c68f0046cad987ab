import json

import pytest

from longvale.app.annotations import load_annotated
from longvale.app.server import choose_examples
from longvale.app.timeline import describe_annotation
from longvale.events import Event

BOUNDARIES = {
    "video_id": "clip",
    "duration": 32.0,
    "cuts": [22.5],
    "visual": [[0.0, 22.5], [22.5, 32.0]],
    "audio": [[3.2, 9.6]],
    "speech": [],
    "events": [[0.0, 22.5], [22.5, 32.0]],
}
EVENTS = [
    {
        "video_id": "clip",
        "event_id": 1,
        "start": 22.5,
        "end": 32.0,
        "caption": "B.",
        "modalities": [],
        "relation": None,
    },
    {
        "video_id": "clip",
        "event_id": 0,
        "start": 0.0,
        "end": 22.5,
        "caption": "A <b>.",
        "modalities": ["visual", "audio"],
        "relation": "causality",
        "relations": ["causality"],
        "refused": None,
    },
]
CAPTIONS = [
    {
        "video_id": "clip",
        "event_id": 0,
        "captions": {"video": "A ring.", "audio": "A bell.", "speech": ""},
        "measured": {"motion": 3.2, "colours": ["grey", "red"]},
    }
]


def write(folder, boundaries=(BOUNDARIES,), events=tuple(EVENTS), captions=tuple(CAPTIONS)):
    folder.mkdir(exist_ok=True)
    for name, lines in (("boundaries", boundaries), ("events", events), ("captions", captions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


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
    described = json.loads(json.dumps(describe_annotation(found)))
    assert described["events"][0]["sources"][1] == ["heard", "A bell."] and len(described["files"]) == 5


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
        ({"captions": ([1],)}, "captions.jsonl: line 1: field 'video_id' is missing"),
    ],
)
def test_damaged_stages_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_annotated(write(tmp_path / "out.stages", **change))


def test_annotated_videos_are_offered(tmp_path, clips):
    stages = write(tmp_path / "out.stages")
    videos, annotated = choose_examples(clips, stages)
    assert [path.name for path in videos] == ["clip.mp4"] and set(annotated) == {"clip"}
    with pytest.raises(ValueError, match="give the folder of its videos, too"):
        choose_examples(None, stages)
    with pytest.raises(FileNotFoundError, match=r"NAME\.stages"):
        choose_examples(clips, tmp_path)
    with pytest.raises(FileNotFoundError, match="holds none of the videos"):
        choose_examples(
            clips, write(tmp_path / "b.stages", boundaries=({**BOUNDARIES, "video_id": "other"},), events=())
        )
