"""Repeatedly killed extraction: does every valid video end with exactly one correct set of files?

    python benchmarks/soak.py                 # 500 videos, some minutes
    python benchmarks/soak.py --videos 40     # a quick run

Tiny videos, one in ten broken (empty, truncated, random bytes, a text), are extracted by `longvale features` with two
worker processes. At random moments a worker, or the run itself, is killed with SIGKILL; a killed run is started again,
until one ends by itself. Exits with 1, listing the errors, if a file is missing, wrong or left over, or if the manifest
does not have exactly one line per video.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

#: Number of different videos; the others are copies of them under other names.
KINDS = 8


def write_video(path: Path, seed: int) -> None:
    import av

    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        audio = container.add_stream("aac", rate=16_000, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for index in range(20 + seed):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), rng.integers(0, 256), np.uint8))
            frame.pts, frame.time_base = index, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        noise = rng.normal(0, 0.1, (1, 32_000 + 1600 * seed)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def make_corpus(folder: Path, count: int, rng: random.Random) -> tuple[dict[str, int], set[str]]:
    """Write videos; return the kind of each valid one, and the ids of the broken ones."""
    folder.mkdir()
    kinds = []
    for seed in range(KINDS):
        write_video(folder / "kind.mp4", seed)
        kinds.append((folder / "kind.mp4").read_bytes())
    (folder / "kind.mp4").unlink()
    ids = [f"v{index:04d}" for index in range(count)]
    broken = set(rng.sample(ids, count // 10))
    good = {}
    for video_id in ids:
        kind = rng.randrange(KINDS)
        ways = (b"", kinds[kind][: len(kinds[kind]) // 2], rng.randbytes(5000), b"This is a text.\n" * 100)
        content = rng.choice(ways) if video_id in broken else kinds[kind]
        (folder / f"{video_id}.mp4").write_bytes(content)
        if video_id not in broken:
            good[video_id] = kind
    return good, broken


def workers_of(session: int) -> list[int]:
    """Return the processes of the run's session that have no children: its workers."""
    parents, found = set(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        parents.add(int(fields[1]))
        if int(fields[3]) == session and int(folder.name) != session and b"resource_tracker" not in command:
            found.append(int(folder.name))
    return [pid for pid in found if pid not in parents]


def kill_at_random(process: subprocess.Popen, output: Path, rng: random.Random, left: dict[str, int]) -> None:
    """Wait for a new file and a random moment, then kill; repeat while the run is alive."""
    while process.poll() is None and any(left.values()):
        known = len(list(output.rglob("*.npy")))
        while process.poll() is None and len(list(output.rglob("*.npy"))) == known:
            time.sleep(0.02)
        time.sleep(rng.random() * 0.5)
        victim = rng.choice([name for name, count in left.items() for _ in range(count)])
        pids = workers_of(process.pid) if victim == "worker" else [process.pid]
        if pids and process.poll() is None:
            left[victim] -= 1
            try:
                os.kill(rng.choice(pids), signal.SIGKILL)
            except ProcessLookupError:
                continue
    process.wait()


def check(output: Path, good: dict[str, int], broken: set[str]) -> list[str]:
    """Return the errors in the output, one line each."""
    wrong = [f"left over: {path}" for path in output.rglob("*") if path.is_file() and ".tmp" in path.name]
    lines = [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
    records = {record["video_id"]: record for record in lines}
    if len(lines) != len(records) or set(records) != set(good) | broken:
        wrong.append(f"{len(lines)} lines about {len(records)} of {len(good) + len(broken)} videos")
    failed = {video_id for video_id, record in records.items() if "error" in record}
    wrong += [f"{video_id}: should have failed, and only it" for video_id in failed ^ broken]
    stored = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.npy"))
    folders = ("audio_features", "speech_features", "visual_features")
    if stored != sorted(f"{folder}/{video_id}.npy" for folder in folders for video_id in good):
        wrong.append(f"{len(stored)} files of features, not three of each of {len(good)} good videos")
    first: dict[tuple[str, int], np.ndarray] = {}
    for video_id, kind in good.items():
        for folder in folders:
            path = output / folder / f"{video_id}.npy"
            content = path.read_bytes() if path.is_file() else b""
            modality = folder.partition("_")[0]
            if hashlib.sha256(content).hexdigest() != records.get(video_id, {}).get("sha256", {}).get(modality):
                wrong.append(f"{path}: is not what the manifest says")
                continue
            values = np.load(path, allow_pickle=False)
            # Copies of one video have the same features, even if processes were killed meanwhile.
            expected = first.setdefault((folder, kind), values)
            if values.shape != expected.shape or np.abs(values - expected).max() > 1e-5:
                wrong.append(f"{path}: differs from those of other copies of its video")
    if len(first) == 3 * KINDS and any(
        np.array_equal(first["audio_features", kind], first["audio_features", 0]) for kind in range(1, KINDS)
    ):
        wrong.append("different videos have the same features")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--videos", type=int, default=500)
    parser.add_argument("--worker-kills", type=int, default=12)
    parser.add_argument("--kills", type=int, default=6, help="of the run itself")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from longvale.demo.checkpoint import build_checkpoint

    rng, left = random.Random(arguments.seed), {"worker": arguments.worker_kills, "run": arguments.kills}
    with tempfile.TemporaryDirectory() as folder:
        videos, output, model = Path(folder, "videos"), Path(folder, "features"), Path(folder, "model")
        good, broken = make_corpus(videos, arguments.videos, rng)
        for part in build_checkpoint(vocab_videos=50):
            part.save_pretrained(model)
        command = [sys.executable, "-m", "longvale", "features", str(videos), "--output", str(output), "--quiet"]
        command += ["--model", str(model), "--workers", "2", "--batch-size", "8"]
        begin, starts = time.perf_counter(), 0
        while True:
            starts += 1
            process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
            kill_at_random(process, output, rng, left)
            if process.returncode != -signal.SIGKILL:
                break
        told = process.stderr.read()
        wrong = check(output, good, broken)
        if process.returncode != 2 or f"{len(broken)} failed" not in told:  # as of bad input, which some videos are
            wrong.append(f"the last run ended with {process.returncode}: {told}")
        used = f"{arguments.worker_kills - left['worker']} workers and {arguments.kills - left['run']} runs killed"
        seconds = time.perf_counter() - begin
        print(f"{len(good)} good and {len(broken)} broken videos, {starts} starts, {used}, {seconds:.0f} s: ", end="")
        print("\n".join(["wrong:", *wrong]) if wrong else "all as it should be")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
