import json
import os
from pathlib import Path

import media_files
import numpy as np
import pytest
from fake_longvale import FakeModel, FakeProcessor

from longvale.chat_client import NoAnswer
from longvale.checkpoints.loading import weights_digest
from longvale.evaluation.generation.blocks import video_blocks
from longvale.evaluation.generation.generate import generate
from longvale.evaluation.generation.inputs import VideoInputs
from longvale.evaluation.generation.model import MAX_NEW_TOKENS, load_model, token_limits
from longvale.evaluation.generation.prediction_log import AnswerLog, format_skipped
from longvale.evaluation.generation.video_qa import VideoQA
from longvale.evaluation.scoring.score import score
from longvale.events import load_annotations
from longvale.features.manifest import Manifest
from longvale.features.store import feature_path, save_features
from longvale.models.media import MediaError
from longvale.system.checksums import file_sha256
from longvale.tasks import Prediction, Question, load_predictions, questions

QUESTIONS = 6 + 3 + 6  # grounding, dense captioning (not of the video without events), segment captioning


def run(data, output, model=None, **options):
    pair = (model or FakeModel(), FakeProcessor())
    return generate(pair, data, output, **{"batch_size": 2, "progress": False, **options})


def test_answers_every_question_in_the_order_of_the_annotations(data, tmp_path):
    model = FakeModel()
    log = run(data, tmp_path / "out" / "predictions.jsonl", model)
    annotations = load_annotations(data / "longvale-annotations-eval.json")
    asked = [q.key for annotation in annotations.values() for q in questions(annotation)]
    assert [p.key for p in load_predictions(log)] == asked
    assert len(asked) == QUESTIONS == sum(map(len, model.batches))
    assert all(len(batch) <= 2 for batch in model.batches)
    first = json.loads(log.read_text(encoding="utf-8").splitlines()[0])
    assert list(first) == ["video_id", "task", "query_id", "answer", "info"]
    assert [path.name for path in log.parent.iterdir()] in (
        ["predictions.jsonl", "predictions.jsonl.run.json"],
        ["predictions.jsonl.run.json", "predictions.jsonl"],
    )


def test_batch_size_changes_no_answer(data, tmp_path):
    small, large = run(data, tmp_path / "a", batch_size=1), run(data, tmp_path / "b", batch_size=50)
    assert small.read_bytes() == large.read_bytes()


def test_captions_that_spell_the_placeholder_stay_words(data, tmp_path):
    model = FakeModel()
    run(data, tmp_path / "p", model, tasks=["grounding"])
    assert all("< video>" in prompt for batch in model.batches for prompt in batch)


def test_half_a_character_is_an_answer_too(tmp_path):
    """A model may give it, and UTF-8 cannot hold it."""
    asked = [Question("abc", "grounding", 0, "When?", "")]
    answer = Prediction("abc", "grounding", "\ud83d – 犬", 0)
    log = AnswerLog(tmp_path / "log.jsonl", {}, asked)
    log.append([answer])
    assert load_predictions(log.path) == [answer]
    log.finish()
    assert load_predictions(log.path) == [answer]
    assert "犬" in log.path.read_text(encoding="utf-8")


@pytest.mark.parametrize("die_at", [1, 3, 8])
def test_killed_and_resumed_gives_the_same_file(data, preloaded, tmp_path, die_at):
    whole, broken = run(data, tmp_path / "whole.jsonl"), tmp_path / "broken.jsonl"
    script = Path(__file__).parents[1] / "fake_longvale.py"
    killed = preloaded.run(script, data, broken, die_at)
    assert killed.returncode == -9, killed.stderr
    done = len(broken.read_text(encoding="utf-8").splitlines())
    assert (done > 0) == (die_at > 1) and done < QUESTIONS
    with broken.open("a") as file:
        file.write('{"video_id": "vid-a", "task": "gro')  # what a kill leaves of a line

    model = FakeModel()
    run(data, broken, model)
    assert broken.read_bytes() == whole.read_bytes()
    asked_again = sum(map(len, model.batches))
    assert QUESTIONS - done <= asked_again < QUESTIONS - done + 2  # at most one batch is asked as a whole again


def test_a_finished_run_asks_nothing_again(data, tmp_path):
    before = run(data, tmp_path / "p").read_bytes()
    model = FakeModel()
    assert run(data, tmp_path / "p", model).read_bytes() == before
    assert model.batches == []


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"tasks": ["grounding"]}, "tasks"),
        ({"modalities": ["visual"]}, "modalities"),
        ({"zero_features": True}, "zero_features"),
        ({"max_new_tokens": 5}, "max_new_tokens"),
        ({"limit": 1}, "limit"),
        ({"model": FakeModel(seed=1)}, "weights"),
    ],
)
def test_other_settings_are_refused_unless_overwritten(data, tmp_path, options, name):
    log = run(data, tmp_path / "p")
    before = log.read_bytes()
    with pytest.raises(ValueError, match=rf"p\.run\.json: was made with {name}\b.*overwrite"):
        run(data, log, **options)
    assert log.read_bytes() == before
    run(data, log, overwrite=True, **options)
    assert log.read_bytes() != before


