import copy
import json

import pytest
import torch
from peft import PeftModel

from longvale.checkpoints.loading import load_checkpoint
from longvale.demo.checkpoint import NUM_LAYERS
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.synthetic.compositing import load_composites
from longvale.training.config import SFTStageConfig
from longvale.training.profile import ProfileCallback
from longvale.training.stages import StageTrainer, load_base, merge_and_save

FEATURES = ("visual_features", "audio_features", "speech_features")


def make_trainer(corpus, model_dir, output_dir, dtype=None, **options):
    # A high rate: few steps must leave a trace in every weight.
    args = SFTStageConfig(
        model=str(model_dir),
        data_dir=str(corpus),
        features_dir=str(corpus / "features"),
        output_dir=str(output_dir),
        **{
            "per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 5e-3,
            "lora_r": 8, "lora_alpha": 16, "save_strategy": "no", "disable_tqdm": True,
            "report_to": "none", "logging_steps": 1, **options,
        },
    )  # fmt: skip
    model, processor = load_checkpoint(model_dir, LongVALEForConditionalGeneration, device="cpu", dtype=dtype)
    composites = load_composites(corpus, args.features_dir, model.config, args.dialogues, args.seed, turns=2)
    return StageTrainer(model, args, processor, composites.dataset(64))


def batch_of(trainer, rows=6):
    return trainer.data_collator.collate(trainer.train_dataset.__getitems__(list(range(rows))))


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def before_and_after(corpus, base, tmp_path_factory):
    trainer = make_trainer(corpus, base, tmp_path_factory.mktemp("stage"))
    before = weights(trainer.model)
    trainer.train()
    return before, weights(trainer.model), trainer


@pytest.fixture(scope="module")
def trained(before_and_after):
    return before_and_after[2]


def test_what_is_to_be_trained_moves_and_nothing_else(before_and_after):
    before, after, _ = before_and_after
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    meant = {name for name in before if ".lora_" in name or "modules_to_save" in name}
    assert moved == meant
    # 7 linear layers in each layer with A and B; weight and bias of two projectors.
    assert sum(".lora_" in name for name in moved) == NUM_LAYERS * 7 * 2
    assert {name.split(".modules_to_save")[0].rpartition(".")[2] for name in moved if "modules_to_save" in name} == {
        "audio_projector",
        "speech_projector",
    }
    for part in ("visual_projector", "visual_tower", "audio_tower", "speech_tower", "embed_tokens", "base_layer"):
        assert any(part in name for name in before) and not any(part in name for name in moved), part


def test_the_lora_is_on_the_language_model_alone(trained):
    wrapped = [name for name, module in trained.model.named_modules() if hasattr(module, "lora_A")]
    assert len(wrapped) == 7 * NUM_LAYERS and all(".language_model.layers." in name for name in wrapped)


def test_every_modality_matters_to_the_loss(trained):
    model, batch = trained.model.eval(), batch_of(trained)
    # Enlarged: beside the time embedding the features of an untrained model are small.
    batch |= {name: 20 * batch[name] for name in FEATURES}
    with torch.no_grad():
        loss = trained.compute_loss(model, dict(batch))
        for name in FEATURES:
            zeroed = trained.compute_loss(model, batch | {name: torch.zeros_like(batch[name])})
            shuffled = trained.compute_loss(model, batch | {name: batch[name].flip(1)})
            assert abs(zeroed - loss) > 1e-5 and abs(shuffled - loss) > 1e-5, name  # rounding is below 1e-6


def test_the_trainers_fused_loss_is_the_models_own(trained):
    model, batch = trained.model.eval(), batch_of(trained)
    with torch.no_grad():
        fused, native = trained.compute_loss(model, dict(batch)), model(**batch).loss
    assert fused.item() == pytest.approx(native.item(), rel=1e-5)  # sums in another order


def test_checkpointing_leaves_loss_and_gradient_as_they_are(corpus, base, tmp_path):
    found = []
    for checkpointing in (False, True):
        trainer = make_trainer(corpus, base, tmp_path, lora_dropout=0.0)
        if checkpointing:
            trainer.model.gradient_checkpointing_enable()
        batch = batch_of(trainer, rows=7)
        tokens = (batch["labels"] != -100).sum()
        loss = trainer.training_step(trainer.model, batch, tokens)
        found.append((loss, {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}))
    (loss, gradients), (other_loss, other_gradients) = found
    assert other_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert gradients.keys() == other_gradients.keys() and any("audio_projector" in name for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-3, atol=1e-6)


def test_the_head_sees_only_positions_with_a_label(trained):
    model, batch = trained.model.eval(), batch_of(trained)
    seen = []
    handle = model.get_base_model().lm_head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    with torch.no_grad():
        outputs = model(**batch, fused_lm_head=True)
        logits = model(**batch).logits
    handle.remove()
    labels = batch["labels"][:, 1:]
    assert seen[0][0] == (labels != -100).sum() < labels.numel() / 2
    expected = logits[:, :-1].log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(outputs.log_probs, expected * (labels != -100), rtol=1e-4, atol=1e-5)
    assert outputs.is_top1.sum() == ((logits[:, :-1].argmax(-1) == labels) & (labels != -100)).sum()


