"""Files of earlier versions, see fixtures/earlier/README.md: they are read, and the work in them is continued."""

import json
import runpy
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from longvale.events import MODALITIES, load_annotations
from longvale.io import load_json

EARLIER = Path(__file__).parent / "fixtures" / "earlier"
MAKE = runpy.run_path(str(EARLIER / "make.py"))
ROOT = str(MAKE["ROOT"])
VIDEOS = ["test_0000", "test_0001", "train_0000"]


@pytest.fixture
def earlier(tmp_path):
    """A copy of the files in which recorded paths and versions are those of this run."""
    root = Path(shutil.copytree(EARLIER, tmp_path / "earlier"))
    for path in (root / "training" / "settings.json", *root.glob("predictions*/*.run.json")):
        path.write_text(path.read_text().replace(ROOT, str(root)))
    for path in root.glob("predictions*/*.run.json"):
        settings = load_json(path)
        settings["versions"] = {name: version(name) for name in settings["versions"]}
        path.write_text(json.dumps(settings))
    return root


@pytest.fixture
def model(earlier):
    """The checkpoint, with its weights."""
    from safetensors.numpy import save_file

    weights = MAKE["exact_weights"](load_json(earlier / "model" / "weights.json"))
    save_file(weights, earlier / "model" / "model.safetensors", metadata={"format": "pt"})
    (earlier / "model" / "weights.json").unlink()
    return earlier / "model"


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def fail(*arguments, **options):
    raise AssertionError("what is done must not be done again")


def test_the_checkpoint_loads_with_all_its_weights(model, caplog):
    import torch

    from longvale.checkpoints.loading import load_checkpoint
    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration

    loaded, processor = load_checkpoint(model, LongVALEForConditionalGeneration, device="cpu")
    assert "weights" not in caplog.text.lower()  # neither missing nor unexpected ones
    shapes = load_json(EARLIER / "model" / "weights.json")
    state = loaded.state_dict()
    assert state.keys() - shapes.keys() == {"lm_head.weight"}
    for name, values in MAKE["exact_weights"](shapes).items():
        assert torch.equal(state[name], torch.from_numpy(values)), name
    assert processor.num_frames == 10 and processor.tokenizer.decode(processor.video_token_id) == "<video>"


def test_features_are_read(earlier):
    from longvale.extraction.check import check_features
    from longvale.features.store import FeatureStore

    store = FeatureStore(earlier / "corpus" / "features")
    for video_id in VIDEOS:
        features = store.load(video_id)
        for modality in MODALITIES:
            path = earlier / "corpus" / "features" / f"{modality}_features" / f"{video_id}.npy"
            assert np.array_equal(features[modality], np.load(path)) and features[modality].shape[1] == 16
    annotations = earlier / "corpus" / "longvale-annotations-eval.json"
    assert check_features(earlier / "corpus" / "features", annotations, progress=False).ok


def test_a_finished_extraction_does_nothing(earlier, model, contents, caplog, monkeypatch):
    from longvale.extraction.extract import ExtractionSummary, extract_features

    folder = earlier / "corpus" / "features"
    before, known = contents(folder), lines(folder / "manifest.jsonl")
    monkeypatch.setattr("longvale.extraction.preprocess.prepare", fail)
    options = {"model": model, "progress": False, "workers": 0}
    assert extract_features(earlier / "corpus" / "videos", folder, **options) == ExtractionSummary(skipped=(*VIDEOS,))
    assert "3 videos were recorded without the identity of their files" in caplog.text
    now = lines(folder / "manifest.jsonl")
    assert [{k: v for k, v in line.items() if k != "identity"} for line in now] == known
    assert {name for name, content in contents(folder).items() if before[name] != content} == {"manifest.jsonl"}


def test_a_killed_extraction_is_continued(earlier, model):
    from longvale.extraction.extract import extract_features

    whole = earlier / "corpus" / "features"
    folder = Path(shutil.copytree(whole, earlier / "continued"))
    shutil.copy(earlier / "features_cut" / "manifest.jsonl", folder)
    for modality in MODALITIES:
        (folder / f"{modality}_features" / "train_0000.npy").unlink()
    summary = extract_features(earlier / "corpus" / "videos", folder, model=model, progress=False, workers=0)
    assert (summary.done, summary.skipped) == (("train_0000",), ("test_0000", "test_0001"))
    assert [line["video_id"] for line in lines(folder / "manifest.jsonl")] == VIDEOS
    for modality in MODALITIES:
        made, before = (np.load(store / f"{modality}_features" / "train_0000.npy") for store in (folder, whole))
        np.testing.assert_allclose(made, before, rtol=1e-3, atol=1e-4)  # of another CPU