def test_changed_annotations_are_refused(data, tmp_path):
    log = run(data, tmp_path / "p")
    path = data / "longvale-annotations-eval.json"
    path.write_text(path.read_text().replace("Event 0", "Event zero"))
    with pytest.raises(ValueError, match="was made with annotations"):
        run(data, log)


def test_a_log_of_unknown_origin_is_refused(data, tmp_path):
    log = tmp_path / "theirs.jsonl"
    log.write_text("precious\n")
    with pytest.raises(ValueError, match=r"exists without theirs\.jsonl\.run\.json"):
        run(data, log)
    assert log.read_text() == "precious\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 16: not JSON"),
        ('{"video_id": "vid-z", "task": "captioning", "answer": ""}', "a question that is not asked"),
        ('{"video_id": "vid-a", "task": "captioning", "answer": ""}', "line 16: repeats"),
    ],
)
def test_a_spoilt_log_is_refused(data, tmp_path, line, message):
    log = run(data, tmp_path / "p")
    with log.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        run(data, log)


def test_modalities_reach_the_model_and_zeros_do_not_tell(data, tmp_path):
    logs = {
        name: run(data, tmp_path / name, tasks=["grounding"], **options).read_bytes()
        for name, options in {
            "all": {},
            "visual": {"modalities": ["visual"]},
            "audio": {"modalities": ["audio"]},
            "none": {"zero_features": True},
        }.items()
    }
    assert len(set(logs.values())) == 4
    for video_id in ("vid-a", "vid-b", "vid-empty", "vid-c"):
        changed = {"visual": np.full((3, 4), 9.0), "audio": np.full((2, 4), 9.0), "speech": None}
        save_features(data / "features", video_id, changed)
    assert run(data, tmp_path / "n", tasks=["grounding"], zero_features=True).read_bytes() == logs["none"]
    assert run(data, tmp_path / "a", tasks=["grounding"]).read_bytes() != logs["all"]


def test_missing_features_are_refused_before_anything_is_asked(data, tmp_path, caplog):
    (data / "features" / "visual_features" / "vid-b.npy").unlink()
    model = FakeModel()
    with pytest.raises(FileNotFoundError, match=r"visual_features/vid-b\.npy: no such file"):
        run(data, tmp_path / "p", model)
    assert model.batches == [] and not (tmp_path / "p").exists()
    log = run(data, tmp_path / "p", skip_missing=True)
    assert {p.video_id for p in load_predictions(log)} == {"vid-a", "vid-c"}
    assert "skipped" in caplog.text and "vid-b.npy" in caplog.text
    only_audio = run(data, tmp_path / "q", modalities=["audio"])
    assert len(load_predictions(only_audio)) == QUESTIONS


def test_a_modality_without_a_folder_is_made_visible(data, tmp_path, caplog):
    for path in (data / "features" / "speech_features").iterdir():
        path.unlink()
    (data / "features" / "speech_features").rmdir()
    run(data, tmp_path / "p", limit=1)
    assert "speech_features: no such folder; the model gets no speech features" in caplog.text


def test_features_of_another_width_are_refused(data, tmp_path):
    save_features(data / "features", "vid-a", {"visual": np.ones((3, 5))})
    with pytest.raises(ValueError, match=r"vid-a\.npy: features are 5 wide, expected 4"):
        run(data, tmp_path / "p")


@pytest.fixture
def videos(tmp_path):
    """A folder of a media file of each video."""
    (tmp_path / "videos").mkdir()
    for number, video_id in enumerate(("vid-a", "vid-b", "vid-c", "vid-empty")):
        media_files.write(str(tmp_path / "videos" / f"{video_id}.mp4"), pictures=4 + number)
    return tmp_path / "videos"


