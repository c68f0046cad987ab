import math
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn.functional import pad

from longvale.features.store import FOLDERS
from longvale.models.configuration_longvale import LongVALEConfig
from longvale.synthetic.compositing import load_composites
from longvale.training.batching import ROW_IDS, RowIdCollator, decode_row_ids, group_by_length
from longvale.training.collator import IGNORE_INDEX, DialogueCollator

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


@pytest.fixture(scope="module")
def rows(corpus, base):
    config = LongVALEConfig.from_pretrained(base)
    composites = load_composites(corpus, corpus / "features", config, seed=42, modality_dropout=0.5)
    return composites.dataset(12).__getitems__(list(range(12)))


def unpadded(batches):
    """What each row holds by its id, in whatever batch and however padded."""
    found = {}
    for batch in batches:
        for row, name in enumerate(decode_row_ids(batch[ROW_IDS])):
            text = batch["attention_mask"][row].bool()
            parts = [batch["input_ids"][row][text], batch["labels"][row][text]]
            for feature in ("visual_features", "audio_features", "speech_features"):
                mask = batch.get(f"{feature}_mask")
                parts.append(batch[feature][row][mask[row].bool()] if mask is not None else torch.empty(0))
            found[name] = torch.cat([part.float().flatten() for part in parts])
    return found


def test_rows_stay_what_they_are_and_no_padding_is_needless(rows, processor):
    collate = RowIdCollator(DialogueCollator(processor))
    batches = [collate(rows[i : i + 3]) for i in range(0, 12, 3)]
    groups = group_by_length(batches)
    before, after = unpadded(batches), unpadded(groups)
    assert before.keys() == after.keys() and len(before) == 12
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [len(group["labels"]) for group in groups] == [3, 3, 3, 3] and padding(groups) < padding(batches)
    dtypes = {name: values.dtype for batch in batches for name, values in batch.items()}
    for group in groups:
        assert all(values.any(dim=0).all() for name, values in group.items() if name.endswith("_mask"))
        assert {name: values.dtype for name, values in group.items()}.items() <= dtypes.items()
    lengths = [length for group in groups for length in group["attention_mask"].sum(dim=1).tolist()]
    assert lengths == sorted(lengths, reverse=True)


def test_padding_is_never_learned(rows, processor):
    collate = RowIdCollator(DialogueCollator(processor))
    batches = [collate(rows[i : i + 3]) for i in range(0, 12, 3)]
    padded = 0
    for group in group_by_length(batches):
        padding = group["attention_mask"] == 0
        padded += int(padding.sum())
        assert (group["labels"][padding] == IGNORE_INDEX).all()
        assert (group["input_ids"][padding] == 0).all()
    assert padded  # else nothing was looked at


def test_a_modality_that_a_batch_lacks_is_padding_for_its_rows(rows, processor):
    collate = RowIdCollator(DialogueCollator(processor))
    mute = [{**row, "audio_features": None} for row in rows[:4]]
    groups = group_by_length([collate(mute), collate([{**row} for row in rows[4:8]])])
    sounding = {row["id"] for row in rows[4:8] if row["audio_features"] is not None}
    assert sounding
    for group in groups:
        for row, name in enumerate(decode_row_ids(group[ROW_IDS])):
            heard = "audio_features_mask" in group and bool(group["audio_features_mask"][row].any())
            assert heard == (name in sounding)


def test_raw_videos_are_left_in_their_batches():
    batches = [batch_of([3, 9]) | {"pixel_values_videos": torch.zeros(2, 1)}, batch_of([4, 5])]
    assert [len(batch["attention_mask"]) for batch in group_by_length(batches)] == [2, 2]
    assert [batch["attention_mask"].sum().item() for batch in group_by_length(batches)] == [12, 9]


def test_a_lone_batch_keeps_its_order_and_loses_the_padding_that_all_rows_share():
    long = {name: pad(values, (0, 3)) for name, values in batch_of([2, 5]).items()}
    features = {
        "visual_features": torch.ones(2, 4, 3),
        "visual_features_mask": torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]]),
    }
    silent = {"audio_features": torch.zeros(2, 4, 3), "audio_features_mask": torch.zeros(2, 4, dtype=torch.long)}
    ids = torch.zeros(2, 7, dtype=torch.uint8)
    (cut,) = group_by_length([long | {"input_ids": long["attention_mask"], ROW_IDS: ids} | features | silent])
    assert cut["attention_mask"].tolist() == cut["input_ids"].tolist() == batch_of([2, 5])["attention_mask"].tolist()
    assert cut["visual_features"].shape == (2, 2, 3) and cut["visual_features_mask"].tolist() == [[1, 0], [1, 1]]
    assert cut.keys() == {"attention_mask", "input_ids", ROW_IDS, "visual_features", "visual_features_mask"}
    assert cut[ROW_IDS].shape == (2, 7)  # ids are no tokens


