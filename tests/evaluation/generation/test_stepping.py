"""Answers written together, against one call a question."""

import pytest
import torch
from one_video import answer_plainly
from test_video_qa import QUESTIONS, draw_features, enlarge

from longvale.demo.checkpoint import build_checkpoint
from longvale.evaluation.generation.model import decode_answers
from longvale.evaluation.generation.sampling import Decoding
from longvale.evaluation.generation.stepping import Stepper, steps_alone
from longvale.evaluation.generation.video_qa import VideoQA, VideoQuestion

#: Longest answers of the questions, in turn: some end long before others.
LIMITS = [3, 40, 9, 1, 25]


@pytest.fixture(scope="module")
def pair():
    model, processor = build_checkpoint(seed=0, vocab_videos=50)
    return enlarge(model), processor


@pytest.fixture(scope="module")
def videos():
    return [draw_features(), draw_features(speech=0), draw_features(visual=7)]


@pytest.fixture(scope="module")
def asked():
    return [
        VideoQuestion(video, question, f"{video}/{place}", limit)
        for video in range(3)
        for place, (question, limit) in enumerate(zip(QUESTIONS, LIMITS, strict=True))
    ]


@pytest.fixture(scope="module")
def expected(pair, videos, asked):
    return [answer_plainly(*pair, ask.question, videos[ask.video], ask.max_new_tokens) for ask in asked]


def run(pair, videos, asked, **options):
    answers = [""] * len(asked)
    for places, texts in VideoQA(*pair, videos).answer(asked, 100, **options):
        for place, text in zip(places, texts, strict=True):
            answers[place] = text
    return answers


@pytest.mark.parametrize("rows", [1, 2, 4, 50])
def test_rows_are_refilled_as_answers_end(pair, videos, asked, expected, rows):
    assert run(pair, videos, asked, batch_size=rows) == expected
    assert len(set(expected)) > 10


def test_without_room_the_shorter_answers_begin_again(pair, videos, asked, expected, monkeypatch):
    """All begin together; as they grow, less and less of them fit."""
    made, make_room = [], Stepper._make_room
    monkeypatch.setattr(Stepper, "_make_room", lambda self: made.append(len(self._written)) or make_room(self))
    short = [place for place, ask in enumerate(asked) if ask.question != QUESTIONS[2]]
    some, answers = [asked[place] for place in short], [expected[place] for place in short]
    assert run(pair, videos, some, batch_size=50, batch_tokens=300) == answers
    assert made and made[0] > 4
    assert run(pair, videos, some, batch_tokens=1) == answers


def test_samples_do_not_depend_on_the_others(pair, videos, asked):
    decoding = Decoding(temperature=0.7, seed=1)
    alone = run(pair, videos, asked, decoding=decoding, batch_size=1)
    assert run(pair, videos, asked, decoding=decoding, batch_size=7) == alone
    assert run(pair, videos, asked, decoding=Decoding(0.7, seed=2), batch_size=7) != alone


def test_eager_attention(videos, asked, expected):
    model, processor = build_checkpoint(seed=0, vocab_videos=50)
    enlarge(model).set_attn_implementation("eager")
    assert steps_alone(model) and run((model, processor), videos, asked, batch_size=4) == expected


def test_answers_join_and_leave_at_any_step(pair, videos, asked, expected):
    qa = VideoQA(*pair, videos)
    stepper = Stepper(pair[0], rows=8, row_tokens=10_000)
    prompts = qa.split(asked)
    written = {}
    for place, (ask, prompt) in enumerate(zip(asked, prompts, strict=True)):
        written[place] = qa.begin(prompt, ask.max_new_tokens)
        stepper.add(written[place])
        stepper.step()
        if place == 6:
            stepper.remove(written[1])  # begun, far from its end
    stepper.add(waiting := qa.begin(prompts[0], 5))
    stepper.remove(waiting)
    while stepper.busy:
        stepper.step()
    assert len(written.pop(1).tokens) < LIMITS[1] and not waiting.tokens
    for place, writing in written.items():
        assert writing.finished and decode_answers(pair[1], [writing.tokens]) == [expected[place]]


