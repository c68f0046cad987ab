import json

import numpy as np
import pytest

from longvale.evaluation.scoring.bootstrap import mean_intervals
from longvale.evaluation.scoring.compare import Comparison, compare, compare_files, format_comparison


def runs(first, second, counts=None):
    """Two runs with the given mIoU of each video."""

    def scores(values):
        videos = {
            f"v{i}": {"grounding": {**dict.fromkeys(("mIoU", "R@0.3", "R@0.5", "R@0.7"), v), "count": n}}
            for i, (v, n) in enumerate(zip(values, counts or [1] * len(values), strict=True))
        }
        return {"protocol": "strict", "videos": videos}

    return scores(first), scores(second)


def test_a_constant_gain_is_certain():
    first = np.linspace(0.1, 0.8, 50).tolist()
    row = compare(*runs(first, [value + 0.1 for value in first]), resamples=200)["grounding"]["mIoU"]
    assert row.difference == pytest.approx(0.1)
    assert (row.low, row.high) == pytest.approx((0.1, 0.1)) and row.is_clear


def test_the_interval_is_that_of_the_mean_difference():
    """For many videos the bootstrap comes near the normal interval, 1.96 standard errors each way."""
    rng = np.random.default_rng(0)
    gains = rng.normal(0.0, 0.2, size=400)
    row = compare(*runs([0.5] * 400, (0.5 + gains).tolist()))["grounding"]["mIoU"]
    half = 1.96 * gains.std(ddof=1) / 20
    assert row.low == pytest.approx(gains.mean() - half, abs=0.1 * half)
    assert row.high == pytest.approx(gains.mean() + half, abs=0.1 * half)


def test_videos_count_by_their_questions():
    row = compare(*runs([0.0, 1.0], [0.0, 1.0], counts=[3, 1]), resamples=50)["grounding"]["mIoU"]
    assert row.first == row.second == pytest.approx(0.25)
    assert not row.is_clear


def test_the_same_seed_gives_the_same_interval():
    one, other = runs([0.1, 0.4, 0.7], [0.2, 0.3, 0.9])
    assert compare(one, other, seed=3) == compare(one, other, seed=3)


def test_options_decide_about_the_draws():
    one, other = runs(*np.random.default_rng(7).random((2, 30)).tolist())

    def bounds(**options):
        row = compare(one, other, **options)["grounding"]["mIoU"]
        return row.low, row.high

    assert bounds() == bounds(confidence=0.95, resamples=5000, seed=0) != bounds(seed=1)
    low, high = bounds(confidence=0.5)
    assert bounds()[0] < low < high < bounds()[1]
    low, high = bounds(resamples=1)
    assert low == high


def test_parts_of_a_draw_are_one_draw():
    rng = np.random.default_rng(5)
    values, weights = rng.random((7, 2)), np.array([1.0, 2, 3, 1, 1, 4, 2])
    low, high = mean_intervals(values, weights, confidence=0.8, resamples=600, seed=3)
    drawn = np.random.default_rng(3).multinomial(7, np.full(7, 1 / 7), size=600) * weights
    means = drawn @ values / drawn.sum(axis=1, keepdims=True)
    assert low == pytest.approx(np.quantile(means, 0.1, axis=0))
    assert high == pytest.approx(np.quantile(means, 0.9, axis=0))
    assert np.array_equal(mean_intervals(values, weights), mean_intervals(values, weights, seed=0))
    with pytest.raises(ValueError, match=r"^a video without answers has no mean; leave it out$"):
        mean_intervals(values, weights * 0)
    with pytest.raises(ValueError, match=r"^one video is too few to draw from; two or more are needed$"):
        mean_intervals(values[:1], weights[:1])


def test_only_what_both_have_is_compared():
    one, other = runs([0.1, 0.4], [0.2, 0.3])
    one["videos"]["v0"]["dense_captioning"] = {"count": 1}
    one["videos"]["v2"] = {}  # a video without answers of the task
    assert list(compare(one, other, resamples=9)) == ["grounding"]
    names = ("METEOR", "CIDEr", "BLEU_4", "ROUGE_L")
    for run in (one, other):
        for video in ("v0", "v1"):
            run["videos"][video] = {"segment_captioning": dict.fromkeys(names, 1) | {"count": 1}} | run["videos"][video]
    compared = compare(one, other, resamples=9)
    assert list(compared) == ["grounding", "segment_captioning"] and tuple(compared["segment_captioning"]) == names


@pytest.mark.parametrize(
    ("low", "high", "clear"), [(-2, -1, True), (1, 2, True), (-1, 1, False), (0, 1, False), (-1, 0, False)]
)
def test_an_interval_with_zero_is_not_clear(low, high, clear):
    row = Comparison(0.5, 0.25, low, high)
    assert row.is_clear is clear and row.difference == -0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b: b["videos"].update(v2=b["videos"]["v1"]),
            "grounding: the first lacks 1 videos of the other, such as 'v2'",
        ),
        (lambda b: b.update(protocol="official"), "by the strict protocol, the other by official"),
        (lambda b: b["videos"].pop("v1"), "grounding: the second lacks 1 videos of the other, such as 'v1'"),
        (lambda b: b["videos"]["v0"]["grounding"].update(count=2), "video 'v0' has 1 and 2 answers"),
        (lambda b: b["videos"].update({k: {} for k in b["videos"]}), "^the two have no task in common$"),
    ],
)
def test_runs_that_do_not_compare(change, message):
    one, other = runs([0.1, 0.4], [0.2, 0.3])
    change(other)
    with pytest.raises(ValueError, match=message):
        compare(one, other)


def test_one_video_is_too_few():
    with pytest.raises(ValueError, match="one video is too few"):
        compare(*runs([0.1], [0.2]))


def test_files(tmp_path):
    one, other = runs([0.1, 0.4, 0.2], [0.5, 0.6, 0.9])
    (tmp_path / "a.json").write_text(json.dumps(one))
    (tmp_path / "b.json").write_text(json.dumps(other))
    assert compare_files(tmp_path / "a.json", tmp_path / "b.json") == compare(one, other)
    (tmp_path / "c.json").write_text(json.dumps({"protocol": "strict", "grounding": {}}))
    with pytest.raises(ValueError, match=r"c\.json: holds no scores by video; write it with .*--per-video FILE`$"):
        compare_files(tmp_path / "a.json", tmp_path / "c.json")
    (tmp_path / "d.json").write_text(
        json.dumps({"videos": {"v0": {"grounding": 3}, "v1": {"grounding": 3}}, "protocol": "strict"})
    )
    with pytest.raises(ValueError, match="damaged scores by video"):
        compare_files(tmp_path / "d.json", tmp_path / "d.json")


def test_the_table_marks_what_is_clear():
    rows = {"grounding": {"mIoU": Comparison(0.1, 0.2, 0.05, 0.15), "R@0.3": Comparison(0.1, 0.2, -0.05, 0.25)}}
    assert format_comparison(rows, ["a", "b"]).splitlines() == [
        "A a, B b; means over videos, times 100",
        "                      A      B   B - A     95% interval",
        "grounding   mIoU  10.00  20.00  +10.00  +5.00 to +15.00 *",
        "           R@0.3  10.00  20.00  +10.00  -5.00 to +25.00",
    ]
