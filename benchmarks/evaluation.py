"""Speed of the evaluation, compared with one call per question as in the published evaluation.

    python benchmarks/evaluation.py                 # after `make demo`; about five minutes
    python benchmarks/evaluation.py --videos 40     # a quick run
    python benchmarks/evaluation.py --full          # also all 28,905 questions, by the library alone

The demo's tiny trained model answers all questions about 200 synthetic videos with stored features: when each event
happens, what happens during it, and which events there are. One way is `longvale.evaluation.generation.generate`. The
other, in turn with it, is one `model.generate` per question, which gets the video's features again each time; it runs
on every fifth video only, to save time. Both decode greedily. Prints questions per second of each, their ratio, whether
all answers that both gave are the same, and how long the LongVALE test split of 28,905 questions would take at this
rate. `--full` asks that many, about copies of the demo's videos under other names: the time without extrapolation.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from typing import Any

import torch

from longvale.data.sources import ANNOTATION_FILES
from longvale.evaluation.generation.generate import batched, generate
from longvale.evaluation.generation.inputs import VideoInputs
from longvale.evaluation.generation.model import MAX_NEW_TOKENS, decode_answers, load_model, prepare_question
from longvale.events import Annotation, load_annotations, save_annotations
from longvale.features.store import FOLDERS
from longvale.tasks import Question, load_predictions, questions

#: Questions of the LongVALE test split: two per event, and one per video.
TEST_SPLIT = 2 * 13_867 + 1_171

#: One of this many videos is evaluated with one call per question.
SHARE = 5


def run_one_by_one(model: Any, processor: Any, inputs: VideoInputs, asked: Sequence[Question]) -> dict[tuple, str]:
    """Return answers by key, each from a separate call."""
    answers = {}
    for question in asked:
        features = inputs.load(question.video_id, model, processor)
        given = prepare_question(model, processor, [question.question], [features])
        with torch.inference_mode():
            output = model.generate(**given, max_new_tokens=MAX_NEW_TOKENS[question.task], do_sample=False)
        (answers[question.key],) = decode_answers(processor, output[:, given["input_ids"].shape[1] :])
    return answers


def run_evaluation(
    model: Any, processor: Any, features: Path, annotations: Sequence[Annotation], batch_size: int
) -> dict[tuple, str]:
    """Return answers by key, from the library's runner, with its log on disk."""
    with tempfile.TemporaryDirectory() as folder:
        save_annotations({a.video_id: a for a in annotations}, Path(folder, ANNOTATION_FILES["test"]))
        log = generate(
            (model, processor),
            folder,
            Path(folder, "p.jsonl"),
            features=features,
            batch_size=batch_size,
            progress=False,
        )
        return {prediction.key: prediction.answer for prediction in load_predictions(log)}


def copies(videos: Sequence[Annotation], features: Path, target: Path) -> Iterator[Annotation]:
    """Yield the videos repeatedly under other names, with their features linked into `target`."""
    for folder in FOLDERS.values():
        (target / folder).mkdir(parents=True)
    for number, video in enumerate(itertools.cycle(videos)):
        copy = replace(video, video_id=f"{video.video_id}_{number:05d}")
        for folder in FOLDERS.values():
            if (stored := features / folder / f"{video.video_id}.npy").exists():
                (target / folder / f"{copy.video_id}.npy").symlink_to(stored.resolve())
        yield copy


def run_full(
    model: Any, processor: Any, videos: Sequence[Annotation], features: Path, batch_size: int
) -> tuple[int, int, float]:
    """Answer as many questions as the test split has; return the numbers of videos and answers, and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        copied = copies(videos, features, Path(folder, "features"))
        asked, many = 0, []
        while asked < TEST_SPLIT:
            many.append(next(copied))
            asked += sum(1 for _ in questions(many[-1]))
        start = time.perf_counter()
        found = run_evaluation(model, processor, Path(folder, "features"), many, batch_size)
        return len(many), len(found), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder of `longvale demo` (default: demo)")
    parser.add_argument("--videos", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--rounds", type=int, default=4, help="how often the two take turns (default: 4)")
    parser.add_argument("--batch-size", type=int, default=50, help="of the runner (default: 50)")
    parser.add_argument("--full", action="store_true", help="ask as many questions as the test split has, too")
    options = parser.parse_args()
    corpus = options.demo / "corpus"
    if not (options.demo / "model").is_dir():
        parser.error(f"{options.demo}: holds no model; run `make demo` first, or name the folder of a demo")
    videos = [a for file in ANNOTATION_FILES.values() for a in load_annotations(corpus / file).values()][
        : options.videos
    ]
    model, processor = load_model(options.demo / "model", "cpu")
    inputs = VideoInputs(corpus, features_dir=corpus / "features")

    rates: dict[str, list[float]] = {"one by one": [], "longvale": []}
    same, compared, total = 0, 0, 0
    for some in batched(videos, -(-len(videos) // options.rounds)):
        asked = [question for video in some[::SHARE] for question in questions(video)]
        start = time.perf_counter()
        expected = run_one_by_one(model, processor, inputs, asked)
        rates["one by one"].append(len(expected) / (time.perf_counter() - start))
        start = time.perf_counter()
        found = run_evaluation(model, processor, corpus / "features", some, options.batch_size)
        rates["longvale"].append(len(found) / (time.perf_counter() - start))
        same += sum(found[key] == answer for key, answer in expected.items())
        compared, total = compared + len(expected), total + len(found)
        print(json.dumps({name: round(values[-1], 2) for name, values in rates.items()}), flush=True)

    slow, fast = (median(values) for values in rates.values())
    print(f"{len(videos)} videos, {total} questions, {compared} of them one by one")
    print(f"one by one  {slow:8.2f} questions/s   {TEST_SPLIT} in {TEST_SPLIT / slow / 3600:.2f} h")
    print(f"longvale    {fast:8.2f} questions/s   {TEST_SPLIT} in {TEST_SPLIT / fast / 3600:.2f} h")
    print(f"ratio       {fast / slow:8.2f}")
    print(f"answers the same: {same} of {compared}; peak memory {peak_gb():.2f} GB")
    if options.full:
        count, answers, seconds = run_full(model, processor, videos, corpus / "features", options.batch_size)
        rate, minutes = answers / seconds, seconds / 60
        print(f"in full     {rate:8.2f} questions/s   {answers} about {count} videos in {minutes:.1f} min")
        print(f"peak memory {peak_gb():.2f} GB")


def peak_gb() -> float:
    """Return the peak memory of this process so far in GB."""
    return getrusage(RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
