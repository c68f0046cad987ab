import json
import shutil

import numpy as np
import pytest

from longvale.data.dialogues import save_dialogues
from longvale.data.features import FeatureStore, save_features
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.training.config import SFTStageConfig
from longvale.training.data import load_training_set

WIDTHS = {"visual": 64, "audio": 64, "speech": 64}
TURNS = [{"from": "human", "value": "<video>\nWhat is shown?"}, {"from": "gpt", "value": "A ring."}]


@pytest.fixture
def stored(tmp_path):
    """Dialogues about videos with all, some and no features."""
    save_dialogues(
        [{"id": video_id, "conversations": TURNS} for video_id in ("whole", "mute", "whole", "none", "none")],
        tmp_path / "longvale-sft-bp-7k.json",
    )
    ones = np.ones((3, 64), np.float32)
    save_features(tmp_path / "features", "whole", {"visual": ones, "audio": 2 * ones, "speech": 3 * ones})
    save_features(tmp_path / "features", "mute", {"visual": ones})
    return tmp_path


def load(folder, base, **options):
    args = SFTStageConfig(model=str(base), data_dir=str(folder), features_dir=str(folder / "features"), **options)
    return load_training_set(args, LongVALEConfig.from_pretrained(base))


def test_rows_bring_what_is_stored(corpus, base):
    rows = load(corpus, base)
    store, dialogues = FeatureStore(corpus / "features"), json.loads((corpus / "longvale-sft-bp.json").read_text())
    assert len(rows) == len(dialogues)
    for row, dialogue in zip(rows.__getitems__([3, 0]), (dialogues[3], dialogues[0]), strict=True):
        assert row["id"] == dialogue["id"] and len(row["messages"]) == len(dialogue["conversations"])
        for modality, values in store.load(dialogue["id"]).items():
            assert np.array_equal(row[f"{modality}_features"], values)
    instruction = load(corpus, base, stage="instruction")
    asked = json.loads((corpus / "longvale-sft-it.json").read_text())
    assert instruction[0]["messages"][0]["content"].startswith("<video>") and len(instruction) == len(asked)


def test_missing_features_are_dropped_and_counted(stored, base, caplog):
    rows = load(stored, base, missing_media="drop", dialogues_size="7k")
    assert [row["id"] for row in rows] == ["whole", "whole"]
    assert "3 of 5 dialogues lack features and are dropped" in caplog.text
    assert "audio_features 3" in caplog.text and "visual_features 2" in caplog.text
    assert "videos: mute, none" in caplog.text


def test_dialogues_with_some_features_are_kept_those_without_any_are_refused(stored, base, caplog):
    with pytest.raises(ValueError, match=r"2 of 5 dialogues have no features at all \(videos: none\); .*missing_media"):
        load(stored, base)
    for modality in ("visual", "audio", "speech"):
        folder = stored / "features" / f"{modality}_features"
        shutil.copy(folder / "whole.npy", folder / "none.npy")
    rows = load(stored, base)
    assert len(rows) == 5 and "1 of 5 dialogues lack features and are kept without them" in caplog.text
    assert rows[1]["audio_features"] is None and rows[1]["visual_features"].shape == (3, 64)


def test_without_any_features_there_is_nothing_to_train_on(stored, base):
    save_dialogues([{"id": "none", "conversations": TURNS}], stored / "longvale-sft-bp-7k.json")
    with pytest.raises(ValueError, match="none of the 1 dialogues has its features"):
        load(stored, base, missing_media="drop")


def test_features_of_another_width_are_refused(stored, base):
    save_features(stored / "features", "whole", {"visual": np.ones((3, 32), np.float32)})
    rows = load(stored, base, missing_media="drop")
    with pytest.raises(ValueError, match=r"whole\.npy: features are 32 wide, expected 64"):
        rows[0]


def test_missing_dialogues_are_named(corpus, base, tmp_path):
    with pytest.raises(FileNotFoundError, match="longvale-sft-bp"):
        args = SFTStageConfig(model="m", data_dir=str(tmp_path), features_dir=str(corpus / "features"))
        load_training_set(args, LongVALEConfig.from_pretrained(base))


def test_a_mosaic_is_as_long_as_asked_for(corpus, base):
    rows = load(corpus, base, mosaic=1000, turns=1, modality_dropout=0.2, seed=3)
    assert len(rows) == 1000 and set(rows[999]) == {"id", "messages", *(f"{m}_features" for m in WIDTHS)}


def test_raw_videos_are_rows_with_a_path(stored, base):
    (stored / "videos").mkdir()
    (stored / "videos" / "whole.mp4").touch()
    args = SFTStageConfig(
        model=str(base), data_dir=str(stored), videos_dir=str(stored / "videos"), missing_media="drop"
    )
    rows = load_training_set(args, LongVALEConfig.from_pretrained(base))
    assert [row["video"] for row in rows] == [str(stored / "videos" / "whole.mp4")] * 2
