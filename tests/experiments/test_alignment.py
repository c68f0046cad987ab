import json

import numpy as np
import pytest

from longvale.experiments.alignment import alignment, compare, cosine, resample


def test_what_changes_together_is_found_and_what_does_not_is_left_to_chance():
    rng = np.random.default_rng(0)
    moments = rng.normal(size=(10, 32))
    together = np.stack([cosine(moments + 100, moments * 3 - 5)])  # neither offset nor scale matters
    found = compare(together)
    assert found["found"] == 1.0 and found["at_the_same_time"] == pytest.approx(1.0)
    apart = np.stack([cosine(rng.normal(size=(10, 32)), rng.normal(size=(10, 32))) for _ in range(300)])
    found = compare(apart)
    assert found["found"] == pytest.approx(found["chance"], abs=0.03)
    assert abs(found["at_the_same_time"] - found["at_other_times"]) < 0.03


def test_a_sequence_that_never_changes_has_no_direction():
    assert (cosine(np.ones((4, 3)), np.eye(4, 3)) == 0).all()


@pytest.mark.parametrize("count", [1, 3, 7, 20, 100])
def test_resampling_keeps_the_mean_and_the_order(count):
    values = np.arange(count, dtype=float)[:, None]
    found = resample(values, 20)
    assert found.shape == (20, 1) and found.mean() == pytest.approx(values.mean())
    assert (np.diff(found[:, 0]) >= -1e-9).all()


def test_a_table_and_a_plot(tiny_model, tiny_corpus, tmp_path):
    rows = alignment(str(tiny_model), tiny_corpus, tmp_path / "out", parts=4, progress=False)
    assert [row["pair"] for row in rows] == ["visual - audio", "visual - speech", "audio - speech"]
    assert all(-1 <= row["at_the_same_time"] <= 1 and row["chance"] == 0.25 for row in rows)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["rows"] == rows and result["how"]["videos"] == 3
    assert (tmp_path / "out" / "table.md").read_text().count("\n") == 5
    assert (tmp_path / "out" / "plot.svg").read_text().startswith("<?xml")
    with pytest.raises(ValueError, match="parts must be 2 or more, not 1"):
        alignment(str(tiny_model), tiny_corpus, tmp_path / "out", parts=1)
