"""Tiny replacements for Vicuna, CLIP, BEATs and Whisper, combined into one LongVALE checkpoint.

Classes, architecture and file formats are those of the published model; only the sizes differ.
"""

from __future__ import annotations

import io
import random
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from longvale import tasks
from longvale.data.dialogues import boundary_dialogue, fill_timecodes
from longvale.synthetic.instructions import instruction_dialogue
from longvale.synthetic.planning import SyntheticOptions, plan_video

if TYPE_CHECKING:
    from torch import nn
    from transformers import LlamaTokenizer

    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
    from longvale.models.processing_longvale import LongVALEProcessor

#: Grid steps of the events of a video, and its number of frames: one per step.
NUM_FRAMES = 10
#: Duration of every video of the demo, chosen so that an audio window is also one step of the grid.
VIDEO_LENGTH_S = 32.0
#: Filterbank frames (10 ms) and encoder states (20 ms) of an audio window: 3.2 s.
AUDIO_WINDOW_FRAMES, SPEECH_WINDOW_STATES = 320, 160
#: Whisper's chunk, shortened from 30 s.
SPEECH_CHUNK_S = 8

HIDDEN_SIZE, NUM_LAYERS, NUM_HEADS, VOCAB_SIZE = 96, 4, 2, 640
TOWER_SIZE = 64

#: Fixed wording of the conversation, the published questions and the captions: one token each, which keeps dialogues
#: short.
PHRASES = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions.",
    "At which time interval can we find",
    " taking place in the video? Give the timestamps in the fromat: From xx to xx.",
    " Can you describe what occurred from",
    " in the video? Please give the event description directly.",
    tasks.dense_captioning_question().removeprefix(f"{tasks.VIDEO_TOKEN}\n"),
    # Of the synthetic captions.
    " slides across the screen",
    " is heard off screen",
    " voice off screen says",
    " jumps in time with",
    " turns while a voice says",
    " hits the wall and",
)


