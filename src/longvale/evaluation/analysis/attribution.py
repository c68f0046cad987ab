"""What an answer rests on: how much the model's belief in each of its events owes to seeing, to hearing, to speech.

A model does not say in which modality it noticed an event. It can be asked, though: how probable does it find its own
words when it is given only some of the modalities? The gain of a modality, averaged over all ways to add it to the
others, is its Shapley value ("A Value for n-Person Games", 1953): it splits what all of them tell together among them,
also where two of them tell the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations
from math import factorial
from typing import Any

from ...events import MODALITIES, Event, Modality
from ...timecodes import parse_events
from ..generation.model import Features, prepare_question

#: A modality counts when it gives this much of what the strongest one gives: with less, noise joins in; with more, the
#: weaker of two that both tell is lost.
EVIDENCE_SHARE = 0.25
#: Nats that the strongest one must give: less than a factor of 1.6 in probability tells nothing.
EVIDENCE_FLOOR = 0.5

Subset = frozenset[Modality]


def weigh_modalities(
    model: Any, processor: Any, question: str, features: Features, answer: str, events: Sequence[Event]
) -> Iterator[tuple[float, list[dict[Modality, float]] | None]]:
    """Weigh what the events of an answer rest on, one reading of the answer at a time.

    Args:
        question: that was answered; holds `<video>`.
        features: of the video; modalities it does not have weigh nothing.
        answer: as generated.
        events: that [`longvale.evaluation.ask.read_answer`] found in it.

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
    """The modalities that an event rests on: those with a share of the strongest one's weight, none if it is weak.

    Example:
        >>> lanes({"visual": 2.0, "audio": 1.9, "speech": 0.1})
        ('visual', 'audio')
        >>> lanes({"visual": -0.2, "audio": 0.1, "speech": 0.0})
        ()
    """
    strongest = max(weights.values())
    if strongest < EVIDENCE_FLOOR:
        return ()
    return tuple(modality for modality in MODALITIES if weights[modality] >= EVIDENCE_SHARE * strongest)


def shapley(worth: Mapping[Subset, float], players: Sequence[Modality]) -> dict[Modality, float]:
    """The average gain of each player over all orders in which they can join.

    Args:
        worth: of every subset of the players.
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
    """Where in an answer each of its events stands: [begin, end) in characters, the whole answer for a lone interval.

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
    """The features with the others silent: zeros, so that the video stays as long as it is."""
    return {
        modality: None if values is None else values if modality in subset else values * 0
        for modality, values in features.items()
    }


def _log_probabilities(
    model: Any, processor: Any, question: str, features: Features, answer: str, spans: Sequence[tuple[int, int]]
) -> list[float]:
    """The log-probability of each span of the answer, after the question and what stands before it."""
    import torch

    inputs = prepare_question(model, processor, [question], [features], answers=[answer], return_offsets_mapping=True)
    offsets = inputs.pop("offset_mapping")[0]  # [L, 2]
    # Where each token ends, in characters of the answer: the first one may begin with the space before it.
    ends = offsets[:, 1] - (offsets[-1, 1] - len(answer))
    first = int((ends > 0).nonzero()[0])
    with torch.inference_mode():
        logits = model(**inputs, logits_to_keep=inputs["input_ids"].shape[1] - first + 1).logits[0, :-1]  # [n, vocab]
    wanted = inputs["input_ids"][0, first:]
    log_probabilities = logits.float().log_softmax(-1).gather(1, wanted[:, None])[:, 0].cpu()
    ends = ends[first:].cpu()
    return [float(log_probabilities[(ends > a) & (ends <= b)].sum()) for a, b in spans]
