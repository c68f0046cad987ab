"""A tiny checkpoint in the published layout, and what the published code computed with it.

`tests/fixtures/official`: the checkpoint without the projectors of stage 2, which stage 3 replaces; of each prompt the
token ids (-200 stands for the video), every 8th row and 16th column of the logits, and 32 greedy tokens; of eight
dialogues the ids and labels with both kinds of tokenizer; losses and gradient norms. Features were drawn from a seed.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from one_video import answer_about_video
from peft import PeftModel

from longvale.checkpoints.conversion import convert
from longvale.checkpoints.loading import load_checkpoint
from longvale.data.dialogues import fill_timecodes, load_dialogues
from longvale.models.modeling_longvale import LongVALEForConditionalGeneration
from longvale.training.collator import DialogueCollator

FIXTURES = Path(__file__).parents[1] / "fixtures" / "official"
REFERENCE = json.loads((FIXTURES / "reference.json").read_text(encoding="utf-8"))
ARRAYS = np.load(FIXTURES / "reference.npz")
DIALOGUES = {dialogue["id"]: dialogue for dialogue in load_dialogues(FIXTURES / "dialogues.json")}
BATCH = ["conv0", "conv1", "conv2", "conv3"]
WIDTHS = {"visual": 768, "audio": 768, "speech": 1280}
VIDEO = -200


def draw_features(rng, dtype, **counts):
    scales = {"visual": 0.5, "audio": 1.0, "speech": 1.0}
    drawn = {}
    for name, count in counts.items():
        values = rng.randn(count, WIDTHS[name]) * scales[name]
        drawn[f"{name}_features"] = values.astype(dtype if name != "visual" else np.float16).astype(np.float32)
    return drawn


#: The published prompt before the question.
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def prompt_features():
    return draw_features(np.random.RandomState(42), np.float32, visual=100, audio=37, speech=41)


def dialogue_features():
    """Of the dialogues that losses are known of, in the order in which they were drawn."""
    rng = np.random.RandomState(77)
    lengths = {
        "conv0": {"visual": 100, "audio": 24, "speech": 25},
        "conv1": {"visual": 100, "audio": 13, "speech": 12},
        "conv2": {"visual": 100, "audio": 1, "speech": 6},
        "conv3": {"visual": 100, "audio": 30, "speech": 30},
        "conv4_noaudio_nospeech": {"visual": 100},
    }
    return {name: draw_features(rng, np.float16, **counts) for name, counts in lengths.items()}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = Path(shutil.copytree(FIXTURES / "tiny_model", tmp_path_factory.mktemp("published") / "tiny_model"))
    names = {"audio_mm_projector": 768, "asr_mm_projector": 1280}
    projectors = {f"base_model.model.model.{name}.weight": torch.zeros(64, width) for name, width in names.items()}
    projectors |= {f"base_model.model.model.{name}.bias": torch.zeros(64) for name in names}
    torch.save(projectors, folder / "longvale-vicuna-tiny-stage2-bp" / "non_lora_trainables.bin")
    return folder


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory):
    output = tmp_path_factory.mktemp("converted") / "model"
    convert(published, output, keep_adapters=True)
    return output


@pytest.fixture(scope="module")
def pair(converted):
    return load_checkpoint(converted, LongVALEForConditionalGeneration, device="cpu")


def expand(ids, count, video):
    """The published ids or labels with a placeholder for each feature."""
    ids = ids.tolist()
    place = ids.index(VIDEO)
    return ids[:place] + [video] * count + ids[place + 1 :]


@pytest.mark.parametrize("name", REFERENCE["prompts"])
def test_prompts_logits_and_greedy_answers(pair, name):
    model, processor = pair
    features = prompt_features()
    query = REFERENCE["prompts"][name]["query"]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": query}], add_generation_prompt=True, tokenize=False
    )
    for text in (prompt, f"{SYSTEM} USER: {query} ASSISTANT:"):
        inputs = processor(text=text, **features)
        assert inputs["input_ids"][0].tolist() == expand(ARRAYS[f"{name}_input_ids"], 178, processor.video_token_id)
    with torch.no_grad():
        logits = model(**inputs).logits[0].numpy()
    np.testing.assert_allclose(logits[::8, ::16], ARRAYS[f"{name}_logits"], atol=1e-4, rtol=0)
    answer = model.generate(**inputs, max_new_tokens=32)[0, inputs["input_ids"].shape[1] :]
    assert answer.tolist() == ARRAYS[f"{name}_greedy"].tolist()


def test_questions_that_share_the_video_get_these_answers_too(pair):
    model, processor = pair
    questions = [prompt["query"] for prompt in REFERENCE["prompts"].values()]
    features = {name.removesuffix("_features"): values for name, values in prompt_features().items()}
    expected = [processor.tokenizer.decode(ARRAYS[f"{name}_greedy"]).strip() for name in REFERENCE["prompts"]]
    assert answer_about_video(model, processor, features, questions, 32) == expected


@pytest.mark.parametrize("legacy", [False, True])
def test_ids_and_labels_of_training(published, pair, tmp_path, legacy):
    """Long ones lose whole events (conv6) or whole turns (conv7) from their end."""
    folder = shutil.copytree(published, tmp_path / "tiny_model")
    path = folder / "vicuna-tiny" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"legacy": legacy}))
    convert(folder, tmp_path / "model")
    processor = type(pair[1]).from_pretrained(tmp_path / "model")
    collator = DialogueCollator(processor, max_length=2048)
    for name, dialogue in DIALOGUES.items():
        ids, labels = collator.encode(fill_timecodes(dialogue), 178)
        stored = f"{str(legacy).lower()}_{name}"
        expected = ARRAYS[f"{stored}_input_ids"]
        assert ids.tolist() == expand(expected, 178, processor.video_token_id), name
        place = expected.tolist().index(VIDEO)
        wanted = ARRAYS[f"{stored}_labels"].tolist()
        assert labels.tolist() == wanted[:place] + [-100] * 178 + wanted[place + 1 :], name


def test_long_dialogues_are_among_them():
    lengths = {name: len(ARRAYS[f"false_{name}_input_ids"]) for name in DIALOGUES}
    assert max(lengths.values()) <= 2048
    turns = {name: len(dialogue["conversations"]) for name, dialogue in DIALOGUES.items()}
    assert turns["conv7_long_multi"] == 60 and (ARRAYS["false_conv7_long_multi_labels"] == 2).sum() == 15


@pytest.fixture(scope="module")
def rows():
    features = dialogue_features()

    def make(names):
        return [{"id": name, "messages": fill_timecodes(DIALOGUES[name]), **features[name]} for name in names]

    return make


@torch.no_grad()
def test_losses(pair, rows):
    model, processor = pair
    collator = DialogueCollator(processor)
    assert model(**collator(rows(BATCH))).loss.item() == pytest.approx(REFERENCE["loss"]["batch"], abs=1e-4)
    assert REFERENCE["loss"]["batch"] == pytest.approx(8.249109, abs=1e-6)
    for name in (*BATCH, "conv4_noaudio_nospeech"):
        loss = model(**collator(rows([name]))).loss.item()
        assert loss == pytest.approx(REFERENCE["loss"]["single"][name], abs=1e-4)


def test_gradient_norms(converted, rows):
    """Stage 2 merged, stage 3 as an adapter in training, as published."""
    model, processor = load_checkpoint(converted / "base", LongVALEForConditionalGeneration, device="cpu")
    adapters = converted / "adapters"
    model = PeftModel.from_pretrained(model, adapters / "boundary_perception").merge_and_unload()
    model = PeftModel.from_pretrained(model, adapters / "instruction", is_trainable=True).eval()
    loss = model(**DialogueCollator(processor)(rows(BATCH))).loss
    loss.backward()
    assert loss.item() == pytest.approx(REFERENCE["loss"]["batch"], abs=1e-4)
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    expected = {
        name.replace("model.layers", "model.language_model.layers")
        .replace(".audio_mm_projector.", ".audio_projector.modules_to_save.default.")
        .replace(".asr_mm_projector.", ".speech_projector.modules_to_save.default."): norm
        for name, norm in REFERENCE["loss"]["grad_norms"].items()
    }
    assert norms == pytest.approx(expected, rel=1e-4)
