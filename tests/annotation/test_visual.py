"""Visual events: cuts, slow changes, forced cuts, and what is dropped or stitched."""

import io

import av
import av.logging
import numpy as np
import pytest
from media_files import written

from longvale.annotation.boundaries import visual
from longvale.annotation.boundaries.descriptors import ColourEmbedder, LayoutEmbedder, enlarge, layout_distance
from longvale.annotation.boundaries.novelty import novelty, peaks
from longvale.annotation.boundaries.options import VisualOptions
from longvale.annotation.boundaries.visual import (
    calibrate_options,
    detect_cuts,
    find_changes,
    find_visual_events,
    split,
    stitch,
)
from longvale.annotation.clip_reader import ClipReader

RED, BLUE, GREEN = (200, 20, 20), (20, 20, 200), (20, 160, 30)


def film(*parts, rate=5, path="none.mp4"):
    """ClipReader of one-coloured parts (colour, seconds), or of a slow change (from, to, seconds), with some grain."""
    noise = np.random.default_rng(0)
    frames = []
    for part in parts:
        count = round(part[-1] * rate)
        for k in range(count):
            share = (k + 0.5) / count if len(part) == 3 else 0.0
            colour = np.array(part[0]) * (1 - share) + np.array(part[-2]) * share
            frames.append(np.clip(colour + noise.normal(0, 6, (48, 64, 3)), 0, 255))
    times = (np.arange(len(frames)) + 0.5) / rate
    return ClipReader(path, len(frames) / rate, np.array(frames, np.uint8), times, None)


def find(reader, cuts=(), **options):
    descriptors = ColourEmbedder()(reader.frames)
    return find_changes(descriptors, reader.times, cuts, VisualOptions(**options))


def test_a_cut_is_placed_where_the_detector_says():
    assert find(film((RED, 6), (BLUE, 6)), cuts=[5.96]) == [5.96]


def test_a_cut_that_no_detector_found_is_found_all_the_same():
    (change,) = find(film((RED, 6), (BLUE, 6)))
    assert change == pytest.approx(6.0, abs=0.2)


def test_a_slow_change_has_its_middle():
    (change,) = find(film((RED, 6), (RED, BLUE, 2.4), (BLUE, 6)))
    assert change == pytest.approx(7.2, abs=0.5)


def test_grain_and_stillness_are_no_change():
    assert find(film((RED, 20))) == []


def test_a_cut_that_descriptors_do_not_see_is_kept_for_stitching_to_decide():
    assert find(film((RED, 12)), cuts=[5.0]) == [5.0]


def test_clips_are_compared_away_from_changes_and_cut_by_force():
    clips = split(0.0, 20.0, [8.0], VisualOptions())
    assert [(clip.start, clip.end) for clip in clips] == [(0, 5), (5, 8), (8, 13), (13, 20)]
    assert clips[0].ends == (0.25, 4.75)  # a forced cut is no change
    assert clips[1].ends[1] == pytest.approx(7.0)
    assert clips[2].ends[0] == pytest.approx(9.0)
    (short,) = split(3.0, 4.0, [], VisualOptions())
    assert 3 < short.ends[0] <= short.ends[1] < 4


def test_stitching_and_dropping():
    options = VisualOptions()
    clips = split(0.0, 20.0, [4.0, 8.0, 12.0, 13.0], options)
    point = {"a": [0.0, 0.0], "b": [1.0, 0.0], "far": [3.0, 0.0]}
    rows = [("a", "a"), ("a", "a"), ("b", "far"), ("b", "b"), ("b", "b")]
    embeddings = np.array([[point[x], point[y]] for x, y in rows] + [[point["b"]] * 2] * (len(clips) - 5))
    # Two that show the same, one dropped that changes within itself, then one of three clips.
    assert stitch(clips, embeddings, options) == [(0.0, 8.0), (12.0, 20.0)]


class Scaled:
    """An embedder whose distances are those of colours, so many times: as towers differ."""

    name, size = "scaled", 48

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, frames):
        return ColourEmbedder()(frames) * self.scale


PALE = (235, 200, 200)  # differs from red by .9 of colour histograms


