"""Questions that share a video, against one call a question."""

import numpy as np
import pytest
import torch
from one_video import answer_about_video, answer_plainly, ask_in_order
from transformers import LlamaConfig, MistralConfig, Qwen3Config, Qwen3NextConfig

from longvale.demo.checkpoint import build_checkpoint
from longvale.evaluation.generation.video_qa import VideoQA, answer_batch
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.models.media import Media
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration

QUESTIONS = [
    "<video>\nWhen does the bell ring?",
    "<video>\nWhat happens?",
    "<video>\n Could you please detail the events that took place during different time segments in the video?",
    "<video>\nWhat happens in the end?",
    "<video>\nWhat?",
]
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT_MODELS = {
    "llama": lambda **kw: LlamaConfig(**SMALL, num_key_value_heads=2, **kw),
    "tied": lambda **kw: LlamaConfig(**SMALL, num_key_value_heads=2, tie_word_embeddings=True, **kw),
    "qwen3": lambda **kw: Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=16, **kw),
    "sliding window": lambda **kw: MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=16, **kw),
    "linear attention": lambda **kw: Qwen3NextConfig(
        **SMALL, num_key_value_heads=2, head_dim=16, linear_num_value_heads=2, linear_num_key_heads=2,
        linear_key_head_dim=16, linear_value_head_dim=16, num_experts=2, num_experts_per_tok=1,
        moe_intermediate_size=16, shared_expert_intermediate_size=16,
        layer_types=["linear_attention", "full_attention"], **kw,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pair():
    """The demo's model, with weights enlarged: as they are initialised, answers hardly depend on what is read."""
    model, processor = build_checkpoint(seed=0, vocab_videos=50)
    return enlarge(model), processor


def enlarge(model):
    with torch.no_grad():
        for parameter in model.model.language_model.layers.parameters():
            parameter.mul_(4)
        for modality in ("visual", "audio", "speech"):
            getattr(model.model, f"{modality}_projector").weight.mul_(20)
    return model.eval()


def with_text_model(processor, kind):
    tokenizer = processor.tokenizer
    text = TEXT_MODELS[kind](
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    sizes = dict.fromkeys(("visual_feature_size", "audio_feature_size", "speech_feature_size"), 64)
    config = LongVALEConfig(text_config=text, video_token_id=processor.video_token_id, **sizes)
    torch.manual_seed(1)
    return enlarge(LongVALEForConditionalGeneration(config))


def draw_features(**counts):
    rng = np.random.default_rng(0)
    counts = {"visual": 20, "audio": 5, "speech": 3} | counts
    return {name: rng.normal(size=(count, 64)).astype(np.float32) if count else None for name, count in counts.items()}


def one_by_one(model, processor, features, new_tokens=12):
    return [answer_plainly(model, processor, question, features, new_tokens) for question in QUESTIONS]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("features", [{}, {"speech": 0}, {"visual": 0, "audio": 0}], ids=["all", "silent", "speech"])
def test_answers_are_those_of_one_call_a_question(pair, features, batch_size):
    features = draw_features(**features)
    expected = one_by_one(*pair, features)
    assert len(set(expected)) == len(QUESTIONS)
    assert answer_about_video(*pair, features, QUESTIONS, 12, batch_size) == expected


@pytest.mark.parametrize("kind", TEXT_MODELS)
def test_any_language_model(pair, kind):
    model, features = with_text_model(pair[1], kind), draw_features()
    expected = one_by_one(model, pair[1], features)
    assert len(set(expected)) > 3
    assert answer_about_video(model, pair[1], features, QUESTIONS, 12) == expected


def test_raw_video(pair):
    model, processor = pair
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (20, 32, 32, 3), dtype=np.uint8)
    waveform = rng.normal(0, 0.1, 7 * 16_000).astype(np.float32)
    video = Media(frames=frames, frame_times=np.arange(20) / 2, waveform=waveform, sampling_rate=16_000, duration=10.0)
    encoded = model.encode(**processor(videos=[video]))
    features = {name: values[0][mask[0].bool()].detach().numpy() for name, (values, mask) in encoded.items()}
    assert set(features) == {"visual", "audio", "speech"}
    assert answer_about_video(model, processor, video, QUESTIONS, 12) == one_by_one(model, processor, features)


def test_towers_and_prefix_run_once(pair, monkeypatch):
    """However many questions are asked in however many calls."""
    model, processor = pair
    seen = []
    forward = model.model.forward

    def watched(**kwargs):
        seen.append((len(kwargs["input_ids"]), kwargs["visual_features"] is not None))
        return forward(**kwargs)

    monkeypatch.setattr(model.model, "forward", watched)
    qa = VideoQA(model, processor, [draw_features()])
    first = ask_in_order(qa, QUESTIONS, 4, batch_size=2)
    assert ask_in_order(qa, QUESTIONS[:1], 4) == first[:1]
    assert [with_video for _, with_video in seen] == [True] + [False] * (len(seen) - 1)
    assert max(rows for rows, _ in seen) == 2  # never more questions together than asked for


def test_the_video_may_stand_anywhere(pair):
    """Questions share what they can; the order of the answers is that of the questions."""
    questions = ["When does it ring? <video>", QUESTIONS[0], "What? <video> Tell me.", QUESTIONS[1]]
    features = draw_features()
    expected = [answer_plainly(*pair, question, features, 8) for question in questions]
    assert answer_about_video(*pair, features, questions, 8) == expected


@pytest.mark.parametrize("kind", ["llama", "sliding window"])
def test_a_batch_of_several_videos(pair, kind):
    """Each question with its own video, in the order of the questions; videos that are the same share their prefix."""
    model, processor = with_text_model(pair[1], kind), pair[1]
    videos = [draw_features(), draw_features(speech=0), draw_features(visual=7)]
    asked = [(question, videos[place]) for question, place in zip(QUESTIONS, (0, 1, 0, 2, 1), strict=True)]
    expected = [answer_plainly(model, processor, question, features, 12) for question, features in asked]
    assert len(set(expected)) > 3
    assert answer_batch(model, processor, *zip(*asked, strict=True), 12) == expected


def test_no_questions(pair):
    assert answer_about_video(*pair, draw_features(), [], 8) == []


def test_what_is_refused(pair):
    with pytest.raises(ValueError, match="batch_size must be 1 or more, not 0"):
        answer_about_video(*pair, draw_features(), QUESTIONS, 8, batch_size=0)
    with pytest.raises(ValueError, match="holds <video> 0 times"):
        answer_about_video(*pair, draw_features(), ["What?"], 8)
    with pytest.raises(ValueError, match="no features of any modality"):
        answer_about_video(*pair, {}, QUESTIONS, 8)
