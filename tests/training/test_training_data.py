import json
import shutil

import media_files
import numpy as np
import pytest

from longvale.data.dialogues import save_dialogues
from longvale.features.store import FeatureStore, save_features
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.training.collator import DialogueCollator
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
    options = {"max_missing": 1.0, "features_dir": str(folder / "features"), **options}
    args = SFTStageConfig(model=str(base), data_dir=str(folder), **options)
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
    assert "3 of 5 dialogues (60.0%) lack media" in caplog.text and "and are dropped" in caplog.text
    assert "audio_features 3" in caplog.text and "visual_features 2" in caplog.text
    assert "videos: mute, none" in caplog.text


def test_dialogues_with_some_features_are_kept_those_without_any_are_refused(stored, base, caplog):
    with pytest.raises(ValueError, match=r"2 have nothing at all \(videos: none\): .*missing_media"):
        load(stored, base)
    for modality in ("visual", "audio", "speech"):
        folder = stored / "features" / f"{modality}_features"
        shutil.copy(folder / "whole.npy", folder / "none.npy")
    rows = load(stored, base)
    assert (
        len(rows) == 5 and "1 of 5 dialogues (20.0%) lack media" in caplog.text and "kept without them" in caplog.text
    )
    assert rows[1]["audio_features"] is None and rows[1]["visual_features"].shape == (3, 64)