@pytest.mark.parametrize("scale", [0.02, 0.3, 1.0, 50.0])
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (((RED, 6), (BLUE, 6)), [(0, 6), (6, 12)]),
        (((RED, 8), (BLUE, 8), (RED, 8)), [(0, 8), (8, 16), (16, 24)]),
        (((RED, 3.2), (BLUE, 1.6)), [(0, 3.2), (3.2, 4.8)]),
        (((RED, 12),), [(0, 12)]),
        (((RED, 6), (RED, BLUE, 2.4), (BLUE, 6)), [(0, 7), (7, 14.4)]),
        (((RED, 4), (PALE, 4), (RED, 4), (BLUE, 6)), [(0, 4), (4, 8), (8, 12), (12, 18)]),
    ],
)
def test_whatever_the_scale_of_an_embedder_scenes_are_split_and_stitched(parts, expected, scale):
    options = VisualOptions(detector="none", min_length_s=1.0, margin_s=1.4)
    found = find_visual_events(film(*parts), options, Scaled(scale))
    assert np.shape(found.events) == np.shape(expected) and np.allclose(found.events, expected, atol=0.5), found


class Blind:
    """An embedder to which all pictures are the same, up to noise."""

    name, size = "blind", 48

    def __call__(self, frames):
        return np.random.default_rng(len(frames)).normal(0, 0.01, (len(frames), 8))


def test_no_embedder_denies_a_hard_cut_whose_sides_differ():
    options = VisualOptions(detector="none")
    assert find_visual_events(film((RED, 6), (BLUE, 6)), options, Blind()).events == ((0, 6), (6, 12))
    # What fades from one to the other is for the embedder to decide, and so is a flash.
    faded = film((RED, 6), (RED, BLUE, 2.4), (BLUE, 6))
    assert len(find_visual_events(faded, options, Blind()).events) == 1
    flashed = film((RED, 4), (BLUE, 0.4), (RED, 4))
    assert len(find_visual_events(flashed, options, Blind()).events) == 1


def test_an_embedder_that_sees_more_than_colours_is_believed():
    """Two halves in the same colours, a stripe on the left and on the right: only a cut detector and a tower see it."""
    left = np.zeros((30, 48, 64, 3), np.uint8)
    left[:, :, :16] = 255
    frames = np.concatenate([left, left[:, :, ::-1]])
    reader = ClipReader("none.mp4", 12.0, frames, (np.arange(60) + 0.5) / 5, None)

    class Where:
        name, size = "where", 48

        def __call__(self, frames):
            return frames.mean(axis=(1, 3)) / 2550  # [n, 64]

    clips = split(0.0, 12.0, [6.0], VisualOptions())
    ends = [time for clip in clips for time in clip.ends]
    for embedder, events in ((Where(), 2), (ColourEmbedder(), 1)):
        embeddings = embedder(reader.frames_at(ends)).reshape(len(clips), 2, -1)
        options = VisualOptions()
        if events == 2:
            options = calibrate_options(embedder, reader, clips, embeddings, [6.0], options)
        assert len(stitch(clips, embeddings, options)) == events


def seen(monkeypatch, *parts, rate=5):
    """Visual events of shots (picture [48, 64, 3], seconds), whose cuts a detector finds."""
    cuts = np.cumsum([seconds for _, seconds in parts])[:-1].tolist()
    monkeypatch.setattr(visual, "detect_cuts", lambda path, options: cuts)
    frames = np.concatenate([np.repeat(picture[None], round(seconds * rate), axis=0) for picture, seconds in parts])
    times = (np.arange(len(frames)) + 0.5) / rate
    return find_visual_events(ClipReader("none.mp4", len(frames) / rate, frames, times, None)).events


