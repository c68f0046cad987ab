"""Speed of the caption metrics, compared with pycocoevalcap with Java on the same case.

    python benchmarks/metrics.py --videos 40          # a quick run, about a minute
    python benchmarks/metrics.py                      # as large as the LongVALE test split: about ten minutes
    python benchmarks/metrics.py --repeats 3          # medians

A generated case (`metrics_case.py`) is scored by the published procedure with pycocoevalcap's own classes, and with
`longvale.metrics` (`protocol="official"`), each time in a separate process, in turn. Needs a Java runtime.

The procedure for dense captioning: SODA_c tokenizes predictions and references in one run each and sends every
reference event of a video with every predicted one to METEOR. For each of four IoUs each of the four scorers tokenizes
both sides again (32 more runs) and then scores one video after another. Segment captioning is one batch. The published
code's own work in Python is not measured and not reproduced: answers are parsed beforehand, and IoUs, SODA's alignment
and the means over videos are this library's on both sides, to the published code's advantage.

Times are those of scoring, including the start of Java or the loading of METEOR's tables, which are already in the
cache. A first start (which builds them) and a later start are measured too: Python, imports and one METEOR score.
"""

import argparse
import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from statistics import median
from typing import Any

import numpy as np
from metrics_case import VIDEOS, Case, make_case

from longvale.metrics.dense_captioning import compute_score as dense_captioning
from longvale.metrics.dense_captioning.soda import CaptionedInterval, align
from longvale.metrics.grounding.compute_score import iou_matrix
from longvale.metrics.segment_captioning import compute_score as segment_captioning
from longvale.metrics.text.captions import NAMES

_START = "from longvale.metrics.text import meteor; meteor.scores(['a dog barks'], ['the dog barked'])"


@dataclass(frozen=True)
class Run:
    """Time, scores and memory of one way of scoring a case.

    Args:
        seconds: in total, and by part.
        scores: by name.
        calls: number of calls by part of the published procedure.
        memory: peak in GB, of the scoring process, and of the largest process that it started.
    """

    seconds: dict[str, float]
    scores: dict[str, float]
    calls: Counter[str]
    memory: tuple[float, float]


# --- pycocoevalcap ----------------------------------------------------------------------------------------------------


