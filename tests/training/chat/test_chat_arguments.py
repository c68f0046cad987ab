import logging

import pytest

from longvale.training.chat.arguments import is_chat_model, parse_chat_arguments
from longvale.training.config import recipe_arguments

BASE = ("--data_dir", "corpus", "--output_dir", "out", "--report_to", "none")


def parse(*words):
    return parse_chat_arguments(recipe_arguments([*BASE, *map(str, words)]))


def test_options_of_trl_are_parsed_together():
    words = (
        "--model_name_or_path",
        "m",
        "--dataset_config",
        "instruction",
        "--lora_r",
        8,
        "--attn_implementation",
        "eager",
    )
    script, args, model = parse(*words, "--model_revision", "abc", "--learning_rate", 1e-3, "--frames", 8)
    assert (script.dataset_name, script.dataset_config, script.frames) == ("longvale", "instruction", 8)
    assert (args.output_dir, args.learning_rate, args.max_length) == ("out", 1e-3, None)
    assert (model.model_name_or_path, model.lora_r, model.model_revision) == ("m", 8, "abc")
    assert model.attn_implementation == "eager" and model.use_peft


def test_names_of_the_own_model_are_read_with_a_note(caplog):
    with caplog.at_level(logging.WARNING):
        script, args, model = parse(
            "--model", "m", "--dialogues=instruction", "--videos", "v", "--effective-batch-size", 8
        )
    assert (model.model_name_or_path, script.dataset_config, script.videos_dir) == ("m", "instruction", "v")
    assert args.gradient_accumulation_steps * args.per_device_train_batch_size == 8
    assert "dialogues is read as --dataset_config" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--features_dir", "f"), "features_dir is for LongVALE's own model; .* set --videos_dir"),
        (("--use_peft", "false"), "use_peft must be true"),
        (("--load_in_8bit", "true"), "load_in_8bit is not supported"),
        (("--load_in_4bit", "true", "--load_in_8bit", "true"), "load_in_8bit"),
        (("--remove_unused_columns", "true"), "remove_unused_columns must be false"),
        (("--no_such_option", "1"), "no_such_option"),
    ],
)
def test_options_that_cannot_be_used_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        parse("--model_name_or_path", "m", *words)


def test_a_model_is_required():
    with pytest.raises(ValueError, match="model_name_or_path is not given"):
        parse()


def test_what_changes_the_result_is_compared_when_resuming():
    def settings(*words):
        return parse("--model_name_or_path", "m", *words)[1].recipe_settings

    same, other = settings("--attn_implementation", "eager"), settings("--times", "clock")
    assert settings() == same and settings() != other and settings("--lora_r", 3) != same


def test_the_kind_of_model_is_read_from_its_configuration(chat_folder, base, tmp_path):
    folder = str(chat_folder("Qwen2.5-VL"))
    config = tmp_path / "run.yaml"
    config.write_text(f"model_name_or_path: {folder}\n")
    for words in (["--model_name_or_path", folder], [f"--model={folder}"], ["--config", str(config)]):
        assert is_chat_model(recipe_arguments(words))
    for words in (["--model", str(base)], ["--model", "nowhere"], ["--config", str(config), "--model", str(base)], []):
        assert not is_chat_model(recipe_arguments(words))