def test_videos_are_encoded_once_each(data, videos, tmp_path):
    model = FakeModel()
    log = run(data, tmp_path / "p", model, videos=videos)
    assert len(load_predictions(log)) == QUESTIONS
    assert model.encoded == 3
    (videos / "vid-b.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"videos/vid-b\.mp4: no such file; add it, or leave .*--skip-missing"):
        run(data, tmp_path / "q", videos=videos)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def record(data, video_id):
    paths = {modality: feature_path(data / "features", video_id, modality) for modality in ("visual", "audio")}
    with Manifest(data / "features" / "manifest.jsonl") as manifest:
        manifest.add({"video_id": video_id, "sha256": {m: file_sha256(path) for m, path in paths.items()}})


SPOILED = {
    "features cut": ({}, "features/audio_features/vid-b.npy", cut, "not a whole .npy file"),
    "a bit of features flipped": ({}, "features/audio_features/vid-b.npy", flip, "is not what the manifest recorded"),
    "no features asked for": ({"modalities": ["speech"]}, None, None, "has no speech features"),
    "video cut": ({"videos": "videos"}, "../videos/vid-b.mp4", cut, "vid-b.mp4: truncated"),
    "video empty": ({"videos": "videos"}, "../videos/vid-b.mp4", lambda path: path.write_bytes(b""), "is empty"),
    "video without sound": ({"videos": "videos", "modalities": ["audio"]}, None, None, "has no audio features"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_one_unusable_video_is_refused_at_once_or_skipped_by_name(data, videos, tmp_path, caplog, case):
    options, name, spoil, reason = SPOILED[case]
    if spoil is flip:
        record(data, "vid-b")
    if "videos" in options:
        options = options | {"videos": videos}
    if spoil is not None:
        spoil(data / name)
    elif "videos" in options:  # the others have sound
        for video_id in ("vid-a", "vid-c"):
            media_files.write(str(videos / f"{video_id}.mp4"), pictures=5, sound=media_files.tone(440, 1))
    else:
        for video_id in ("vid-a", "vid-c"):
            save_features(data / "features", video_id, {"speech": np.ones((2, 6))})
    model = FakeModel()
    with pytest.raises((FileNotFoundError, ValueError), match=f"{reason}.*--skip-missing"):
        run(data, tmp_path / "p", model, **options)
    assert model.batches == [] and not (tmp_path / "p").exists()
    if case == "video without sound":
        return  # the fake model encodes pictures only
    log = run(data, tmp_path / "p", model, skip_missing=True, **options)
    assert {p.video_id for p in load_predictions(log)} == {"vid-a", "vid-c"}
    assert "skipped: vid-b: " in caplog.text
    skipped = json.loads((tmp_path / "p.run.json").read_text())["skipped"]
    assert list(skipped) == ["vid-b"] and reason in skipped["vid-b"]
    assert format_skipped(log) == [
        "skipped: 1 videos, whose questions count as missing", f"  vid-b: {skipped['vid-b']}"
    ]  # fmt: skip
    counts = score(log, data / "longvale-annotations-eval.json", partial=True)["counts"]
    assert {task: count["missing"] for task, count in counts.items()} == dict.fromkeys(counts, 1)


def test_a_video_that_breaks_on_the_way_is_skipped_and_asked_again_when_it_is_repaired(data, tmp_path, monkeypatch):
    load = VideoInputs.load

    def breaking(self, video_id, *args):
        if video_id == "vid-b":
            raise MediaError("vid-b.mp4: cannot be decoded")
        return load(self, video_id, *args)

    whole = run(data, tmp_path / "whole", batch_size=1).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(VideoInputs, "load", breaking)
        with pytest.raises(
            ValueError, match=r"vid-b\.mp4: cannot be decoded; what was answered is kept; .*--skip-missing"
        ):
            run(data, tmp_path / "p", batch_size=1)
        log = run(data, tmp_path / "p", batch_size=1, skip_missing=True)
    assert {p.video_id for p in load_predictions(log)} == {"vid-a", "vid-c"}
    assert format_skipped(log)[1] == "  vid-b: vid-b.mp4: cannot be decoded"
    model = FakeModel()
    assert run(data, tmp_path / "p", model, batch_size=1).read_bytes() == whole
    assert sum(map(len, model.batches)) == 3 and format_skipped(log) == []


@pytest.mark.parametrize("raw", [False, True])
def test_answers_about_a_replaced_video_are_asked_again(data, videos, tmp_path, caplog, raw):
    options = {"batch_size": 1} | ({"videos": videos} if raw else {})
    before = run(data, tmp_path / "p", **options).read_bytes()
    if raw:
        os.utime(videos / "vid-a.mp4")  # copied
        media_files.write(str(videos / "vid-b.mp4"), pictures=9)
    else:
        os.utime(data / "features" / "visual_features" / "vid-a.npy")
        save_features(data / "features", "vid-b", {"visual": np.full((3, 4), 7.3)})
    model = FakeModel()
    log = run(data, tmp_path / "p", model, **options)
    assert sum(map(len, model.batches)) == 3
    assert f"{log}: asked again because the video was replaced: vid-b" in caplog.text
    assert log.read_bytes() == run(data, tmp_path / "q", **options).read_bytes()
    assert raw or log.read_bytes() != before
    caplog.clear()
    run(data, tmp_path / "p", model, **options)
    assert sum(map(len, model.batches)) == 3 and "asked again" not in caplog.text


def test_a_log_of_an_earlier_version_is_kept(data, tmp_path, caplog):
    log = run(data, tmp_path / "p")
    path = tmp_path / "p.run.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "inputs"}))
    before, model = log.read_bytes(), FakeModel()
    assert run(data, tmp_path / "p", model).read_bytes() == before and model.batches == []
    assert "did not record what its videos are" in caplog.text
    caplog.clear()
    run(data, tmp_path / "p", model)
    assert not caplog.text


def test_limit_counts_videos(data, tmp_path):
    log = run(data, tmp_path / "p", limit=1, max_new_tokens={"grounding": 7})
    predictions = load_predictions(log)
    assert {p.video_id for p in predictions} == {"vid-a"}
    assert {p.answer for p in predictions if p.task == "grounding"} <= {f"From {n:02d}" for n in range(100)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["singing"]}, "unknown task 'singing'"),
        ({"modalities": ["smell"]}, "unknown modality 'smell'"),
        ({"modalities": []}, "unknown modality ''"),
        ({"split": "dev"}, "unknown split 'dev'"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"limit": 0}, "limit must be 1 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more"),
        ({"max_new_tokens": {"singing": 3}}, "unknown task 'singing'"),
        ({"features": "a", "videos": "b"}, "give either features"),
    ],
)
def test_bad_options(data, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(data, tmp_path / "p", **options)
    assert not (tmp_path / "p").exists()


def test_missing_folders_and_files(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        run(tmp_path / "nowhere", tmp_path / "p")
    with pytest.raises(FileNotFoundError, match=r"longvale-annotations-training\.json: no such file"):
        run(data, tmp_path / "p", split="train")
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        run(data, tmp_path / "p", features=tmp_path / "none")


def test_checkpoints_that_cannot_be_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such model folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: no such file; the checkpoint has no weights"):
        load_model(str(tmp_path))


def test_digest_tells_weights_apart():
    assert weights_digest(FakeModel(1)) == weights_digest(FakeModel(1)) != weights_digest(FakeModel(2))


def test_token_limits():
    assert token_limits(9) == dict.fromkeys(MAX_NEW_TOKENS, 9)
    assert token_limits({"grounding": 9}) == token_limits() | {"grounding": 9}


def test_blocks_hold_whole_videos_and_every_question_once(data):
    annotations = load_annotations(data / "longvale-annotations-eval.json")
    asked = [q for annotation in annotations.values() for q in questions(annotation)]
    blocks = list(video_blocks(asked, 2))
    assert [q.key for block in blocks for q in block] == [q.key for q in asked]
    assert [len({q.video_id for q in block}) for block in blocks] == [2, 1]


def test_a_model_that_only_reasons(data, tmp_path, monkeypatch):
    """One question is left out and asked again; a model that answers nothing ends the run."""
    write, written = VideoQA._generate, []

    def reason(self, *arguments, **generation):
        answers = write(self, *arguments, **generation)
        ends = ["" if len(written) + place in bad else "</think>" for place in range(len(answers))]
        written.extend(answers)
        return [f"<think>x{end}{text}" for end, text in zip(ends, answers, strict=True)]

    monkeypatch.setattr(VideoQA, "_generate", reason)
    bad = {3}
    with pytest.raises(NoAnswer, match=rf"p: 1 of {QUESTIONS} questions have no answer, the first, .*only reasoning"):
        run(data, tmp_path / "p")
    kept = load_predictions(tmp_path / "p")
    assert len(kept) == QUESTIONS - 1 and not any("think" in answer.answer for answer in kept)
    bad = set()
    assert len(load_predictions(run(data, tmp_path / "p"))) == QUESTIONS
    written.clear()
    bad = {3}
    assert len(load_predictions(run(data, tmp_path / "q", skip_missing=True))) == QUESTIONS - 1
    bad = set(range(10_000))
    monkeypatch.setattr("longvale.evaluation.generation.generate._MAX_UNANSWERED", 4)
    with pytest.raises(NoAnswer, match="r: 4 answers in a row cannot be used"):
        run(data, tmp_path / "r", skip_missing=True)
    assert (tmp_path / "r").read_text(encoding="utf-8") == ""


def test_videos_of_another_length_than_annotated_are_named(data, tmp_path, caplog):
    annotations = load_annotations(data / "longvale-annotations-eval.json")
    first, second, *_ = (video for video, annotation in annotations.items() if annotation.events)
    lengths = {first: annotations[first].duration / 2, second: annotations[second].duration + 0.4}
    lines = [json.dumps({"video_id": video, "duration": length, "sha256": {}}) for video, length in lengths.items()]
    (data / "features" / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    run(data, tmp_path / "p.jsonl")
    named = [record.getMessage() for record in caplog.records if "its annotation" in record.getMessage()]
    assert len(named) == 1 and named[0].startswith(
        f"{first}: the file lasts {lengths[first]:.1f} s, its annotation {annotations[first].duration:.1f} s; "
    )
