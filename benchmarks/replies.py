"""Replies of models, drawn at random from pieces of real forms: how fast they are read, and that none raises.

    python benchmarks/replies.py --replies 1000000

The replies of tests/fixtures/replies.jsonl are read as a person reads them (tests/evaluation/adapters/test_replies.py).
"""

import argparse
import json
import random
import statistics
import string
import time
from pathlib import Path

from longvale.evaluation.adapters.prompts import parse_reply
from longvale.tasks import Question

ROWS = Path(__file__).parents[1] / "tests" / "fixtures" / "replies.jsonl"
ODD = ["<think>", "</think>", "<answer>", "\\boxed{", "\ud800", "1" * 50, "<t", "second{", '{"start":', "From "]
QUESTIONS = (Question("v", "grounding", 0, "", ""), Question("v", "dense_captioning", None, "", ""))


def draw(pieces: list[str], seed: int, length: int) -> str:
    """Draw a reply of so many characters."""
    random_, text = random.Random(seed), ""
    while len(text) < length:
        piece = random_.choice(pieces)
        at = random_.randrange(len(piece))
        text += piece[at : at + random_.randrange(1, 20)]
    return text[:length]


def seconds_of(reply: str) -> float:
    """Return the processor time of reading a reply as the answer to both kinds of questions, the least of three."""
    spent = []
    for _ in range(3):
        begun = time.process_time()
        for question in QUESTIONS:
            parse_reply(question, reply, 60.0, "auto")
        spent.append(time.process_time() - begun)
    return min(spent)


def main() -> None:
    """Print the times of long replies, and the rate of short ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, default=20_000, help="number of short replies, of 1 to 60 characters")
    count = parser.parse_args().replies
    pieces = [row["reply"] for row in map(json.loads, ROWS.read_text(encoding="utf-8").splitlines()) if row["reply"]]
    pieces += [*string.printable, *ODD]
    spent = [1000 * seconds_of(draw(pieces, seed, 10_000)) for seed in range(100)]
    print(f"replies of 10,000 characters: median {statistics.median(spent):.1f} ms, longest {max(spent):.1f} ms")
    begun = time.process_time()
    for seed in range(count):
        reply = draw(pieces, seed, seed % 60 + 1)
        for question in QUESTIONS:
            for start, end, _ in parse_reply(question, reply, 60.0, "auto").events or ():
                if not 0 <= start <= end <= 60:
                    raise ValueError(f"{reply!r} is read as {start} to {end}")
    rate = count / (time.process_time() - begun)
    print(f"{count:,} short replies: none raises, {rate:,.0f} per second")


if __name__ == "__main__":
    main()
