"""Modality attribution: how much each modality contributes to the probability of each event in an answer.

A model does not report in which modality it detected an event. Instead, the probability of its own answer is computed
with only some of the modalities. The gain of a modality, averaged over all orders in which it can be added to the
others, is its Shapley value ("A Value for n-Person Games", 1953). The Shapley values of all modalities sum to their
joint gain, also if two modalities carry the same information.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations
from math import factorial
from typing import Any

from ...events import MODALITIES, Event, Modality
from ...timecodes import parse_events
from ..generation.model import Features, prepare_question

#: Minimum share of the strongest modality's weight for a modality to count. A lower value includes noise; a higher
#: value drops the weaker of two informative modalities.
ATTRIBUTION_SHARE = 0.25
#: Minimum weight of the strongest modality in nats: less than a factor of 1.6 in probability is not informative.
ATTRIBUTION_FLOOR = 0.5

Subset = frozenset[Modality]


def weigh_modalities(
    model: Any, processor: Any, question: str, features: Features, answer: str, events: Sequence[Event]
) -> Iterator[tuple[float, list[dict[Modality, float]] | None]]:
    """Compute the weight of each modality for each event of an answer, one forward pass at a time.

    Args:
        question: the question that was answered; contains `<video>`.
        features: features of the video; absent modalities have weight 0.
        answer: the answer as generated.
        events: events that [`longvale.evaluation.ask.read_answer`] found in the answer.

    Yields:
        (share of the work done, None), and at the end (1.0, for each event the Shapley value of each modality in nats).
    """
    spans = event_spans(answer, len(events))
    present = [modality for modality in MODALITIES if features.get(modality) is not None]
    subsets = [frozenset(s) for s in chain.from_iterable(combinations(present, n) for n in range(len(present) + 1))]
    worth: dict[Subset, list[float]] = {}
    for subset in subsets:
        worth[subset] = _log_probabilities(model, processor, question, _only(features, subset), answer, spans)
        yield len(worth) / (len(subsets) + 1), None
    values = [shapley({subset: worth[subset][index] for subset in subsets}, present) for index in range(len(events))]
    yield 1.0, [{modality: value.get(modality, 0.0) for modality in MODALITIES} for value in values]


def lanes(weights: Mapping[Modality, float]) -> tuple[Modality, ...]:
    """Select the modalities of an event by their share of the strongest weight; none if the strongest weight is low.

    Example:
        >>> lanes({"visual": 2.0, "audio": 1.9, "speech": 0.1})
        ('visual', 'audio')
        >>> lanes({"visual": -0.2, "audio": 0.1, "speech": 0.0})
        ()
    """
    strongest = max(weights.values())
    if strongest < ATTRIBUTION_FLOOR:
        return ()
    return tuple(modality for modality in MODALITIES if weights[modality] >= ATTRIBUTION_SHARE * strongest)


def shapley(worth: Mapping[Subset, float], players: Sequence[Modality]) -> dict[Modality, float]:
    """Compute the average gain of each player over all orders in which the players can join.

    Args:
        worth: value of every subset of the players.
        players: some of the modalities.

    Example:
        >>> both = frozenset({"visual", "audio"})
        >>> worth = {frozenset(): 0, frozenset({"visual"}): 4, frozenset({"audio"}): 4, both: 4}
        >>> shapley(worth, ["visual", "audio"])  # the same twice is shared
        {'visual': 2.0, 'audio': 2.0}
    """
    n = len(players)
    values = dict.fromkeys(players, 0.0)
    for subset, value in worth.items():
        for player in set(players) - subset:
            orders = factorial(len(subset)) * factorial(n - 1 - len(subset)) / factorial(n)
            values[player] += orders * (worth[subset | {player}] - value)
    return values


def event_spans(answer: str, count: int) -> list[tuple[int, int]]:
    """Return the [begin, end) character span of each event in an answer; the whole answer for a single interval.

    Example:
        >>> event_spans("From 00 to 50, a bell.\\nFrom 50 to 99, a dog.", 2)
        [(0, 23), (23, 44)]
    """
    spans, begin = [], 0
    for line in answer.splitlines(keepends=True):
        if parse_events(line):
            spans.append((begin, begin + len(line)))
        begin += len(line)
    return spans if len(spans) == count else [(0, len(answer))] * count


def _only(features: Features, subset: Subset) -> dict[Modality, Any]:
    """Set the features of modalities outside `subset` to 0, so that the sequence lengths do not change."""
    return {
        modality: None if values is None else values if modality in subset else values * 0
        for modality, values in features.items()
    }


def _log_probabilities(
    model: Any, processor: Any, question: str, features: Features, answer: str, spans: Sequence[tuple[int, int]]
) -> list[float]:
    """Return the log-probability of each span of the answer, given the question and the preceding text."""
    import torch

    inputs = prepare_question(model, processor, [question], [features], answers=[answer], return_offsets_mapping=True)
    offsets = inputs.pop("offset_mapping")[0]  # [L, 2]
    # End of each token in characters of the answer; the first token may include the preceding space.
    ends = offsets[:, 1] - (offsets[-1, 1] - len(answer))
    first = int((ends > 0).nonzero()[0])
    with torch.inference_mode():
        logits = model(**inputs, logits_to_keep=inputs["input_ids"].shape[1] - first + 1).logits[0, :-1]  # [n, vocab]
    wanted = inputs["input_ids"][0, first:]
    log_probabilities = logits.float().log_softmax(-1).gather(1, wanted[:, None])[:, 0].cpu()
    ends = ends[first:].cpu()
    return [float(log_probabilities[(ends > a) & (ends <= b)].sum()) for a, b in spans]
