"""Reading a video: 100 frames of 224 pixels and the 16 kHz waveform of ten minutes of 720p.

    python benchmarks/media.py                        # a generated file
    python benchmarks/media.py --video film.mp4       # your own file

Baselines, in one run, in turns, each in a separate process:

- naive: the same library without optimization: decode every frame, keep the wanted ones; open again for the audio.
- decord: frames by decord, if it is installed (pip install decord), and the audio as naive reads it.

Prints medians, ratios, peak memory, whether the results are equal, and the costs of decoding from key frames and of
decoding straight through, as estimated from the container's index and as measured.
"""

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np

SIZE, NUM_FRAMES, RATE = 224, 100, 16_000
WAYS = ("ours", "naive", "decord")


#: Frames per second, samples per second, and frames per part. A part also contains 441 whole packets of AAC (1,024
#: samples each), so that parts follow each other without a gap.
_PICTURE_RATE, _SOUND_RATE, _PART = 25, 44_100, 256


def generate(path: Path, seconds: int = 600) -> None:
    """Write a 720p file with AAC audio, at least this long: 10.24 s of moving texture and a sweeping tone, repeated."""
    import av

    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (90, 400, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
    with av.open(str(path.with_suffix(".part.mp4")), "w") as container:
        video = container.add_stream("libx264", rate=_PICTURE_RATE, options={"preset": "medium", "crf": "26"})
        audio = container.add_stream("aac", rate=_SOUND_RATE, layout="stereo")
        video.width, video.height, video.pix_fmt = 1280, 720, "yuv420p"
        for index in range(_PART):
            image = np.roll(texture, (index, 3 * index), (0, 1))[:720, :1280]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image))
            frame.pts, frame.time_base = index, Fraction(1, _PICTURE_RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        clock_s = np.arange(_SOUND_RATE * _PART // _PICTURE_RATE) / _SOUND_RATE
        wave = 0.1 * np.sin(2 * np.pi * (200 + 100 * clock_s) * clock_s).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
        frame.sample_rate, frame.pts = _SOUND_RATE, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    length_s = Fraction(_PART, _PICTURE_RATE)
    _repeat(path.with_suffix(".part.mp4"), path, math.ceil(seconds / length_s), length_s)
    path.with_suffix(".part.mp4").unlink()


def _repeat(part: Path, path: Path, times: int, length_s: Fraction) -> None:
    import av

    with av.open(str(path), "w") as container:
        with av.open(str(part)) as first:
            streams = [container.add_stream_from_template(stream) for stream in first.streams]
        for repetition in range(times):
            with av.open(str(part)) as again:
                for packet in again.demux():
                    # An audio encoder starts before 0 and ends after the length.
                    whole = packet.stream_index == 0 or (packet.dts is not None and packet.dts >= 0)
                    if packet.dts is not None and whole and packet.dts * packet.time_base < length_s:
                        offset = round(repetition * length_s / packet.time_base)
                        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                        packet.stream = streams[packet.stream_index]
                        container.mux(packet)


# --- the ways -------------------------------------------------------------------------------------------------------


def ours(path: str) -> tuple[np.ndarray, np.ndarray]:
    from longvale.models.media import read_media

    media = read_media(path, num_frames=NUM_FRAMES, size=SIZE)
    return media.frames, media.waveform


def naive(path: str) -> tuple[np.ndarray, np.ndarray]:
    import av

    frames, latest = [], None
    with av.open(path) as container:
        stream = container.streams.video[0]
        wanted = [(i + 0.5) / NUM_FRAMES * container.duration / av.time_base for i in range(NUM_FRAMES)]
        for frame in container.decode(stream):
            while wanted and wanted[0] < frame.time:
                frames.append(_scaled(latest or frame))
                wanted.pop(0)
            latest = frame
        frames += [_scaled(latest) for _ in wanted]
    return np.stack(frames), _sound(path)


def decord(path: str) -> tuple[np.ndarray, np.ndarray]:
    import decord

    reader = decord.VideoReader(path, ctx=decord.cpu(0), width=int(SIZE * 16 / 9), height=SIZE)
    indices = ((np.arange(NUM_FRAMES) + 0.5) / NUM_FRAMES * len(reader)).astype(int)
    return reader.get_batch(indices).asnumpy(), _sound(path)


def _scaled(frame) -> np.ndarray:
    width = int(SIZE * frame.width / frame.height)
    return frame.reformat(width, SIZE, "rgb24", interpolation="BICUBIC").to_ndarray()


def _sound(path: str) -> np.ndarray:
    import av

    with av.open(path) as container:
        resampler = av.AudioResampler("flt", "mono", RATE)
        chunks = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(chunks)


def run(way: str, path: str) -> None:
    """Run one way in a separate process and print its time and memory."""
    import av  # noqa: F401  imports are not measured

    import longvale.models.media  # noqa: F401

    if way == "decord":
        import decord as _  # noqa: F401
    start, start_cpu = time.perf_counter(), time.process_time()
    frames, waveform = globals()[way](path)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    with open("/proc/self/status") as status:
        peak_mb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    np.savez(f"{path}.{way}.npz", frames=frames, waveform=waveform)
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb}))