class Published:
    """The published procedure with pycocoevalcap's classes, with the time spent in each."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def dense(self, case: Case) -> dict[str, float]:
        """Compute the scores of dense captioning, with the names of [`longvale.metrics`]."""
        found, wanted = _ascii(case.found), _ascii(case.wanted)
        ious = [
            iou_matrix([event[:2] for event in own], [event[:2] for event in other], rounded_union=True)
            for own, other in zip(found, wanted, strict=True)
        ]
        scores = {"soda_c": self.soda(found, wanted)}
        scorers = _scorers()
        for threshold in dense_captioning.THRESHOLDS:
            videos = [_pairs(*video, threshold) for video in zip(found, wanted, ious, strict=True)]
            scores |= {f"{name}@{threshold}": value for name, value in self.video_means(videos, scorers).items()}
        return scores

    def soda(self, found: list[list[CaptionedInterval]], wanted: list[list[CaptionedInterval]]) -> float:
        """Compute SODA_c, the mean of the videos' F1; METEOR takes the prediction for the reference."""
        from pycocoevalcap.meteor.meteor import Meteor

        found, wanted = self.tokenize_videos(found), self.tokenize_videos(wanted)
        scorer, total = Meteor(), 0.0
        for own, other in zip(found, wanted, strict=True):
            if not own:
                continue
            predictions = {place: [event[2]] for place, event in enumerate(own)}
            rows = [
                self.score("METEOR", scorer, {place: [event[2]] for place in predictions}, predictions)
                for event in other
            ]
            ious = iou_matrix([event[:2] for event in own], [event[:2] for event in other], rounded_union=True)
            worth = ious * np.transpose([each for _, each in rows])
            shared = sum(float(worth[pair]) for pair in align(worth))
            total += 2 * shared / (len(own) + len(other))
        return total / len(found)

    def tokenize_videos(self, videos: list[list[CaptionedInterval]]) -> list[list[CaptionedInterval]]:
        """Sort events by start, and tokenize their captions in one run."""
        ordered = [sorted(events, key=lambda event: event[0]) for events in videos]
        words = iter(self.tokenize(caption for events in ordered for _, _, caption in events))
        return [[(start, end, next(words)) for start, end, _ in events] for events in ordered]

    def video_means(self, videos: Sequence[Sequence[tuple[str, str]]], scorers: dict[str, Any]) -> dict[str, float]:
        """Compute the mean over the videos of each score; 0 for a video without a pair."""
        scores: dict[str, list[np.ndarray]] = {}
        for name, scorer in scorers.items():
            found = iter(self.tokenize(caption for pairs in videos for caption, _ in pairs))
            wanted = iter(self.tokenize(caption for pairs in videos for _, caption in pairs))
            for pairs in filter(None, videos):
                own = {place: [next(found)] for place in range(len(pairs))}
                other = {place: [next(wanted)] for place in range(len(pairs))}
                scores.setdefault(name, []).append(np.array(self.score(name, scorer, own, other)[0]))
        return _named({name: sum(values) / len(videos) for name, values in scores.items()})

    def segments(self, case: Case) -> dict[str, float]:
        """Compute the scores of segment captioning, all pairs in one batch."""
        own, other = (dict(enumerate([text] for text in self.tokenize(side))) for side in (case.retold, case.captions))
        return _named({name: self.score(name, scorer, own, other)[0] for name, scorer in _scorers().items()})

    def tokenize(self, captions: Iterable[str]) -> list[str]:
        """Run the tokenizer once."""
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        numbered = {place: [{"caption": caption}] for place, caption in enumerate(captions)}
        lines = self.timed("PTBTokenizer", PTBTokenizer().tokenize, numbered)
        return [lines[place][0] for place in numbered]

    def score(self, name: str, scorer: Any, own: dict[int, list[str]], other: dict[int, list[str]]) -> tuple[Any, Any]:
        """Return a scorer's results for hypotheses and references: one number (BLEU: four), and one per pair."""
        return self.timed(name, scorer.compute_score, other, own)

    def timed(self, name: str, function: Callable, *arguments: Any) -> Any:
        """Call a function, and record its time under a name."""
        start = time.perf_counter()
        with _quiet():
            result = function(*arguments)
        self.seconds[name] += time.perf_counter() - start
        self.calls[name] += 1
        return result


