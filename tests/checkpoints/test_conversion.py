"""Converting the published layout: a tiny checkpoint in it, held against what peft merges and sentencepiece encodes."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from longvale.checkpoints.conversion import convert, find_parts
from longvale.checkpoints.loading import load_checkpoint
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration

HIDDEN, LAYERS, RANK, ALPHA = 32, 2, 4, 8
WIDTHS = {"visual": 12, "audio": 10, "speech": 14}
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "mlp.up_proj": (48, HIDDEN),
    "mlp.down_proj": (HIDDEN, 48),
}
STAGES = {"tiny-stage2-bp": torch.float32, "tiny-stage3-it": torch.bfloat16}
TEXT = (
    "USER: <video> At which time interval can we find a dog barking taking place in the video? ASSISTANT: From 05 to "
    "50. The man says hello; then a bell rings twice, and everyone leaves the room quickly."
)


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """A checkpoint in the published layout, not to be changed."""
    folder = tmp_path_factory.mktemp("official") / "checkpoints"
    base = folder / "vicuna-tiny"
    base.mkdir(parents=True)
    vocab_size = write_tokenizer(base)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        initializer_range=0.3,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = LlamaForCausalLM(config).half().state_dict()
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    config.dtype = "float16"
    config.save_pretrained(base)
    # Sampling without `do_sample`, as Vicuna has it, is what transformers no longer saves.
    (base / "generation_config.json").write_text(json.dumps({"temperature": 0.9, "top_p": 0.6}))
    torch.save(weights, base / "pytorch_model.bin")
    torch.save(draw_projectors(generator, "model.", ["mm"], torch.float16), folder / "stage1_mm_projector.bin")
    for name, dtype in STAGES.items():
        write_adapter(folder / name, generator, dtype)
    return folder


@pytest.fixture
def official(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "official"))


@pytest.fixture(scope="session")
def converted(original, tmp_path_factory):
    """What `original` is converted to, not to be changed."""
    output = tmp_path_factory.mktemp("converted") / "model"
    convert(original, output)
    return output


def write_tokenizer(folder, legacy=False):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 3),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "model_max_length": 2048}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model")).vocab_size()


def draw_projectors(generator, prefix, kinds, dtype):
    tensors = {}
    for kind in kinds:
        width = WIDTHS[{"mm": "visual", "audio_mm": "audio", "asr_mm": "speech"}[kind]]
        tensors[f"{prefix}{kind}_projector.weight"] = torch.randn(HIDDEN, width, generator=generator).to(dtype)
        tensors[f"{prefix}{kind}_projector.bias"] = torch.randn(HIDDEN, generator=generator).to(dtype)
    return tensors


def write_adapter(folder, generator, dtype):
    folder.mkdir()
    tensors = {}
    for layer in range(LAYERS):
        for module, (rows, columns) in LINEAR.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator).to(dtype) / 5
            tensors[f"{name}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator).to(dtype) / 5
    torch.save(tensors, folder / "adapter_model.bin")
    trained = draw_projectors(generator, "base_model.model.model.", ["audio_mm", "asr_mm"], dtype)
    torch.save(trained, folder / "non_lora_trainables.bin")
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    settings["target_modules"] = sorted({module.rpartition(".")[2] for module in LINEAR})
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text("{}")


def merge_with_peft(folder):
    """The language model with both adapters, merged by peft in fp32."""
    model = LlamaForCausalLM.from_pretrained(folder / "vicuna-tiny", dtype=torch.float32)
    for stage in STAGES:
        model = PeftModel.from_pretrained(model, folder / stage).merge_and_unload()
    return model.eval()


def load_all(folder):
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def edit_tensors(path, change):
    tensors = torch.load(path, weights_only=True)
    change(tensors)
    torch.save(tensors, path)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# What comes out


def test_weights_are_those_that_peft_merges(original, converted):
    found = load_all(converted)
    merged = merge_with_peft(original).state_dict()
    for name, expected in merged.items():
        ours = name if name.startswith("lm_head") else name.replace("model.", "model.language_model.", 1)
        torch.testing.assert_close(found.pop(ours), expected, rtol=0, atol=1e-6)  # rounding of fp32 sums
    visual = torch.load(original / "stage1_mm_projector.bin", weights_only=True)
    trained = torch.load(original / "tiny-stage3-it" / "non_lora_trainables.bin", weights_only=True)
    for kind in ("weight", "bias"):
        sources = {
            "visual": visual[f"model.mm_projector.{kind}"],
            "audio": trained[f"base_model.model.model.audio_mm_projector.{kind}"],
            "speech": trained[f"base_model.model.model.asr_mm_projector.{kind}"],
        }
        for modality, expected in sources.items():
            assert torch.equal(found.pop(f"model.{modality}_projector.{kind}"), expected.float())
    assert not found


def test_adapters_change_the_weights(original, converted):
    """Else the comparison above could hold for a model without them."""
    base = torch.load(original / "vicuna-tiny" / "pytorch_model.bin", weights_only=True)
    name = "layers.1.mlp.down_proj.weight"
    difference = load_all(converted)[f"model.language_model.{name}"] - base[f"model.{name}"].float()
    assert difference.abs().mean() > 0.05


def test_logits_are_those_of_the_parts(original, converted):
    model, _ = load_checkpoint(converted, LongVALEForConditionalGeneration, device="cpu")
    generator = torch.Generator().manual_seed(1)
    features = {name: torch.randn(1, 3, width, generator=generator) for name, width in WIDTHS.items()}
    ids = torch.tensor([[1, *[model.config.video_token_id] * 9, 300, 301]])
    weights, language_model = load_all(converted), merge_with_peft(original)
    embed = language_model.get_input_embeddings()
    video = [
        features[name] @ weights[f"model.{name}_projector.weight"].T + weights[f"model.{name}_projector.bias"]
        for name in ("visual", "audio", "speech")
    ]
    embeds = torch.cat([embed(ids[:, :1]), *video, embed(ids[:, -2:])], dim=1)
    with torch.no_grad():
        expected = language_model(inputs_embeds=embeds).logits
        logits = model(input_ids=ids, **{f"{name}_features": value for name, value in features.items()}).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "question", ["<video>\nWhen?", "When does it? <video>", "<video> Can you tell?", "<video>Bell"]
)
def test_prompts_are_encoded_piece_by_piece(official, tmp_path, legacy, question):
    """The published code encodes what is before and after the video each as a text of its own."""
    write_tokenizer(official / "vicuna-tiny", legacy)
    convert(official, tmp_path / "model")
    _, processor = load_checkpoint(tmp_path / "model", LongVALEForConditionalGeneration, device="cpu")
    prompt = processor.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
    inputs = processor(text=prompt, visual_features=torch.zeros(2, WIDTHS["visual"]))
    pieces = sentencepiece.SentencePieceProcessor(str(official / "vicuna-tiny" / "tokenizer.model"))
    system = prompt[: prompt.index("USER:")]
    before, after = f"{system}USER: {question} ASSISTANT:".split("<video>")
    video = [processor.video_token_id] * 2
    expected = [1, *pieces.encode(before), *video, *pieces.encode(after)]
    assert inputs["input_ids"][0].tolist() == expected
    # The published prompt, which no chat template has made, is encoded alike.
    plain = processor(text=f"{system}USER: {question} ASSISTANT:", visual_features=torch.zeros(2, WIDTHS["visual"]))
    assert plain["input_ids"][0].tolist() == expected


@pytest.mark.parametrize("legacy", [False, True])
def test_what_follows_the_end_token_is_encoded_as_the_tokenizer_says(official, tmp_path, legacy):
    write_tokenizer(official / "vicuna-tiny", legacy)
    convert(official, tmp_path / "model")
    _, processor = load_checkpoint(tmp_path / "model", LongVALEForConditionalGeneration, device="cpu")
    turns = [{"role": role, "content": "hello"} for role in ("user", "assistant", "user")]
    tokens = processor.tokenizer.tokenize(processor.apply_chat_template(turns))
    assert tokens[tokens.index("</s>") + 1].startswith("▁") is legacy


def test_it_remembers_the_published_preprocessing_and_answers_greedily(converted):
    model, processor = load_checkpoint(converted, LongVALEForConditionalGeneration, device="cpu")
    assert model.config.preprocessing == processor.preprocessing == "official"
    assert model.config.feature_sizes == WIDTHS
    assert model.config.text_config.name_or_path == ""
    settings = GenerationConfig.from_pretrained(converted)
    assert not settings.do_sample and settings.temperature is None
    assert settings.eos_token_id == 2 and settings.suppress_tokens == [model.config.video_token_id]


ANSWER = """
import sys
sys.modules["longvale"] = None  # importing it fails
import torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
processor = transformers.AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
inputs = processor(text="USER: <video> ASSISTANT:", visual_features=torch.ones(2, 12))
print(model.generate(**inputs, max_new_tokens=6)[0].tolist())
"""


@pytest.mark.slow
def test_it_loads_with_its_own_code(converted, tmp_path):
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", ANSWER, str(converted)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model, processor = load_checkpoint(converted, LongVALEForConditionalGeneration, device="cpu")
    inputs = processor(text="USER: <video> ASSISTANT:", visual_features=torch.ones(2, 12))
    assert json.loads(done.stdout) == model.generate(**inputs, max_new_tokens=6)[0].tolist()


def test_shards_and_their_index(original, converted, tmp_path):
    convert(original, tmp_path / "model", max_shard_size="40KB")
    whole, shards = load_all(converted), load_all(tmp_path / "model")
    assert whole.keys() == shards.keys() and all(torch.equal(whole[name], shards[name]) for name in whole)
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    for file in set(index["weight_map"].values()):
        with safe_open(tmp_path / "model" / file, framework="pt") as shard:
            assert set(shard.keys()) == {name for name, where in index["weight_map"].items() if where == file}
        assert (tmp_path / "model" / file).stat().st_size < 50_000 or len(shard.keys()) == 1
    model, _ = load_checkpoint(tmp_path / "model", LongVALEForConditionalGeneration, device="cpu")
    assert torch.equal(model.lm_head.weight, whole["lm_head.weight"])


def test_merge_dtype(original, converted, tmp_path):
    convert(original, tmp_path / "model", merge_dtype="bfloat16")
    exact = load_all(converted)
    for name, tensor in load_all(tmp_path / "model").items():
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor.float(), exact[name], rtol=0.02, atol=0.02)  # 8 bits, rounded thrice
    model, _ = load_checkpoint(tmp_path / "model", LongVALEForConditionalGeneration, device="cpu")
    assert model.dtype == torch.bfloat16


# Other forms of the same layout


def strip_prefixes(official):
    for stage in STAGES:
        for name in ("adapter_model.bin", "non_lora_trainables.bin"):
            path = official / stage / name
            tensors = torch.load(path, weights_only=True)
            torch.save({key.removeprefix("base_model.model.model."): value for key, value in tensors.items()}, path)


def to_safetensors(official):
    for path in (official / "vicuna-tiny" / "pytorch_model.bin", *official.glob("*/adapter_model.bin")):
        name = path.name.replace("pytorch_model", "model").replace(".bin", ".safetensors")
        save_file(torch.load(path, weights_only=True), path.with_name(name))
        path.unlink()


def to_shards(official):
    path = official / "vicuna-tiny" / "pytorch_model.bin"
    tensors = torch.load(path, weights_only=True)
    files = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        torch.save({name: tensors[name] for name in tensors if files[name] == file}, path.with_name(file))
    path.with_name("pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    path.unlink()


def to_old_files(official):
    for path in official.rglob("*.bin"):
        tensors = torch.load(path, weights_only=True)
        torch.save(tensors, path, _use_new_zipfile_serialization=False)


def leave_training_checkpoints(official):
    for stage in STAGES:
        shutil.copytree(official / stage, official / stage / f"checkpoint-10-{stage}")


@pytest.mark.parametrize(
    "change", [strip_prefixes, to_safetensors, to_shards, to_old_files, leave_training_checkpoints]
)
def test_other_forms_give_the_same_weights(official, converted, tmp_path, change):
    change(official)
    convert(official, tmp_path / "model")
    expected, found = load_all(converted), load_all(tmp_path / "model")
    assert expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_parts_by_option(official, converted, tmp_path):
    moved = {}
    names = {"base": "vicuna-tiny", "visual_projector": "stage1_mm_projector.bin"}
    for part, name in (names | dict(zip(("stage2", "stage3"), STAGES, strict=True))).items():
        moved[part] = (official / name).rename(tmp_path / f"my {part}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"does not hold a base model .* name it with --base"):
        find_parts(tmp_path / "empty")
    parts = convert(tmp_path / "empty", tmp_path / "model", **moved)
    assert vars(parts) == moved
    assert torch.equal(load_all(tmp_path / "model")["lm_head.weight"], load_all(converted)["lm_head.weight"])


def test_stages_swapped_by_option_swap_the_projectors(original, converted, tmp_path):
    stage2, stage3 = (original / name for name in STAGES)
    convert(original, tmp_path / "model", stage2=stage3, stage3=stage2)
    name = "model.audio_projector.bias"
    trained = torch.load(stage2 / "non_lora_trainables.bin", weights_only=True)
    found = load_all(tmp_path / "model")[name]
    assert torch.equal(found, trained["base_model.model.model.audio_mm_projector.bias"])
    assert not torch.equal(found, load_all(converted)[name])


# What is refused

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
BASE, STAGE2, STAGE3 = "vicuna-tiny/pytorch_model.bin", "tiny-stage2-bp", "tiny-stage3-it"


def tensors(path, change):
    return lambda official: edit_tensors(official / path, change)


REFUSED = {
    "base lacks": (tensors(BASE, lambda t: t.pop("model.norm.weight")), "vicuna-tiny: missing norm.weight"),
    "base has more": (
        tensors(BASE, lambda t: t.update({"model.extra.weight": torch.ones(2)})),
        "vicuna-tiny: unexpected extra.weight",
    ),
    "base of another shape": (
        tensors(BASE, lambda t: t.update({"model.norm.weight": torch.ones(2)})),
        r"norm.weight is \[2\], but .*config.json makes it \[32\]",
    ),
    "quantised base": (
        tensors(BASE, lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)})),
        "norm.weight is torch.int8; quantised",
    ),
    "LoRA without B": (
        tensors(f"{STAGE2}/adapter_model.bin", lambda t: t.pop(f"{Q_PROJ}.lora_B.weight")),
        r"stage2-bp/adapter_model.bin: missing layers.0.self_attn.q_proj.lora_B.weight",
    ),
    "LoRA without a layer": (
        tensors(f"{STAGE3}/adapter_model.bin", lambda t: [t.pop(k) for k in list(t) if "layers.1" in k]),
        r"stage3-it/adapter_model.bin: missing layers.1.mlp.down_proj.lora_A.weight and 3 more",
    ),
    "LoRA of no target": (
        tensors(
            f"{STAGE3}/adapter_model.bin",
            lambda t: t.update({f"{Q_PROJ.replace('q_', 'k_')}.lora_A.weight": torch.ones(RANK, HIDDEN)}),
        ),
        "unexpected layers.0.self_attn.k_proj.lora_A.weight",
    ),
    "whole weight in a LoRA": (
        tensors(f"{STAGE2}/adapter_model.bin", lambda t: t.update({"lm_head.weight": torch.ones(2, 2)})),
        "unexpected lm_head.weight: a LoRA holds",
    ),
    "LoRA of another width": (
        tensors(
            f"{STAGE2}/adapter_model.bin", lambda t: t.update({f"{Q_PROJ}.lora_A.weight": torch.ones(RANK, HIDDEN + 1)})
        ),
        r"q_proj is \[32, 33\], but the weight is \[32, 32\]",
    ),
    "LoRA of another rank": (
        lambda official: edit_json(official / STAGE2 / "adapter_config.json", r=8),
        r"lora_A.weight is \[4, 32\], but adapter_config.json says r is 8",
    ),
    "DoRA": (
        lambda official: edit_json(official / STAGE2 / "adapter_config.json", use_dora=True),
        "adapter_config.json: use_dora is True; only plain LoRA",
    ),
    "targets as a pattern": (
        lambda official: edit_json(official / STAGE2 / "adapter_config.json", target_modules=".*q_proj"),
        "target_modules must be a list",
    ),
    "projector lacks": (
        tensors(f"{STAGE3}/non_lora_trainables.bin", lambda t: t.pop("base_model.model.model.asr_mm_projector.bias")),
        "stage3-it/non_lora_trainables.bin: missing asr_mm_projector.bias",
    ),
    "projector too many": (
        tensors(f"{STAGE3}/non_lora_trainables.bin", lambda t: t.update({"model.embed_tokens.weight": torch.ones(2)})),
        "non_lora_trainables.bin: unexpected embed_tokens.weight",
    ),
    "projector of another model": (
        tensors("stage1_mm_projector.bin", lambda t: t.update({"model.mm_projector.weight": torch.ones(64, 12)})),
        r"visual_projector.weight is \[64, 12\], but .* makes it \[32, 12\]",
    ),
    "name twice": (
        tensors("stage1_mm_projector.bin", lambda t: t.update({"mm_projector.bias": torch.ones(HIDDEN)})),
        "stage1_mm_projector.bin: holds mm_projector.bias twice",
    ),
    "not tensors": (
        lambda official: torch.save([1, 2], official / "stage1_mm_projector.bin"),
        "stage1_mm_projector.bin: must hold tensors by name",
    ),
    "cut off": (
        lambda official: os.truncate(official / BASE, 5000),
        "pytorch_model.bin: is not a complete file of tensors",
    ),
    "empty": (
        lambda official: os.truncate(official / BASE, 0),
        "pytorch_model.bin: is not a complete file of tensors",
    ),
    "tokenizer damaged": (
        lambda official: (official / "vicuna-tiny" / "tokenizer.model").write_bytes(b"nonsense"),
        "vicuna-tiny: the tokenizer is damaged",
    ),
    "configuration of nothing": (
        lambda official: (official / "vicuna-tiny" / "config.json").write_text('{"model_type": "sparrow"}'),
        "config.json: is not a model configuration",
    ),
    "configuration damaged": (
        lambda official: (official / "vicuna-tiny" / "config.json").write_text("{"),
        "config.json: not JSON",
    ),
    "two projectors": (
        lambda official: shutil.copy(official / "stage1_mm_projector.bin", official / "old_mm_projector.bin"),
        "could each be a visual projector .*; choose one with --visual-projector",
    ),
    "two bases": (
        lambda official: shutil.copytree(official / "vicuna-tiny", official / "vicuna-other"),
        "choose one with --base",
    ),
    "one stage": (lambda official: shutil.rmtree(official / STAGE3), "name it with --stage3"),
    "no tokenizer": (lambda official: (official / "vicuna-tiny" / "tokenizer.model").unlink(), "tokenizer.model"),
    "no projectors": (lambda official: (official / STAGE2 / "non_lora_trainables.bin").unlink(), "non_lora_trainables"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_with_nothing_left_behind(longvale, official, tmp_path, case):
    damage, message = REFUSED[case]
    damage(official)
    before = sorted(tmp_path.iterdir())
    result = longvale("convert", official, "--output", tmp_path / "model")
    assert result.exit_code == 2, result.output
    assert (len(result.stderr.splitlines()) == 1 and str(official) in result.stderr) or "projector.weight" in message
    with pytest.raises((ValueError, OSError), match=message):
        convert(official, tmp_path / "model")
    assert sorted(tmp_path.iterdir()) == before


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(official, tmp_path):
    for save in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        save({"model.mm_projector.weight": Malicious(tmp_path / "touched")}, official / "stage1_mm_projector.bin")
        with pytest.raises(ValueError, match=r"stage1_mm_projector.bin: is not a complete file of tensors"):
            convert(official, tmp_path / "model")
    assert not (tmp_path / "touched").exists()


def test_an_existing_output_is_refused_and_kept(longvale, original, tmp_path):
    (tmp_path / "model").mkdir()
    result = longvale("convert", original, "--output", tmp_path / "model")
    assert result.exit_code == 2 and "model: exists already" in result.stderr
    assert not list((tmp_path / "model").iterdir())


def test_an_interrupted_conversion_leaves_nothing(original, tmp_path, monkeypatch):
    def interrupt(*arguments):
        assert list(tmp_path.iterdir())  # something has been written
        raise KeyboardInterrupt

    monkeypatch.setattr("longvale.checkpoints.conversion._merge", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(original, tmp_path / "model")
    assert not list(tmp_path.iterdir())


#: A conversion that gets a signal in the middle.
HALFWAY = """
import os, signal, sys
import longvale.checkpoints.conversion as conversion

