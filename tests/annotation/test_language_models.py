"""A language model of transformers that answers chat messages: how it is asked, and where it ends."""

import pytest
import torch
import transformers
from tiny_chat import build_tokenizer
from tokenizers import decoders

from longvale.annotation.language_models import TransformersChat
from longvale.chat_client import NoAnswer
from longvale.cli.annotation_options import ModelGroup

QUESTION = [{"role": "user", "content": "Why?"}]
SCHEMA = {"type": "object", "properties": {"cause": {"type": "string"}, "caption": {"type": "string"}}}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("language") / "model", build_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    tokenizer.chat_template = TEMPLATE
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "[THINK]", "[/THINK]"]})
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **size)
    for part in (tokenizer, transformers.LlamaForCausalLM(config)):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def write(folder, monkeypatch):
    """A chat whose model writes a text, token by token as `generate` does: `write(text)` -> chat, what it was given."""

    def make(text, **options):
        chat, given = TransformersChat(str(folder), device="cpu", **options), {}
        tokenizer = chat._pipeline.tokenizer

        def generate(input_ids, attention_mask=None, stopping_criteria=(), **kwargs):
            given.update(kwargs, prompt=tokenizer.decode(input_ids[0]))
            for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
                input_ids = torch.cat([input_ids, torch.tensor([[token]])], dim=1)
                if any(bool(stops(input_ids, None)) for stops in stopping_criteria):
                    break
            given["read"] = tokenizer.decode(input_ids[0])
            return input_ids

        monkeypatch.setattr(chat._pipeline.model, "generate", generate)
        return chat, given

    return make


def test_an_object_is_begun_for_the_model_and_ends_with_it(write):
    chat, given = write(' "a {b}", "caption": "A bell"} I hope that this helps. {')
    assert chat(QUESTION, schema=SCHEMA, max_tokens=99) == '{"cause": "a {b}", "caption": "A bell"}'
    assert given["prompt"].endswith('<|im_start|>assistant {"cause":') and "I hope" not in given["read"]
    assert given["max_new_tokens"] == 99 and given["do_sample"] is False


def test_without_a_schema_it_writes_as_it_likes(write):
    chat, given = write("Because of [the] {bell}.<|im_end|>", max_tokens=7)
    assert chat(QUESTION, max_tokens=99) == "Because of [the] {bell}."
    assert given["prompt"].endswith("<|im_start|>assistant ") and given["max_new_tokens"] == 7
    assert chat.name.endswith("model (at most 7 tokens)")


def test_a_template_that_does_not_keep_the_beginning(write):
    chat, given = write('<think>{"cause": "x"}</think>{"caption": "A bell"} and so on')
    chat._pipeline.tokenizer.chat_template = TEMPLATE.replace("m['content'] }}", "m['content'] | upper }}")
    assert chat(QUESTION, schema=SCHEMA) == '{"caption": "A bell"}'
    assert given["prompt"].endswith("<|im_start|>assistant ")


@pytest.mark.parametrize("marks", [("<think>", "</think>"), ("[THINK]", "[/THINK]")], ids=["words", "special tokens"])
def test_reasoning_is_dropped_and_nothing_else_is_no_answer(write, marks):
    begin, end = marks
    chat, _ = write(f"{begin}a dog?{end}A bell.<|im_end|>")
    assert chat(QUESTION) == "A bell."
    chat, _ = write(f"{begin}a dog? no, a b")
    with pytest.raises(NoAnswer, match="only reasoning and no answer; raise the longest answer"):
        chat(QUESTION)


def test_what_it_is_asked_for_it_writes(folder):
    """The whole way, without a script: an untrained model writes as many tokens as it may."""
    assert isinstance(TransformersChat(str(folder), device="cpu")(QUESTION, schema=SCHEMA, max_tokens=3), str)


def test_weights_are_loaded_as_asked_and_their_precision_is_a_part_of_the_name(folder):
    chat = TransformersChat(str(folder), device="cpu", dtype="bfloat16", attn_implementation="eager")
    model = chat._pipeline.model
    assert (model.dtype, model.config._attn_implementation) == (torch.bfloat16, "eager")
    assert chat.name == f"{folder} (bfloat16)"
    assert TransformersChat(str(folder), device_map="cpu").name == str(folder)
    for wrong, message in (
        ({"dtype": "float8"}, "--dtype must be one of"),
        ({"load_in_4bit": True}, "--load-in-4bit needs"),
        ({"device_map": "auto"}, "--device cpu and --device-map auto: give one of them"),
    ):
        with pytest.raises(ValueError, match=message):
            TransformersChat(str(folder), device="cpu", **wrong)


def test_the_options_of_the_command_reach_the_models():
    group = ModelGroup()
    assert group.options().weights == {}
    group.dtype, group.device_map = "bfloat16", "auto"
    assert group.options("m").weights == {"dtype": "bfloat16", "device_map": "auto"}


def test_what_is_no_language_model_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="is not a language model that can be loaded"):
        TransformersChat(str(tmp_path))
    tokenizer = build_tokenizer()
    transformers.LlamaForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="has no chat template"):
        TransformersChat(str(tmp_path / "base"))
