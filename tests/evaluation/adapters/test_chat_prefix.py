"""The video that the questions about it share: encoded once, and the same answers as one whole prompt a question."""

import numpy as np
import pytest
import torch
from tiny_chat import build_omni, build_vision
from tiny_hub import build_smolvlm

from longvale.evaluation.adapters.chat import TOGETHER, ChatAdapter
from longvale.evaluation.adapters.media import RawVideos
from longvale.models.media import Media
from longvale.tasks import Question

BUILDERS = {
    "Qwen2.5-VL": build_vision,
    "SmolVLM2": build_smolvlm,
    "Qwen2.5-Omni": lambda: build_omni(2),
    "Qwen3-Omni": lambda: build_omni(3),
}
TEXTS = ["When?", "What happens then?", "Is it a bell, or not at all?"]
LENGTH = 12


def draw_media(seed, count=8):
    draw = np.random.default_rng(seed)
    frames = draw.integers(0, 255, (count, 32, 40, 3), dtype=np.uint8)
    waveform = draw.normal(0, 0.3, count * 16_000).astype(np.float32)
    return Media(float(count), frames, np.arange(count) + 0.5, waveform, 16_000)


VIDEOS = [draw_media(0), draw_media(1, 6)]


@pytest.fixture(scope="module", params=BUILDERS)
def pair(request):
    return BUILDERS[request.param]()


def adapter_of(pair, folder, shares=None):
    limits = {"grounding": LENGTH, "dense_captioning": LENGTH, "segment_captioning": 4}
    adapter = ChatAdapter(pair, videos=RawVideos(folder, frames=8, size=32), annotations={}, limits=limits)
    if shares is not None:
        adapter.prefix.shares = shares
    return adapter


@pytest.fixture(scope="module")
def alone(pair, tmp_path_factory):
    """Replies by video, each from a prompt that was read as a whole."""
    adapter = adapter_of(pair, tmp_path_factory.mktemp("videos"), shares=False)
    return [[adapter.reply(video, text, LENGTH) for text in TEXTS] for video in VIDEOS]


def count_calls(monkeypatch, owner, name):
    calls, original = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **given: calls.append(given) or original(*args, **given))
    return calls


def test_questions_about_a_video_share_it(pair, alone, tmp_path, monkeypatch):
    assert len({reply for replies in alone for reply in replies}) > 2
    adapter = adapter_of(pair, tmp_path)
    encoded = count_calls(monkeypatch, adapter.inputs, "_video")
    read = count_calls(monkeypatch, pair[0], "generate")
    assert [[adapter.reply(video, text, LENGTH) for text in TEXTS] for video in VIDEOS] == alone
    assert adapter.prefix.shares and len(encoded) == len(VIDEOS)
    seen = [given for given in read if any(name.startswith("pixel_values") for name in given)]
    assert len(seen) == len(VIDEOS)
    assert adapter.reply(VIDEOS[0], TEXTS[1], LENGTH) == alone[0][1] and len(encoded) == len(VIDEOS) + 1


def test_questions_before_the_video_share_nothing(pair, tmp_path, monkeypatch):
    def question_first(text):
        part = {"type": "text", "text": text}
        return [{"role": "user", "content": [part, {"type": "video"}, {"type": "text", "text": " Answer."}]}]

    adapters = [adapter_of(pair, tmp_path, shares) for shares in (None, False)]
    for adapter in adapters:
        monkeypatch.setattr(adapter.inputs, "question", question_first)
    expected = [adapters[1].reply(VIDEOS[0], text, LENGTH) for text in TEXTS]
    assert [adapters[0].reply(VIDEOS[0], text, LENGTH) for text in TEXTS] == expected
    assert len(set(expected)) > 1 or "smol" in pair[0].config.model_type  # which hardly reads the question
    assert adapters[1].replies(VIDEOS[0], TEXTS, LENGTH) == expected


def test_questions_of_models_that_cannot_continue_are_read_together(pair, alone, tmp_path, monkeypatch):
    adapter = adapter_of(pair, tmp_path, shares=False)
    encoded = count_calls(monkeypatch, adapter.inputs, "_video")
    read = count_calls(monkeypatch, pair[0], "generate")
    assert [adapter.replies(video, TEXTS, LENGTH) for video in VIDEOS] == alone
    assert len(encoded) == len(read) == len(VIDEOS)


def test_a_model_that_loses_the_positions_of_a_prefix_is_found_out(alone, pair, tmp_path, monkeypatch):
    """Positions after a video are not the numbers of the tokens before them."""
    if "smol" in pair[0].config.model_type:
        pytest.skip("its positions are the numbers of the tokens")
    generate = pair[0].generate

    def forgetful(**given):
        if "cache" in given:
            given["position_ids"] = torch.arange(given["input_ids"].shape[1])[None]
        return generate(**given)

    monkeypatch.setattr(pair[0], "generate", forgetful)
    adapter = adapter_of(pair, tmp_path)
    replies = [[adapter.reply(video, text, LENGTH) for text in TEXTS] for video in VIDEOS]
    assert adapter.prefix.shares is False and replies == alone


def test_layers_whose_state_cannot_be_continued(tmp_path):
    model, processor = build_vision()
    text = model.config.get_text_config()
    text.use_sliding_window, text.sliding_window, text.layer_types = True, 8, ["sliding_attention"] * 2
    assert adapter_of((model, processor), tmp_path).prefix.shares is False


def test_questions_in_groups(tmp_path):
    """One at a time while a prefix may be shared; else those with the same limit, in their order."""
    tasks = ["dense_captioning", "segment_captioning", "grounding", "segment_captioning", *["grounding"] * TOGETHER]
    asked = [Question("v", task, number, "", "") for number, task in enumerate(tasks)]
    pair = build_vision()
    assert list(adapter_of(pair, tmp_path).together(asked)) == [[question] for question in asked]
    adapter = adapter_of(pair, tmp_path, shares=False)
    assert len(list(adapter.together(asked))) == len(asked)  # before it is known what the inputs are
    adapter.reply(VIDEOS[0], TEXTS[0], 2)
    long, short, rest = adapter.together(asked)
    assert [q.sentence_id for q in long] == [0, 2, *range(4, 4 + TOGETHER - 2)] and len(long) == TOGETHER
    assert [q.sentence_id for q in short] == [1, 3] and len(rest) == 2
