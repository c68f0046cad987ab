"""Which local speakers of many windows are the same person: clustering of their embeddings, with constraints."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...events import Seconds


class Piece(NamedTuple):
    """A stretch of speech of one local speaker that was embedded.

    Args:
        window: number of the window.
        local: number of the local speaker.
        first: first frame of the window.
        last: frame after its last.
        seconds: clean speech, in which nobody else speaks: all or nothing.
        embedding: float32 [d] of length 1.
    """

    window: int
    local: int
    first: int
    last: int
    seconds: Seconds
    embedding: np.ndarray


@dataclass(frozen=True)
class Voice:
    """A voice in a window: a local speaker, or one of several that the segmentation took for one.

    Args:
        pieces: its speech.
        seconds: clean speech.
        embedding: float32 [d] of length 1.
    """

    pieces: tuple[Piece, ...]
    seconds: Seconds
    embedding: np.ndarray

    @property
    def place(self) -> tuple[int, int]:
        """Window and number of the local speaker."""
        return self.pieces[0].window, self.pieces[0].local


@dataclass(frozen=True)
class ClusterOptions:
    """Options of the clustering; the defaults were chosen by benchmarks/speakers.py --tune.

    Args:
        threshold: clusters are merged while the mean cosine distance between their members is below this.
        apart: added to that distance if the smaller of two clusters shares all its windows with the other, and
            proportionally less if it shares some.
        together: when voices are assigned to speakers, subtracted from the similarity if another local speaker of the
            window has that speaker.
        trusted_s: a voice of at least this many seconds of clean speech takes part in finding clusters.
        smallest_s: a cluster needs this many seconds of clean speech, over all windows; smaller ones are dissolved.
        most_members: voices that find the clusters; the others of a longer video are only assigned, so that memory
            grows with the length and not with its square.
        min_speakers: least number of speakers, if there is enough speech.
        max_speakers: greatest number of speakers.
    """

    threshold: float = 0.75
    apart: float = 1.0
    together: float = 0.2
    trusted_s: Seconds = 1.5
    smallest_s: Seconds = 2.0
    most_members: int = 1500
    min_speakers: int = 1
    max_speakers: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.min_speakers <= self.max_speakers:
            raise ValueError(
                f"min_speakers={self.min_speakers}, max_speakers={self.max_speakers}: expected 1 <= least <= greatest"
            )


def find_voices(pieces: Sequence[Piece], split: float) -> list[Voice]:
    """Group the pieces of each local speaker into voices: one, unless they are farther apart than `split`.

    Example:
        >>> two = [Piece(0, 0, 0, 90, 1.5, np.eye(2)[0]), Piece(0, 0, 90, 180, 1.5, np.eye(2)[1])]
        >>> len(find_voices(two, 0.6)), len(find_voices(two, 1.5))
        (2, 1)
    """
    options = ClusterOptions(threshold=split)
    voices = []
    for _, group in itertools.groupby(pieces, key=lambda piece: (piece.window, piece.local)):
        own = list(group)
        rows = np.stack([piece.embedding for piece in own]).astype(np.float64)
        distances = 1.0 - rows @ rows.T
        labels = _linkage(distances, np.zeros(distances.shape, bool), options)
        for label in dict.fromkeys(labels.tolist()):
            members = [piece for piece, other in zip(own, labels.tolist(), strict=True) if other == label]
            total = sum((piece.last - piece.first) * piece.embedding for piece in members)
            seconds = sum(piece.seconds for piece in members)
            voices.append(Voice(tuple(members), seconds, (total / np.linalg.norm(total)).astype(np.float32)))
    return voices


def cluster(voices: Sequence[Voice], options: ClusterOptions | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Find the speakers of voices.

    Returns:
        The speaker of each voice, int [voices], numbered by decreasing clean speech; and the centroid of each speaker,
        float32 [speakers, d] of length 1.
    """
    options = options or ClusterOptions()
    if not voices:
        return np.zeros(0, int), np.zeros((0, 0), np.float32)
    embeddings = np.stack([voice.embedding for voice in voices])
    places = np.array([voice.place for voice in voices])
    centroids = find_clusters(embeddings, places, np.array([voice.seconds for voice in voices]), options)
    return assign(embeddings, places, centroids, options.together), centroids


