import json
from pathlib import Path

import numpy as np
import pytest
import torch

from longvale.models.feature_extraction_beats import BeatsFeatureExtractor, kaldi_fbank, num_frames

FIXTURES = Path(__file__).parents[1] / "fixtures" / "beats"
REFERENCE = json.loads((FIXTURES / "reference.json").read_text())
SILENCE = (np.log(np.float32(1.1920929e-07)) - 15.41663) / (2 * 6.55582)


def reference_waveform(seconds: str) -> np.ndarray:
    """The made-up sound that the published code was run on."""
    n, rng = REFERENCE[seconds]["samples"], np.random.RandomState(REFERENCE[seconds]["seed"])
    t = np.arange(n) / 16000
    left = 0.3 * np.sin(2 * np.pi * 440 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 0.7 * t))
    left += 0.2 * np.sin(2 * np.pi * (200 + 20 * t) * t) + 0.05 * rng.randn(n)
    left[n // 3 : n // 3 + n // 10] = 0
    right = 0.6 * left + 0.02 * rng.randn(n)
    return ((left + right) / 2).astype(np.float32)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.RandomState(seed).randn(samples).astype(np.float32)


def torchaudio_fbank(waveform: np.ndarray) -> torch.Tensor:
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    waveform = torch.from_numpy(waveform)[None] * 2**15
    return kaldi.fbank(waveform, num_mel_bins=128, sample_frequency=16000, frame_length=25, frame_shift=10)


# Filterbanks


def test_filterbanks_are_torchaudios():
    t = np.arange(16000) / 16000
    sounds = [
        noise(400),
        noise(559, 1),
        noise(560, 2),
        noise(81_923, 3),  # more frames than one chunk holds
        np.zeros(4000, np.float32),
        np.full(4000, 0.5, np.float32),
        (0.9 * np.sin(2 * np.pi * 440 * t)).astype(np.float32),  # bands of rounding errors alone
        np.concatenate((np.zeros(3000, np.float32), noise(3000, 4), np.zeros(3000, np.float32))),
        reference_waveform("7.0"),
    ]
    ours = kaldi_fbank([torch.from_numpy(sound) for sound in sounds])
    for sound, fbank in zip(sounds, ours, strict=True):
        assert len(fbank) == num_frames(len(sound))
        torch.testing.assert_close(fbank / (2 * 6.55582), torchaudio_fbank(sound) / (2 * 6.55582), atol=1e-4, rtol=0)


def test_filterbanks_stay_in_fp32_under_autocast():
    sound = torch.from_numpy(noise(8000))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (fbank,) = kaldi_fbank([sound])
    assert torch.equal(fbank, kaldi_fbank([sound])[0])


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 1), (399, 1), (400, 1), (559, 1), (560, 2), (81920, 510), (1204800, 7528)]
)
def test_number_of_frames(samples, frames):
    assert num_frames(samples) == frames


# The published preprocessing


@pytest.mark.parametrize("seconds", [key for key, value in REFERENCE.items() if value["fbank_shape"]])
def test_official_windows_are_those_of_the_published_code(seconds):
    reference, extractor = REFERENCE[seconds], BeatsFeatureExtractor(preprocessing="official")
    batch = extractor(reference_waveform(seconds))
    values = batch["input_values"][0]
    assert list(values.shape) == reference["fbank_shape"]
    assert extractor.num_windows(reference["samples"]) == len(values)
    assert not batch["padding_mask"].any() and batch["audio_features_mask"].all()
    np.testing.assert_allclose(values.double().sum((1, 2)), reference["fbank_sums"], atol=2e-3)
    stored = np.load(FIXTURES / "fbank_every64.npz")
    if seconds in stored:
        # 1e-4, but for the few nearly empty bands where fp32 Fourier transforms of different processors differ.
        error = np.abs(values[:, ::64].numpy() - stored[seconds])
        assert np.quantile(error, 0.999) < 1e-4 and error.max() < 1e-3
    padded = (values == 0).all(-1).flatten(0, 1)
    assert padded.sum() == max(len(values) * 512 - reference["frames"], 0)