def test_damaged_features_are_found_before_the_first_step(stored, base, caplog):
    """As missing ones: refused with the file's name, or dropped."""
    path = stored / "features" / "audio_features" / "mute.npy"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"no array")
    with pytest.raises(
        ValueError, match=r"1 videos are damaged, the first: .*audio_features/mute\.npy: .*missing_media"
    ):
        load(stored, base)
    assert [row["id"] for row in load(stored, base, missing_media="drop")] == ["whole", "whole"]
    assert "mute.npy: not a whole .npy file" in caplog.text
    with pytest.raises(ValueError, match=r"mute\.npy.*more than max_missing"):
        load(stored, base, missing_media="drop", max_missing=0.05)
    (stored / "videos").mkdir()
    for video_id in ("whole", "mute", "none"):
        (stored / "videos" / f"{video_id}.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"3 videos are damaged, the first: .*whole\.mp4: "):
        load(stored, base, features_dir=None, videos_dir=str(stored / "videos"), missing_media="drop")


def test_without_any_features_there_is_nothing_to_train_on(stored, base):
    save_dialogues([{"id": "none", "conversations": TURNS}], stored / "longvale-sft-bp-7k.json")
    with pytest.raises(ValueError, match=r"1 of 1 dialogues .* nothing is left to train on"):
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


def test_raw_videos_are_rows_with_a_path(stored, base):
    (stored / "videos").mkdir()
    media_files.write(str(stored / "videos" / "whole.mp4"), pictures=4)
    args = SFTStageConfig(
        model=str(base),
        data_dir=str(stored),
        videos_dir=str(stored / "videos"),
        missing_media="drop",
        max_missing=0.8,
    )
    rows = load_training_set(args, LongVALEConfig.from_pretrained(base))
    assert [row["video"] for row in rows] == [str(stored / "videos" / "whole.mp4")] * 2


def test_a_video_file_is_found_in_another_unicode_normalization(stored, base):
    save_dialogues([{"id": "caf\u00e9", "conversations": TURNS}], stored / "longvale-sft-bp-7k.json")
    (stored / "videos").mkdir()
    path = stored / "videos" / "cafe\u0301.mp4"
    media_files.write(str(path), pictures=4)
    (row,) = load(stored, base, features_dir=None, videos_dir=str(stored / "videos"), max_missing=0.0)
    assert row["video"] == str(path)


def test_training_does_not_start_when_more_is_missing_than_stated(stored, base):
    message = r"features: 3 of 5 dialogues \(60.0%\) lack media .*, more than max_missing \(5.0%\); make them"
    for policy in ("drop", "keep"):
        with pytest.raises(ValueError, match=message):
            load(stored, base, max_missing=0.05, missing_media=policy)
    assert len(load(stored, base, max_missing=0.6, missing_media="drop")) == 2


@pytest.fixture
def mixed(tmp_path):
    """Videos with sound, videos without in a store of their own, and images."""
    image = [{"from": "human", "value": "<image>\nWhat is shown?"}, {"from": "gpt", "value": "A ring."}]
    rows = [{"id": f"lv{i}", "source": "longvale", "conversations": TURNS} for i in range(4)]
    rows += [{"id": f"vt{i}", "source": "vtimellm", "conversations": TURNS} for i in range(4)]
    save_dialogues(rows, tmp_path / "mixed.json")
    save_dialogues([{"id": f"im{i}", "conversations": image} for i in range(10)], tmp_path / "images.json")
    ones = np.ones((3, 64), np.float32)
    for i in range(4):
        save_features(tmp_path / "f" / "longvale", f"lv{i}", {"visual": i * ones, "audio": ones, "speech": ones})
        save_features(tmp_path / "f" / "vtimellm", f"vt{i}", {"visual": -i * ones})
    folder = tmp_path / "f" / "images" / "visual_features"
    folder.mkdir(parents=True)
    for i in range(10):
        np.save(folder / f"im{i}.npy", np.full(64, 100 + i, np.float16))  # a single vector, as published
    return tmp_path


MIXTURE = [
    {"dialogues": "mixed.json", "features": ["longvale", "vtimellm"], "source": "longvale", "weight": 2},
    {"dialogues": "mixed.json", "features": ["longvale", "vtimellm"], "source": "vtimellm"},
    {"dialogues": "images.json", "features": "images", "weight": 0.5},
]


def load_mixed(folder, base, **options):
    options = {"features_dir": str(folder / "f"), "mixture": MIXTURE, "max_missing": 0.0, **options}
    return load(folder, base, **options)


def test_a_mixture_of_sources_weights_and_feature_roots(mixed, base, processor):
    rows = load_mixed(mixed, base)
    ids = rows["id"]
    assert [ids.count(f"lv{i}") for i in range(4)] == [2] * 4 and [ids.count(f"vt{i}") for i in range(4)] == [1] * 4
    images = [name for name in ids if name.startswith("im")]
    assert len(images) == len(set(images)) == 5
    assert images == [name for name in load_mixed(mixed, base)["id"] if name.startswith("im")]
    assert images != [name for name in load_mixed(mixed, base, seed=7)["id"] if name.startswith("im")]
    row = rows[ids.index("vt2")]
    assert (row["visual_features"] == -2).all() and row["audio_features"] is None
    # Images and videos in one batch: one placeholder for an image, as many as there are features for a video.
    batch = DialogueCollator(processor)([rows[0], row, rows[ids.index(images[0])]])
    assert (batch["input_ids"] == processor.video_token_id).sum(dim=1).tolist() == [9, 3, 1]
    assert batch["visual_features"][2, 0, 0] == 100 + int(images[0][2:])


def test_what_a_mixture_lacks_is_counted_by_source(mixed, base):
    (mixed / "f" / "images" / "visual_features" / "im3.npy").unlink()
    (mixed / "f" / "longvale" / "audio_features" / "lv1.npy").unlink()
    with pytest.raises(
        ValueError, match=r"2 of 18 dialogues \(11.1%\) lack media \(audio_features 1, visual_features 1"
    ):
        load_mixed(mixed, base)
    with pytest.raises(ValueError, match=r"mixed\.json: no dialogue has the source 'x'; there are longvale, vtimellm"):
        load_mixed(mixed, base, mixture=[MIXTURE[0] | {"source": "x"}])


def test_a_stream_gives_the_same_rows_mixed_by_weight_and_as_many_steps(mixed, base):
    args = SFTStageConfig(
        model=str(base), data_dir=str(mixed), features_dir=str(mixed / "f"), mixture=MIXTURE, streaming=True,
        per_device_train_batch_size=2, num_train_epochs=2,
    )  # fmt: skip
    rows = load_training_set(args, LongVALEConfig.from_pretrained(base))
    assert args.max_steps == 17  # 4 x 2 + 4 + 10 x 0.5 dialogues, twice, two a step
    seen = list(rows)
    assert [row["id"] for row in seen] == [row["id"] for row in rows]
    table = {row["id"]: row for row in load_mixed(mixed, base, mixture=[{**m, "weight": 1} for m in MIXTURE])}
    assert {row["id"] for row in seen} == set(table)
    for row in seen:
        assert row["messages"] == table[row["id"]]["messages"]
        for modality in WIDTHS:
            assert np.array_equal(row[f"{modality}_features"], table[row["id"]][f"{modality}_features"])
