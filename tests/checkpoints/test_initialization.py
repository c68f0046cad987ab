"""Untrained models from pretrained parts: whatever the language model is, its words come out as they were."""

import json

import numpy as np
import pytest
import torch
from one_video import answer_about_video, answer_plainly
from transformers import (
    AutoModelForCausalLM,
    BitImageProcessor,
    CLIPVisionModelWithProjection,
    Cohere2Config,
    Dinov2Config,
    Dinov2Model,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Qwen3Config,
    WhisperModel,
)

from longvale.checkpoints.initialization import initialize
from longvale.checkpoints.loading import load_checkpoint
from longvale.demo.checkpoint import build_tokenizer, sample_texts
from longvale.models.modeling_beats import BeatsModel
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.training.collator import DialogueCollator

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
LANGUAGE_MODELS = {
    "llama": lambda **ids: LlamaConfig(**GROUPED, **ids),
    "smollm": lambda **ids: LlamaConfig(**GROUPED, tie_word_embeddings=True, **ids),
    "qwen3": lambda **ids: Qwen3Config(**GROUPED, tie_word_embeddings=True, **ids),
    "gpt2": lambda **ids: GPT2Config(n_embd=32, n_layer=2, n_head=4, **ids),
    "gpt-neox": lambda **ids: GPTNeoXConfig(**SMALL, **ids),
}
# As SmolLM2 has it: line breaks inside of the strings.
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TURNS = [{"role": "user", "content": "<video>\nWhat?"}, {"role": "assistant", "content": "A bell rings."}]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = build_tokenizer(sample_texts(50))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="module")
def write_llm(tokenizer, tmp_path_factory):
    def write(config_of, template=CHATML):
        folder = tmp_path_factory.mktemp("llm")
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        config = config_of(
            vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id, initializer_range=0.3,
        )  # fmt: skip
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        model.generation_config.update(do_sample=True, temperature=0.6, repetition_penalty=1.1)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "chat_template.jinja").unlink()
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        return folder

    return write


@pytest.fixture(scope="module")
def towers(write_towers):
    return write_towers(visual=12, audio=10, speech=14)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_any_language_model(write_llm, tmp_path, kind):
    folder = write_llm(LANGUAGE_MODELS[kind])
    initialize(tmp_path / "model", llm=folder)
    model, processor = load_checkpoint(tmp_path / "model", LongVALEForConditionalGeneration, device="cpu")
    alone = AutoModelForCausalLM.from_pretrained(folder).eval()
    tied = alone.config.tie_word_embeddings
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, alone(input_ids=ids).logits, rtol=0, atol=1e-5)
    features = {"visual": np.random.default_rng(0).normal(size=(5, 768)), "speech": np.ones((2, 1280))}
    questions = ["<video>\nWhen does it ring?", "<video>\nWhat?"]
    separate = [answer_plainly(model, processor, question, features, 8) for question in questions]
    assert answer_about_video(model, processor, features, questions, 8) == separate


def test_its_chat_template_and_end_are_kept_and_marked_for_training(write_llm, tokenizer, tmp_path):
    made = initialize(tmp_path / "model", llm=write_llm(LANGUAGE_MODELS["smollm"]))
    assert made.marks
    for turns, prompt in ((TURNS, False), (TURNS[:1], True)):
        expected = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
        assert made.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt) == expected
    settings = made.model.generation_config
    assert settings.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert not settings.do_sample and settings.temperature is None and settings.repetition_penalty in (None, 1.0)
    row = {"messages": TURNS, "visual_features": np.ones((3, 768), np.float32)}
    labels = DialogueCollator(made.processor)([row])["labels"][0]
    assert made.processor.tokenizer.decode(labels[labels != -100]) == "A bell rings.<|im_end|>"


def test_a_template_that_cannot_be_marked_is_told(longvale, write_llm, tmp_path):
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
    folder = write_llm(LANGUAGE_MODELS["llama"], template)
    result = longvale("init", "--llm", folder, "--output", tmp_path / "model")
    assert result.exit_code == 0 and "does not mark what to train on" in result.stdout
    assert (tmp_path / "model" / "chat_template.jinja").read_text() == template


