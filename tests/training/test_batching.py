import math
import random

import pytest
import torch

from longvale.training.batching import ROW_IDS, NameRows, group_by_length, row_names
from longvale.training.collator import IGNORE_INDEX, DialogueCollator
from longvale.training.data import load_training_set

# Of the paper and the published repository: seconds a video (549 h / 8,411), events a video, share of single-turn dense
# captioning, visual features, seconds of a sound window, longest dialogue.
MEAN_S, EVENTS, DENSE_SHARE, FRAMES, WINDOW_S, LONGEST = 235, 12.6, 0.2, 100, 5.12, 2048
# Not published, and taken as a usual caption and question in tokens.
CAPTION, QUESTION = 45, 30


def released_length(rng):
    """Tokens of a dialogue of boundary perception, its video's features included."""
    while not 30 <= (duration := rng.lognormvariate(math.log(MEAN_S) - 0.32, 0.8)) <= 600:
        pass
    features = FRAMES + math.ceil(duration / WINDOW_S) + 1500 * math.ceil(duration / 30) // 256
    events = max(1, round(rng.lognormvariate(math.log(EVENTS) - 0.18, 0.6)))
    captions = [rng.lognormvariate(math.log(CAPTION), 0.4) for _ in range(events)]
    text = sum(captions) + 8 * events + 60 if rng.random() < DENSE_SHARE else sum(captions) + QUESTION * events
    return int(min(LONGEST, features + text))


def batch_of(lengths):
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    return {"attention_mask": mask}


def padding(batches):
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    return 1 - tokens / sum(batch["attention_mask"].numel() for batch in batches)


def test_padding_is_below_a_tenth_of_the_tokens_on_the_released_lengths():
    rng, plain, grouped = random.Random(0), [], []
    for _ in range(30):  # steps of the published configuration, 128 dialogues in batches of 8
        batches = [batch_of([released_length(rng) for _ in range(8)]) for _ in range(16)]
        plain.append(padding(batches))
        grouped.append(padding(group_by_length(batches)))
    assert sum(plain) / 30 > 0.25
    assert sum(grouped) / 30 < 0.10


@pytest.fixture
def rows(corpus, base):
    from longvale.models.configuration_longvale import LongVALEConfig
    from longvale.training.config import SFTStageConfig

    args = SFTStageConfig(
        model=str(base), data_dir=str(corpus), features_dir=str(corpus / "features"), mosaic=64, modality_dropout=0.5
    )
    return load_training_set(args, LongVALEConfig.from_pretrained(base)).__getitems__(list(range(12)))


def unpadded(batches):
    """What each row holds by its id, in whatever batch and however padded."""
    found = {}
    for batch in batches:
        for row, name in enumerate(row_names(batch[ROW_IDS])):
            text = batch["attention_mask"][row].bool()
            parts = [batch["input_ids"][row][text], batch["labels"][row][text]]
            for feature in ("visual_features", "audio_features", "speech_features"):
                mask = batch.get(f"{feature}_mask")
                parts.append(batch[feature][row][mask[row].bool()] if mask is not None else torch.empty(0))
            found[name] = torch.cat([part.float().flatten() for part in parts])
    return found


def test_rows_stay_what_they_are_and_no_padding_is_needless(rows, processor):
    collate = NameRows(DialogueCollator(processor))
    batches = [collate(rows[i : i + 3]) for i in range(0, 12, 3)]
    groups = group_by_length(batches)
    before, after = unpadded(batches), unpadded(groups)
    assert before.keys() == after.keys() and len(before) == 12
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [len(group["labels"]) for group in groups] == [3, 3, 3, 3] and padding(groups) < padding(batches)
    for group in groups:
        assert all(values.any(dim=0).all() for name, values in group.items() if name.endswith("_mask"))
    lengths = [length for group in groups for length in group["attention_mask"].sum(dim=1).tolist()]
    assert lengths == sorted(lengths, reverse=True)


def test_padding_is_never_learned(rows, processor):
    collate = NameRows(DialogueCollator(processor))
    batches = [collate(rows[i : i + 3]) for i in range(0, 12, 3)]
    padded = 0
    for group in group_by_length(batches):
        padding = group["attention_mask"] == 0
        padded += int(padding.sum())
        assert (group["labels"][padding] == IGNORE_INDEX).all()
        assert (group["input_ids"][padding] == 0).all()
    assert padded  # else nothing was looked at


def test_a_modality_that_a_batch_lacks_is_padding_for_its_rows(rows, processor):
    collate = NameRows(DialogueCollator(processor))
    mute = [{**row, "audio_features": None} for row in rows[:4]]
    groups = group_by_length([collate(mute), collate([{**row} for row in rows[4:8]])])
    sounding = {row["id"] for row in rows[4:8] if row["audio_features"] is not None}
    assert sounding
    for group in groups:
        for row, name in enumerate(row_names(group[ROW_IDS])):
            heard = "audio_features_mask" in group and bool(group["audio_features_mask"][row].any())
            assert heard == (name in sounding)


def test_raw_videos_are_left_in_their_batches():
    batches = [batch_of([3, 9]) | {"pixel_values_videos": torch.zeros(2, 1)}, batch_of([4, 5])]
    assert [len(batch["attention_mask"]) for batch in group_by_length(batches)] == [2, 2]
    assert [batch["attention_mask"].sum().item() for batch in group_by_length(batches)] == [12, 9]
