import json
import runpy
import sys

import pytest
import torch

from longvale.checkpoints.loading import load_checkpoint
from longvale.data.sources import ANNOTATION_FILES
from longvale.evaluation.generation.model import prepare_question
from longvale.events import MODALITIES, load_annotations
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.timecodes import render_span
from longvale.training.grpo import GRPOStageConfig, VideoGRPOTrainer, load_questions
from longvale.training.recipes import recipes_dir
from longvale.training.rewards import temporal_iou

FEATURES = ("visual_features", "audio_features", "speech_features")


def make_trainer(corpus, base, output, **options):
    args = GRPOStageConfig(
        model=str(base), data_dir=str(corpus), features_dir=str(corpus / "features"), output_dir=str(output),
        **{
            "num_generations": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 4,
            "max_completion_length": 6, "learning_rate": 5e-3, "lora_r": 4, "save_strategy": "no", "report_to": "none",
            "disable_tqdm": True, "logging_steps": 1, **options,
        },
    )  # fmt: skip
    model, processor = load_checkpoint(base, LongVALEForConditionalGeneration, device="cpu")
    return VideoGRPOTrainer(model, args, processor, load_questions(args, model.config.feature_sizes))


@pytest.fixture(scope="module")
def trainer(corpus, base, tmp_path_factory):
    # An untrained model answers nonsense: without a reward that differs there is no gradient.
    trainer = make_trainer(corpus, base, tmp_path_factory.mktemp("grpo"))
    trainer.reward_funcs[0] = lambda completion_ids, **_: [float(sum(ids) % 97) for ids in completion_ids]
    return trainer


def test_shuffled_features_change_the_scores_of_the_same_completion(trainer):
    rows = trainer.train_dataset.__getitems__([0, 0, 9, 9])
    trainer.model.eval()
    with torch.no_grad():
        output = trainer._generate_and_score_completions(rows)
        output |= {name: 20 * output[name] for name in FEATURES}  # those of an untrained model are small
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        keep = output["completion_ids"].shape[1]

        def scores(**changed):
            trainer._video_inputs = {name: changed.get(name, output[name]) for name in trainer._video_inputs}
            return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep, batch_size=2)[0]

        plain = scores()
        assert torch.equal(scores(), plain)
        for name in FEATURES:
            assert (scores(**{name: output[name].flip(1)}) - plain).abs().max() > 1e-4, name
        # In chunks, each row sees its own video: one by one gives the same.
        chunks = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep, batch_size=1)
    trainer.model.train()
    assert chunks[0].shape == plain.shape


def test_scores_are_those_of_the_model_that_sees_the_video(trainer):
    rows = trainer.train_dataset.__getitems__([0, 0, 9, 9])
    trainer.model.eval()
    with torch.no_grad():
        output = trainer._generate_and_score_completions(rows)
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        keep = output["completion_ids"].shape[1]
        found = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep, batch_size=2)[0]
        logits = trainer.model(input_ids=ids, attention_mask=mask, **trainer._video_inputs).logits
    trainer.model.train()
    expected = logits[:, -keep - 1 : -1].log_softmax(-1).gather(2, output["completion_ids"][..., None])[..., 0]
    torch.testing.assert_close(found, expected * output["completion_mask"], rtol=1e-4, atol=1e-4)


def test_what_is_sampled_is_what_the_evaluation_asks_and_what_is_scored(trainer, monkeypatch):
    rows = [row for row in trainer.train_dataset.__getitems__([0, 9, 30]) for _ in range(2)]
    model, processor = trainer.model, trainer.processing_class
    generate, seen = model.generate, {}

    def keep_scores(**inputs):
        found = generate(**inputs, return_dict_in_generate=True, output_logits=True)
        seen.update(logits=torch.stack(found.logits, dim=1))  # [B, T, V], before placeholders are forbidden
        return found.sequences

    monkeypatch.setattr(model, "generate", keep_scores)
    output = trainer._generate_and_score_completions(rows)
    assert model.training  # there is no dropout that scoring would draw anew
    with torch.no_grad():
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        keep = output["completion_ids"].shape[1]
        found = trainer._get_per_token_logps_and_entropies(model, ids, mask, keep)[0]
    sampled = seen["logits"].log_softmax(-1).gather(2, output["completion_ids"][..., None])[..., 0]
    torch.testing.assert_close(found, sampled * output["completion_mask"], rtol=1e-4, atol=1e-4)

    padded = False
    for row, ids, mask, own in zip(
        rows, output["prompt_ids"], output["prompt_mask"], output["visual_features"], strict=True
    ):
        features = {modality: row[f"{modality}_features"] for modality in MODALITIES}
        asked = prepare_question(model, processor, [row["prompt"][0]["content"]], [features])
        assert torch.equal(ids[mask.bool()], asked["input_ids"][0])
        assert torch.equal(own, asked["visual_features"][0])
        padded |= not mask.all()
    assert padded


def test_rewards_are_given_for_the_event_that_the_row_asks_about(trainer, corpus):
    annotations = load_annotations(corpus / ANNOTATION_FILES["train"])
    for row in trainer.train_dataset.__getitems__(list(range(40))):
        annotation, question = annotations[row["id"]], row["prompt"][0]["content"]
        (event,) = (e for e in annotation.events if f" {e.caption.lower().removesuffix('.')} " in question)
        answer = [{"content": f"{render_span(event.start, event.end, annotation.duration)}."}]
        (reward,) = temporal_iou([answer], **{name: [row[name]] for name in ("task", "start", "end", "duration")})
        assert reward > 0.85  # times are written in whole percent, the last 99