def test_no_forward_pass_has_more_rows_than_asked_for(pair, videos, asked, monkeypatch):
    seen, forward = [], pair[0].forward
    monkeypatch.setattr(pair[0], "forward", lambda **kw: seen.append(len(kw["input_ids"])) or forward(**kw))
    run(pair, videos, asked, batch_size=4)
    assert max(seen[1:]) == 4  # after the prefixes


@pytest.mark.parametrize(
    ("name", "value", "alone"),
    [("no_repeat_ngram_size", 2, False), ("repetition_penalty", 1.3, False), ("temperature", 0.3, True)],
)
def test_settings_that_change_the_scores_are_left_to_transformers(videos, asked, name, value, alone):
    model, processor = build_checkpoint(seed=0, vocab_videos=50)
    enlarge(model)
    setattr(model.generation_config, name, value)
    assert steps_alone(model) == alone
    asked = asked[:5]
    expected = [answer_plainly(model, processor, ask.question, videos[0], ask.max_new_tokens) for ask in asked]
    assert run((model, processor), videos, asked) == expected


def test_suppressed_tokens_are_not_written(pair, videos, asked, expected):
    model, processor = pair
    qa, stepper = VideoQA(*pair, videos), Stepper(model, rows=1, row_tokens=1000)
    stepper.add(writing := qa.begin(qa.split(asked[1:2])[0], 1))
    stepper.step()
    (first,) = writing.tokens
    before = model.generation_config.suppress_tokens
    model.generation_config.suppress_tokens = [*before, first]
    try:
        answer = answer_plainly(model, processor, asked[1].question, videos[0], LIMITS[1])
        assert run(pair, videos, asked)[1] == answer != expected[1]
    finally:
        model.generation_config.suppress_tokens = before


def test_memory_is_not_kept_when_answers_end(pair, videos, asked):
    qa = VideoQA(*pair, videos)
    stepper = Stepper(pair[0], rows=50, row_tokens=10_000)
    stepper.add(*(qa.begin(prompt, 2) for prompt in qa.split(asked)))
    while stepper.busy:
        stepper.step()
    stepper.add(qa.begin(qa.split(asked)[0], 2))
    stepper.step()
    assert len(stepper._slots) == 1
    assert all(torch.isfinite(layer.keys).all() for layer in stepper._slots.layers)


def test_prompts_of_unlike_length_begin_in_passes_of_their_own(pair, videos, monkeypatch):
    texts = ["<video>\nWhen?", "<video>\n" + "What happens in it? " * 20, "<video>\nWhat?"]
    asked = [VideoQuestion(0, text, str(place), 4) for place, text in enumerate(texts)]
    qa = VideoQA(*pair, videos)
    stepper = Stepper(pair[0], rows=8, row_tokens=10_000)
    writings = [qa.begin(prompt, 4) for prompt in qa.split(asked)]
    expected = [answer_plainly(*pair, text, videos[0], 4) for text in texts]
    seen, forward = [], pair[0].forward
    monkeypatch.setattr(pair[0], "forward", lambda **kw: seen.append(kw["input_ids"].shape) or forward(**kw))
    stepper.add(*writings)
    while stepper.busy:
        stepper.step()
    (two, short), (one, long) = [tuple(shape) for shape in seen if shape[1] > 1]
    assert (two, one) == (2, 1) and 1 < short < long / 4  # the first and the third together
    assert decode_answers(pair[1], [writing.tokens for writing in writings]) == expected


def test_questions_that_arrive_one_by_one_begin_together(pair, videos, asked, monkeypatch):
    """Rows are free: it is the number of questions that a forward pass waits for, for some steps."""
    qa = VideoQA(*pair, videos[:1])
    (prompt,) = qa.split(asked[:1])
    stepper = Stepper(pair[0], rows=32, row_tokens=10_000)
    stepper.add(*(qa.begin(prompt, 50) for _ in range(12)))
    stepper.step()
    seen, forward = [], pair[0].forward
    monkeypatch.setattr(pair[0], "forward", lambda **kw: seen.append(tuple(kw["input_ids"].shape)) or forward(**kw))
    for _ in range(3):
        stepper.add(qa.begin(prompt, 50))
        stepper.step()
    assert [shape[0] for shape in seen if shape[1] == 1] == [12, 12, 12]
    stepper.step()
    assert seen[-1][0] == 3 and seen[-1][1] > 1