def build_checkpoint(
    seed: int = 0, vocab_videos: int = 1500
) -> tuple[LongVALEForConditionalGeneration, LongVALEProcessor]:
    """Build an untrained tiny model with its processor; all weights depend on the seed.

    Args:
        seed: of the weights.
        vocab_videos: number of planned synthetic videos whose dialogues the tokenizer is trained on.

    Example:
        >>> model, processor = build_checkpoint(vocab_videos=50)
        >>> model.config.feature_sizes
        {'visual': 64, 'audio': 64, 'speech': 64}
    """
    import torch
    from transformers import CLIPImageProcessor, LlamaConfig, ResNetConfig, WhisperConfig, WhisperFeatureExtractor

    from longvale.models.configuration_beats import BeatsConfig
    from longvale.models.configuration_longvale import LongVALEConfig
    from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
    from longvale.models.processing_longvale import LongVALEProcessor

    processor = LongVALEProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, do_convert_rgb=False
        ),
        feature_extractor=WhisperFeatureExtractor(feature_size=40, chunk_length=SPEECH_CHUNK_S),
        tokenizer=build_tokenizer(sample_texts(vocab_videos)),
        num_frames=NUM_FRAMES,
        audio_window_frames=AUDIO_WINDOW_FRAMES,
        speech_window_states=SPEECH_WINDOW_STATES,
    )
    tokenizer = processor.tokenizer
    config = LongVALEConfig(
        text_config=LlamaConfig(
            vocab_size=processor.video_token_id,
            hidden_size=HIDDEN_SIZE,
            intermediate_size=3 * HIDDEN_SIZE,
            num_hidden_layers=NUM_LAYERS,
            num_attention_heads=NUM_HEADS,
            num_key_value_heads=NUM_HEADS,
            max_position_embeddings=2048,
            initializer_range=0.04,  # for a width of 96, where 0.02 is meant for thousands
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        # Convolutions distinguish shapes after a minute on a CPU; a vision transformer of this size does not.
        vision_config=ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32, TOWER_SIZE], depths=[1, 1, 1], layer_type="basic"
        ),
        visual_feature_size=TOWER_SIZE,
        audio_config=BeatsConfig(
            embed_dim=TOWER_SIZE,
            hidden_size=TOWER_SIZE,
            intermediate_size=2 * TOWER_SIZE,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            layerdrop=0.0,
        ),
        speech_config=WhisperConfig(
            num_mel_bins=40,
            d_model=TOWER_SIZE,
            encoder_layers=2,
            encoder_attention_heads=4,
            encoder_ffn_dim=2 * TOWER_SIZE,
            max_source_positions=50 * SPEECH_CHUNK_S,
            decoder_layers=1,
        ),
        num_frames=NUM_FRAMES,
        audio_window_frames=AUDIO_WINDOW_FRAMES,
        speech_window_states=SPEECH_WINDOW_STATES,
        video_token_id=processor.video_token_id,
        time_embedding="fourier",
        time_embedding_scale=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LongVALEForConditionalGeneration(config)
        # Word embeddings of the time embedding's scale: a frame mapped to its words keeps both.
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=config.time_embedding_scale)
        _look_at_alike(model.model.language_model.layers[0].self_attn, NUM_HEADS)
    model.generation_config.update(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model.eval(), processor


def _look_at_alike(attention: nn.Module, heads: int, scale: float = 0.7) -> None:
    """Give each head equal queries and keys, so that from the start a token attends to similar tokens.

    Matching a word with the frames and sounds of its thing is what a tiny model learns slowest, and what large ones
    learn from text (induction heads). After Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers"
    (ICML 2023).
    """
    import torch

    width = attention.q_proj.in_features
    with torch.no_grad():
        rows = [torch.linalg.qr(torch.randn(width, width // heads)).Q.T * scale for _ in range(heads)]
        attention.q_proj.weight.copy_(torch.cat(rows))
        attention.k_proj.weight.copy_(torch.cat(rows))


def corpus_options() -> SyntheticOptions:
    """Return the options of the demo's synthetic corpus."""
    return SyntheticOptions(min_length_s=VIDEO_LENGTH_S, max_length_s=VIDEO_LENGTH_S, grid=NUM_FRAMES)


def build_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> LlamaTokenizer:
    """Train a sentencepiece tokenizer in Llama's format on texts.

    Args:
        texts: sentences; line breaks and [`PHRASES`] are separate tokens.
        vocab_size: pieces, without the phrases.
    """
    import sentencepiece
    from transformers import LlamaTokenizer

    def sentences() -> Iterator[str]:
        for text in texts:
            for phrase in PHRASES:
                text = text.replace(phrase, "\n")
            # Split at punctuation, which becomes a separate token: a timecode is the same token before a full stop.
            yield from re.findall(r"[.,:?]|[^.,:?\n]+", text)
        # Every timecode becomes a word, whether the sample contains it or not.
        for timecode in range(100):
            yield from [f"From {timecode:02d} to"] * 20

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        byte_fallback=True,
        user_defined_symbols=["\n"],
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.model").write_bytes(model.getvalue())
        tokenizer = LlamaTokenizer.from_pretrained(folder, add_bos_token=True)
    # As Llama models without a padding token do.
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.add_tokens(list(PHRASES))
    return tokenizer


def sample_texts(videos: int, seed: int = 0, options: SyntheticOptions | None = None) -> Iterator[str]:
    """Yield the texts of the dialogues of planned synthetic videos, as conversations without the videos."""
    for index in range(videos):
        rng = random.Random(f"{seed}:text:{index}")
        plan = plan_video(f"text_{index}", seed, options)
        boundary = boundary_dialogue(plan.annotation, rng)
        instruction = instruction_dialogue(plan.annotation, plan.pieces, rng)
        for dialogue in (boundary, instruction):
            for message in fill_timecodes(dialogue):
                content = message["content"].replace(tasks.VIDEO_TOKEN, "")
                yield f"USER: {content} ASSISTANT:" if message["role"] == "user" else f" {content}"