def test_without_a_chat_template_it_is_the_published_one(write_llm, tmp_path):
    made = initialize(tmp_path / "model", llm=write_llm(LANGUAGE_MODELS["llama"], template=None))
    assert "ASSISTANT:" in made.processor.apply_chat_template(TURNS[:1], add_generation_prompt=True, tokenize=False)


def test_towers_are_those_that_were_given(longvale, write_llm, towers, tmp_path):
    options = ["--vision", towers["clip"], "--audio", towers["beats"], "--speech", towers["whisper"]]
    folder = write_llm(LANGUAGE_MODELS["qwen3"])
    result = longvale("init", "--llm", folder, *options, "--output", tmp_path / "model")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "visual: CLIPVisionModelWithProjection, 12 wide",
        "audio: BeatsModel, 10 wide",
        "speech: WhisperEncoder, 14 wide",
        f"checkpoint: {tmp_path / 'model'}",
    ]
    model, processor = load_checkpoint(tmp_path / "model", LongVALEForConditionalGeneration, device="cpu")
    sources = {
        "visual": CLIPVisionModelWithProjection.from_pretrained(towers["clip"]),
        "audio": BeatsModel.from_pretrained(towers["beats"]),
        "speech": WhisperModel.from_pretrained(towers["whisper"]).encoder,
    }
    for modality, source in sources.items():
        state = getattr(model.model, f"{modality}_tower").state_dict()
        assert all(torch.equal(state[name], value) for name, value in source.state_dict().items())
    rng = np.random.default_rng(0)
    media = {"videos": [rng.integers(0, 255, (4, 20, 24, 3), dtype=np.uint8)]}
    media["audio"] = [rng.normal(0, 0.1, 16_000).astype(np.float32)]
    inputs = processor(text="<video> ?", **media)
    assert model.generate(**inputs, max_new_tokens=3).shape[0] == 1
    assert (tmp_path / "model" / "README.md").is_file() and list((tmp_path / "model").glob("*.py"))


def test_projectors_come_from_the_seed(write_llm, tmp_path):
    folder = write_llm(LANGUAGE_MODELS["llama"])
    weights = [
        initialize(tmp_path / f"model{i}", llm=folder, seed=seed).model.model.visual_projector.weight
        for i, seed in enumerate((0, 0, 1))
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_any_vision_model_and_dtype(write_llm, tmp_path):
    vision = Dinov2Config(image_size=28, patch_size=14, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    Dinov2Model(vision).save_pretrained(tmp_path / "dino")
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    BitImageProcessor(**size).save_pretrained(tmp_path / "dino")
    folder = write_llm(LANGUAGE_MODELS["llama"])
    initialize(tmp_path / "model", llm=folder, vision=tmp_path / "dino", dtype="bfloat16")
    model, processor = load_checkpoint(tmp_path / "model", LongVALEForConditionalGeneration, device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    frames = np.random.default_rng(0).integers(0, 255, (3, 40, 30, 3), dtype=np.uint8)
    assert model.encode(**processor(videos=[frames]))["visual"][0].shape == (1, 3, 16)


@pytest.mark.parametrize(
    "config", [lambda **ids: Gemma2Config(**GROUPED, **ids), lambda **ids: Cohere2Config(**SMALL, **ids)]
)
def test_a_head_that_does_more_is_refused(longvale, write_llm, tmp_path, config):
    folder = write_llm(config)
    result = longvale("init", "--llm", folder, "--output", tmp_path / "model")
    assert result.exit_code == 2 and "does more to its logits than a linear head" in result.stderr
    assert not (tmp_path / "model").exists()


def test_what_is_refused(longvale, write_llm, towers, tmp_path):
    folder = write_llm(LANGUAGE_MODELS["llama"])

    def told(*options):
        result = longvale("init", "--output", tmp_path / "model", *options)
        assert result.exit_code == 2 and "Traceback" not in result.stderr, result.output
        assert not (tmp_path / "model").exists()
        return result.stderr.splitlines()[-1]

    assert f"{tmp_path / 'none'}: cannot be loaded" in told("--llm", tmp_path / "none")
    assert "cannot be loaded" in told("--llm", towers["clip"])
    assert "the speech tower is Whisper's encoder" in told("--llm", folder, "--speech", towers["clip"])
    assert "dtype must be one of float32, bfloat16, float16, not 'int8'" in told("--llm", folder, "--dtype", "int8")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))
    assert f"{folder}: lacks" in told("--llm", folder)