def half_lit(left):
    """A red half and a blue half: the same colours on either side."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32], picture[:, 32:] = (RED, BLUE) if left else (BLUE, RED)
    return picture


def test_shots_that_share_only_a_palette_are_not_stitched(monkeypatch):
    left, right = half_lit(True), half_lit(False)
    assert seen(monkeypatch, (left, 4), (right, 4)) == ((0, 4), (4, 8))
    assert seen(monkeypatch, (left, 4), (left, 4)) == ((0, 8),)


def test_a_closer_view_is_the_same_scene(monkeypatch):
    whole = np.zeros((48, 64, 3), np.uint8)
    whole[:] = np.linspace(0, 255, 64)[:, None]
    whole[16:32, :, 2] = 250
    closer = enlarge(whole[None], 2 / 3)[0]
    assert np.linalg.norm(np.subtract(*LayoutEmbedder()(np.stack([whole, closer])))) > VisualOptions().layout
    assert layout_distance(whole, closer) < 0.1
    assert seen(monkeypatch, (whole, 4), (closer, 4)) == ((0, 8),)


def test_a_cutaway_is_part_of_the_scene_around_it(monkeypatch):
    left, right = half_lit(True), half_lit(False)
    assert seen(monkeypatch, (left, 4), (right, 1.2), (left, 4)) == ((0, 9.2),)
    assert seen(monkeypatch, (left, 4), (right, 3), (left, 4)) == ((0, 4), (4, 7), (7, 11))  # a shot of its own
    green = np.full((48, 64, 3), GREEN, np.uint8)
    assert seen(monkeypatch, (left, 4), (right, 1.2), (green, 4)) == ((0, 4), (5.2, 9.2))  # the film does not return
    twice = seen(monkeypatch, (left, 4), (right, 1.2), (left, 1), (right, 1.2), (left, 4))
    assert twice == ((0, 11.4),)


def test_events_that_are_too_short_are_dropped():
    options = VisualOptions()
    clips = split(0.0, 7.0, [1.5], options)
    assert stitch(clips, np.array([[[0.0], [0.0]], [[5.0], [5.0]]]), options) == [(1.5, 7.0)]


def test_without_pictures_there_are_no_visual_events():
    assert find_visual_events(ClipReader("x", 5.0, None, np.empty(0), np.zeros(80000, np.float32))).events == ()


def test_a_file_that_the_detector_cannot_read_is_named(tmp_path):
    pytest.importorskip("scenedetect")
    reader = film((RED, 6), path=tmp_path / "gone.mp4")
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: no such file"):
        find_visual_events(reader)
    (tmp_path / "gone.mp4").write_text("text" * 100)
    with pytest.raises(ValueError, match=r"gone\.mp4: not a media file"):
        find_visual_events(reader)
    assert find_visual_events(reader, VisualOptions(detector="none")).events == ((0.0, 6.0),)


@pytest.mark.parametrize("module", ["scenedetect", "silero_vad"])
def test_a_missing_package_is_asked_for_by_the_extra(monkeypatch, module):
    import sys

    from longvale.annotation.boundaries.speech import _load_vad, find_speech

    monkeypatch.setitem(sys.modules, module, None)
    _load_vad.cache_clear()
    with pytest.raises(ValueError, match=rf"{module} cannot be imported .*; pip install 'longvale\[annotation\]'"):
        find_visual_events(film((RED, 6))) if module == "scenedetect" else find_speech(np.zeros(16000, np.float32))


@pytest.mark.parametrize("options", [{"detector": "eyes"}, {"forced_cut_s": 0}, {"forced_cut_s": 8}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="must be"):
        VisualOptions(**options)


def test_novelty_and_peaks():
    rows = np.repeat([[0.0], [1.0], [0.0]], 10, axis=0)
    curve = novelty(rows, 4)
    assert peaks(curve, 0.5, 4) == [10, 20] and curve[10] == 1.0
    assert peaks(np.zeros(5), 0.1, 2) == [] and peaks(np.ones(3), 0.5, 5) == [0]


def test_ffmpeg_stays_silent_after_a_detector_has_read_a_file(tiny_corpus, capfd):
    path = min((tiny_corpus / "videos").glob("*.mp4"))
    detect_cuts(path, VisualOptions())
    capfd.readouterr()
    with pytest.raises(av.FFmpegError):
        av.open(io.BytesIO(bytes(1000)), format="mp4")
    assert capfd.readouterr() == ("", "")


def test_the_cut_detector_never_logs_to_python(tmp_path):
    """See `longvale.models.media_source.silence_ffmpeg`."""
    pytest.importorskip("scenedetect")
    (tmp_path / "a.mp4").write_bytes(written(pictures=8))
    av.logging.set_level(av.logging.ERROR)
    assert detect_cuts(tmp_path / "a.mp4", VisualOptions()) == []
    assert av.logging.get_level() is None
