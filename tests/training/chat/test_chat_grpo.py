import json
import runpy
import shutil
import sys

import pytest
import torch
from tiny_hub import CHAT_BUILDERS

from longvale.evaluation.adapters.chat import load_chat_model
from longvale.training.chat.grpo import ChatGRPORun, load_chat_questions, media_tokens, parse_chat_grpo_arguments
from longvale.training.config import recipe_arguments
from longvale.training.recipes import recipes_dir

OPTIONS = {
    "frames": 4, "frame_size": 32, "per_device_train_batch_size": 4, "num_generations": 2, "max_steps": 2,
    "max_completion_length": 6, "lora_r": 4, "learning_rate": 5e-3, "report_to": "none", "disable_tqdm": True,
    "train_projector": True, "save_strategy": "no", "logging_steps": 1,
}  # fmt: skip
#: The fast one in each run of the tests, the others with those marked slow.
NAMES = [name if name == "Qwen2.5-VL" else pytest.param(name, marks=pytest.mark.slow) for name in CHAT_BUILDERS]


def words(model, corpus, output, **options):
    options = {"model_name_or_path": model, "data_dir": corpus, "output_dir": output, **OPTIONS, **options}
    return recipe_arguments([part for name, value in options.items() for part in (f"--{name}", str(value))])


def make_trainer(*arguments, **options):
    trainer = ChatGRPORun(*parse_chat_grpo_arguments(words(*arguments, **options))).set_up()
    # An untrained model answers nonsense: without a reward that differs there is no gradient.
    trainer.reward_funcs[0] = lambda completion_ids, **_: [float(sum(ids) % 97) for ids in completion_ids]
    return trainer


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_what_was_sampled_and_two_steps_move_what_is_trained(
    name, chat_folder, chat_corpus, tmp_path, monkeypatch
):
    trainer = make_trainer(chat_folder(name), chat_corpus, tmp_path)
    model, generate, seen = trainer.model, trainer.model.generate, {}
    forbidden = media_tokens(model.get_base_model(), trainer.processing_class)
    assert trainer.generation_config.suppress_tokens == forbidden

    def keep_scores(**inputs):
        found = generate(**inputs, return_dict_in_generate=True, output_logits=True)
        seen.update(logits=torch.stack(found.logits, dim=1))  # [B, T, V], before placeholders are forbidden
        return found.sequences

    monkeypatch.setattr(model, "generate", keep_scores)
    # Two answers each about a video with sound, one without, and the first again with another question.
    rows = [trainer.train_dataset[index] for index in (0, 0, 4, 4, 1, 1)]
    output = trainer._generate_and_score_completions(rows)
    monkeypatch.undo()
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
    keep = output["completion_ids"].shape[1]

    def scores(batch_size=None):
        with torch.no_grad():
            return trainer._get_per_token_logps_and_entropies(model, ids, mask, keep, batch_size=batch_size)[0]

    found = scores()
    sampled = seen["logits"].log_softmax(-1).gather(2, output["completion_ids"][..., None])[..., 0]
    torch.testing.assert_close(found, sampled * output["completion_mask"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores(batch_size=2), found, rtol=1e-4, atol=1e-4)
    first, *rest = output["videos"]
    negative = {
        name: -values if values.is_floating_point() and values.ndim > 1 else values for name, values in first.items()
    }
    trainer._video_inputs = {"videos": [negative, *rest]}
    changed = scores()
    assert (changed[0] - found[0]).abs().max() > 1e-4 and torch.equal(changed[2:], found[2:])

    before = {name: values.detach().clone() for name, values in model.named_parameters()}
    trainer.train()
    moved = {name for name, values in model.named_parameters() if not torch.equal(values, before[name])}
    assert moved == {name for name in before if ".lora_" in name or "modules_to_save" in name}
    assert any("modules_to_save" in name for name in moved)


def test_placeholders_are_not_sampled():
    for name, builder in CHAT_BUILDERS.items():
        model, processor = builder()
        tokens = processor.tokenizer.convert_ids_to_tokens(media_tokens(model, processor))
        assert processor.video_token in tokens and len(tokens) >= 4, name
        assert not {processor.tokenizer.eos_token, "<end_of_utterance>", "a"} & set(tokens)


def test_questions_have_the_columns_of_rewards(chat_corpus):
    arguments = words(
        "m",
        chat_corpus,
        "out",
        times="clock",
        dataset_config="grounding,segment_captioning",
        rewards="temporal_iou",
        reward_weights="1.0",
    )
    with pytest.raises(ValueError, match="temporal_iou cannot check segment_captioning; add caption_meteor"):
        parse_chat_grpo_arguments(arguments)
    script, _, _ = parse_chat_grpo_arguments(words("m", chat_corpus, "out", times="clock"))
    rows = load_chat_questions(script)
    assert len(rows) == 8 and rows[1]["reference"] == "From 0:03 to 0:06." and rows[1]["times"] == "clock"
    assert (rows[1]["start"], rows[1]["end"], rows[1]["duration"]) == (3.0, 6.0, 6.0)
    assert rows[1]["prompt"][0]["content"].startswith("<video>\n") and rows[1]["video"].endswith("v0.mp4")


def test_only_questions_that_were_selected_are_asked(chat_corpus, tmp_path):
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps({"questions": [["v1", "grounding", 1], ["v3", "grounding", 0]]}))
    script, args, _ = parse_chat_grpo_arguments(words("m", chat_corpus, "out", questions=kept))
    rows = load_chat_questions(script, args.questions)
    assert [(row["id"], row["start"]) for row in rows] == [("v1", 3.0), ("v3", 1.0)]
    kept.write_text(json.dumps({"questions": [["other", "grounding", 1]]}))
    with pytest.raises(ValueError, match=r"kept.json: names no question of"):
        load_chat_questions(script, args.questions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset_config": "instruction"}, "no reward can check 'instruction'|cannot check instruction"),
        ({"dataset_name": "other"}, "rewards need LongVALE's annotations, not 'other'"),
        ({"rewards": "taste"}, "unknown reward 'taste'"),
        ({"use_vllm": True}, "TRL does not pass videos to vLLM"),
    ],
)
def test_options_that_cannot_be_are_refused(chat_corpus, options, message):
    with pytest.raises(ValueError, match=message):
        load_chat_questions(parse_chat_grpo_arguments(words("m", chat_corpus, "out", **options))[0])


def test_the_recipe_resumes_and_leaves_a_checkpoint(chat_folder, chat_corpus, tmp_path, monkeypatch, capsys):
    options = {
        "save_strategy": "steps", "save_steps": 1, "temperature": 1.5, "times": "percent",
        "dataset_config": "segment_captioning", "rewards": "answer_length",
    }  # fmt: skip

    def run(output):
        monkeypatch.setattr(sys, "argv", ["grpo.py", *words(chat_folder("Qwen2.5-VL"), chat_corpus, output, **options)])
        runpy.run_path(str(recipes_dir() / "grpo.py"), run_name="__main__")
        history = json.loads((output / "log_history.json").read_text())
        # Answers to the questions of the second step are sampled: they repeat only with the random states.
        return [
            float(entry[name]) for entry in history if "loss" in entry for name in ("grad_norm", "reward", "entropy")
        ]

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = run(whole)
    assert len(expected) == 6 and min(expected) > 0
    assert load_chat_model(whole, "cpu")[0].config.time_format == "percent"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoint-2")
    (cut / "config.json").unlink()  # a run that was killed has not merged
    assert run(cut) == pytest.approx(expected, abs=1e-6)
    run(cut)
    assert "cut: finished by an earlier run with the same settings" in capsys.readouterr().out
