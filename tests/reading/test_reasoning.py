"""Reasoning is dropped, whatever the model calls it, and words that only look like it stay."""

import pytest

from longvale.reading.reasoning import strip_reasoning


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("From 10 to 20.", "From 10 to 20."),
        ("  a bell rings \n", "a bell rings"),
        ("<think>From 2 to 6?</think>\n\nFrom 30 to 54.", "From 30 to 54."),
        ("<think>\n\n</think>\n\nFrom 30 to 54.", "From 30 to 54."),
        ("<THINK>From 2 to 6?</Think>From 30 to 54.", "From 30 to 54."),
        ("<thinking>a</thinking>b", "b"),
        ("<thought>a</thought>b", "b"),
        ("<reasoning>a</reasoning>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("◁think▷a◁/think▷b", "b"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("the template opened it</think>b", "b"),
        ("a</think>b</think>c", "c"),
        ("<think>cut off by the longest answer: from 10 to 20", ""),
        ("From 10 to 20.\n<think>was that right?", "From 10 to 20."),
        ("<answer>10 to 20</answer>", "10 to 20"),
        ("<think>a <answer>1 to 2</answer></think><answer>3 to 4</answer>", "3 to 4"),
        ("<answer>1 to 2</answer> or rather <answer>3 to 4", "3 to 4"),
        ("<answer>1 to 2</answer><answer></answer>", "1 to 2"),
        ("<answer></answer>3 to 4", "<answer></answer>3 to 4"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>", "b"),
        ("<|channel|>analysis<|message|>hm, from 10 to 20", ""),
        ("I think that a dog barks; the reason is <unclear>.", "I think that a dog barks; the reason is <unclear>."),
        ("", ""),
    ],
)
def test_what_is_left_of_a_reply(reply, answer):
    assert strip_reasoning(reply) == answer


@pytest.mark.timeout(60)  # a quadratic pattern would take hours
@pytest.mark.parametrize(
    "unit", ["<think>", "</think>", "<answer>", "<", "< ", "<think", "[THINK]x[/THINK]", "<|channel|>final "]
)
def test_time_is_linear(unit):
    strip_reasoning(unit * 200_000)
