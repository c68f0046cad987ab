"""SODA: a story-oriented score of a list of events, which considers their order and penalizes redundant events.

Fujita, Hirao, Kamigaito, Okumura and Nagata, "SODA: Story Oriented Dense Video Captioning Evaluation Framework", ECCV
2020. Predicted and reference events, sorted by start, are aligned so that no two pairs cross. The sum over the pairs
divided by the number of predicted events is the precision; divided by the number of reference events, the recall.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from longvale.metrics.grounding.compute_score import iou_matrix
from longvale.metrics.protocol_options import ProtocolOptions, protocol_options
from longvale.metrics.text import cider, meteor
from longvale.metrics.text.captions import tokenize
from longvale.metrics.text.ngrams import NgramTable
from longvale.timecodes import Protocol

#: Start and end, in the same unit for predictions and references, and the caption.
CaptionedInterval: TypeAlias = tuple[float, float, str]

#: Rules for the alignment and for the value of a pair; see [`score_videos`].
Variant: TypeAlias = Literal["a", "b", "c", "d"]
#: Caption metric; `IoU` treats all captions as equal.
Scorer: TypeAlias = Literal["METEOR", "CIDEr", "IoU"]

#: The thresholds of variant a.
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)

#: Maximum number of predicted and reference events of a video that the published recursion supports.
EVENT_LIMIT = 990


def score_videos(
    predictions: Sequence[Sequence[CaptionedInterval]],
    *references: Sequence[Sequence[CaptionedInterval]],
    variant: Variant = "c",
    scorer: Scorer = "METEOR",
    protocol: Protocol = "strict",
    options: ProtocolOptions | None = None,
) -> list[dict[str, float]]:
    """Compute SODA of each video; the score of a data set is the mean over its videos.

    Let C be the caption score of a pair. The pairs are those of the order-preserving alignment with the largest sum of

    - a: IoU, if it reaches a threshold; the value of a pair is C. Mean over the thresholds .3, .5, .7, .9.
    - b: IoU; the value of a pair is IoU x C.
    - c: IoU x C, which is also the value of a pair. This is "SODA" and `soda_c`.
    - d: IoU, which is also the value of a pair, regardless of the captions.

    Events that do not overlap are not paired in any variant, and their captions are not compared.

    Args:
        predictions: the events of each video, in any order; a video may have none.
        references: the events of each video by one annotator, or by several with one argument per annotator. The
            annotator with the highest F1 counts; an annotator without events for a video is ignored for that video.
        variant: a, b, c or d.
        scorer: METEOR, CIDEr (up to 10; with document frequencies of all reference captions), or IoU: C is 1.
        protocol: sets the default of `options`; `official` swaps METEOR's arguments.
        options: of the protocol; `swapped_meteor`, `limited_soda`, `rounded_union`, `ascii_only` and `one_batch` apply.

    Returns:
        `precision`, `recall`, `F1` per video as fractions (with CIDEr up to 10).

    Raises:
        ValueError: if there are no references, the numbers of videos differ, or variant, scorer or protocol is unknown.

    Example:
        >>> score_videos([[(0, 10, "a bell rings"), (10, 20, "x")]], [[(0, 20, "a bell rings")]], variant="d")
        [{'precision': 0.25, 'recall': 0.5, 'F1': 0.3333333333333333}]
    """
    options = protocol_options(protocol) if options is None else options
    _check(predictions, references, variant, scorer)
    found = _sorted_and_tokenized(predictions, options)
    annotators = [_sorted_and_tokenized(events, options) for events in references]
    grids = [
        [_Grid(events, videos[place], options) for videos in annotators if videos[place]]
        for place, events in enumerate(found)
    ]
    known = _compare(
        [pair for rivals in grids for grid in rivals for pair in grid.pairs()],
        "IoU" if variant == "d" else scorer,
        annotators,
        options,
    )
    scores = [[grid.f_measure(known, variant) for grid in rivals] for rivals in grids]
    return [max(rivals, key=lambda score: score["F1"], default=_f_measure(0.0, 0, 0)) for rivals in scores]


def align(worth: np.ndarray) -> list[tuple[int, int]]:
    """Compute the order-preserving alignment of rows and columns with the largest sum.

    Dynamic programming row by row, without recursion; time and memory are rows x columns.

    Args:
        worth: value of each pair of row and column, 0 or more, [rows, columns].

    Returns:
        (row, column), ascending in both; pairs with value 0 are omitted.

    Example:
        >>> align(np.array([[0.1, 0.6], [0.5, 0.3]]))
        [(0, 1)]
    """
    rows, columns = worth.shape
    best = np.zeros((rows + 1, columns + 1))  # of the first i rows and j columns
    for row in range(rows):
        best[row + 1, 1:] = np.maximum.accumulate(np.maximum(best[row, 1:], best[row, :-1] + worth[row]))
    pairs = []
    row, column = rows, columns
    while row and column:
        if best[row, column] == best[row - 1, column]:
            row -= 1
        elif best[row, column] == best[row, column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            pairs.append((row, column))
    return pairs[::-1]


def _check(predictions: Sequence, references: Sequence[Sequence], variant: str, scorer: str) -> None:
    if not references:
        raise ValueError("SODA needs the references of one annotator or more")
    for events in references:
        if len(events) != len(predictions):
            raise ValueError(f"predictions of {len(predictions)} videos but references of {len(events)}; give both")
    for value, kind in ((variant, Variant), (scorer, Scorer)):
        if value not in get_args(kind):
            raise ValueError(f"unknown SODA variant or scorer {value!r}; expected one of {', '.join(get_args(kind))}")


def _sorted_and_tokenized(
    videos: Sequence[Sequence[CaptionedInterval]], options: ProtocolOptions
) -> list[list[CaptionedInterval]]:
    ordered = [sorted(events, key=lambda event: event[0]) for events in videos]
    words = iter(
        tokenize(
            [caption for events in ordered for _, _, caption in events],
            one_batch=options.one_batch,
            ascii_only=options.ascii_only,
        )
    )
    return [[(start, end, next(words)) for start, end, _ in events] for events in ordered]


class _Grid:
    """Predicted events of a video and the events of one annotator, both sorted and tokenized."""

    def __init__(
        self, found: Sequence[CaptionedInterval], wanted: Sequence[CaptionedInterval], options: ProtocolOptions
    ) -> None:
        self.found, self.wanted = found, wanted
        self.ious = iou_matrix(
            [event[:2] for event in found], [event[:2] for event in wanted], rounded_union=options.rounded_union
        )
        if options.limited_soda and len(found) + len(wanted) > EVENT_LIMIT:
            self.ious[:] = 0
        self._cells = np.argwhere(self.ious > 0)  # [n, 2]: (prediction, reference) of pairs that overlap

    def pairs(self) -> list[tuple[str, str]]:
        """Return the captions of overlapping pairs of events."""
        return [(self.found[row][2], self.wanted[column][2]) for row, column in self._cells]

    def f_measure(self, known: dict[tuple[str, str], float], variant: Variant) -> dict[str, float]:
        scores = np.zeros(self.ious.shape)
        scores[tuple(self._cells.T)] = [known[pair] for pair in self.pairs()]
        return _f_measure(_sum_of_pairs(self.ious, scores, variant), len(self.found), len(self.wanted))


def _compare(
    pairs: Sequence[tuple[str, str]],
    scorer: Scorer,
    annotators: Sequence[Sequence[Sequence[CaptionedInterval]]],
    options: ProtocolOptions,
) -> dict[tuple[str, str], float]:
    """Return the scores of (prediction, reference); each distinct pair is compared once."""
    pairs = list(dict.fromkeys(pairs))
    if scorer == "IoU" or not pairs:
        return dict.fromkeys(pairs, 1.0)
    if scorer == "METEOR":
        found, wanted = zip(*pairs, strict=True)
        scores = meteor.scores(wanted, found) if options.swapped_meteor else meteor.scores(found, wanted)
        return dict(zip(pairs, scores, strict=True))
    documents = [[caption] for videos in annotators for events in videos for _, _, caption in events]
    table = NgramTable([*(found for found, _ in pairs), *(text for (text,) in documents)])
    known = cider.frequencies(table, [table.rows(document) for document in documents])
    found_rows = table.rows([found for found, _ in pairs])
    wanted_rows = [table.rows([wanted]) for _, wanted in pairs]
    return dict(zip(pairs, cider.score_rows(table, found_rows, wanted_rows, known).tolist(), strict=True))


def _sum_of_pairs(ious: np.ndarray, scores: np.ndarray, variant: Variant) -> float:
    """Return the summed value of the aligned pairs; IoUs and caption scores are [predictions, references]."""
    if variant == "a":
        aligned = [align(np.where(ious >= threshold, ious, 0)) for threshold in THRESHOLDS]
        return sum(float(scores[pair]) for pairs in aligned for pair in pairs) / len(THRESHOLDS)
    worth = ious if variant == "d" else ious * scores
    return sum(float(worth[pair]) for pair in align(ious if variant == "b" else worth))


def _f_measure(total: float, found: int, wanted: int) -> dict[str, float]:
    precision, recall = (total / found, total / wanted) if found and wanted else (0.0, 0.0)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    return {"precision": precision, "recall": recall, "F1": f1}
