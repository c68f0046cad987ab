import copy
from importlib.resources import files

import numpy as np
import pytest
import torch
from torch.nn import CrossEntropyLoss

from longvale.evaluation.generation.model import build_prompt, decode_answers
from longvale.training.collator import IGNORE_INDEX, DialogueCollator, PreferenceCollator

FEATURES = {"visual_features": np.ones((3, 64)), "audio_features": np.ones((2, 64)), "speech_features": None}


def row(*turns, **features):
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
    return {"id": "abc", "messages": messages, **(features or FEATURES)}


def trained_text(processor, batch, index=0):
    labels = batch["labels"][index]
    return processor.tokenizer.decode(labels[labels != IGNORE_INDEX], skip_special_tokens=False)


DIALOGUE = row(
    "<video>\nWhen is the bell heard?",
    "From 05 to 20.",
    "What happens from 05 to 20? ASSISTANT: no",
    "A voice says: go! </s> stop",
)


def test_labels_are_the_assistants_words_and_their_end(processor):
    batch = DialogueCollator(processor)([DIALOGUE])
    labels, ids = batch["labels"][0], batch["input_ids"][0]
    assert trained_text(processor, batch).replace(" ", "") == "From05to20.</s>Avoicesays:go!</s>stop</s>"
    assert (ids == processor.video_token_id).sum() == 5
    assert CrossEntropyLoss().ignore_index == IGNORE_INDEX
    kept = labels != IGNORE_INDEX
    assert (labels[kept] == ids[kept]).all()
    # Nothing else is trained: the rest spells the questions.
    rest = processor.tokenizer.decode(ids[~kept])
    assert "When is the bell heard? ASSISTANT:" in rest and "From 05" not in rest and "voice" not in rest


def test_every_dialogue_of_a_batch_is_padded_on_its_right(processor):
    short = row("<video>\nWhat is shown?", "A ring.")
    batch = DialogueCollator(processor)([short, DIALOGUE])
    lengths = batch["attention_mask"].sum(dim=1)
    assert lengths[0] < lengths[1] == batch["input_ids"].shape[1]
    assert (batch["labels"][0, lengths[0] :] == IGNORE_INDEX).all()
    alone = DialogueCollator(processor)([short])
    for name in ("input_ids", "labels", "attention_mask"):
        assert (batch[name][0, : lengths[0]] == alone[name][0]).all()


def test_too_long_dialogues_lose_whole_turns(processor):
    turns = ["<video>\nWhat is shown first?", "A red ring."]
    for number in range(10):
        turns += [f"What is shown in part {number}?", f"A blue star in part {number}."]
    whole = DialogueCollator(processor, None)([row(*turns)])
    limit = whole["input_ids"].shape[1] - 1
    for turns_left in (10, 3, 1):
        prefix = DialogueCollator(processor, None)([row(*turns[: 2 * turns_left])])
        cut = DialogueCollator(processor, min(limit, prefix["input_ids"].shape[1] + 1))([row(*turns)])
        assert cut["input_ids"].tolist() == prefix["input_ids"].tolist()
        assert cut["labels"].tolist() == prefix["labels"].tolist()


def test_a_dense_answer_that_is_too_long_loses_whole_events(processor):
    lines = [f"From {i:02d} to {i + 5:02d}, a red ring slides." for i in range(10)]
    question = "<video>\nWhat happens in this video, and when?"
    three = DialogueCollator(processor, None)([row(question, "\n".join(lines[:3]))])
    cut = DialogueCollator(processor, three["input_ids"].shape[1])([row(question, "\n".join(lines))])
    assert cut["input_ids"].tolist() == three["input_ids"].tolist()


@pytest.fixture
def official(processor, monkeypatch):
    monkeypatch.setattr(processor.video_processor, "preprocessing", "official")
    return processor