def test_a_corpus_is_continued_with_the_same_files(earlier, contents):
    from longvale.synthetic.corpus import SyntheticOptions, load_events, synthesize

    corpus = earlier / "corpus"
    before = contents(corpus)
    options = SyntheticOptions(size=32, fps=4, min_length_s=5, max_length_s=6)
    counts = synthesize(corpus, videos=1, test_videos=2, options=options, progress=False)
    assert (counts["rendered"], counts["kept"], counts["events"]) == (0, 3, len(load_events(corpus)))
    assert contents(corpus) == before
    (corpus / "videos" / "test_0001.mp4").unlink()
    counts = synthesize(corpus, videos=1, test_videos=2, options=options, progress=False)
    assert (counts["rendered"], counts["kept"]) == (1, 2)
    with pytest.raises(ValueError, match=r"synthetic\.json: was made with seed 0, not 1; give another directory"):
        synthesize(corpus, videos=1, test_videos=2, seed=1, options=options, progress=False)


@pytest.fixture
def annotate():
    pytest.importorskip("scenedetect")
    pytest.importorskip("silero_vad")
    from longvale.annotation.pipeline import annotate

    return annotate


def test_finished_annotation_stages_are_kept(earlier, annotate, monkeypatch, caplog):
    output = earlier / "annotated" / "out.json"
    before = {path.name: lines(path) for path in sorted((earlier / "annotated" / "out.stages").glob("*.jsonl"))}
    made, provenance = load_annotations(output), load_json(output.with_suffix(".provenance.json"))
    monkeypatch.setattr("longvale.annotation.video_stages.find_boundaries", fail)
    monkeypatch.setattr("longvale.annotation.video_stages.describe", fail)
    annotate([earlier / "corpus" / "videos"], output, progress=False)
    assert "3 videos were annotated without the identity of their files" in caplog.text
    assert load_annotations(output) == made
    for name, records in before.items():
        now = lines(earlier / "annotated" / "out.stages" / name)
        assert [{k: v for k, v in record.items() if k != "identity"} for record in now] == records
    now = load_json(output.with_suffix(".provenance.json"))
    assert {name: now[name] for name in provenance if name != "versions"} == {
        name: value for name, value in provenance.items() if name != "versions"
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"audio": {"max_overlap": 3}}, r"options\.audio\.at_once 4, not 3"),  # as it was called
        ({"visual": {"layout": 0.5}}, r"options\.visual\.layout None, not 0\.5"),  # which it did not have
        ({"speech": {"peak": 0.5}}, r"options\.speech\.peak None, not 0\.5"),
    ],
)
def test_stages_of_other_options_are_not_continued(earlier, annotate, changed, message):
    from longvale.annotation.boundaries.options import AudioOptions, SpeechOptions, VisualOptions
    from longvale.annotation.video_stages import AnnotationOptions

    kinds = {"visual": VisualOptions, "audio": AudioOptions, "speech": SpeechOptions}
    options = AnnotationOptions(**{name: kinds[name](**values) for name, values in changed.items()})
    with pytest.raises(ValueError, match=message):
        annotate([earlier / "corpus" / "videos"], earlier / "annotated" / "out.json", options=options, progress=False)


def test_stopped_annotation_stages_are_continued(earlier, annotate):
    folder = earlier / "annotated_cut" / "out.stages"
    before = {path.name: path.read_bytes().rpartition(b"\n")[0].splitlines() for path in folder.glob("*.jsonl")}
    assert len(before["events.jsonl"]) == MAKE["EVENTS"]
    annotate([earlier / "corpus" / "videos"], folder.with_name("out.json"), progress=False)
    for name, known in before.items():
        ids = [(r["video_id"], r.get("event_id")) for r in lines(folder / name)]
        assert len(ids) == len(set(ids)) and {video_id for video_id, _ in ids} == set(VIDEOS)
        if name != "videos.jsonl":  # which get the identity of their files
            assert (folder / name).read_bytes().splitlines()[: len(known)] == known
    made, whole = (load_annotations(earlier / name / "out.json") for name in ("annotated_cut", "annotated"))
    for video_id in VIDEOS:  # whose measurements round differently on another CPU
        times = [[(event.start, event.end) for event in some[video_id].events] for some in (made, whole)]
        assert np.allclose(*times, atol=0.1)


class Chat:
    name = "a language model"
    __call__ = fail


def test_written_dialogues_are_kept(earlier, contents):
    from longvale.annotation.dialogues import make_dialogues

    before = contents(earlier / "dialogues")
    counts = make_dialogues(earlier / "annotated" / "out.json", earlier / "dialogues", chat=Chat())
    assert counts == {"boundary_perception": 3, "instruction": 3, "refused": 0}
    assert contents(earlier / "dialogues") == before


def test_scores_of_an_earlier_log_are_the_same(earlier):
    from longvale.evaluation.scoring.score import score

    references = earlier / "corpus" / "longvale-annotations-eval.json"
    now = json.loads(json.dumps(score(earlier / "predictions" / "predictions.jsonl", references)))
    before = load_json(earlier / "predictions" / "scores.json")
    assert before["grounding"]["mIoU"] > 0.4 and before["dense_captioning"]["soda_c"] > 0.9
    assert_within(before, now, "scores")


