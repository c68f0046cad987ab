"""A cache of the Hub with tiny untrained models under the ids, revisions and architectures that presets name."""

from pathlib import Path

import torch
import transformers
from tiny_chat import SPECIAL, TEMPLATE, TEXT, build_omni, build_tokenizer, build_vision, enlarge
from tiny_whisper import build_whisper

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
LLAMA = {**SMALL, "hidden_size": 32, "num_key_value_heads": 2}
SMOL = {
    "image_token": "<image>", "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>", "video_token": "<video>",
}  # fmt: skip
SMOL_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end_of_utterance>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>"


def build_smolvlm():
    tokenizer = build_tokenizer(SMOL)
    size = {"longest_edge": 32}
    options = {"size": size, "max_image_size": size, "do_image_splitting": False}
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = transformers.SmolVLMConfig(
        vision_config={**SMALL, "image_size": 32, "patch_size": 8}, scale_factor=2, image_token_id=image,
        text_config={"model_type": "llama", **LLAMA, "vocab_size": len(tokenizer), "pad_token_id": 0},
    )  # fmt: skip
    return enlarge(transformers.SmolVLMForConditionalGeneration(config)), transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(**options), tokenizer,
        transformers.SmolVLMVideoProcessor(**options, fps=1, num_frames=8),
        image_seq_len=4, chat_template=SMOL_TEMPLATE,
    )  # fmt: skip


def save_qwen3_vl(folder):
    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    size = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    config = transformers.Qwen3VLConfig(
        text_config={**TEXT, "head_dim": 8, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id},
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["image_token"], video_token_id=ids["video_token"],
        vision_start_token_id=ids["vision_bos_token"], vision_end_token_id=ids["vision_eos_token"],
    )  # fmt: skip
    video = {"size": size, "patch_size": 16}
    save(folder, enlarge(transformers.Qwen3VLForConditionalGeneration(config)), transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**video),
        video_processor=transformers.Qwen3VLVideoProcessor(**video), tokenizer=tokenizer, chat_template=TEMPLATE,
    ))  # fmt: skip


def save_chat(folder, kind):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT
    config = transformers.AutoConfig.for_model(
        kind, **LLAMA, head_dim=16, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=0
    )
    save(folder, enlarge(transformers.AutoModelForCausalLM.from_config(config)), tokenizer)


def save_omni(folder):
    """As it is published: the part that writes is called thinker."""
    model, processor = build_omni(2)
    from safetensors.torch import save_file

    processor.save_pretrained(folder)
    save_file({f"thinker.{name}": value for name, value in model.state_dict().items()}, folder / "model.safetensors")
    transformers.Qwen2_5OmniConfig(thinker_config=model.config.to_dict()).save_pretrained(folder)


def save_ast(folder):
    labels = {0: "Dog", 1: "Speech", 2: "Rain"}
    config = transformers.ASTConfig(**SMALL, max_length=128, id2label=labels)
    save(folder, transformers.ASTForAudioClassification(config), transformers.ASTFeatureExtractor(max_length=128))


def save_clip(folder):
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    text = {**SMALL, "vocab_size": 10, "eos_token_id": 1, "bos_token_id": 0}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    save(folder, model, pictures())


def save_dinov2(folder):
    config = transformers.Dinov2Config(**SMALL, image_size=32, patch_size=16)
    save(folder, transformers.Dinov2Model(config), pictures())


def pictures():
    return transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def save_clap(folder):
    text = {**SMALL, "vocab_size": 10, "max_position_embeddings": 20}
    sound = {"patch_embeds_hidden_size": 8, "hidden_size": 32, "depths": [1, 1, 1], "num_attention_heads": [1, 1, 2]}
    config = transformers.ClapConfig(text_config=text, audio_config={**sound, "num_hidden_layers": 3})
    save(folder, transformers.ClapModel(config), transformers.ClapFeatureExtractor(truncation="rand_trunc"))


#: Video models with a chat template, for training and evaluation.
CHAT_BUILDERS = {
    "Qwen2.5-Omni": lambda: build_omni(2),
    "Qwen3-Omni": lambda: build_omni(3),
    "Qwen2.5-VL": build_vision,
    "SmolVLM2": build_smolvlm,
}

#: By the architecture, as in config.json.
SAVE = {
    "smolvlm": lambda folder: save(folder, *build_smolvlm()),
    "qwen3_vl": save_qwen3_vl,
    "qwen2_5_omni": save_omni,
    "whisper": lambda folder: save(folder, *build_whisper()),
    "audio-spectrogram-transformer": save_ast,
    "clip": save_clip,
    "dinov2": save_dinov2,
    "clap": save_clap,
    "qwen2": lambda folder: save_chat(folder, "qwen2"),
    "qwen3": lambda folder: save_chat(folder, "qwen3"),
}


def save(folder, *parts):
    for part in parts:
        part.save_pretrained(folder)


def fill_cache(cache, models):
    """Write tiny models into a folder that is a cache of the Hub, at the revisions that a preset names.

    Args:
        cache: folder.
        models: each a `RoleModel`.
    """
    for model in models:
        folder = Path(cache, "models--" + model.model.replace("/", "--"), "snapshots", model.revision)
        if model.downloads and not folder.exists():
            folder.mkdir(parents=True)
            torch.manual_seed(0)
            SAVE[model.model_type](folder)
