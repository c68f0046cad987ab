import sys
from dataclasses import fields

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from trl import TrlParser

from longvale.demo.tuning import DemoOptions
from longvale.training.config import RecipeConfig, SFTStageConfig, accumulation_steps
from longvale.training.data import mixture_of
from longvale.training.grpo import GRPOStageConfig
from longvale.training.recipes import recipes_dir

GIVEN = {"model": "m", "data_dir": "d", "features_dir": "f"}


def parse(*arguments):
    return TrlParser(SFTStageConfig).parse_args_and_config(list(arguments))[0]


def test_defaults_fit_a_machine_without_gpu(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    args = SFTStageConfig(**GIVEN)
    assert args.use_cpu and args.bf16 is False and not args.tf32 and not args.gradient_checkpointing
    assert args.weights_dtype is None
    assert (args.lora_r, args.lora_alpha, args.lora_dropout, args.max_length) == (64, 128, 0.05, 2048)
    assert args.dataset_kwargs == {"skip_prepare_dataset": True} and args.remove_unused_columns is False
    assert args.report_to == ["trackio"] and args.dialogues == "boundary_perception"
    assert SFTStageConfig(**GIVEN, stage="instruction").dialogues == "instruction"
    assert SFTStageConfig(**GIVEN, dtype="bfloat16").weights_dtype == "bfloat16"


PUBLISHED = {
    "boundary_perception": "boundary_perception", "bp-7k": "boundary_perception", "bp-154k": "boundary_perception",
    "instruction": "instruction", "it-25k": "instruction", "it-61k": "instruction",
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers(name):
    file, stage = str(recipes_dir() / "configs" / f"{name}.yaml"), PUBLISHED[name]
    given = [part for name, value in GIVEN.items() for part in (f"--{name}", value)]
    args = parse("--config", file, *given)
    assert args.stage == args.dialogues == stage
    if "-" in name:
        (source,) = mixture_of(args)
        assert source.dialogues == f"longvale-sft-{name}.json" and source.weight == 1
        assert source.features == {
            "bp-154k": ("longvale", "vtimellm_stage2"), "it-61k": ("longvale", "vtimellm_stage3"),
        }.get(name, ("longvale",))  # fmt: skip
    assert args.learning_rate == 1e-4 and args.lr_scheduler_type == "cosine" and args.num_train_epochs == 2
    assert args.get_warmup_steps(1000) == 30
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == args.effective_batch_size == 128
    assert (args.lora_r, args.lora_alpha, args.lora_dropout, args.max_length) == (64, 128, 0.05, 2048)
    assert args.gradient_checkpointing is True
    assert parse("--config", file, *given, "--learning_rate", "3e-5").learning_rate == 3e-5


@pytest.mark.parametrize("file", sorted((recipes_dir() / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_names_options_that_exist(file):
    kinds = (GRPOStageConfig,) if "grpo" in file.stem else (SFTStageConfig, DemoOptions)
    given = [part for name, value in GIVEN.items() for part in (f"--{name}", value)]
    parsed = TrlParser(kinds).parse_args_and_config(["--config", str(file), *given])
    for name, value in yaml.safe_load(file.read_text()).items():
        (args,) = (args for args in parsed if name in {field.name for field in fields(args)})
        assert getattr(args, name) == ([] if value == "none" else value), name


@pytest.mark.parametrize("file", sorted((recipes_dir() / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_every_launch_file(file):
    config = load_config_from_file(str(file))
    assert config.num_processes == yaml.safe_load(file.read_text())["num_processes"]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((128, 3, 8), r"effective_batch_size \(128\) is not shared equally by 3 processes; make it 126 or 129"),
        ((12, 2, 4), r"per_device_train_batch_size \(4\) does not divide the 6 .*; make it one of 1, 2, 3, 6"),
        ((2, 4, 1), r"effective_batch_size \(2\) is not shared equally by 4 processes; make it 4"),
        ((0, 1, 1), "effective_batch_size must be 1 or more, not 0"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_with_the_number_to_change(numbers, message):
    with pytest.raises(ValueError, match=message):
        accumulation_steps(*numbers)


def test_the_effective_batch_sets_accumulation_and_nothing_else():
    assert (
        SFTStageConfig(**GIVEN, effective_batch_size=24, per_device_train_batch_size=4).gradient_accumulation_steps == 6
    )
    assert SFTStageConfig(**GIVEN, gradient_accumulation_steps=5).gradient_accumulation_steps == 5
    with pytest.raises(
        ValueError, match=r"gradient_accumulation_steps is 5 but effective_batch_size \(24\) makes it 3"
    ):
        SFTStageConfig(**GIVEN, effective_batch_size=24, gradient_accumulation_steps=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": None}, "model is not given; set --model"),
        ({"data_dir": None}, "data_dir is not given"),
        ({"videos_dir": "v"}, "either as features_dir .* or as videos_dir"),
        ({"features_dir": None}, "either as features_dir .* or as videos_dir"),
        ({"lora_r": 0}, "lora_r must be 1 or more, not 0"),
        ({"lora_dropout": 1.0}, "lora_dropout must be 0 or more and below 1, not 1.0"),
        ({"mixture": []}, r"mixture must be a list of sources with dialogues and features, not \[\]"),
        ({"mixture": [{"features": "f"}]}, "mixture: item 1: dialogues is not given"),
        ({"mixture": [{"dialogues": "d"}]}, "mixture: item 1: give either features .* or videos"),
        ({"mixture": [{"dialogues": "d", "features": "f", "weight": 0}]}, "item 1: weight must be .* above 0, not 0"),
        (
            {"mixture": [{"dialogues": "d", "features": "f"}, {"dialogues": "d", "videos": "v"}]},
            "some sources have features and some videos",
        ),
        ({"mixture": [{"dialogues": "d", "features": "f"}], "dialogues_size": "7k"}, "name the file in it"),
        ({"max_missing": 2}, "max_missing must be a share, 0 to 1, not 2"),
        ({"grounding_videos": -1}, "grounding_videos must be 0 or more"),
        ({"remove_unused_columns": True}, "remove_unused_columns must be false"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SFTStageConfig(**{**GIVEN, **options})


@pytest.mark.parametrize(
    ("given", "choice"), [("auto", "auto"), ("true", "auto"), ("false", None), ("out/checkpoint-3", "out/checkpoint-3")]
)
def test_what_to_resume_can_be_said_in_yaml_and_on_the_command_line(tmp_path, given, choice):
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump(GIVEN) + f"resume_from_checkpoint: {given}\n")
    assert parse("--config", str(file)).resume_from_checkpoint == choice
    assert SFTStageConfig(**GIVEN, resume_from_checkpoint=given).resume_from_checkpoint == choice


def test_the_recipes_are_found_in_a_wheel_too(monkeypatch, tmp_path):
    module = sys.modules["longvale.training.recipes"]
    package = tmp_path / "site-packages" / "longvale"
    (package / "recipes").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(package / "training" / "recipes.py"))
    with pytest.raises(FileNotFoundError, match="no recipes"):
        recipes_dir()
    (package / "recipes" / "sft.py").touch()
    assert recipes_dir() == (package / "recipes").resolve()


def test_models_of_others_are_not_pushed():
    """They get no card; the trainer would push its own checkpoints."""
    with pytest.raises(ValueError, match="push_to_hub is for LongVALE's own model, which has a card; use hf upload"):
        RecipeConfig(push_to_hub=True, hub_model_id="me/name")