def test_official_windows_where_the_published_code_fails():
    for samples in (1, 8000, 16000 * 255 // 100):
        batch = BeatsFeatureExtractor(preprocessing="official")(noise(samples))
        assert batch["input_values"].shape == (1, 1, 512, 128)
        assert (batch["input_values"][0, 0, num_frames(samples) :] == 0).all()
        assert not batch["padding_mask"].any(), "zeros count in the mean, as everywhere in this protocol"


def test_official_drops_a_rest_below_half_a_window():
    extractor = BeatsFeatureExtractor(preprocessing="official")
    counts = [extractor.num_windows(400 + 160 * (frames - 1)) for frames in (255, 256, 511, 512, 767, 768, 1024)]
    assert counts == [1, 1, 1, 1, 1, 2, 2]


# The strict preprocessing


@pytest.mark.parametrize("window_frames", [16, 128, 512])
@pytest.mark.parametrize("frames", [1, 15, 16, 17, 127, 128, 129, 255, 512, 513, 700])
def test_strict_keeps_every_frame_and_marks_the_rest(frames, window_frames):
    sound = noise(400 + 160 * (frames - 1), frames)
    extractor = BeatsFeatureExtractor(window_frames=window_frames)
    batch = extractor(sound)
    windows = -(-frames // window_frames)
    assert extractor.num_windows(len(sound)) == windows
    assert batch["input_values"].shape == (1, windows, window_frames, 128)
    values, padding = batch["input_values"].flatten(1, 2)[0], batch["padding_mask"].flatten()
    fbank = (kaldi_fbank([torch.from_numpy(sound)])[0] - 15.41663) / (2 * 6.55582)
    torch.testing.assert_close(values[:frames], fbank)
    np.testing.assert_allclose(values[frames:], SILENCE, rtol=1e-6)
    whole_patches = -(-frames // 16) * 16
    assert padding.tolist() == [False] * whole_patches + [True] * (windows * window_frames - whole_patches)


@pytest.mark.parametrize("samples", [1, 2, 399])
@pytest.mark.parametrize("preprocessing", ["strict", "official"])
def test_sounds_shorter_than_a_frame_give_one_window(samples, preprocessing):
    batch = BeatsFeatureExtractor(preprocessing=preprocessing)(noise(samples))
    assert batch["input_values"].shape == (1, 1, 512, 128) and batch["input_values"].isfinite().all()
    silence = np.pad(noise(samples), (0, 400 - samples))
    torch.testing.assert_close(
        batch["input_values"][0, 0, :1], (kaldi_fbank([torch.from_numpy(silence)])[0] - 15.41663) / (2 * 6.55582)
    )


@pytest.mark.parametrize("preprocessing", ["strict", "official"])
def test_a_batch_is_its_sounds(preprocessing):
    extractor = BeatsFeatureExtractor(window_frames=128, preprocessing=preprocessing)
    sounds = [noise(samples, samples) for samples in (50_000, 300, 20_720, 31_000)]
    batch = extractor(sounds)
    assert batch["audio_features_mask"].sum(1).tolist() == [extractor.num_windows(len(sound)) for sound in sounds]
    for row, sound in enumerate(sounds):
        alone = extractor(sound)
        count = alone["input_values"].shape[1]
        torch.testing.assert_close(batch["input_values"][row, :count], alone["input_values"][0])
        assert torch.equal(batch["padding_mask"][row, :count], alone["padding_mask"][0])
        assert batch["padding_mask"][row, count:].all() and not batch["audio_features_mask"][row, count:].any()


# Input and options


def test_waveforms_come_in_many_forms():
    extractor, sound = BeatsFeatureExtractor(window_frames=128), noise(3000)
    expected = extractor(sound)["input_values"]
    read_only = sound.copy()
    read_only.flags.writeable = False
    backwards = np.ascontiguousarray(sound[::-1])[::-1]
    for form in (
        sound.tolist(),
        [sound],
        (sound.tolist(),),
        torch.from_numpy(sound),
        sound.astype(np.float64),
        read_only,
        backwards,
    ):
        torch.testing.assert_close(extractor(form)["input_values"], expected)
    torch.testing.assert_close(extractor(raw_speech=sound, sampling_rate=16_000)["input_values"], expected)
    arrays = extractor(sound, return_tensors="np")
    assert isinstance(arrays["input_values"], np.ndarray) and arrays["padding_mask"].dtype == bool


def test_input_is_left_as_it_was():
    sound = noise(3000)
    before = sound.copy()
    BeatsFeatureExtractor(window_frames=128)(sound)
    np.testing.assert_array_equal(sound, before)


@pytest.mark.parametrize(
    ("waveforms", "options", "message"),
    [
        ([], {}, "empty"),
        (np.zeros(0, np.float32), {}, r"waveform 0 has shape \[0\]"),
        (np.zeros((2, 100), np.float32), {}, "mono"),
        ([noise(500), np.zeros(500, np.int16)], {}, "waveform 1 holds torch.int16"),
        ([noise(500), np.full(500, np.nan, np.float32)], {}, "waveform 1 holds NaN"),
        (np.array([0.0, -np.inf], np.float32), {}, "waveform 0 holds NaN or infinite"),
        (noise(500), {"sampling_rate": 44100}, "44100 Hz; resample them to 16000 Hz"),
        (noise(500), {"window_frames": 100}, "multiple of 16, not 100"),
        (noise(500), {"window_frames": 0}, "multiple of 16, not 0"),
        (noise(500), {"preprocessing": "sloppy"}, "'strict' or 'official', not 'sloppy'"),
    ],
)
def test_wrong_input_is_refused(waveforms, options, message):
    with pytest.raises(ValueError, match=message):
        BeatsFeatureExtractor()(waveforms, **options)


def test_wrong_options_are_refused():
    for options in ({"window_frames": 12}, {"preprocessing": "x"}, {"sampling_rate": 8000}, {"feature_size": 80}):
        with pytest.raises(ValueError):
            BeatsFeatureExtractor(**options)
    with pytest.raises(TypeError, match="window_size"):
        BeatsFeatureExtractor()(noise(500), window_size=128)


def test_options_are_saved_and_loaded(tmp_path):
    BeatsFeatureExtractor(window_frames=128, preprocessing="official").save_pretrained(tmp_path)
    again = BeatsFeatureExtractor.from_pretrained(tmp_path)
    assert (again.window_frames, again.preprocessing) == (128, "official")
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert stored["auto_map"] == {"AutoFeatureExtractor": "feature_extraction_beats.BeatsFeatureExtractor"}
    assert (tmp_path / "feature_extraction_beats.py").is_file()


def test_options_of_a_call_leave_the_extractor_as_it_was():
    extractor = BeatsFeatureExtractor()
    assert extractor(noise(30_000), window_frames=64)["input_values"].shape == (1, 3, 64, 128)
    assert extractor(noise(30_000))["input_values"].shape == (1, 1, 512, 128)