number = getattr(signal, sys.argv.pop())

def halfway(*arguments):
    os.kill(os.getpid(), number)

conversion._merge = halfway
from longvale.cli import main
main()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals")
@pytest.mark.parametrize(("name", "code", "left"), [("SIGKILL", -9, 1), ("SIGINT", 130, 0), ("SIGTERM", 143, 0)])
def test_a_conversion_that_was_ended_can_be_repeated(longvale, preloaded, original, tmp_path, name, code, left):
    command = ["convert", original, "--output", tmp_path / "model"]
    done = preloaded.run("-c", HALFWAY, *command, name)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert len(list(tmp_path.glob(".*.partial"))) == left
    assert longvale(*command).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_options_out_of_range(original, tmp_path):
    with pytest.raises(ValueError, match="merge dtype must be one of float32, bfloat16, float16, not 'int8'"):
        convert(original, tmp_path / "model", merge_dtype="int8")
    with pytest.raises(ValueError, match="lots"):
        convert(original, tmp_path / "model", max_shard_size="lots")
    with pytest.raises(TypeError, match="unknown part 'stage4'"):
        convert(original, tmp_path / "model", stage4="x")
    with pytest.raises(ValueError, match="is named as stage 2 and as stage 3"):
        convert(original, tmp_path / "model", stage2=original / STAGE3, stage3=original / STAGE3)
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        convert(tmp_path / "none", tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_took(longvale, original, converted, tmp_path):
    options = ["--merge-dtype", "float32", "--max-shard-size", "1MB", "--base", original / "vicuna-tiny"]
    result = longvale("convert", original, "--output", tmp_path / "model", *options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"base: {original / 'vicuna-tiny'}",
        f"visual projector: {original / 'stage1_mm_projector.bin'}",
        f"stage2: {original / STAGE2}",
        f"stage3: {original / STAGE3}",
        f"checkpoint: {tmp_path / 'model'}",
    ]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (converted / "model.safetensors").read_bytes()