# --- the comparison -------------------------------------------------------------------------------------------------


def compare(path: Path, rounds: int) -> None:
    ways = [way for way in WAYS if way != "decord" or importlib.util.find_spec("decord")]
    told = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            command = [sys.executable, __file__, "--way", way, "--video", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            told[way].append(json.loads(done.stdout.splitlines()[-1]))
    columns = {"seconds": "seconds", "cpu_seconds": "of a CPU", "peak_mb": "peak MB"}
    print(f"{'':8}" + "".join(f" {title:>9} {'ratio':>6}" for title in columns.values()))
    medians = {way: {name: statistics.median(one[name] for one in told[way]) for name in columns} for way in ways}
    for way in ways:
        cells = (f" {value:9.2f} {value / medians['ours'][name]:6.2f}" for name, value in medians[way].items())
        print(f"{way:8}" + "".join(cells))
    if "decord" not in ways:
        print("decord is not installed: pip install decord")
    results = {way: np.load(f"{path}.{way}.npz", allow_pickle=False) for way in ways}
    for way in ways[1:]:
        frames = np.abs(results[way]["frames"].astype(int) - results["ours"]["frames"]).mean((1, 2, 3))
        n = min(len(results[way]["waveform"]), len(results["ours"]["waveform"]))
        sound = np.corrcoef(results[way]["waveform"][:n], results["ours"]["waveform"][:n])[0, 1]
        same = f"{(frames == 0).sum()} of {len(frames)} frames are equal, {(frames < 3).sum()} within 3 of 255"
        print(f"{way}: {same}; correlation of the waveforms {sound:.5f}")
    for way in ways:
        os.unlink(f"{path}.{way}.npz")


def show_costs(path: Path) -> None:
    """Print the cost of both ways to read the frames: estimated from the index, and measured."""
    import av

    from longvale.models import media_frames
    from longvale.models.media import read_media

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        keys_s = np.sort([float(e.timestamp * stream.time_base) for e in stream.index_entries if e.is_keyframe])
        wanted_s = (np.arange(NUM_FRAMES) + 0.5) / NUM_FRAMES * container.duration / av.time_base
        costs = media_frames.decode_costs(keys_s, wanted_s, float(stream.average_rate), threads=2)
    for straight, name, cost in ((False, "from key frames", costs[0]), (True, "straight through", costs[1])):
        with mock.patch.object(media_frames, "_straight_is_cheaper", lambda *_, s=straight: s):
            start = time.perf_counter()
            read_media(path, num_frames=NUM_FRAMES, size=SIZE, threads=2)
            print(f"{name:17} {cost:6.0f} pictures by the index, {time.perf_counter() - start:5.1f} s by the clock")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--video", type=Path, help="default: a generated file of ten minutes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        run(arguments.way, str(arguments.video))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "generated.mp4")
        if arguments.video is None:
            generate(path)
        else:
            path.symlink_to(arguments.video.resolve())
        print(f"{arguments.video or 'generated'}: {path.stat().st_size / 1e6:.1f} MB")
        compare(path, arguments.rounds)
        show_costs(path)


if __name__ == "__main__":
    main()
