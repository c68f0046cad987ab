"""Feature extraction: videos per second, time per part, and scaling with the size of a corpus.

    python benchmarks/features.py                              # 100, 200 and 400 videos of 20 s, 720p
    python benchmarks/features.py --sizes 10,20 --length 10    # a quick run

The towers are the tiny untrained ones of the demo, so that reading dominates the time, as it does with a GPU. Each run
is a separate process. The baseline is the same extraction without worker processes.

Shares are of the wall time: `reading` is the utilization of the worker processes; `towers` and `waiting` (for the next
part of a video) are times of the process that runs the towers. If waiting is above 80 %, the decoder is the bottleneck.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from media import generate


def run(videos: str, output: str, workers: int) -> None:
    """Run an extraction in a separate process and print its time and memory."""
    from longvale.demo.checkpoint import build_checkpoint
    from longvale.extraction.extract import extract

    model, processor = build_checkpoint(vocab_videos=50)
    watcher = subprocess.Popen(
        [sys.executable, __file__, "--watch", str(os.getpid())], stdout=subprocess.PIPE, text=True
    )
    begin = time.perf_counter()
    summary = extract(videos, output, processor, model, workers=workers, progress=False)
    seconds = time.perf_counter() - begin
    watcher.terminate()
    own_mb, all_mb = watcher.communicate()[0].split()
    told = {"done": len(summary.done), "seconds": seconds, "own_mb": int(own_mb), "all_mb": int(all_mb)}
    print(json.dumps(told | {"parts": summary.seconds}))


def watch(pid: int) -> None:
    """Print the peak memory of a process, and of all in its group, until terminated."""
    import signal

    peak = [0, 0]
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    while not stopped:
        peak = [max(old, new) for old, new in zip(peak, _memory_mb(pid), strict=True)]
        time.sleep(0.25)
    print(*peak)


def _memory_mb(pid: int) -> tuple[int, int]:
    """Return the proportional share of memory (PSS) of a process, and of all in its group except this one, in MiB."""
    group, own, total = os.getpgid(pid), 0, 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) == os.getpid() or os.getpgid(int(folder.name)) != group:
                continue
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except (OSError, ProcessLookupError):
            continue  # the process has ended meanwhile
        size = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) // 1024
        total += size
        own = size if int(folder.name) == pid else own
    return own, total


def measure(base: Path, folder: Path, count: int, workers: int) -> dict:
    videos, output = folder / f"videos_{count}", folder / f"features_{count}_{workers}"
    videos.mkdir(exist_ok=True)
    for index in range(count):
        if not (videos / f"v{index:05d}.mp4").exists():
            os.link(base, videos / f"v{index:05d}.mp4")
    command = [sys.executable, __file__, "--run", str(videos), str(output), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    told = json.loads(done.stdout.splitlines()[-1])
    seconds, parts = told["seconds"], told["parts"]
    shares = parts["reading"] / max(workers, 1) / seconds, parts["towers"] / seconds, parts["waiting"] / seconds
    print(
        f"{count:6} {workers:9} {seconds:8.1f} {count / seconds:9.2f} "
        + " ".join(f"{share:8.0%}" for share in shares)
        + f" {told['own_mb']:10} {told['all_mb']:10}",
        flush=True,
    )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="100,200,400", help="videos of the corpora")
    parser.add_argument("--length", type=int, default=20, help="seconds of a video, in tens")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--watch", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.watch:
        watch(arguments.watch)
        return
    if arguments.run:
        run(*arguments.run[:2], int(arguments.run[2]))
        return
    sizes = [int(size) for size in arguments.sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base.mp4")
        generate(base, seconds=arguments.length)
        names = ("videos", "processes", "seconds", "videos/s", "reading", "towers", "waiting", "own MB", "all MB")
        widths = (6, 9, 8, 9, 8, 8, 8, 10, 10)
        print(" ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True)))
        alone = measure(base, Path(folder), sizes[0], 0)
        runs = {size: measure(base, Path(folder), size, 2) for size in sizes}
        measure(base, Path(folder), sizes[0], 1)
        print(f"2 processes against none: {alone['seconds'] / runs[sizes[0]]['seconds']:.2f} times as fast")
        rates = [size / told["seconds"] for size, told in runs.items()]
        print("videos/s by size, as shares of the first: " + ", ".join(f"{rate / rates[0]:.2f}" for rate in rates))


if __name__ == "__main__":
    main()
