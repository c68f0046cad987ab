"""Pixels: a shape is seen during its piece, in its colour, and nowhere else; in the decoded MP4 too."""

import av
import numpy as np
import pytest

from longvale.events import Annotation, Event
from longvale.synthetic.corpus import write_video
from longvale.synthetic.planning import COLOURS, SHAPES, Piece, Plan, SyntheticOptions, plan_video
from longvale.synthetic.rendering import COLOUR_RGB, PATTERNS, Renderer, draw_scenes, render_frame

OPTIONS = SyntheticOptions()


def lone(content, relation="visual-only", seed="s"):
    event = Event(5.0, 10.0, "x", ("visual",), relation)
    return Plan(Annotation("a", 20.0, (event,)), ((Piece("visual", 5.0, 10.0, content),),), seed)


def share_of_colour(frame, colour, tolerance=60):
    """Share of the picture whose pixels are near this colour."""
    distance = np.abs(frame.astype(int) - np.array(COLOUR_RGB[colour])).max(axis=-1)
    return (distance < tolerance).mean()


def middle(frame, colour):
    """Row and column of the middle of the pixels of this colour, 0 to 1."""
    rows, columns = np.nonzero(np.abs(frame.astype(int) - np.array(COLOUR_RGB[colour])).max(axis=-1) < 60)
    return rows.mean() / frame.shape[0], columns.mean() / frame.shape[1]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_seen_during_its_piece_alone(colour, shape):
    plan = lone(f"{colour} {shape}")
    for time, seen in ((4.99, False), (5.0, True), (7.5, True), (9.99, True), (10.0, False)):
        frame = render_frame(plan, time)
        assert frame.shape == (64, 64, 3)
        assert frame.dtype == np.uint8
        assert (share_of_colour(frame, colour) > 0.03) == seen


def test_shapes_differ():
    masks = [render_frame(lone(f"red {shape}", "temporal association"), 9.0)[..., 0] > 190 for shape in SHAPES]
    for i, first in enumerate(masks):
        for second in masks[i + 1 :]:
            overlap = (first & second).sum() / (first | second).sum()
            assert overlap < 0.85


@pytest.mark.parametrize("seed", ["s", "t", "u"])
def test_motions_are_those_of_the_relations(seed):
    def track(relation, times):
        plan = lone("red circle", relation, seed)
        return np.array([middle(render_frame(plan, time), "red") for time in times])

    slide = track("visual-only", (5.0, 9.9))
    assert abs(slide[0, 1] - slide[1, 1]) > 0.5
    hit = track("causality", (5.0, 9.99))
    assert min(hit[1, 1], 1 - hit[1, 1]) < 0.22  # its edge touches the border
    jump = track("synchronicity", (5.0, 5.5, 6.0, 6.5))
    assert np.all(np.abs(np.diff(jump[:, 0])) > 0.3)
    turn = track("complementary", (5.0, 6.0, 7.0))
    assert np.abs(np.diff(turn, axis=0)).sum(axis=1).min() > 0.1


def test_backgrounds_vary_cut_and_fade_and_stay_dim():
    plans = [plan_video(f"v{i}", 0) for i in range(60)]
    scenes = [draw_scenes(plan, 64) for plan in plans]
    fades = [scene.fade_s > 0 for group in scenes for scene in group[1:]]
    assert 0 < sum(fades) < len(fades)
    pictures = np.array([scene.picture for group in scenes for scene in group])
    assert pictures.min() > 10
    assert pictures.max() < 180
    assert np.ptp(pictures, axis=-1).max() < 30  # greyish
    assert len(PATTERNS) == 4
    assert pictures.std(axis=(1, 2)).min() < 0.01  # a plain one
    assert all(group[0].start == 0 for group in scenes)


def test_a_fade_goes_from_one_background_to_the_next():
    plan, scene, before = next(
        (plan, later, earlier)
        for plan in (plan_video(f"v{i}", 0) for i in range(100))
        for earlier, later in zip(draw_scenes(plan, 64), draw_scenes(plan, 64)[1:], strict=False)
        if later.fade_s
    )
    empty = Plan(plan.annotation, tuple(() for _ in plan.pieces), plan.seed)
    half = Renderer(empty, OPTIONS).frame(scene.start + scene.fade_s / 2)
    np.testing.assert_allclose(half, (before.picture + scene.picture) / 2, atol=1)  # one grey level of rounding


def test_frames_are_deterministic_and_seeded():
    plan = plan_video("train_0000", seed=0)
    np.testing.assert_array_equal(render_frame(plan, 3.0), render_frame(plan, 3.0))
    other = Plan(plan.annotation, plan.pieces, "other")
    assert (render_frame(plan, 3.0) != render_frame(other, 3.0)).any()


def test_the_decoded_video_shows_each_shape_during_its_piece(tmp_path):
    options = SyntheticOptions(min_length_s=20, max_length_s=20)
    plan = plan_video("train_0001", 0, options)
    write_video(plan, tmp_path / "a.mp4", options)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = {frame.time: frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)}
    assert len(frames) == 20 * 8
    for _, piece in plan.lane("visual"):
        colour = piece.content.split()[0]
        shares = {time: share_of_colour(frame, colour, tolerance=80) for time, frame in frames.items()}
        inside = [share for time, share in shares.items() if piece.start <= time < piece.end]
        outside = [share for time, share in shares.items() if not piece.start <= time < piece.end]
        assert min(inside) > 0.01
        assert max(outside) < 0.01