def test_a_loss_that_is_no_number_stops_and_names_the_dialogues(corpus, base, tmp_path):
    trainer = make_trainer(corpus, base, tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    collate, poisoned = trainer.data_collator.collate, "mosaic_7"

    def poison(rows):
        batch = collate(rows)
        for row, values in zip(rows, batch["visual_features"], strict=True):
            values[0] *= float("nan") if row["id"] == poisoned else 1
        return batch

    trainer.data_collator.collate = poison
    trainer.args.max_steps = 64
    before = weights(trainer.model)
    with pytest.raises(FloatingPointError, match=r"step \d+: the loss is nan; dialogues of the batch: .*") as stopped:
        trainer.train()
    named = str(stopped.value).partition("batch: ")[2].partition(".")[0].split(", ")
    assert poisoned in named and len(named) == 2
    assert all(torch.isfinite(values).all() for values in weights(trainer.model).values())
    assert before.keys() == weights(trainer.model).keys()


def test_what_is_logged_and_profiled(corpus, base, tmp_path, capsys):
    trainer = make_trainer(corpus, base, tmp_path, max_steps=2)
    trainer.add_callback(ProfileCallback(tmp_path))
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert entry["tokens_per_second"] > 0 and 0 <= entry["padding"] < 1 and entry["peak_memory_gib"] > 0.1
    assert "Self CPU" in capsys.readouterr().out
    names = {event["name"] for event in json.loads((tmp_path / "profile.json").read_text())["traceEvents"]}
    assert "aten::mm" in names and any(name.startswith("Optimizer.step") for name in names)
    assert [path.name for path in tmp_path.iterdir() if "profile" in path.name] == ["profile.json"]


def test_the_merged_checkpoint_is_the_adapter_and_the_next_stage_builds_on_it(corpus, base, trained, tmp_path):
    model, batch = copy.deepcopy(trained.model).eval(), batch_of(trained)
    with torch.no_grad():
        expected = trained.model.eval()(**batch).logits
        merged = merge_and_save(model, trained.processing_class, tmp_path / "merged")
        assert "forward" not in merged.__dict__
        assert not any("lora" in name or "modules_to_save" in name for name in merged.state_dict())
        loaded, processor = load_checkpoint(tmp_path / "merged", LongVALEForConditionalGeneration, device="cpu")
        assert processor.video_token_id == loaded.config.video_token_id
        plain = load_checkpoint(base, LongVALEForConditionalGeneration, device="cpu")[0]
        adapter = PeftModel.from_pretrained(plain, tmp_path / "merged" / "adapter").eval()
        for other in (merged, loaded, adapter):
            torch.testing.assert_close(other(**batch).logits, expected, rtol=1e-5, atol=1e-5)
    assert (tmp_path / "merged" / "modeling_longvale.py").is_file()
    assert not (tmp_path / "merged" / ".unfinished").exists()
    assert adapter.peft_config["default"].base_model_name_or_path == str(base)

    second = make_trainer(corpus, tmp_path / "merged", tmp_path / "second", stage="instruction", max_steps=2)
    assert second.model.peft_config["default"].base_model_name_or_path == str(tmp_path / "merged")
    before = weights(second.model)
    assert all((values == 0).all() for name, values in before.items() if "lora_B" in name)  # a new one, not the old
    for name, values in merged.state_dict().items():
        if "language_model.layers.0.self_attn.q_proj" in name:
            base_name = f"base_model.model.{name.replace('q_proj', 'q_proj.base_layer')}"
            torch.testing.assert_close(before[base_name], values)
    second.train()
    after = weights(second.model)
    assert {n for n in before if not torch.equal(before[n], after[n])} == {
        n for n in before if ".lora_" in n or "modules_to_save" in n
    }


def test_what_is_trained_over_bfloat16_is_float32(corpus, base, tmp_path):
    trainer = make_trainer(corpus, base, tmp_path, dtype="bfloat16", max_steps=2, learning_rate=1e-4)
    kept = {p.dtype for name, p in trainer.model.named_parameters() if p.requires_grad}
    frozen = {
        p.dtype for name, p in trainer.model.named_parameters() if "language_model" in name and not p.requires_grad
    }
    assert kept == {torch.float32} and frozen == {torch.bfloat16}
    before = weights(trainer.model)
    trainer.train()
    name = "base_model.model.model.audio_projector.modules_to_save.default.weight"
    moved = weights(trainer.model)[name] != before[name]
    moved = moved[:, moved.any(dim=0)]  # the synthetic features have columns that are always zero
    assert moved.shape[1] >= 6 and moved.float().mean() > 0.9  # in bfloat16 itself most steps this small are lost
    merged = merge_and_save(trainer.model, trainer.processing_class, tmp_path)
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}


def test_a_failed_save_leaves_no_checkpoint_that_loads(trained, tmp_path, monkeypatch):
    merge_and_save(copy.deepcopy(trained.model), trained.processing_class, tmp_path)
    monkeypatch.setattr(trained.processing_class, "save_pretrained", lambda folder: 1 / 0)
    weights_before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(ZeroDivisionError):
        merge_and_save(copy.deepcopy(trained.model), trained.processing_class, tmp_path)
    # The earlier one is whole and untouched.
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == weights_before
    load_checkpoint(tmp_path, LongVALEForConditionalGeneration, device="cpu")


def test_the_base_is_quantized_for_training_and_whole_for_the_merge(monkeypatch, corpus, base, tmp_path):
    """Of QLoRA, which needs a GPU: what the weights are asked for."""
    asked = []

    def load(path, kind, **weights):
        asked.append(weights)
        return load_checkpoint(path, kind, device="cpu")

    monkeypatch.setattr("longvale.training.stages.load_checkpoint", load)
    args = SFTStageConfig(model=str(base), data_dir=str(corpus), features_dir=str(corpus), load_in_4bit=True)
    load_base(args, args.load_in_4bit)
    load_base(args)
    assert [(weights["load_in_4bit"], weights["device"]) for weights in asked] == [(True, args.device), (False, "cpu")]
