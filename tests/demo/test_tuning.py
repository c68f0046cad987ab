import pytest
import torch

from longvale.checkpoints.loading import load_checkpoint
from longvale.demo.optimizer import Muon
from longvale.demo.tuning import DemoOptions
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.training.checkpoints import checkpoint_to_resume
from longvale.training.config import SFTStageConfig
from longvale.training.stages import StageTrainer

GIVEN = {"model": "m", "data_dir": "d", "features_dir": "f"}


@pytest.mark.parametrize(
    ("options", "stage", "message"),
    [
        ({"mosaic": 3}, {"features_dir": None, "videos_dir": "v"}, "mosaic needs stored features"),
        ({"mosaic": -1}, {}, "mosaic must be a number of examples, 0 or more, not -1"),
        ({"turns": 3}, {}, "turns and modality_dropout are options of mosaic"),
        ({"modality_dropout": 0.1}, {}, "turns and modality_dropout are options of mosaic"),
        ({"mosaic": 3}, {"mixture": [{"dialogues": "d", "features": "f"}]}, "leave out either it or mixture"),
        ({"mosaic": 3}, {"streaming": True}, "mosaic composes examples while training already"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, stage, message):
    with pytest.raises(ValueError, match=message):
        DemoOptions(**options).apply(SFTStageConfig(**{**GIVEN, **stage}))


def test_muon_is_refused_where_weights_are_split(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    DemoOptions().apply(SFTStageConfig(**GIVEN))
    with pytest.raises(ValueError, match="Muon needs whole matrices, which FSDP splits"):
        DemoOptions(muon_learning_rate=0.1).apply(SFTStageConfig(**GIVEN))


def stage(output, **options):
    args = SFTStageConfig(**GIVEN, output_dir=str(output), resume_from_checkpoint="auto")
    DemoOptions(**options).apply(args)
    return args


@pytest.mark.parametrize("changed", [{"turns": 3}, {"modality_dropout": 0.2}, {"muon_learning_rate": 0.2}])
def test_resuming_with_another_option_is_refused(tmp_path, changed):
    options = {"mosaic": 8, "turns": 2, "modality_dropout": 0.1, "muon_learning_rate": 0.1}
    checkpoint_to_resume(stage(tmp_path, **options))
    (tmp_path / "checkpoint-1").mkdir()
    ((name, value),) = changed.items()
    with pytest.raises(ValueError, match=f"was made with {name} {options[name]}, not {value}"):
        checkpoint_to_resume(stage(tmp_path, **{**options, **changed}))


def make(model_dir, corpus, output, **options):
    args = SFTStageConfig(
        model=str(model_dir), data_dir=str(corpus), features_dir=str(corpus / "features"), output_dir=str(output),
        per_device_train_batch_size=4, max_steps=2, learning_rate=5e-3, lora_r=8, save_strategy="no",
        disable_tqdm=True, report_to="none",
    )  # fmt: skip
    demo = DemoOptions(mosaic=64, turns=2, **options)
    demo.apply(args)
    model, processor = load_checkpoint(model_dir, LongVALEForConditionalGeneration, device="cpu")
    return demo.trainer(model, args, processor, demo.training_set(args, model.config))


def test_the_trainer_takes_muon_for_the_adapter(tiny_model, telling_corpus, tmp_path):
    trainer = make(tiny_model, telling_corpus, tmp_path, muon_learning_rate=0.02)
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, Muon) and trainer.create_optimizer() is optimizer
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 5e-3]
    names = {id(item): name for name, item in trainer.model.named_parameters()}
    matrices, others = ({names[id(item)] for item in group["params"]} for group in optimizer.param_groups)
    trained = {name for name, item in trainer.model.named_parameters() if item.requires_grad}
    assert matrices == {name for name in trained if ".lora_" in name}
    assert others == {name for name in trained if "_projector.modules_to_save" in name}
    assert matrices and others and matrices | others == trained

    before = {name: item.detach().clone() for name, item in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.optimizer.optimizer is optimizer
    after = dict(trainer.model.named_parameters())
    assert {name for name in before if not torch.equal(before[name], after[name])} == trained


def test_without_a_rate_the_trainer_takes_the_published_optimizer(tiny_model, telling_corpus, tmp_path):
    trainer = make(tiny_model, telling_corpus, tmp_path)
    assert type(trainer) is StageTrainer and type(trainer.create_optimizer()).__name__ == "AdamW"