def test_what_published_training_shortens_has_a_space_before_each_end_but_the_last(official):
    turns = [text for number in range(6) for text in (f"What is shown in part {number}?", f"A blue star, {number}.")]
    turns[0] = f"<video>\n{turns[0]}"
    spaced = [f"{text} " if place in (1, 3) else text for place, text in enumerate(turns[:6])]
    expected = DialogueCollator(official, None)([row(*spaced)])
    assert trained_text(official, expected).count(" </s>") == 2
    # The published code counts a video as one token; here it has 5.
    limit = expected["input_ids"].shape[1] - 4
    cut = DialogueCollator(official, limit)([row(*turns)])
    assert cut["input_ids"].tolist() == expected["input_ids"].tolist()
    assert cut["labels"].tolist() == expected["labels"].tolist()
    fewer = DialogueCollator(official, limit - 1)([row(*turns)])
    assert trained_text(official, fewer).count("</s>") == 2
    # What fits stays as it is.
    whole = DialogueCollator(official, None)([row(*turns)])
    fitting = DialogueCollator(official, whole["input_ids"].shape[1] - 4)([row(*turns)])
    assert fitting["input_ids"].tolist() == whole["input_ids"].tolist()
    assert " </s>" not in trained_text(official, whole)


def test_events_that_published_training_shortens_are_on_one_line(official):
    lines = [f"From {i:02d} to {i + 5:02d}, a red ring slides." for i in range(10)]
    question = "<video>\nWhat happens in this video,\nand when?"
    three = DialogueCollator(official, None)([row(question, " ".join(lines[:3]))])
    cut = DialogueCollator(official, three["input_ids"].shape[1] - 4)([row(question, "\n".join(lines))])
    assert cut["input_ids"].tolist() == three["input_ids"].tolist()


def test_of_two_events_the_second_is_dropped_before_the_dialogue_is_refused(processor):
    lines = ["From 01 to 05, a ring.", " From 05 to 09, a star."]
    question = "<video>\nWhat happens?"
    one = DialogueCollator(processor)([row(question, lines[0])])
    limit = one["input_ids"].shape[1]
    assert (
        DialogueCollator(processor, limit)([row(question, "\n".join(lines))])["labels"].tolist()
        == one["labels"].tolist()
    )
    with pytest.raises(ValueError, match=f"have {limit} tokens with the video, more than max_length .{limit - 1}.; r"):
        DialogueCollator(processor, limit - 1)([row(question, "\n".join(lines))])


def test_the_published_limit_is_the_default(processor):
    assert DialogueCollator(processor).max_length == 2048


def test_padding_is_the_pad_token(processor):
    rows = [row("<video>\nWhat is shown?", "A ring."), DIALOGUE]
    for token, expected in ((processor.tokenizer.eos_token, processor.tokenizer.eos_token_id), (None, 0)):
        other = copy.deepcopy(processor)
        other.tokenizer.pad_token = token
        batch = DialogueCollator(other)(rows)
        padding = batch["attention_mask"] == 0
        assert padding.any() and (batch["input_ids"][padding] == expected).all()


def test_a_first_turn_that_is_too_long_is_refused(processor):
    with pytest.raises(ValueError, match=r"dialogue about 'abc': the first question .* more than max_length \(20\)"):
        DialogueCollator(processor, 20)([row("<video>\nWhat is shown?", "A ring and a star.\nNothing else at all.")])


def test_words_that_spell_the_placeholder_stay_words(processor):
    turns = ("<video>\nWhat does <video> mean?", "It says <video> here.", "And <image> or <video>?", "The same.")
    batch = DialogueCollator(processor)([row(*turns)])
    assert (batch["input_ids"] == processor.video_token_id).sum() == 5
    assert "< video>" in trained_text(processor, batch)


def test_an_image_is_a_video_of_one_frame(processor):
    batch = DialogueCollator(processor)([row("<image>\nWhat is shown?", "A ring.", visual_features=np.ones((1, 64)))])
    assert (batch["input_ids"] == processor.video_token_id).sum() == 1
    assert "<image>" not in processor.tokenizer.decode(batch["input_ids"][0])


def test_only_the_first_mark_of_a_question_is_the_video(processor):
    batch = DialogueCollator(processor)([row("<image> and <image>?", "A ring.", visual_features=np.ones((1, 64)))])
    asked = processor.tokenizer.decode(batch["input_ids"][0])
    assert asked.index("<video>") < asked.index("image")


