"""Models of the real architectures, tiny and untrained, with a tokenizer of their special tokens and single letters."""

import string

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = {
    "image_token": "<|image_pad|>", "audio_token": "<|audio_pad|>", "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>",
}  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {% for c in m['content'] %}"
    "{% if c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c['type'] == 'audio' %}<|audio_start|><|audio_pad|><|audio_end|>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
}  # fmt: skip


def build_tokenizer(special=SPECIAL):
    words = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", *special.values(), *string.printable]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"], extra_special_tokens=special,
    )  # fmt: skip
    return fast


def build_omni(generation):
    """Qwen2.5-Omni's or Qwen3-Omni's part that writes, and its processor."""
    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    size = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    video = {"size": size, "patch_size": 14 if generation == 2 else 16}
    parts = {
        "image_processor": transformers.Qwen2VLImageProcessor(**video),
        "video_processor": transformers.Qwen2VLVideoProcessor(**video),
        "feature_extractor": transformers.WhisperFeatureExtractor(feature_size=128, chunk_length=30),
        "tokenizer": tokenizer,
        "chat_template": TEMPLATE,
    }
    text = {**TEXT, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    audio = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "output_dim": 32}
    torch.manual_seed(0)
    if generation == 2:
        vision = {
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        }  # fmt: skip
        config = transformers.Qwen2_5OmniThinkerConfig(
            text_config=text, audio_config=audio, vision_config=vision,
            audio_token_index=ids["audio_token"], image_token_index=ids["image_token"],
            video_token_index=ids["video_token"], audio_start_token_id=ids["audio_bos_token"],
            audio_end_token_id=ids["audio_eos_token"],
        )  # fmt: skip
        config.vision_start_token_id, config.vision_end_token_id = ids["vision_bos_token"], ids["vision_eos_token"]
        model = transformers.Qwen2_5OmniThinkerForConditionalGeneration(config)
        return enlarge(model), transformers.Qwen2_5OmniProcessor(**parts)
    vision = {
        "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    text |= {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16, "head_dim": 8}
    config = transformers.Qwen3OmniMoeThinkerConfig(
        text_config=text, audio_config={**audio, "downsample_hidden_size": 8}, vision_config=vision,
        audio_token_id=ids["audio_token"], image_token_id=ids["image_token"], video_token_id=ids["video_token"],
        audio_start_token_id=ids["audio_bos_token"],
    )  # fmt: skip
    config.vision_start_token_id, config.vision_end_token_id = ids["vision_bos_token"], ids["vision_eos_token"]
    config.audio_end_token_id = ids["audio_eos_token"]
    model = transformers.Qwen3OmniMoeThinkerForConditionalGeneration(config)
    return enlarge(model), transformers.Qwen3OmniMoeProcessor(**parts)


def build_vision():
    """Qwen2.5-VL: a video model that does not hear, as any other with a chat template."""
    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    size = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id},
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids["image_token"], video_token_id=ids["video_token"],
        vision_start_token_id=ids["vision_bos_token"], vision_end_token_id=ids["vision_eos_token"],
    )  # fmt: skip
    torch.manual_seed(0)
    processor = transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=size),
        video_processor=transformers.Qwen2VLVideoProcessor(size=size),
        tokenizer=tokenizer,
        chat_template=TEMPLATE,
    )
    return enlarge(transformers.Qwen2_5_VLForConditionalGeneration(config)), processor


def enlarge(model):
    """As they are initialised, answers hardly depend on what is read."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.eval()
