"""Speed of the model's parts, compared with plain transformers on the same weights and inputs.

    python benchmarks/model.py --repeats 1 --layers 2     # a quick run, about a minute
    python benchmarks/model.py                            # medians, some minutes

Baselines, each in turn with ours, on one machine in one run:

towers      `CLIPVisionModelWithProjection` called with one frame at a time, and `WhisperModel` (which also runs its
            decoder) called with one clip at a time: a clip is a chunk of 30 s, as in the published code, or a window of
            5.12 s, one feature. Ours takes the frames and the chunks of a video as a batch, and has no decoder.
questions   `generate` called once per question, the video's features processed again each time, as in the published
            evaluation. Ours computes the part before the questions once (`longvale.evaluation.generation.video_qa`)
            and answers them in batches. There are as many questions as for an average video of the test split: 12
            events, each with a grounding and a segment captioning question, and one dense captioning question.

A third row compares the model with itself: the forward pass on stored features, as it is and compiled as one graph
(`torch.compile(fullgraph=True)`, inductor). The compilation is not part of the time; its seconds are printed.

Weights are random; shapes are those of CLIP ViT-B/32, Whisper base and SmolLM2-135M with fewer layers (`--layers`),
which changes the times, not what they depend on. Prints medians, the ratio, the growth of peak memory, and whether
both results are the same.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from longvale.demo.checkpoint import build_tokenizer, sample_texts
from longvale.evaluation.generation.model import decode_answers, prepare_question
from longvale.evaluation.generation.video_qa import answer_batch
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.models.processing_longvale import LongVALEProcessor
from longvale.tasks import dense_captioning_question, grounding_question, segment_captioning_question

FRAMES, SECONDS, EVENTS = 100, 120, 12
#: Tokens of an answer, on average: some 12 for an interval, 35 for a caption, 350 for the list of a video's events.
NEW_TOKENS = 36
ASKED = [
    *(grounding_question(f"A dog barks at car number {i} while a bell rings.") for i in range(EVENTS)),
    *(segment_captioning_question(10.0 * i, 10.0 * i + 8, 120.0) for i in range(EVENTS)),
    dense_captioning_question(),
]
#: Greedy answers of both must be identical; features may differ by the order of float32 sums.
CLOSE = 1e-4


def build(layers: int) -> tuple[LongVALEForConditionalGeneration, LongVALEProcessor]:
    """Build a model of the sizes named above."""
    torch.manual_seed(0)
    # The questions' words are single tokens, as with a real tokenizer.
    tokenizer = build_tokenizer([*sample_texts(200), *ASKED * 100])
    processor = LongVALEProcessor(CLIPImageProcessor(), WhisperFeatureExtractor(), tokenizer)
    config = LongVALEConfig(
        text_config=LlamaConfig(
            vocab_size=processor.video_token_id, hidden_size=576, intermediate_size=1536, num_hidden_layers=2 * layers,
            num_attention_heads=9, num_key_value_heads=3, bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=None, initializer_range=0.06,
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=layers, num_attention_heads=12, patch_size=32,
            projection_dim=768,
        ),
        speech_config=WhisperConfig(
            d_model=512, encoder_layers=layers, encoder_attention_heads=8, encoder_ffn_dim=2048, decoder_layers=layers,
            decoder_attention_heads=8, decoder_ffn_dim=2048,
        ),
        video_token_id=processor.video_token_id,
    )  # fmt: skip
    return LongVALEForConditionalGeneration(config).eval(), processor


def towers(model: LongVALEForConditionalGeneration, processor: LongVALEProcessor) -> list[tuple[str, Any, Any]]:
    """Return (name, baseline, ours): functions that compute features of a video's frames and of its audio."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, SECONDS * 16_000).astype(np.float32)
    frames = torch.from_numpy(rng.normal(size=(1, FRAMES, 3, 224, 224)).astype(np.float32))
    mel = processor(audio=[sound])
    clip = CLIPVisionModelWithProjection(model.config.vision_config).eval()
    clip.load_state_dict(model.model.visual_tower.state_dict())
    whisper = WhisperModel(model.config.speech_config).eval()
    whisper.encoder.load_state_dict(model.model.speech_tower.state_dict())
    start = torch.tensor([[whisper.config.decoder_start_token_id]])
    extractor, window = processor.feature_extractor, 512 * 160
    windows = [
        extractor(sound[i : i + window], sampling_rate=16_000, return_tensors="pt")["input_features"]
        for i in range(0, len(sound), window)
    ]

    def call(features: torch.Tensor) -> torch.Tensor:
        return whisper(input_features=features, decoder_input_ids=start).encoder_last_hidden_state

    def by_chunk() -> torch.Tensor:
        states = torch.cat([call(chunk[None]) for chunk in mel["input_features"][0]], dim=1)[0]
        return torch.stack([part.mean(dim=0) for part in states.split(256)])

    def by_window() -> torch.Tensor:
        return torch.stack([call(part)[0, :256].mean(dim=0) for part in windows])

    def speech() -> torch.Tensor:
        features, mask = model.model.get_speech_features(mel["input_features"], mel["input_features_mask"])
        return features[mask.bool()]

    return [
        (
            "CLIP, a frame at a time",
            lambda: torch.cat([clip(frame[None]).image_embeds for frame in frames[0]]),
            lambda: model.model.get_visual_features(frames)[0],
        ),
        ("Whisper, a chunk of 30 s at a time", by_chunk, speech),
        ("Whisper, a window of 5.12 s at a time", by_window, speech),
    ]