def test_raw_videos_are_read_by_the_processor(processor, monkeypatch):
    seen = []
    inputs = DialogueCollator(processor)._video_inputs([DIALOGUE])[0]
    monkeypatch.setattr(processor, "video_inputs", lambda videos: (seen.append(videos), (inputs, [5]))[1])
    batch = DialogueCollator(processor)([{"id": "abc", "messages": DIALOGUE["messages"], "video": "abc.mp4"}])
    assert seen == [["abc.mp4"]] and (batch["input_ids"] == processor.video_token_id).sum() == 5


def test_a_system_turn_in_front_is_kept(processor):
    messages = [{"role": "system", "content": "Answer briefly."}, *DIALOGUE["messages"]]
    batch = DialogueCollator(processor)([{**DIALOGUE, "messages": messages}])
    assert "Answer briefly." in processor.tokenizer.decode(batch["input_ids"][0])
    assert trained_text(processor, batch) == trained_text(processor, DialogueCollator(processor)([DIALOGUE]))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (row("What is shown?", "A ring."), "the first turn must be the user's and hold <video>"),
        (row("Hello", "Hi.", "<video>\nWhat is shown?", "A ring."), "the first turn must be the user's"),
        (row("<video>\nWhat is shown?"), "the last turn must be the assistant's: there is nothing to learn"),
        ({**row(), "messages": [{"role": "system", "content": "Be brief."}]}, "the first turn must be the user's"),
        ({**row(), "messages": [{"role": "assistant", "content": "<video>"}]}, "the first turn must be the user's"),
        (
            row("<video>\nWhat is shown?", "A ring.", visual_features=None),
            "has neither stored features nor a video file",
        ),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused(processor, broken, message):
    with pytest.raises(ValueError, match=f"^dialogue about 'abc': {message}"):
        DialogueCollator(processor)([broken])


def test_a_row_without_an_id_is_refused_too(processor):
    nameless = {name: value for name, value in row("Hello", "Hi.").items() if name != "id"}
    with pytest.raises(
        ValueError, match=r"^dialogue about 'a video': the first turn must be the user's and hold <video>"
    ):
        DialogueCollator(processor)([nameless])


def test_a_template_without_marks_is_refused(processor, monkeypatch):
    monkeypatch.setattr(processor, "chat_template", "{{ messages }}")
    with pytest.raises(ValueError, match="does not mark what to train on"):
        DialogueCollator(processor)


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "glm4moe", "nemotron_3_nano", "gptoss", "qwen2_5"])
def test_what_a_prompt_holds_already_is_not_learned(processor, monkeypatch, caplog, name):
    template = files("trl").joinpath("chat_templates", f"{name}_training.jinja").read_text()
    monkeypatch.setattr(processor, "chat_template", template)
    question, answer = "<video>\nWhen is the bell heard?", "From 05 to 20."
    batch = DialogueCollator(processor)([row(question, answer)])
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    trained = trained_text(processor, batch)
    assert "think" not in trained and answer in trained
    inputs = {name: [value] for name, value in FEATURES.items()}
    prompt = processor(text=build_prompt(processor, question), **inputs)["input_ids"][0]
    assert ids[: len(prompt)].tolist() == prompt.tolist()
    assert (labels[: len(prompt)] == IGNORE_INDEX).all() and labels[len(prompt)] != IGNORE_INDEX
    assert not caplog.records


def test_the_empty_thoughts_of_an_answer_are_not_learned(processor, monkeypatch, caplog):
    thoughts = " <think></think>"  # of the last answer alone, and of a prompt
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}Q: {{ m['content'] }} A:{% else %}{% generation %}"
        f"{{% if loop.last and enable_thinking is defined and enable_thinking is false %}}{thoughts}{{% endif %}}"
        "{{ m['content'] }}!{% endgeneration %}{% endif %}{% endfor %}"
        f"{{% if add_generation_prompt and not enable_thinking %}}{thoughts}{{% endif %}}"
    )
    monkeypatch.setattr(processor, "chat_template", template)
    batch = DialogueCollator(processor)([row("<video> When?", "From 05 to 20.", "And then?", "It ends.")])
    assert trained_text(processor, batch) == "From 05 to 20.!It ends.!"
    assert not caplog.records
    # Answers that begin in another way than the prompt ends are learned as they are, and the two are shown.
    other = template.replace(f"not enable_thinking %}}{thoughts}", f"not enable_thinking %}} {'y' * 50}")
    monkeypatch.setattr(processor, "chat_template", other)
    batch = DialogueCollator(processor)([row("<video> When?", "From 05 to 20.")])
    assert "think" in trained_text(processor, batch)
    (record,) = caplog.records
    assert record.name == "longvale.training.collator"
    assert record.getMessage() == (
        f"the chat template begins answers otherwise when it generates ({'y' * 40!r}) than in a dialogue "
        "('Q: <video> A: <think></think>Yes.!'); the model is trained on the latter and asked with the former"
    )


