"""Scores of dense captioning: detection and captions of the events of a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from longvale.metrics.grounding.compute_score import iou_matrix
from longvale.metrics.protocol_options import ProtocolOptions, protocol_options
from longvale.metrics.text.captions import NAMES, CaptionScorer, Pair, tokenize
from longvale.timecodes import Protocol

from . import soda
from .soda import CaptionedInterval

#: Temporal IoU thresholds for a match (the four of the published scorer).
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)

#: Maximum distances of event starts for a match, in seconds (Yang et al., "VidChapters-7M", NeurIPS 2023, section 4).
DISTANCES = (1, 3, 5)

#: Reference of unmatched predictions under the option `garbage`; the published scorer uses 10 to 20 random letters.
GARBAGE = "x" * 15

#: Raw texts of a pair: a predicted caption and its reference.
RawPair: TypeAlias = tuple[str, str]


def match(
    predictions: Sequence[CaptionedInterval], references: Sequence[CaptionedInterval], threshold: float
) -> list[tuple[int, int]]:
    """Match predicted and reference events one to one, with an IoU of at least the threshold.

    The matching has the maximum number of pairs and, among such matchings, the largest sum of IoU.

    Returns:
        (index of the prediction, index of the reference), sorted by prediction.

    Example:
        >>> match([(0, 10, ""), (1, 10, "")], [(0, 10, "a bell rings")], 0.5)
        [(0, 0)]
    """
    ious = iou_matrix([event[:2] for event in predictions], [event[:2] for event in references])
    return _match(ious, ious >= threshold)


def compute_score(
    predictions: Sequence[Sequence[CaptionedInterval]],
    references: Sequence[Sequence[CaptionedInterval]],
    *,
    protocol: Protocol = "strict",
    options: ProtocolOptions | None = None,
) -> dict[str, float | int]:
    """Compute SODA, and precision, recall, F1, METEOR, CIDEr, ROUGE-L and BLEU at IoUs of .3, .5, .7 and .9.

    `strict`: events are paired by [`match`]. Precision is the share of paired predicted events and recall the share of
    paired reference events, over the whole corpus. Each reference event's caption is compared with the caption of its
    pair, or with an empty caption: a missed event scores 0, and CIDEr's document frequencies are the same for every
    model. `official`: see [`longvale.metrics.protocol_options.ProtocolOptions`].

    Each score without a threshold in its name is the mean over the four thresholds. SODA is variant c with METEOR,
    averaged over the videos. `precision@1s` and similar scores match events whose starts differ by at most 1, 3 or 5 s,
    regardless of their ends.

    Args:
        predictions: the events of each video, in seconds; a video may have none.
        references: the events of each video, in the same order of videos.
        protocol: sets the default of `options`.
        options: protocol options; all except `rounded_iou` and `paired_by_order` apply.

    Returns:
        `soda_c`, `METEOR`, `ROUGE_L`, `BLEU_1` to `BLEU_4`, `precision`, `recall`, `F1` as fractions and `CIDEr` (up to
        10), each but `soda_c` also with `@0.3`, `@0.5`, `@0.7`, `@0.9`; `soda_c_precision`, `soda_c_recall`;
        `precision@1s` and so on; `count` of videos, `reference_events`, `predicted_events`.

    Raises:
        ValueError: if there are no reference events, the numbers of videos differ, or the protocol is unknown.

    Example:
        >>> scores = compute_score([[(0, 10, "a bell rings"), (30, 60, "a dog barks")]], [[(0, 12, "A bell rings.")]])
        >>> scores["precision@0.5"], scores["recall@0.5"], scores["recall"], scores["ROUGE_L@0.7"]
        (0.5, 1.0, 0.75, 1.0)
    """
    return score_videos(predictions, references, protocol=protocol, options=options)[0]


def score_videos(
    predictions: Sequence[Sequence[CaptionedInterval]],
    references: Sequence[Sequence[CaptionedInterval]],
    *,
    protocol: Protocol = "strict",
    options: ProtocolOptions | None = None,
) -> tuple[dict[str, float | int], list[dict[str, float | int]]]:
    """Return the scores of [`compute_score`], and the same scores of each video separately.

    Under `ProtocolOptions.video_means` the former are means over the videos, except F1, which is computed from the mean
    precision and recall.

    Example:
        >>> overall, (first, second) = score_videos([[(0, 9, "a bell")], []], [[(0, 9, "a bell")], [(0, 9, "a dog")]])
        >>> first["recall"], second["recall"], overall["recall"]
        (1.0, 0.0, 0.5)
    """
    options = protocol_options(protocol) if options is None else options
    if len(predictions) != len(references):
        raise ValueError(f"predictions of {len(predictions)} videos but references of {len(references)}; give both")
    if not any(references):
        raise ValueError("no event to score: the references are empty")
    captions = _Captions(predictions, references, options)
    found = _Found(predictions, references, options)
    stories = soda.score_videos(predictions, references, options=options)
    videos = [
        {**_soda_names(story), **captions.video(place), **found.videos([place])} for place, story in enumerate(stories)
    ]
    texts = _means(captions.video(place) for place in range(len(videos))) if options.video_means else captions.corpus()
    overall = {**_means(map(_soda_names, stories)), **texts, **found.videos(range(len(videos)))}
    return overall, videos


class _Found:
    """Number of matched events per video, by IoU threshold and by distance of the starts."""

    def __init__(
        self,
        predictions: Sequence[Sequence[CaptionedInterval]],
        references: Sequence[Sequence[CaptionedInterval]],
        options: ProtocolOptions,
    ) -> None:
        self._averaged = options.video_means
        self._sizes = np.array(
            [[len(found), len(wanted)] for found, wanted in zip(predictions, references, strict=True)]
        )
        self._hits: dict[str, np.ndarray] = {}  # matched predicted and reference events, [videos, 2]
        ious = [_ious(found, wanted, options) for found, wanted in zip(predictions, references, strict=True)]
        for threshold in THRESHOLDS:
            allowed = [grid > threshold if options.strictly_above else grid >= threshold for grid in ious]
            self._hits[f"@{threshold}"] = np.array([_hits(*pair, options) for pair in zip(ious, allowed, strict=True)])
        apart = [_start_distances(*pair) for pair in zip(predictions, references, strict=True)]
        for distance in DISTANCES:
            self._hits[f"@{distance}s"] = np.array([_hits(-grid, grid <= distance, options) for grid in apart])

    def videos(self, places: Sequence[int]) -> dict[str, float | int]:
        """Return precision, recall and F1 of these videos together, and the numbers of videos and events."""
        sizes = self._sizes[list(places)]
        scores = {suffix: self._score(hits[list(places)], sizes) for suffix, hits in self._hits.items()}
        names = ("precision", "recall", "F1")
        return {
            **{name: sum(scores[f"@{t}"][k] for t in THRESHOLDS) / len(THRESHOLDS) for k, name in enumerate(names)},
            **{f"{name}{suffix}": values[k] for k, name in enumerate(names) for suffix, values in scores.items()},
            "count": len(sizes),
            "reference_events": int(sizes[:, 1].sum()),
            "predicted_events": int(sizes[:, 0].sum()),
        }

    def _score(self, hits: np.ndarray, sizes: np.ndarray) -> tuple[float, float, float]:
        if not self._averaged:
            hits, sizes = hits.sum(axis=0, keepdims=True), sizes.sum(axis=0, keepdims=True)
        precision, recall = (hits / np.maximum(sizes, 1)).mean(axis=0).tolist()
        return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


class _Captions:
    """Caption scores of each video and of all videos, by IoU threshold."""

    def __init__(
        self,
        predictions: Sequence[Sequence[CaptionedInterval]],
        references: Sequence[Sequence[CaptionedInterval]],
        options: ProtocolOptions,
    ) -> None:
        self._options = options
        self._pairs = _tokenized_pairs(predictions, references, options)  # by threshold and video
        documents: list[str] = []
        if not options.own_frequencies:
            documents = [caption for events in references for _, _, caption in events]
            documents = tokenize(documents, one_batch=options.one_batch, ascii_only=options.ascii_only)
        self._scorer = CaptionScorer(
            (pair for videos in self._pairs.values() for pairs in videos for pair in pairs),
            further_texts=documents,
            empty_alike=options.empty_alike,
        )
        self._known = None if options.own_frequencies else self._scorer.frequencies([[text] for text in documents])
        self._videos = {
            threshold: [self._scorer.corpus(pairs, self._known) for pairs in videos]
            for threshold, videos in self._pairs.items()
        }

    def video(self, place: int) -> dict[str, float]:
        """Return the scores of one video."""
        return _by_threshold({threshold: videos[place] for threshold, videos in self._videos.items()})

    def corpus(self) -> dict[str, float]:
        """Return the scores of the pairs of all videos together."""
        return _by_threshold({threshold: self._together(threshold) for threshold in THRESHOLDS})

    def _together(self, threshold: float) -> dict[str, float]:
        pairs = [pair for video in self._pairs[threshold] for pair in video]
        scores = self._scorer.corpus(pairs, self._known)
        if self._options.own_frequencies and pairs:
            sums = zip(self._videos[threshold], self._pairs[threshold], strict=True)
            scores["CIDEr"] = sum(video["CIDEr"] * len(own) for video, own in sums) / len(pairs)
        return scores


def _tokenized_pairs(
    predictions: Sequence[Sequence[CaptionedInterval]],
    references: Sequence[Sequence[CaptionedInterval]],
    options: ProtocolOptions,
) -> dict[float, list[list[Pair]]]:
    """Return the tokenized pairs of texts to compare, by threshold and video."""
    videos = list(zip(predictions, references, strict=True))
    ious = [_ious(found, wanted, options) for found, wanted in videos]
    raw = {
        threshold: [_raw_pairs(*video, grid, threshold, options) for video, grid in zip(videos, ious, strict=True)]
        for threshold in THRESHOLDS
    }
    # One batch contains the predictions, or the references, of all videos at one threshold.
    batches = [(threshold,) for threshold in THRESHOLDS] if options.one_batch else [THRESHOLDS]
    words: list[Iterator[str]] = []
    for side in (0, 1):
        texts = [[pair[side] for threshold in batch for pairs in raw[threshold] for pair in pairs] for batch in batches]
        tokenized = [tokenize(batch, one_batch=options.one_batch, ascii_only=options.ascii_only) for batch in texts]
        words.append(iter([text for batch in tokenized for text in batch]))
    found, wanted = words
    return {
        threshold: [[(next(found), (next(wanted),)) for _ in pairs] for pairs in raw[threshold]]
        for threshold in THRESHOLDS
    }


def _raw_pairs(
    found: Sequence[CaptionedInterval],
    wanted: Sequence[CaptionedInterval],
    ious: np.ndarray,
    threshold: float,
    options: ProtocolOptions,
) -> list[RawPair]:
    """Return the captions of a video to compare, before tokenization; `ious` are [predictions, references]."""
    allowed = ious >= threshold
    pairs = [(p, r) for p, r in np.argwhere(allowed)] if options.every_pair else _match(ious, allowed)
    texts = [(p, r, (found[p][2], wanted[r][2])) for p, r in pairs]
    if options.garbage:
        lonely = set(range(len(found))) - {p for p, _ in pairs}
        texts += [(p, 0, (found[p][2], GARBAGE)) for p in lonely]
        return [text for _, _, text in sorted(texts)]
    lonely = set(range(len(wanted))) - {r for _, r in pairs}
    texts += [(0, r, ("", wanted[r][2])) for r in lonely]
    return [text for _, _, text in sorted(texts, key=lambda entry: entry[1::-1])]


def _ious(
    found: Sequence[CaptionedInterval], wanted: Sequence[CaptionedInterval], options: ProtocolOptions
) -> np.ndarray:
    """Return the IoUs, [predictions, references]."""
    return iou_matrix(
        [event[:2] for event in found], [event[:2] for event in wanted], rounded_union=options.rounded_union
    )


def _start_distances(found: Sequence[CaptionedInterval], wanted: Sequence[CaptionedInterval]) -> np.ndarray:
    """Return the distances between the starts in seconds, [predictions, references]."""
    starts = [np.array([event[0] for event in events], dtype=float) for events in (found, wanted)]
    return np.abs(starts[0][:, None] - starts[1][None])


def _hits(worth: np.ndarray, allowed: np.ndarray, options: ProtocolOptions) -> tuple[int, int]:
    """Return how many predictions and references have an allowed pair; arrays are [predictions, references]."""
    if options.every_pair:
        return int(allowed.any(axis=1).sum()), int(allowed.any(axis=0).sum())
    pairs = len(_match(worth, allowed))
    return pairs, pairs


def _match(worth: np.ndarray, allowed: np.ndarray) -> list[tuple[int, int]]:
    """Compute the one-to-one matching with the maximum number of allowed pairs and, among these, the largest worth.

    Args:
        worth, allowed: value of each pair, and whether it is allowed, [rows, columns].
    """
    from scipy.optimize import linear_sum_assignment

    if not allowed.any():
        return []
    # One more pair outweighs any sum: worths are scaled to 0 to 1, so their sum is at most the number of pairs.
    low, high = worth[allowed].min(), worth[allowed].max()
    scaled = (worth - low) / (high - low) if high > low else np.zeros_like(worth)
    rows, columns = linear_sum_assignment(np.where(allowed, scaled + min(worth.shape) + 1, 0.0), maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if allowed[row, column]]


def _soda_names(story: dict[str, float]) -> dict[str, float]:
    return {"soda_c": story["F1"], "soda_c_precision": story["precision"], "soda_c_recall": story["recall"]}


def _by_threshold(scores: dict[float, dict[str, float]]) -> dict[str, float]:
    """Return `NAME@threshold` for each threshold, and `NAME`, the mean over the thresholds."""
    means = {name: sum(scores[t][name] for t in THRESHOLDS) / len(THRESHOLDS) for name in NAMES}
    return {**means, **{f"{name}@{t}": scores[t][name] for name in NAMES for t in THRESHOLDS}}


def _means(scores: Iterable[dict[str, float]]) -> dict[str, float]:
    scores = list(scores)
    return {name: sum(score[name] for score in scores) / len(scores) for name in scores[0]}
