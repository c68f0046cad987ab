import pytest

from longvale.training.rewards import (
    REWARDS,
    answer_format,
    answer_length,
    boundary_f1,
    caption_meteor,
    check_rewards,
    several_spans,
    soda_c,
    temporal_distance,
    temporal_iou,
)

EVENTS = [
    {"start": 0.0, "end": 30.0, "caption": "A bell rings."},
    {"start": 30.0, "end": 60.0, "caption": "A dog barks."},
]


def rewards(function, *answers, task=None, **columns):
    rows = len(answers)
    values = {"start": [15.0] * rows, "end": [30.0] * rows, "duration": [60.0] * rows, "events": [EVENTS] * rows}
    values |= {name: [value] * rows for name, value in columns.items()}
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


@pytest.mark.parametrize(
    ("times", "right", "half", "listed"),
    [
        ("seconds", "From 15.0 to 30.0 seconds", "From 0.0 to 30.0 seconds", "From {} to {} seconds, {}"),
        ("clock", "From 0:15 to 0:30", "From 0:00 to 0:30", "From 0:{:02.0f} to 0:{:02.0f}, {}"),
        ("percent", "From 25% to 50%", "From 00% to 50%", None),
        ("tokens", "From <15.0 seconds> to <30.0 seconds>", "From <0.0 seconds> to <30.0 seconds>", None),
        ("json", '{"start": 15.0, "end": 30.0}', '{"start": 0.0, "end": 30.0}', None),
    ],
)
def test_times_are_read_in_the_format_that_was_asked_for(times, right, half, listed):
    answers = [right, f"{right}.", half, f"It is {right}", "no idea", ""]
    assert rewards(temporal_iou, *answers, task="grounding", times=times) == [1.0, 1.0, 0.5, 1.0, 0.0, 0.0]
    assert rewards(answer_format, *answers, task="grounding", times=times) == [1, 1, 1, 0, 0, 0]
    if listed:
        lines = "\n".join(listed.format(*event) for event in ((0.0, 15.0, "A bell rings."), (15.0, 30.0, "A dog.")))
        both = [lines, f"Here: {lines}", lines.replace("A dog.", "")]
        assert rewards(answer_format, *both, task="dense_captioning", times=times) == [1, 0, 0]
        events = [{"start": 0.0, "end": 15.0, "caption": "x"}, {"start": 15.0, "end": 30.0, "caption": "y"}]
        assert rewards(boundary_f1, lines, task="dense_captioning", times=times, events=events) == [1.0]
        assert rewards(soda_c, lines, task="dense_captioning", times=times)[0] > 0


def test_seconds_are_more_exact_than_timecodes():
    (exact,) = rewards(
        temporal_iou, "From 15.2 to 15.4 seconds", task="grounding", times="seconds", start=15.2, end=15.4
    )
    (coarse,) = rewards(temporal_iou, "From 25 to 26.", task="grounding", start=15.2, end=15.4)
    assert exact == pytest.approx(1.0) and coarse < 0.5


def test_the_distance_tells_near_from_far_where_the_iou_does_not():
    answers = ["From 25 to 50.", "From 50 to 60.", "From 90 to 99.", "no idea", "From 30 to 45."]
    exact, near, far, none, inside = rewards(temporal_distance, *answers, task="grounding")
    assert rewards(temporal_iou, *answers[1:4], task="grounding") == [0.0, 0.0, 0.0]
    assert exact == 1.0 and exact > inside > near > far > none == 0.0
    # Quantiles differ by 25 to 10 points, and by -5 to 5.
    assert near == pytest.approx(1 - 0.175) and inside == pytest.approx(1 - 0.025)
    # The same by numeric integration.
    quantiles = [abs((0.30 + u / 1000 * 0.15) - (0.25 + u / 1000 * 0.25)) for u in range(1001)]
    assert inside == pytest.approx(1 - sum(quantiles) / 1001, abs=1e-3)


def test_all_occurrences_count():
    bells = [
        {"start": s, "end": s + 6.0, "caption": c} for s, c in ((0.0, "A bell."), (30.0, "a bell"), (48.0, "A dog."))
    ]
    answers = [
        "From 00 to 10, and from 50 to 60.",
        "From 50 to 60.",
        "From 00 to 10, from 50 to 60, from 80 to 90.",
        "no",
    ]
    found = rewards(several_spans, *answers, task="grounding", start=0.0, end=6.0, events=bells)
    assert found == pytest.approx([1.0, 0.5, 2 / 3, 0.0])
    seconds = ["From 0.0 to 6.0 seconds and from 30.0 to 36.0 seconds."]
    assert rewards(several_spans, *seconds, task="grounding", start=0.0, end=6.0, events=bells, times="seconds") == [
        1.0
    ]


def test_captions_are_compared_with_the_annotation():
    answers = ["A dog barks loudly.", "<think>A cat.</think>A dog barks loudly.", "Nobody sings", ""]
    found = rewards(caption_meteor, *answers, task="segment_captioning", reference="A dog barks loudly.")
    assert found[0] == found[1] == pytest.approx(1.0) and found[2] < 0.3 and found[3] == 0.0
    lengths = rewards(answer_length, *answers, task="segment_captioning", reference="A dog barks loudly.")
    assert lengths == [1.0, 1.0, 0.5, 0.0]


def test_other_tasks_have_no_reward():
    mixed = ["grounding", "dense_captioning", "segment_captioning"]
    for name, function in REWARDS.items():
        found = rewards(function, "From 25 to 50, x.", *["From 25 to 50, x."] * 2, task=mixed, reference="A dog.")
        assert [task for task, value in zip(mixed, found, strict=True) if value is not None], name
        assert None in found, name


def test_a_task_without_a_reward_is_refused():
    check_rewards(["temporal_iou", "answer_length"], ["grounding", "segment_captioning", "dense_captioning"])
    with pytest.raises(
        ValueError, match="boundary_f1 cannot check grounding; add temporal_iou or temporal_distance or several_spans"
    ):
        check_rewards(["boundary_f1"], ["dense_captioning", "grounding"])