def test_a_template_that_makes_a_model_think_is_named(processor, monkeypatch, caplog):
    template = files("trl").joinpath("chat_templates", "deepseek_r1_distill_training.jinja").read_text()
    monkeypatch.setattr(processor, "chat_template", template)
    DialogueCollator(processor)
    assert "begins answers otherwise when it generates" in caplog.text


def test_control_tokens_in_captions_and_questions_stay_words(processor):
    spelled = "It says </s> and <s>, <unk> too"
    batch = DialogueCollator(processor)([row(f"{spelled}\n<video>\n{spelled}?", f"{spelled}.")])
    tokenizer, ids = processor.tokenizer, batch["input_ids"][0].tolist()
    assert [ids.count(i) for i in (tokenizer.bos_token_id, tokenizer.eos_token_id)] == [1, 1]
    # The question is asked in the tokens that it was trained in.
    inputs = {name: [value] for name, value in FEATURES.items()}
    prompt = processor(text=build_prompt(processor, f"{spelled}\n<video>\n{spelled}?"), **inputs)["input_ids"][0]
    assert ids[: len(prompt)] == prompt.tolist()


def test_answers_come_without_thoughts(processor):
    texts = ["<think>\n\n</think>\n\nFrom 05 to 20.", "<think>From 01 to 02? Hm", " From 05 to 20. "]
    tokens = [processor.tokenizer(text)["input_ids"] for text in texts]
    assert decode_answers(processor, tokens) == ["From 05 to 20.", "", "From 05 to 20."]


def preference(chosen="A ring.", rejected="From 00 to 99, a blue star."):
    prompt = row("<video>\nWhen is the bell heard?", "From 05 to 20.", "What is shown?")
    answers = {"chosen": chosen, "rejected": rejected}
    answers = {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}
    return {"prompt": prompt.pop("messages"), **prompt, **answers}


def test_preferences_are_batches_of_better_and_worse_answers(processor):
    rows = [preference(), preference("Two rings.", "None.")]
    batch = PreferenceCollator(processor)(rows)
    ids, kept = batch["input_ids"], batch["completion_mask"].bool()
    answers = [processor.tokenizer.decode(row[mask]).replace(" ", "") for row, mask in zip(ids, kept, strict=True)]
    assert answers == ["Aring.</s>", "Tworings.</s>", "From00to99,abluestar.</s>", "None.</s>"]
    assert ((ids == processor.video_token_id).sum(dim=1) == 5).all() and batch["visual_features"].shape == (4, 3, 64)
    dialogue = {**rows[1], "messages": [*rows[1]["prompt"], *rows[1]["rejected"]]}
    alone = DialogueCollator(processor)([dialogue])
    assert torch.equal(ids[3][batch["attention_mask"][3].bool()], alone["input_ids"][0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chosen": None}, "preference about 'abc': chosen must be a list of messages"),
        ({"prompt": "What is shown?"}, "preference about 'abc': prompt must be a list of messages"),
        ({"rejected": [{"role": "assistant", "content": "A bell. " * 90}]}, "its rejected answer have .* max_length"),
        ({"rejected": [{"role": "user", "content": "And now?"}]}, "the last turn must be the assistant's"),
    ],
)
def test_preferences_that_are_refused(processor, changed, message):
    with pytest.raises(ValueError, match=message):
        PreferenceCollator(processor, max_length=150)([preference() | changed])