def assert_within(before, now, place):
    """All that was there is there; later versions may add to it."""
    if isinstance(before, dict):
        assert before.keys() <= now.keys(), place
        for name, value in before.items():
            assert_within(value, now[name], f"{place}.{name}")
    elif isinstance(before, float):
        assert now == pytest.approx(before, abs=1e-9), place
    else:
        assert now == before, place


def test_a_finished_log_is_not_asked_again(earlier, caplog):
    from longvale.evaluation.generation.generate import answer_all, load_questions

    class Silent(MAKE["Scripted"]):
        def answer(self, questions, done):
            assert all(question.key in done for question in questions)
            return iter(())

    log = earlier / "predictions" / "predictions.jsonl"
    run = log.with_name(f"{log.name}.run.json")
    before, recorded = log.read_bytes(), load_json(run)
    inputs = {"test_0000": "1-a", "test_0001": "1-b"}
    _, asked, settings = load_questions(earlier / "corpus")
    answer_all(Silent(), asked, log, settings, progress=False, inputs=inputs)
    assert "begun by an earlier version of longvale" in caplog.text
    assert log.read_bytes() == before and load_json(run) == recorded | {"inputs": inputs}


def test_a_killed_log_and_the_part_of_another_process_are_continued(earlier, model):
    from longvale.evaluation.generation.generate import generate
    from longvale.tasks import load_predictions

    log = earlier / "predictions_cut" / "predictions.jsonl"
    part = log.with_name(f"{log.name}.part1")
    known = [line for path in (log, part) for line in path.read_bytes().split(b"\n")[:-1]]
    assert len(known) == MAKE["ANSWERED"]
    options = {"max_new_tokens": 6, "batch_size": 4, "device": "cpu", "progress": False}
    generate(model, earlier / "corpus", log, **options)
    written = log.read_bytes().splitlines()
    assert set(known) <= set(written) and len(written) == len({p.key for p in load_predictions(log)}) == 30
    assert not part.exists()
    with pytest.raises(ValueError, match=r"run\.json: was made with max_new_tokens\.grounding 6, not 7; give another"):
        generate(model, earlier / "corpus", log, **options | {"max_new_tokens": 7})


def test_training_is_resumed(earlier, model):
    from longvale.checkpoints.loading import load_checkpoint
    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
    from longvale.training.checkpoints import checkpoint_to_resume, work_left
    from longvale.training.config import SFTStageConfig
    from longvale.training.data import load_training_set
    from longvale.training.stages import StageTrainer

    def options(**given):
        return SFTStageConfig(**{
            "model": str(model), "data_dir": str(earlier / "corpus"), "output_dir": str(earlier / "training"),
            "features_dir": str(earlier / "corpus" / "features"), "lora_r": 2, "lora_alpha": 4, "max_steps": 4,
            "per_device_train_batch_size": 1, "save_steps": 2, "logging_steps": 1, "report_to": "none",
            "disable_tqdm": True, "use_cpu": True, "resume_from_checkpoint": "auto", **given,
        })  # fmt: skip

    with pytest.raises(ValueError, match=r"settings\.json: was made with lora_r 2, not 3; give another output_dir"):
        checkpoint_to_resume(options(lora_r=3))
    args = options()
    assert work_left(args) == ("training", None)
    checkpoint = checkpoint_to_resume(args)
    assert checkpoint == str(earlier / "training" / "checkpoint-2")
    before = load_json(earlier / "training" / "checkpoint-2" / "trainer_state.json")["log_history"]
    loaded, processor = load_checkpoint(model, LongVALEForConditionalGeneration, device="cpu")
    trainer = StageTrainer(loaded, args, processor, load_training_set(args, loaded.config))
    trainer.train(resume_from_checkpoint=checkpoint)
    assert trainer.state.global_step == 4
    assert trainer.state.log_history[: len(before)] == before
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [1, 2, 3, 4]


def test_a_demo_is_continued_with_its_settings(earlier):
    from longvale.demo.run import SETTINGS_FILE, DemoSettings, _Record

    path = earlier / "demo" / SETTINGS_FILE
    record = _Record(path, DemoSettings())
    assert record.value == load_json(EARLIER / "demo" / SETTINGS_FILE)
    record.add("corpus", 1.0)
    assert load_json(path)["seconds"] == {"corpus": 13.3, "base": 4.6}
    assert load_json(path)["settings"] == json.loads(json.dumps(asdict(DemoSettings())))
    with pytest.raises(ValueError, match=r"demo\.json: was made with settings\.text_steps 40, not 41"):
        _Record(path, DemoSettings(text_steps=41))
