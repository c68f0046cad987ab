import random
import re
import shutil

import numpy as np
import pytest
from telling import OPTIONS, WINDOW_S, telling_features

from longvale.events import MODALITIES
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.synthetic.compositing import CompositeVideos, FeatureBank, Lanes, compose, load_composites
from longvale.synthetic.planning import SOUNDS, WORDS, Piece, plan_video
from longvale.timecodes import to_timecode


@pytest.fixture(scope="module")
def config(tiny_model):
    return LongVALEConfig.from_pretrained(tiny_model)


@pytest.fixture
def corpus(telling_corpus):
    return telling_corpus


@pytest.fixture(scope="module")
def composites(telling_corpus, config):
    return load_composites(telling_corpus, telling_corpus / "features", config)


def test_features_show_what_the_plan_says(composites):
    for index in range(20):
        plan = plan_video(f"mosaic_{index}", 7, OPTIONS)
        composed, expected = compose(plan, composites.bank, random.Random(index)), telling_features(plan)
        assert (composed["visual"] == expected["visual"]).all()
        for modality in ("audio", "speech"):
            assert composed[modality].dtype == np.float32
            np.testing.assert_allclose(composed[modality], expected[modality], atol=1e-6)  # shares in float32


def test_the_truth_moves_along(composites):
    plan = plan_video("mosaic_3", composites.seed, OPTIONS)
    row = CompositeVideos(composites.bank, OPTIONS, "instruction", turns=40)[3]
    text = {q["content"]: a["content"] for q, a in zip(row["messages"][::2], row["messages"][1::2], strict=True)}
    pieces = [piece for pieces in plan.pieces for piece in pieces if piece.modality != "visual"]
    asked = 0
    for piece in pieces:
        lane, names = ("audio", SOUNDS) if piece.modality == "audio" else ("speech", WORDS)
        heard = np.flatnonzero(row[f"{lane}_features"][:, names.index(piece.content)])
        assert heard[0] == int(piece.start // WINDOW_S) and heard[-1] == int((piece.end - 1e-6) // WINDOW_S)
        question = {
            "audio": f"When is the {piece.content} heard?",
            "speech": f"When does the voice say {piece.content}?",
        }
        if question[lane] in text:
            asked += 1
            codes = re.findall(r"\d\d", text[question[lane]])
            duration = plan.annotation.duration
            assert codes == [to_timecode(piece.start, duration), to_timecode(piece.end, duration)]
    assert asked


@pytest.mark.parametrize("kind", ["boundary_perception", "instruction"])
def test_a_row_depends_on_seed_and_number_alone(composites, kind):
    first = CompositeVideos(composites.bank, OPTIONS, kind, seed=1, turns=2, modality_dropout=0.5)
    rows = [first[i] for i in range(6)]
    again = CompositeVideos(composites.bank, OPTIONS, kind, seed=1, turns=2, modality_dropout=0.5)
    for i in (5, 0, 3):
        assert again[i]["messages"] == rows[i]["messages"]
        for modality in MODALITIES:
            assert np.array_equal(again[i][f"{modality}_features"], rows[i][f"{modality}_features"])
    assert CompositeVideos(composites.bank, OPTIONS, kind, seed=2)[0]["messages"] != rows[0]["messages"]
    assert all(len(row["messages"]) <= 4 or "detail the events" in row["messages"][0]["content"] for row in rows)


def test_modality_dropout_takes_one_modality_of_its_share(composites):
    lacking = CompositeVideos(composites.bank, OPTIONS, modality_dropout=0.4)
    missing = [[m for m in MODALITIES if lacking[i][f"{m}_features"] is None] for i in range(150)]
    assert max(map(len, missing)) == 1
    assert 0.25 < sum(map(len, missing)) / 150 < 0.55
    assert {m for row in missing for m in row} == set(MODALITIES)


def test_rows_come_through_datasets(composites):
    rows = composites.dataset(100)
    assert len(rows) == 100 and set(rows[99]) == {"id", "messages", *(f"{m}_features" for m in MODALITIES)}
    batch = rows.__getitems__([7, 2])
    assert [row["id"] for row in batch] == ["mosaic_7", "mosaic_2"]
    assert np.array_equal(batch[0]["visual_features"], composites[7]["visual_features"])


def test_shares_of_a_window_sum_to_one():
    for index in range(20):
        plan = plan_video(f"v{index}", 0, OPTIONS)
        lanes = Lanes([p for pieces in plan.pieces for p in pieces], plan.annotation.duration)
        for length in (1.0, WINDOW_S, 5.12):
            for parts in lanes.windows(length):
                assert sum(share for _, share in parts) == pytest.approx(1)


def test_only_training_videos_are_composed(corpus, config, tmp_path, caplog):
    for path in (corpus / "features").glob("*/train_*.npy"):
        target = tmp_path / path.relative_to(corpus / "features")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    for path in tmp_path.glob("*/train_000[0-2].npy"):
        path.unlink()
    bank = load_composites(corpus, tmp_path, config).bank  # no test video is stored: none is asked for
    assert "3 of 150 training videos have no features" in caplog.text
    full = load_composites(corpus, corpus / "features", config).bank
    assert sum(map(len, bank.visual.values())) < sum(map(len, full.visual.values()))


def test_without_features_nothing_is_composed(corpus, config, tmp_path):
    (tmp_path / "visual_features").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no features of the 150 training videos"):
        load_composites(corpus, tmp_path, config)
    with pytest.raises(FileNotFoundError, match=r"synthetic\.json: no such file; compositing needs a corpus"):
        load_composites(tmp_path, corpus / "features", config)


def test_what_no_video_shows_is_told_before_training(corpus, config, tmp_path):
    for path in (corpus / "features").glob("*/train_000[0-3].npy"):
        target = tmp_path / path.relative_to(corpus / "features")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    with pytest.raises(ValueError, match=r"none of 4 training videos shows .*; make a corpus of more videos"):
        load_composites(corpus, tmp_path, config)


def test_contents_that_no_video_shows_are_refused():
    bank = FeatureBank({"audio": 2.0, "speech": 2.0})
    features = {"visual": np.ones((4, 8)), "audio": np.ones((4, 8)), "speech": np.ones((4, 8))}
    bank.add([Piece("visual", 0, 4, "red ring"), Piece("audio", 0, 4, "bell")], 8.0, features)
    assert {"bell (audio)", "red ring", "silence (audio)"}.isdisjoint(bank.lacking())
    assert {"blue ring", "drum (audio)", "go (speech)"} <= set(bank.lacking())
    with pytest.raises(ValueError, match="no stored video shows 'blue ring'"):
        bank.draw_frames("blue ring", 2, random.Random(0))
    with pytest.raises(ValueError, match="no stored video has a speech window of go alone"):
        bank.draw_sound("speech", ("bell", "go"), random.Random(0))
    with pytest.raises(ValueError, match="lacks speech features"):
        bank.add([], 8.0, {**features, "speech": None})
    with pytest.raises(ValueError, match="4 and 5 visual features"):
        bank.add([], 8.0, {**features, "visual": np.ones((5, 8))})
