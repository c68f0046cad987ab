import pytest

from longvale.training.rewards import answer_format, boundary_f1, soda_c, temporal_iou

EVENTS = [
    {"start": 0.0, "end": 30.0, "caption": "A bell rings."},
    {"start": 30.0, "end": 60.0, "caption": "A dog barks."},
]


def rewards(function, *answers, task=None, **columns):
    rows = len(answers)
    values = {"start": [15.0] * rows, "end": [30.0] * rows, "duration": [60.0] * rows, "events": [EVENTS] * rows}
    tasks = task if isinstance(task, list) else [task] * rows
    return function(completions=[[{"content": text}] for text in answers], task=tasks, **values, trainer_state=None)


def test_the_iou_of_what_is_named():
    answers = ["From 25 to 50.", "From 00 to 50.", "From 60 to 70.", "no idea", "From 50 to 25.", ""]
    assert rewards(temporal_iou, *answers, task="grounding") == [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]


def test_the_format_is_that_and_nothing_else():
    answers = ["From 25 to 50.", " From 25 to 50\n", "It is From 25 to 50.", "From 5 to 12.", "From 25 to 50. Yes.", ""]
    assert rewards(answer_format, *answers, task="grounding") == [1, 1, 0, 0, 0, 0]
    lists = [
        "From 00 to 50, A bell rings.\nFrom 50 to 99, A dog barks.",
        "From 00 to 50, a\nand so on",
        "",
        "From 00 to 50,",
    ]
    assert rewards(answer_format, *lists, task="dense_captioning") == [1, 0, 0, 0]


def test_reasoning_before_an_answer_neither_pays_nor_costs():
    answer, wrong = "From 25 to 50.", "From 00 to 99."
    thought = [f"<think>{wrong}</think>\n{answer}", f"<think>{answer} No.</think>{wrong}", f"<think>{answer}"]
    assert rewards(temporal_iou, *thought, task="grounding") == rewards(
        temporal_iou, answer, wrong, "", task="grounding"
    )
    assert rewards(answer_format, *thought, task="grounding") == [1, 1, 0]
    events = "From 00 to 50, A bell rings.\nFrom 50 to 100, A dog barks."
    for function in (boundary_f1, soda_c):
        thinking = rewards(function, f"<think>From 00 to 10, x.</think>{events}", task="dense_captioning")
        assert thinking == rewards(function, events, task="dense_captioning")


def test_boundaries_count_without_captions_and_repeats_do_not_pay():
    right = "From 00 to 50, x.\nFrom 50 to 100, y."
    repeated = "\n".join(["From 00 to 50, x."] * 6)
    found = rewards(boundary_f1, right, repeated, "From 00 to 50, x.", "nothing", task="dense_captioning")
    assert found == pytest.approx([1.0, 2 / 8, 2 / 3, 0.0])


def test_soda_wants_boundaries_and_captions():
    right, mute, wrong = (
        "From 00 to 50, A bell rings.\nFrom 50 to 100, A dog barks.",
        "",
        "From 00 to 50, Nobody sings.",
    )
    found = rewards(soda_c, right, mute, wrong, task="dense_captioning")
    assert found[0] > 0.9 and found[1] == 0.0 and found[2] < 0.2


def test_questions_of_another_task_have_no_reward():
    tasks = ["grounding", "dense_captioning"]
    answers = ("From 25 to 50.", "From 00 to 50, A bell rings.")
    assert rewards(temporal_iou, *answers, task=tasks) == [1.0, None]
    for function in (boundary_f1, soda_c):
        first, second = rewards(function, *answers, task=tasks)
        assert first is None and 0 < second <= 1