def find_clusters(
    embeddings: np.ndarray, places: np.ndarray, seconds: np.ndarray, options: ClusterOptions | None = None
) -> np.ndarray:
    """Return the centroids of the speakers.

    Average linkage on cosine distances. Two local speakers of one window are different people: clusters are farther
    apart, the more windows they share. A window that splits one person in two is outvoted by the others.

    Args:
        embeddings: float32 [n, d] of length 1.
        places: int [n, 2], window and local speaker of each.
        seconds: float [n], clean speech of each.
        options: thresholds.

    Returns:
        float32 [speakers, d] of length 1, by decreasing seconds of clean speech.

    Example:
        >>> voices = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
        >>> find_clusters(voices, np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.full(4, 3.0)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    options = options or ClusterOptions()
    trusted = np.flatnonzero(seconds >= options.trusted_s)
    if not len(trusted):
        trusted = np.arange(len(embeddings))
    if len(trusted) > options.most_members:  # evenly spread over the video
        trusted = trusted[np.linspace(0, len(trusted) - 1, options.most_members).round().astype(int)]
    if not len(trusted):
        return np.zeros((0, embeddings.shape[1]), np.float32)
    members = embeddings[trusted].astype(np.float64)
    distances = 1.0 - members @ members.T
    window, local = places[trusted].T
    together = (window[:, None] == window) & (local[:, None] != local)
    share = len(trusted) / max(np.count_nonzero(seconds >= options.trusted_s), 1)
    labels = _linkage(distances, together, options)
    labels = _dissolve(labels, seconds[trusted], distances, options.smallest_s * min(share, 1.0), options.min_speakers)
    sizes = {label: seconds[trusted][labels == label].sum() for label in set(labels.tolist())}
    order = sorted(sizes, key=lambda label: (-sizes[label], label))
    centroids = np.stack([members[labels == label].mean(axis=0) for label in order])
    return (centroids / np.linalg.norm(centroids, axis=1, keepdims=True)).astype(np.float32)


def _linkage(distances: np.ndarray, together: np.ndarray, options: ClusterOptions) -> np.ndarray:
    """Merge by average linkage; return a label per member: the index of the first member of its cluster."""
    n = len(distances)
    labels, counts = np.arange(n), np.ones(n)
    means, shared = distances.copy(), together.astype(np.float64)  # of clusters: mean distance, windows in common
    matrix = means + options.apart * shared
    np.fill_diagonal(matrix, np.inf)
    nearest = matrix.argmin(axis=1)
    alive = n
    while alive > options.min_speakers:
        best = matrix[np.arange(n), nearest]
        a = int(best.argmin())
        if not np.isfinite(best[a]) or (best[a] > options.threshold and alive <= options.max_speakers):
            break
        a, b = sorted((a, int(nearest[a])))
        means[a] = means[:, a] = (counts[a] * means[a] + counts[b] * means[b]) / (counts[a] + counts[b])
        shared[a] = shared[:, a] = shared[a] + shared[b]
        counts[a] += counts[b]
        labels[labels == b] = a
        alive -= 1
        gone = np.isinf(matrix[a])  # merged before, and itself
        row = np.where(gone, np.inf, means[a] + options.apart * shared[a] / np.minimum(counts, counts[a]))
        matrix[a] = matrix[:, a] = row
        matrix[a, a] = matrix[b] = matrix[:, b] = np.inf
        # The nearest of a row changes only if it was one of the two, or if the merged one is nearer now.
        stale = np.flatnonzero((nearest == a) | (nearest == b))
        nearest[stale] = matrix[stale].argmin(axis=1)
        nearest[a] = matrix[a].argmin()
        nearest[matrix[:, a] < matrix[np.arange(n), nearest]] = a
    return labels


def _dissolve(
    labels: np.ndarray, seconds: np.ndarray, distances: np.ndarray, smallest: float, least: int
) -> np.ndarray:
    """Move the members of clusters with little speech to the nearest larger cluster."""
    labels = labels.copy()
    weight = np.bincount(labels, seconds, len(labels))
    kept = sorted(set(labels.tolist()), key=lambda label: (-weight[label], label))
    large = [label for number, label in enumerate(kept) if number < max(least, 1) or weight[label] >= smallest]
    for label in kept:
        if label not in large:
            members = np.flatnonzero(labels == label)
            means = [distances[np.ix_(members, np.flatnonzero(labels == other))].mean() for other in large]
            labels[members] = large[int(np.argmin(means))]
    return labels


def assign(embeddings: np.ndarray, places: np.ndarray, centroids: np.ndarray, together: float) -> np.ndarray:
    """Give each voice the speaker who is nearest, if possible another one than the other local speakers of its window.

    Args:
        embeddings: float32 [n, d] of length 1.
        places: int [n, 2], window and local speaker of each; windows ascending.
        centroids: float32 [speakers, d] of length 1, at least one.
        together: subtracted from the similarity to a speaker whom another local speaker of the window has.

    Returns:
        int [n], the speaker of each.

    Example:
        >>> voices = np.array([[1.0, 0.0], [0.8, 0.6]], np.float32)
        >>> assign(voices, np.array([[0, 0], [0, 1]]), np.eye(2, dtype=np.float32), 0.3).tolist()
        [0, 1]
    """
    similarity = embeddings @ centroids.T
    found = similarity.argmax(axis=1)
    edges = np.flatnonzero(np.diff(places[:, 0], prepend=-1, append=-1))
    for first, last in itertools.pairwise(edges.tolist()):
        local, rows = places[first:last, 1], similarity[first:last]
        best = found[first:last]
        for _ in range(len(rows)):  # each change raises the sum, so few rounds are needed
            before = best.copy()
            for index in np.argsort(-rows.max(axis=1), kind="stable")[::-1].tolist():  # the least certain first
                taken = np.isin(np.arange(len(centroids)), best[local != local[index]])
                best[index] = (rows[index] - together * taken).argmax()
            if (best == before).all():
                break
    return found