def test_two_batches_are_grouped_and_rows_of_one_length_keep_their_order():
    groups = group_by_length([batch_of([9, 1]), batch_of([8, 2])])
    assert [group["attention_mask"].sum(dim=1).tolist() for group in groups] == [[9, 8], [2, 1]]
    named = [
        batch_of([4] * 20) | {ROW_IDS: torch.arange(20 * i, 20 * i + 20, dtype=torch.uint8)[:, None]} for i in (0, 1)
    ]
    assert torch.cat([group[ROW_IDS] for group in group_by_length(named)]).flatten().tolist() == list(range(40))


def test_a_row_without_an_id_is_a_question_mark():
    batch = RowIdCollator(lambda rows: {"rows": len(rows)})([{"id": 7}, {}, {"id": "ü" * 9 + "X"}])
    assert decode_row_ids(batch[ROW_IDS]) == ["7", "?", "ü" * 9 + "X"] and batch["rows"] == 3


class Process:
    """What grouping uses of an `Accelerator`, for processes that are threads."""

    def __init__(self, rank, given, barrier):
        self.process_index, self.num_processes = rank, len(given)
        self._given, self._barrier = given, barrier

    def _exchange(self, values):
        self._given[self.process_index] = values
        self._barrier.wait()
        found = list(self._given)
        self._barrier.wait()
        return found

    def pad_across_processes(self, values, dim, pad_index):
        length = max(other.shape[dim] for other in self._exchange(values))
        room = [0, 0] * (values.ndim - 1 - dim) + [0, length - values.shape[dim]]
        return pad(values, room, value=pad_index)

    def gather(self, values):
        found = self._exchange(values)
        assert len({other.dtype for other in found}) == 1  # as collectives need; `cat` would convert
        return torch.cat(found)


def group_in_processes(given, widths):
    """The groups of each process, from the batches of each."""
    shared, barrier = [None] * len(given), threading.Barrier(len(given), timeout=10)
    with ThreadPoolExecutor(len(given)) as pool:
        processes = [Process(rank, shared, barrier) for rank in range(len(given))]
        return list(pool.map(group_by_length, given, [widths] * len(given), processes))


def test_processes_share_out_the_rows_of_a_step(rows, processor):
    collate = RowIdCollator(DialogueCollator(processor))
    widths = {
        modality: next(len(row[name][0]) for row in rows if row[name] is not None)
        for modality, name in ((m, f"{m}_features") for m in ("visual", "audio", "speech"))
    }
    seen = [row for row in rows if row["visual_features"] is not None][:4]
    others = [row for row in rows if row["id"] not in {row["id"] for row in seen}][:6]
    mute = [{**row, "audio_features": None, "speech_features": None} for row in seen]  # one process hears nothing
    given = [[collate(mute[:2]), collate(mute[2:])], [collate(others[:3]), collate(others[3:])]]
    assert {"visual_features"} == {name for name in given[0][0] if name in FOLDERS.values()} < given[1][0].keys()
    processes = group_in_processes(given, widths)
    groups = [group for pair in zip(*processes, strict=True) for group in pair]
    before, after = unpadded([batch for own in given for batch in own]), unpadded(groups)
    assert before.keys() == after.keys() and len(before) == 10
    assert all(torch.equal(before[name], after[name]) for name in before)
    # Each gets as many batches as it gave, and the batches that are computed at the same time are of similar length.
    assert [len(group["labels"]) for group in groups] == [3, 3, 2, 2]
    lengths = [length for group in groups for length in group["attention_mask"].sum(dim=1).tolist()]
    assert lengths == sorted(lengths, reverse=True)
    for group in groups:
        assert (group["labels"][group["attention_mask"] == 0] == IGNORE_INDEX).all()
    one_each = group_in_processes([[given[0][0]], [given[1][0]]], widths)
    assert [len(group["labels"]) for groups in one_each for group in groups] == [3, 2]
