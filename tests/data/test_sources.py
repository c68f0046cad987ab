"""What `longvale annotate` leaves, read as a data set: by file and by folder, with modalities and relations."""

import json

import datasets
import pytest

from longvale.annotation.dialogues import make_dialogues
from longvale.data.publish.prepare import prepare
from longvale.data.sources import annotation_file, annotation_files, load_videos
from longvale.data.statistics import measure, read_splits
from longvale.evaluation.generation.generate import load_questions
from longvale.evaluation.reporting.plot import find_video
from longvale.events import Annotation, Event, save_annotations

EVENTS = (
    Event(0.0, 4.5, "A red picture, a bell.", ("visual", "audio"), "causality"),
    Event(4.5, 9.0, "A blue picture.", ("visual",), "visual-only"),
)


def write_output(path, events=EVENTS, video_id="a"):
    """The files of `longvale annotate --output path` that others read."""
    save_annotations({video_id: Annotation(video_id, 9.0, events)}, path)
    path.with_suffix(".provenance.json").write_text("{}")
    path.with_suffix(".stages").mkdir()
    with (path.with_suffix(".stages") / "events.jsonl").open("w") as file:
        for index, event in enumerate(events):
            line = {"video_id": video_id, "event_id": index, "start": event.start, "end": event.end}
            facts = {"caption": event.caption, "modalities": list(event.modalities), "relation": event.relation}
            file.write(json.dumps({**line, **facts, "refused": None}) + "\n")
    return path


@pytest.fixture(params=["file", "folder"])
def output(tmp_path, request):
    (tmp_path / "mine").mkdir()
    path = write_output(tmp_path / "mine" / "videos.json")
    return path if request.param == "file" else path.parent


def test_load_dataset_reads_it(output, tmp_path):
    cache = {"cache_dir": str(tmp_path / "cache")}
    rows = datasets.load_dataset("longvale", "events", data_dir=str(output), split="train", **cache)
    assert rows["modalities"] == [["visual", "audio"], ["visual"]] and rows["relation"] == ["causality", "visual-only"]
    # What the stages know belongs to the rows: another relation gives other rows.
    folder = output if output.is_dir() else output.parent
    log = folder / "videos.stages" / "events.jsonl"
    log.write_text(log.read_text().replace("causality", "enhancement"))
    rows = datasets.load_dataset("longvale", "grounding", data_dir=str(output), split="train", streaming=True, **cache)
    assert next(iter(rows))["relation"] == "enhancement"


def test_statistics_and_pictures_know_its_modalities(output):
    (videos,) = read_splits(output).values()
    assert measure(videos).relations == {"causality": 1, "visual-only": 1}
    assert find_video("a", output).events == EVENTS


def test_prepare_writes_it_and_its_dialogues(output, tmp_path, longvale):
    make_dialogues(tmp_path / "mine" / "videos.json", tmp_path / "mine")
    result = longvale("data", "prepare", output, "--output", tmp_path / "parquet", "--quiet")
    assert result.exit_code == 0, result.stderr
    rows = datasets.load_dataset(str(tmp_path / "parquet"), "events", split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["relation"] == ["causality", "visual-only"] and rows["modalities"][0] == ["visual", "audio"]
    assert "boundary_perception" in prepare(output, tmp_path / "again", progress=False).written


def test_training_and_evaluation_find_it(tmp_path):
    path = write_output(tmp_path / "videos.json")
    assert annotation_file(tmp_path, "train") == annotation_file(tmp_path, "test") == path
    assert [question.video_id for question in load_questions(tmp_path, ["grounding"])[1]] == ["a", "a"]


def test_official_files_come_first_and_several_outputs_are_named(tmp_path):
    for name in ("b", "a"):
        write_output(tmp_path / f"{name}.json")
    with pytest.raises(ValueError, match=r"contains a\.json, b\.json; give one of these files"):
        annotation_files(str(tmp_path))
    write_output(tmp_path / "longvale-annotations-eval.json")
    assert annotation_files(str(tmp_path)) == {"test": "longvale-annotations-eval.json"}
    assert list(annotation_files(str(tmp_path / "longvale-annotations-eval.json"))) == ["test"]
    with pytest.raises(FileNotFoundError, match=r"longvale-annotations-training\.json: no such file"):
        annotation_file(tmp_path, "train")


def test_events_that_a_person_moved_or_added_have_no_modalities(tmp_path):
    path = write_output(tmp_path / "videos.json")
    moved = (EVENTS[0], Event(5.0, 9.0, EVENTS[1].caption), Event(8.0, 9.0, "A dog barks."))
    save_annotations({"a": Annotation("a", 9.0, moved)}, path)
    (video,) = load_videos(path)
    assert [event.modalities for event in video.events] == [("visual", "audio"), (), ()]


def test_damaged_stages_are_named_and_a_line_being_written_is_left_out(tmp_path):
    path = write_output(tmp_path / "videos.json")
    log = tmp_path / "videos.stages" / "events.jsonl"
    log.write_text(log.read_text() + '{"video_id": "a", "sta')
    assert load_videos(path)[0].events == EVENTS
    log.write_text(log.read_text().replace("causality", "magic"))
    with pytest.raises(ValueError, match=r"events\.jsonl: line 1: relation 'magic' is not one of"):
        load_videos(path)