def test_a_step_makes_better_answers_likelier_than_worse_ones(corpus, base, tmp_path, monkeypatch):
    trainer = make_trainer(corpus, base, tmp_path, max_steps=1, num_generations=4, gradient_accumulation_steps=1)
    trainer.reward_funcs[0] = lambda completion_ids, **_: [float(sum(ids) % 97) for ids in completion_ids]
    answer, seen = trainer._generate_and_score_completions, {}

    def scores():
        trainer._video_inputs = {name: seen[name] for name in trainer._video_inputs}
        ids = torch.cat([seen["prompt_ids"], seen["completion_ids"]], dim=1)
        mask = torch.cat([seen["prompt_mask"], seen["completion_mask"]], dim=1)
        keep = seen["completion_ids"].shape[1]
        with torch.no_grad():
            return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep)[0].sum(dim=1)

    def answer_and_keep(inputs):
        seen.update(answer(inputs))
        seen["before"] = scores()
        return {name: values for name, values in seen.items() if name != "before"}

    monkeypatch.setattr(trainer, "_generate_and_score_completions", answer_and_keep)
    trainer.train()
    gained, advantages = scores() - seen["before"], seen["advantages"]
    assert advantages.abs().min() > 0.01 and abs(float(advantages.sum())) < 1e-3
    assert torch.corrcoef(torch.stack([gained, advantages]))[0, 1] > 0.5, (gained, advantages)


def test_adapter_and_projectors_learn_and_nothing_else(trainer):
    before = {name: values.detach().clone() for name, values in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, values in trainer.model.named_parameters() if not torch.equal(values, before[name])}
    assert moved == {name for name in before if ".lora_" in name or "modules_to_save" in name}
    assert any("audio_projector" in name for name in moved)


def test_the_recipe_measures_before_and_after_and_leaves_a_checkpoint(
    corpus, base, tmp_path, monkeypatch, capsys, contents
):
    options = {
        "config": recipes_dir() / "configs" / "demo_grpo.yaml", "model": base, "data_dir": corpus,
        "features_dir": corpus / "features", "output_dir": tmp_path / "out", "max_steps": 1, "lora_r": 4,
        "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 4, "grounding_videos": 1,
    }  # fmt: skip
    script = str(recipes_dir() / "grpo.py")
    monkeypatch.setattr(
        sys, "argv", [script, *(p for name, value in options.items() for p in (f"--{name}", str(value)))]
    )
    monkeypatch.chdir(tmp_path)
    runpy.run_path(script, run_name="__main__")
    printed = capsys.readouterr().out
    assert "before: grounding mIoU" in printed and "after step 1: grounding mIoU" in printed
    load_checkpoint(tmp_path / "out", LongVALEForConditionalGeneration, device="cpu")
    history = json.loads((tmp_path / "out" / "log_history.json").read_text())
    assert [entry["step"] for entry in history if "grounding_miou" in entry] == [0, 1]
    merged = contents(tmp_path / "out")
    runpy.run_path(script, run_name="__main__")
    assert "out: finished by an earlier run with the same settings" in capsys.readouterr().out
    assert contents(tmp_path / "out") == merged
    (tmp_path / "out" / "config.json").unlink()  # as if killed before it was written, the last file
    runpy.run_path(script, run_name="__main__")
    assert f"merged {tmp_path / 'out' / 'checkpoint-1'}" in capsys.readouterr().out
    again = contents(tmp_path / "out")
    assert again["model.safetensors"] == merged["model.safetensors"] and "config.json" in again


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": None}, "model is not given"),
        ({"tasks": ["segment_captioning"]}, "answer_format cannot check segment_captioning; add caption_meteor"),
        ({"rewards": ["taste"]}, "unknown reward 'taste'; known are temporal_iou"),
        ({"use_vllm": True}, "TRL does not pass videos to vLLM"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GRPOStageConfig(**{"model": "m", "data_dir": "d", "features_dir": "f", **options})


def test_only_questions_that_were_selected_are_asked(corpus, base, tmp_path):
    kept = tmp_path / "kept.json"
    options = {"model": str(base), "data_dir": str(corpus), "features_dir": str(corpus / "features")}
    every = load_questions(GRPOStageConfig(**options), {}).with_format(None)
    chosen = {"questions": [[every[0]["id"], "grounding", 0]]}
    kept.write_text(json.dumps(chosen))
    args = GRPOStageConfig(**options, questions=str(kept))
    (row,) = load_questions(args, {}).with_format(None)
    assert row["prompt"] == every[0]["prompt"]
    kept.write_text(json.dumps({"questions": [["other", "grounding", 0]]}))
    with pytest.raises(ValueError, match=r"kept.json: names no question of .* whose video has features"):
        load_questions(args, {})


def test_videos_without_features_are_counted(corpus, base, tmp_path):
    (tmp_path / "features" / "visual_features").mkdir(parents=True)
    args = GRPOStageConfig(model=str(base), data_dir=str(corpus), features_dir=str(tmp_path / "features"))
    with pytest.raises(ValueError, match=r"none of the 150 videos of .* has its features"):
        load_questions(args, {})
    source = corpus / "features" / "visual_features"
    for path in sorted(source.glob("train_*.npy"))[:140]:
        (tmp_path / "features" / "visual_features" / path.name).symlink_to(path)
    with pytest.raises(ValueError, match=r"10 videos of .* \(6.7%\) have no features, more than max_missing \(5.0%\)"):
        load_questions(args, {})
