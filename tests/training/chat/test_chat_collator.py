import logging

import numpy as np
import pytest
import torch
from tiny_hub import CHAT_BUILDERS

from longvale.evaluation.adapters.chat_inputs import ChatInputs
from longvale.models.media import Media, MediaError
from longvale.training.chat.collator import ChatCollator

TURNS = ("<video>\nWhen does it ring?", "From 1 to 2.", "And why?", "No <|im_end|> reason.")
MESSAGES = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(TURNS)]


def draw(seed, sound, seconds, frames=4):
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 255, (frames, 32, 40, 3), dtype=np.uint8)
    waveform = random.normal(0, 0.3, int(seconds * 16_000)).astype(np.float32) if sound else None
    return Media(seconds, pictures, (np.arange(frames) + 0.5) * seconds / frames, waveform, 16_000)


VIDEOS = {"loud": draw(0, True, 8.0), "silent": draw(1, False, 20.0), "long": draw(2, True, 12.3)}


def collator_of(pair, **options):
    return ChatCollator(ChatInputs(*pair), VIDEOS.__getitem__, **options)


def rows(*videos):
    """The first without a second question."""
    return [
        {"id": str(video), "messages": MESSAGES[: 2 if i == 0 else 4], "video": video} for i, video in enumerate(videos)
    ]


def without_labels(batch):
    return {name: values for name, values in batch.items() if name != "labels"}


@pytest.mark.parametrize("name", CHAT_BUILDERS)
def test_a_batch_of_mixed_presence_is_its_rows(name):
    """Videos with and without sound, of other lengths, and a conversation without a video."""
    pair = CHAT_BUILDERS[name]()
    collate = collator_of(pair)
    mixed = rows("loud", "silent", None, "long")
    batch = collate(mixed)
    with torch.no_grad():
        together = pair[0](**without_labels(batch)).logits
        for number, row in enumerate(mixed):
            alone = pair[0](**without_labels(collate([row]))).logits[0]
            assert alone.abs().max() > 0.5
            torch.testing.assert_close(together[number, : len(alone)], alone, atol=1e-5, rtol=0)
    heard = batch.get("input_features")
    assert (heard is not None) == ("Omni" in name) and (heard is None or len(heard) == 2)


def trained_text(pair, batch, row):
    ids = batch["input_ids"][row][batch["labels"][row] != -100]
    return pair[1].tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("name", "end", "space"), [("Qwen2.5-VL", "<|im_end|>", ""), ("SmolVLM2", "<end_of_utterance>", " ")]
)
def test_labels_are_the_answers_and_their_end(name, end, space):
    """In SmolVLM's template a prompt ends before the space that an answer begins with."""
    pair = CHAT_BUILDERS[name]()
    batch = collator_of(pair)(rows("loud", "silent"))
    # A control token in an answer stays words.
    letters = [" ".join(f"{space}{text}") for text in ("From 1 to 2.", "No < |im_end|> reason.")]
    first, second = (trained_text(pair, batch, row) for row in (0, 1))
    assert first == f"{letters[0]} {end}" and second == f"{letters[0]} {end} {letters[1]} {end}"
    kept = batch["labels"] != -100
    assert torch.equal(batch["labels"][kept], batch["input_ids"][kept]) and not kept[batch["attention_mask"] == 0].any()


def test_training_asks_as_evaluation_does():
    """Up to the answer a row has the ids of the prompt of a reply."""
    pair = CHAT_BUILDERS["SmolVLM2"]()
    collate, inputs = collator_of(pair), ChatInputs(*pair)
    row = collate(rows("silent"))
    prompt = inputs.encode(inputs.render(inputs.question("When does it ring?"), generate=True), VIDEOS["silent"])
    length = prompt["input_ids"].shape[1]
    assert torch.equal(row["input_ids"][:, :length], prompt["input_ids"])
    assert (row["labels"][0, :length] == -100).all() and row["labels"][0, length] != -100


def test_the_video_is_where_its_placeholder_is():
    pair = CHAT_BUILDERS["Qwen2.5-VL"]()
    messages = [{"role": "user", "content": "Look: <video> When?"}, {"role": "assistant", "content": "Now."}]
    text, _ = collator_of(pair).render([{"role": "system", "content": "Be brief."}, *messages], video=True)
    assert text.index("Be brief.") < text.index("Look:") < text.index("<|video_pad|>") < text.index("When?")


def test_a_conversation_that_is_too_long_loses_turns():
    pair = CHAT_BUILDERS["Qwen2.5-VL"]()
    full, short = (collator_of(pair)([row])["input_ids"].shape[1] for row in reversed(rows("loud", "loud")))
    cut = collator_of(pair, max_length=full - 1)(rows("loud", "loud")[1:])
    assert cut["input_ids"].shape[1] == short and "r e a s o n" not in trained_text(pair, cut, 0)
    with pytest.raises(
        ValueError, match=rf"conversation about 'loud': .* {short} tokens .* max_length \({short - 1}\)"
    ):
        collator_of(pair, max_length=short - 1)(rows("loud", "loud")[1:])


def test_a_video_that_cannot_be_decoded_is_left_out_of_its_batch(monkeypatch, caplog):
    def read(name):
        if name == "damaged":
            raise MediaError("damaged.mp4: not a video")
        return VIDEOS[name]

    collate = ChatCollator(ChatInputs(*CHAT_BUILDERS["Qwen2.5-VL"]()), read)
    with caplog.at_level(logging.WARNING):
        batch = collate(rows("loud", "damaged"))
    assert "conversation about 'damaged' is left out of its batch: damaged.mp4: not a video" in caplog.text
    assert len(batch["labels"]) == 2 and (batch["labels"][1] == -100).all() and (batch["labels"][0] != -100).any()
    assert len(batch["video_grid_thw"]) == 1


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (MESSAGES[:1], "the last turn must be the assistant's"),
        (MESSAGES[1:2], "the conversation has no turn of the user"),
    ],
)
def test_what_cannot_be_learned_is_refused(messages, message):
    collate = collator_of(CHAT_BUILDERS["Qwen2.5-VL"]())
    with pytest.raises(ValueError, match=f"conversation about 'x': {message}"):
        collate([{"id": "x", "messages": messages, "video": "loud"}])


def test_a_template_that_drops_answers_is_refused():
    model, processor = CHAT_BUILDERS["Qwen2.5-VL"]()
    collate = collator_of((model, processor))
    processor.chat_template = processor.chat_template.replace("{{ c['text'] }}", "{{ c['text'] | length }}")
    with pytest.raises(ValueError, match="does not write each answer once"):
        collate(rows("loud"))


def test_a_template_without_an_end_token_is_reported(caplog):
    model, processor = CHAT_BUILDERS["Qwen2.5-VL"]()
    processor.chat_template = processor.chat_template.replace("<|im_end|>", "")
    with caplog.at_level(logging.WARNING):
        collator_of((model, processor))
    assert "writes no end token" in caplog.text