def _scorers() -> dict[str, Any]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge

    return {"METEOR": Meteor(), "CIDEr": Cider(), "ROUGE_L": Rouge(), "BLEU": Bleu(4)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Discard the output of BLEU and the log of the tokenizer's process."""
    kept = os.dup(2)
    with contextlib.redirect_stdout(io.StringIO()), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _named(scores: dict[str, Any]) -> dict[str, float]:
    bleu = dict(zip(NAMES[-4:], scores["BLEU"], strict=True))
    return {name: float(value) for name, value in {**scores, **bleu}.items() if name != "BLEU"}


def _ascii(videos: list[list[CaptionedInterval]]) -> list[list[CaptionedInterval]]:
    """Replace non-ASCII characters with spaces."""

    def plain(text: str) -> str:
        return "".join(character if character.isascii() else " " for character in text)

    return [[(start, end, plain(caption)) for start, end, caption in events] for events in videos]


def _pairs(
    found: list[CaptionedInterval], wanted: list[CaptionedInterval], ious: np.ndarray, threshold: float
) -> list[tuple[str, str]]:
    """Pair a prediction with every reference event of sufficient IoU or, if there is none, with a placeholder text."""
    pairs = []
    for own, row in zip(found, ious, strict=True):
        matched = [other[2] for other, iou in zip(wanted, row, strict=True) if iou >= threshold]
        pairs += [(own[2], caption) for caption in matched or [dense_captioning.GARBAGE]]
    return pairs


def run_published(videos: int) -> Run:
    """Score the case of `videos` videos with pycocoevalcap."""
    case, published = make_case(videos), Published()
    return _run(published.dense, published.segments, case, published.seconds, published.calls)


# --- this library -----------------------------------------------------------------------------------------------------


def run_ours(videos: int) -> Run:
    """Score the case of `videos` videos with this library."""

    def dense(case: Case) -> dict[str, float]:
        return dense_captioning.compute_score(case.found, case.wanted, protocol="official")

    def segments(case: Case) -> dict[str, float]:
        retold, captions = dict(enumerate(case.retold)), dict(enumerate(case.captions))
        return segment_captioning.compute_score(retold, captions, protocol="official")

    return _run(dense, segments, make_case(videos), Counter(), Counter())


def _run(dense: Callable, segments: Callable, case: Case, parts: Counter[str], calls: Counter[str]) -> Run:
    start = time.perf_counter()
    scores = {f"dense {name}": value for name, value in dense(case).items()}
    middle = time.perf_counter()
    scores |= {f"segments {name}": value for name, value in segments(case).items()}
    end = time.perf_counter()
    seconds = {"all": end - start, "dense captioning": middle - start, "segment captioning": end - middle, **parts}
    memory = tuple(getrusage(who).ru_maxrss / 2**20 for who in (RUSAGE_SELF, RUSAGE_CHILDREN))
    return Run(seconds, scores, calls, memory)


# --- comparison -------------------------------------------------------------------------------------------------------


def in_own_process(function: Callable[[int], Run], videos: int) -> Run:
    """Call a function in a new process, so that nothing is cached and memory is measured separately."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, videos).result()


def start_seconds() -> tuple[float, float]:
    """Return the seconds of a first start, with empty caches, and the median of three later ones."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "LONGVALE_CACHE": folder, "NUMBA_CACHE_DIR": folder}
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", _START], env=environment, check=True)
            seconds.append(time.perf_counter() - start)
    return seconds[0], median(seconds[1:])


def report(published: Sequence[Run], ours: Sequence[Run]) -> None:
    """Print medians, the ratio, memory, and the largest difference of the scores."""

    def seconds(runs: Sequence[Run], name: str) -> float:
        return median(run.seconds[name] for run in runs)

    for name in ("dense captioning", "segment captioning", "all"):
        java, python = seconds(published, name), seconds(ours, name)
        print(f"{name:19s}pycocoevalcap + Java {java:7.1f} s   longvale {python:6.2f} s   ratio {java / python:5.1f}")
    parts = {name: (calls, seconds(published, name)) for name, calls in published[0].calls.items()}
    print("of the former", ", ".join(f"{name} {time:.1f} s in {calls} calls" for name, (calls, time) in parts.items()))
    print("peak memory: pycocoevalcap {:.2f} GB and its largest process {:.2f} GB,".format(*_peak(published)), end=" ")
    print(f"longvale {_peak(ours)[0]:.2f} GB")
    expected, scores = published[0].scores, ours[0].scores
    name = max(expected, key=lambda name: abs(expected[name] - scores[name]))
    print(f"{len(expected)} scores, largest difference {abs(expected[name] - scores[name]):.1e} ({name})", end="; ")
    print(f"soda_c {scores['dense soda_c']:.6f}, METEOR of segments {scores['segments METEOR']:.6f}")


def _peak(runs: Sequence[Run]) -> tuple[float, float]:
    return max(run.memory[0] for run in runs), max(run.memory[1] for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=VIDEOS, help="size of the case (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each; medians count (default: %(default)s)")
    arguments = parser.parse_args()
    if min(arguments.videos, arguments.repeats) < 1:
        parser.error("--videos and --repeats must be 1 or more")
    if shutil.which("java") is None:
        print("metrics.py compares with pycocoevalcap, which needs a Java runtime: no `java` on PATH", file=sys.stderr)
        raise SystemExit(2)
    case = make_case(arguments.videos)
    events, predicted = (sum(map(len, side)) for side in (case.wanted, case.found))
    print(f"{arguments.videos} videos, {events} events, {predicted} predicted; {os.cpu_count()} cores", flush=True)
    first, later = start_seconds()
    print(f"first start {first:.1f} s, later ones {later:.2f} s", flush=True)
    in_own_process(run_ours, 1)  # compiles and caches what is missing
    published, ours = [], []
    for _ in range(arguments.repeats):
        published.append(in_own_process(run_published, arguments.videos))
        ours.append(in_own_process(run_ours, arguments.videos))
    report(published, ours)


if __name__ == "__main__":
    main()
