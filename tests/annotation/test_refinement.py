"""Check, Label Studio there and back, and agreement."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvale.annotation.review.agreement import agree, kappa
from longvale.annotation.review.check import check_annotations, check_video
from longvale.annotation.review.label_studio import export_tasks, import_tasks, to_frames, to_seconds
from longvale.annotation.stages import StageLog
from longvale.events import Annotation, Event, load_annotations, save_annotations
from longvale.io import load_json

EVENTS = (Event(0.0, 12.34, "A dog runs."), Event(12.34, 20.01, "A bell rings."), Event(40.0, 60.0, "Rain falls."))


@pytest.fixture
def annotated(tmp_path):
    """An annotation file with stages beside it."""
    path = tmp_path / "out.json"
    save_annotations({"a": Annotation("a", 60.0, EVENTS)}, path)
    stages = tmp_path / "out.stages"
    stages.mkdir()
    (stages / "videos.jsonl").write_text('{"video_id": "a", "file": "a b.mkv"}\n')
    modalities = (["visual"], ["visual"], ["visual", "audio"])
    with (stages / "captions.jsonl").open("w") as captions, (stages / "events.jsonl").open("w") as events:
        for index, event in enumerate(EVENTS):
            head = {"video_id": "a", "event_id": index, "start": event.start, "end": event.end}
            captions.write(
                json.dumps({**head, "modalities": modalities[index], "measured": {"brightness": 0.5}}) + "\n"
            )
            relation = "visual-only" if index < 2 else None
            events.write(
                json.dumps({**head, "relation": relation, "refused": "no JSON" if index == 2 else None}) + "\n"
            )
    cuts = [13.0, 14.0, 15.0, 16.0, 17.0]
    (stages / "boundaries.jsonl").write_text(json.dumps({"video_id": "a", "cuts": cuts}) + "\n")
    return path


def test_what_to_look_at_first(annotated, longvale):
    flags = check_annotations(annotated)
    assert [(flag.event_id, set(flag.reasons)) for flag in flags] == [
        (2, {"refused", "sound not mentioned"}),
        (1, {"low coherence"}),
        (None, {"hole"}),
    ]
    assert (flags[2].start, flags[2].end) == (20.01, 40.0)
    listing = annotated.with_name("flags.jsonl")
    shown = longvale("annotate", "check", annotated, "--top", 1, "--output", listing).stdout
    assert shown.startswith("3 to look at, the first 1:\n 1.6  a event 2 40.0-60.0 s: refused")
    assert len(listing.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("caption", "modalities", "reason"),
    [("A loud bark is heard.", [], "silence described as sound"), ("A dog.", ["audio"], "sound not mentioned")],
)
def test_captions_that_contradict_what_was_measured(annotated, caption, modalities, reason):
    save_annotations({"a": Annotation("a", 60.0, (Event(0, 60, caption),))}, annotated)
    record = {"video_id": "a", "event_id": 0, "start": 0, "end": 60, "modalities": modalities, "measured": {}}
    (annotated.with_suffix(".stages") / "captions.jsonl").write_text(json.dumps(record) + "\n")
    assert reason in check_annotations(annotated)[0].reasons


SILENT, QUIET, SEEN = {"loudness_db": -80.0}, {"loudness_db": -45.0}, {"brightness": 0.5}


def reasons_of(annotated, caption, modalities, measured, captions=()):
    """What is flagged of one event."""
    save_annotations({"a": Annotation("a", 60.0, (Event(0, 60, caption),))}, annotated)
    record = {"video_id": "a", "event_id": 0, "start": 0, "end": 60, "modalities": modalities, "measured": measured}
    record["captions"] = dict(captions)
    (annotated.with_suffix(".stages") / "captions.jsonl").write_text(json.dumps(record) + "\n")
    return [reason for flag in check_annotations(annotated) for reason in flag.reasons]


@pytest.mark.parametrize(
    ("caption", "modalities", "measured"),
    [
        ("The picture is mid-toned. A stone under a cloud, a singular essay.", ["visual"], SILENT | SEEN),  # tone, loud
        ("A quiet tone of about 117 Hz is heard.", ["visual"], QUIET | SEEN),  # below what counts as an event's sound
        ("A man walks. No sound is heard.", ["visual"], SILENT | SEEN),
        ("A child plays in the sand.", ["visual"], SILENT | SEEN),
        ("Nothing can be seen or heard.", [], SILENT),
        ("An orchestra performs, then the crowd applauds.", ["visual", "audio"], QUIET | SEEN),
        ("A picture of a man is not shown; music plays.", ["audio"], QUIET),
    ],
)
def test_words_that_contradict_nothing(annotated, caption, modalities, measured):
    assert reasons_of(annotated, caption, modalities, measured) == []


def test_what_is_said_is_in_the_caption_as_it_was_written_down(annotated):
    captions = {"video": "A man.", "speech": "My fellow Americans."}
    assert reasons_of(annotated, "A man. My fellow Americans.", ["visual", "speech"], QUIET | SEEN, captions) == []
    assert reasons_of(annotated, "A man.", ["visual", "speech"], QUIET | SEEN, captions) == ["sound not mentioned"]


@pytest.mark.parametrize(
    ("captioner", "flagged"), [("template of measurements (video)", False), ("clip-captioner (video)", True)]
)
def test_templates_are_alike_without_anything_being_wrong(tmp_path, captioner, flagged):
    seen, output = "A moving picture of grey is seen.", tmp_path / "out.json"
    events = tuple(Event(10.0 * i, 10.0 * i + 9, f"{seen} {said}") for i, said in enumerate(("Yes.", "No.")))
    save_annotations({"a": Annotation("a", 20.0, events)}, output)
    stages = tmp_path / "out.stages"
    stages.mkdir()
    (stages / "settings.json").write_text(json.dumps({"captioners": {"video": captioner, "speech": "whisper"}}))
    with (stages / "captions.jsonl").open("w") as file:
        for index, event in enumerate(events):
            head = {"video_id": "a", "event_id": index, "start": event.start, "end": event.end}
            told = {"captions": {"video": seen, "speech": event.caption.removeprefix(seen).strip()}}
            file.write(json.dumps({**head, **told, "modalities": ["visual", "speech"], "measured": SEEN}) + "\n")
    assert any("near-duplicate" in flag.reasons for flag in check_annotations(output)) == flagged


def test_what_a_model_said_twice_beside_templates_is_a_duplicate(tmp_path):
    event = Event(0, 9, "A red picture. We are closed."), Event(9, 20, "A moving picture of blue. We are closed.")
    told = [
        {"video_id": "a", "event_id": i, "start": e.start, "end": e.end, "modalities": ["visual", "speech"],
         "measured": SEEN, "captions": {"video": e.caption.partition(".")[0] + ".", "speech": "We are closed."}}
        for i, e in enumerate(event)
    ]  # fmt: skip
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    stages = {"captions": StageLog(tmp_path / "captions.jsonl", ("video_id", "event_id"))}
    flags = check_video(Annotation("a", 20.0, event), stages, ["video"])
    assert [(flag.event_id, flag.reasons) for flag in flags] == [(1, ("near-duplicate",))]


def test_many_cuts_are_of_note_where_the_video_has_few(annotated):
    log = annotated.with_suffix(".stages") / "boundaries.jsonl"
    assert any("low coherence" in flag.reasons for flag in check_annotations(annotated))
    log.write_text(json.dumps({"video_id": "a", "cuts": [float(second) for second in range(1, 60, 2)]}) + "\n")
    assert not any("low coherence" in flag.reasons for flag in check_annotations(annotated))


def test_without_stages_what_can_be_known_is_flagged(tmp_path):
    path = tmp_path / "official.json"
    save_annotations({"a": Annotation("a", 100.0, (Event(0, 70, "A dog runs."), Event(70, 100, "A dog runs")))}, path)
    assert {flag.event_id: flag.reasons for flag in check_annotations(path)} == {
        0: ("very long",),
        1: ("near-duplicate",),
    }


def export(annotated):
    output = annotated.with_name("tasks.json")
    export_tasks(annotated, output, videos_url="/data/local-files/?d=videos", fps=25.0)
    return load_json(output)


def submitted(tasks, change=lambda result: result, by=7, at="2026-01-01T00:00:00Z"):
    """What Label Studio exports when a person submits the predictions, changed."""
    result = change([dict(item) for item in tasks[0]["predictions"][0]["result"]])
    work = {"id": 1, "completed_by": by, "updated_at": at, "was_cancelled": False, "result": result}
    return [{"id": 3, "data": tasks[0]["data"], "annotations": [work]}]


def bring_back(annotated, exported, **options):
    path = annotated.with_name("export.json")
    path.write_text(json.dumps(exported))
    _, changes = import_tasks(path, annotated, annotated.with_name("new.json"), **options)
    lines = [json.loads(line) for line in changes.read_text().splitlines()]
    return load_annotations(annotated.with_name("new.json"))["a"], lines


def test_the_export_is_what_label_studio_reads(annotated, longvale):
    output = annotated.with_name("tasks.json")
    result = longvale("annotate", "export", annotated, "--to", "label-studio", "--output", output)
    assert result.exit_code == 0, result.stderr
    (task,) = load_json(output)
    assert task["data"]["video"] == "/data/local-files/?d=videos/a%20b.mkv" and task["data"]["fps"] == 25.0
    first, text, relation = task["predictions"][0]["result"][:3]
    assert first == {
        "id": "e0",
        "from_name": "events",
        "to_name": "video",
        "type": "timelinelabels",
        "value": {"ranges": [{"start": 1, "end": 309}], "timelinelabels": ["event"]},
    }
    assert text["type"] == "textarea" and text["value"]["text"] == ["A dog runs."] and text["id"] == "e0"
    assert relation["value"]["choices"] == ["visual-only"]
    config = output.with_suffix(".xml").read_text()
    for part in (
        '<Video name="video" value="$video" frameRate="$fps"/>',
        '<Label value="event"/>',
        "temporal association",
    ):
        assert part in config


def test_what_nobody_changed_comes_back_to_the_last_digit(annotated):
    made, changes = bring_back(annotated, submitted(export(annotated)))
    assert made.events == EVENTS and changes == []


def test_who_changed_what_is_kept(annotated):
    def change(result):
        result[0]["value"] = {**result[0]["value"], "ranges": [{"start": 26, "end": 309}]}  # from 1 s on
        result[1]["value"] = {**result[1]["value"], "text": ["A cat runs."]}
        added = [
            {
                "id": "Xy",
                "from_name": "events",
                "type": "timelinelabels",
                "value": {"ranges": [{"start": 751, "end": 875}]},
            },
            {"id": "Xy", "from_name": "caption", "type": "textarea", "value": {"text": ["A car", "stops."]}},
        ]
        return [item for item in result if item["id"] != "e2"] + added

    made, changes = bring_back(
        annotated, submitted(export(annotated), change, by={"id": 7, "email": "ann@example.org"})
    )
    assert [(e.start, e.end, e.caption) for e in made.events] == [
        (1.0, 12.34, "A cat runs."),
        (12.34, 20.01, "A bell rings."),
        (30.0, 35.0, "A car stops."),
    ]
    assert [(c["event_id"], c["kind"], c["by"]) for c in changes] == [
        (0, "moved", "ann@example.org"),
        (0, "reworded", "ann@example.org"),
        (None, "added", "ann@example.org"),
        (2, "removed", "ann@example.org"),
    ]
    assert changes[0]["before"]["start"] == 0.0 and changes[0]["after"]["start"] == 1.0


def test_of_several_people_the_latest_or_the_one_asked_for_counts(annotated):
    tasks = export(annotated)

    def word(text):
        return lambda result: [
            {**i, "value": {**i["value"], "text": [text]}} if i["type"] == "textarea" else i for i in result
        ]

    exported = submitted(tasks, word("First."), by=1, at="2026-01-01")
    exported[0]["annotations"] += submitted(tasks, word("Second."), by=2, at="2026-01-02")[0]["annotations"]
    assert bring_back(annotated, exported)[0].events[0].caption == "Second."
    assert bring_back(annotated, exported, annotator="1")[0].events[0].caption == "First."
    assert bring_back(annotated, exported, annotator="3")[0].events == EVENTS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: [{**r[0], "value": {"ranges": [{"start": 0, "end": 5}]}}, r[1]], "one range of frames from 1 on"),
        (lambda r: [{**r[0], "value": {"ranges": [{"start": 9, "end": 5}]}}, r[1]], "start after end, frames 9 to 5"),
        (lambda r: [r[0]], "has no caption"),
        (lambda r: [r[1]], "has no range"),
        (lambda r: [*r[:2], {**r[2], "value": {"choices": ["magic"]}}], "relation 'magic' is not one of"),
        (lambda r: ["x"], "no result that is a list of regions"),
        (lambda r: [{**r[0], "id": None}, r[1]], "a region has no id"),
        (lambda r: [r[0], {**r[1], "value": {"text": [5]}}], "'e0': caption must be a text, not \\[5\\]"),
        (lambda r: [*r[:2], {**r[2], "value": {"choices": 5}}], "relation 5 is not one of"),
        (
            lambda r: [{**r[0], "value": {"ranges": [{"start": 1501, "end": 1600}]}}, r[1]],
            r"region 'e0' \('A dog runs.'\) begins at 60.0 s, but the video ends at 60.0 s; move or remove it",
        ),
    ],
)
def test_wrong_exports_are_named(annotated, change, message):
    with pytest.raises(ValueError, match=rf"export.json: task 3: .*{message}"):
        bring_back(annotated, submitted(export(annotated), change))
    assert not annotated.with_name("new.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"data": "a"},
        {"data": {"video_id": ["a"], "fps": 25}},
        {"data": {"video_id": "a", "fps": "25"}},
        {"annotations": 5},
    ],
)
def test_tasks_of_odd_types_are_named(annotated, change):
    with pytest.raises(ValueError, match=r"export.json: task 3: "):
        bring_back(annotated, [{**submitted(export(annotated))[0], **change}])


def test_what_is_neither_a_range_nor_of_one_is_left_out_and_counted(annotated, caplog):
    others = [
        {"type": "relation", "from_id": "e0", "to_id": "e1", "direction": "right"},
        {"type": "relation", "from_id": "e1", "to_id": "e2", "direction": "right", "value": 5},
        {"id": "q", "from_name": "quality", "type": "choices", "value": {"choices": ["good"]}},
        {"id": "q2", "from_name": "relation", "type": "choices", "value": {"choices": ["causality"]}},
        {"id": 9, "from_name": ["?"], "type": None, "value": {"number": 4}},
        {"id": "box", "from_name": "box", "type": "videorectangle", "value": {"sequence": [{"frame": 3}]}},
        {"id": "box", "from_name": "events", "type": "timelinelabels", "value": {"sequence": [], "ranges": []}},
        {"id": "box", "from_name": "caption", "type": "textarea", "value": {"text": ["A red box."]}},
    ]
    made, changes = bring_back(annotated, submitted(export(annotated), lambda result: result + others))
    assert made.events == EVENTS and changes == []
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "relation: 1 None, 1 caption without a range, 1 choices, 2 relation, 1 relation without a range, "
        "1 timelinelabels, 1 videorectangle"
    )


def test_of_several_tasks_of_a_video_the_latest_work_counts(annotated):
    tasks = export(annotated)

    def moved(frame):
        return lambda result: [{**result[0], "value": {"ranges": [{"start": frame, "end": 309}]}}, *result[1:]]

    early, late = "2026-01-02T00:30:00+02:00", "2026-01-01T23:00:00.5Z"  # the text of the earlier sorts last
    exported = submitted(tasks, moved(51), at=late) + submitted(tasks, moved(26), by=8, at=early)
    for order in (exported, exported[::-1]):
        made, changes = bring_back(annotated, order)
        assert made.events[0].start == 2.0 and [c["by"] for c in changes] == ["7"]
    assert bring_back(annotated, exported, annotator="8")[0].events[0].start == 1.0
    exported[0]["annotations"][0]["updated_at"] = None
    assert bring_back(annotated, exported)[0].events[0].start == 1.0


def test_a_region_that_ends_after_the_video_is_cut_and_named(annotated, caplog):
    def longer(result):
        result[-2]["value"] = {"ranges": [{"start": 1001, "end": 1600}]}
        return result

    made, changes = bring_back(annotated, submitted(export(annotated), longer))
    assert made.events == EVENTS and changes == []
    assert "task 3: region 'e2' ends at 64.0 s; cut at the video's end, 60.0 s" in caplog.text


@given(st.floats(0, 3600), st.floats(0.01, 600), st.sampled_from([8.0, 24.0, 25.0, 29.97, 60.0]))
def test_frames_are_within_a_frame_of_the_seconds(start, length, fps):
    first, last = to_frames(start, start + length, fps)
    a, b = to_seconds(first, last, fps)
    assert 1 <= first <= last and a <= start + 1e-3
    assert abs(a - start) <= 1 / fps + 1e-3 and abs(b - (start + length)) <= 1 / fps + 1e-3


def test_agreement(annotated, longvale):
    same = {"a": Annotation("a", 60.0, (Event(0, 10, "x", (), "causality"), Event(10, 30, "y", (), "visual-only")))}
    assert agree(same, same) == {
        "videos": 1, "events": [2, 2], "f1": dict.fromkeys((0.3, 0.5, 0.7, 0.9), 1.0), "kappa": 1.0, "pairs": 2,
    }  # fmt: skip
    moved = {"a": Annotation("a", 60.0, (Event(0, 14, "x", (), "causality"), Event(14, 30, "y", (), "causality")))}
    found = agree(same, moved)
    assert found["f1"] == {0.3: 1.0, 0.5: 1.0, 0.7: 1.0, 0.9: 0.0} and found["kappa"] == 0.0
    with pytest.raises(ValueError, match="share no video"):
        agree(same, {})
    assert kappa([]) is None and kappa([("causality", "causality")]) is None
    result = longvale("annotate", "agreement", annotated, annotated)
    assert "F1 at temporal IoU 0.9: 1.000" in result.stdout and "(2 pairs)" in result.stdout