def questions(model: LongVALEForConditionalGeneration, processor: LongVALEProcessor) -> tuple[str, Any, Any]:
    """Return (name, baseline, ours): functions that answer the questions about a video."""
    rng = np.random.default_rng(1)
    # A video of 232 s, the average length in the test split: one audio and one speech feature per 5.12 s.
    sizes = {"visual": (100, 768), "audio": (46, 768), "speech": (46, 512)}
    features = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}

    def alone(text: str) -> str:
        inputs = prepare_question(model, processor, [text], [features])
        output = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        return decode_answers(processor, output[:, inputs["input_ids"].shape[1] :])[0]

    return (
        f"{len(ASKED)} questions, one at a time",
        lambda: [alone(text) for text in ASKED],
        lambda: answer_batch(model, processor, ASKED, [features] * len(ASKED), NEW_TOKENS),
    )


def compiled(model: LongVALEForConditionalGeneration, processor: LongVALEProcessor) -> tuple[str, Any, Any]:
    """Return (name, eager, compiled): functions that run the forward pass on a batch of two questions."""
    rng = np.random.default_rng(2)
    sizes = {"visual": (100, 768), "audio": (46, 768), "speech": (46, 512)}
    features = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    inputs = prepare_question(model, processor, ASKED[:2], [features] * 2)
    fast = torch.compile(model, fullgraph=True)
    start = time.perf_counter()
    with torch.inference_mode():
        fast(**inputs)
    print(f"compiled in {time.perf_counter() - start:.1f} s")
    return "forward pass, not compiled", lambda: model(**inputs).logits, lambda: fast(**inputs).logits


def measure(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return seconds, MB of peak memory beyond the memory before, and the result."""
    before = _reset_peak()
    start = time.perf_counter()
    with torch.inference_mode():
        result = run()
    return time.perf_counter() - start, _memory("VmHWM") - before, result


def _reset_peak() -> float:
    status = Path("/proc/self/clear_refs")
    if status.exists():
        status.write_text("5")  # resets the peak: man 5 proc
    return _memory("VmRSS")


def _memory(name: str) -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name)) / 1024


def same(peer: Any, ours: Any) -> str:
    if isinstance(ours, list):
        return "same answers" if peer == ours else f"{sum(a != b for a, b in zip(peer, ours, strict=True))} differ"
    if peer.shape == ours.shape and torch.allclose(peer, ours, rtol=0, atol=CLOSE):
        return f"equal within {CLOSE:g}"
    return "not comparable: a window alone has no context"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of each, of which the median is printed (3)")
    parser.add_argument("--layers", type=int, default=4, help="of each tower; the language model has twice as many (4)")
    arguments = parser.parse_args()
    model, processor = build(arguments.layers)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {arguments.repeats}\n")
    print(f"{'peer':<40}{'peer s':>9}{'ours s':>9}{'ratio':>8}{'peer MB':>9}{'ours MB':>9}  results")
    for name, peer, ours in (*towers(model, processor), questions(model, processor), compiled(model, processor)):
        runs = [(measure(peer), measure(ours)) for _ in range(arguments.repeats)]
        (peer_s, peer_mb), (our_s, our_mb) = (
            (median(pair[side][0] for pair in runs), max(pair[side][1] for pair in runs)) for side in (0, 1)
        )
        told = same(runs[-1][0][2], runs[-1][1][2])
        print(
            f"{name:<40}{peer_s:>9.2f}{our_s:>9.2f}{peer_s / our_s:>8.2f}{peer_mb:>9.0f}{our_mb:>9.0f}  {told}",
            flush=True,
        )


if __name__ == "__main__":
    main()
