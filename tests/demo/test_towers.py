import random

import pytest
import torch

from longvale.demo.checkpoint import build_checkpoint
from longvale.demo.towers import VOCABULARY, load_clips, pretrain_towers, turn, word_shares
from longvale.events import MODALITIES
from longvale.synthetic.planning import COLOURS, WORDS, Piece


@pytest.fixture
def parts():
    return build_checkpoint(vocab_videos=50)


def test_a_frame_is_a_moment_and_a_window_counts_by_its_share():
    pieces = [Piece("visual", 2, 4, "red ring"), Piece("speech", 0, 3, "stop")]
    frames = word_shares(pieces, "visual", [(1.9, 1.9), (2.0, 2.0), (4.0, 4.0)])
    assert frames[:, COLOURS.index("red")].tolist() == [0, 1, 0]
    windows = word_shares(pieces, "speech", [(0, 2), (2, 4), (4, 6)])
    assert windows[:, WORDS.index("stop")].tolist() == [1, 0.5, 0]
    assert windows.sum() == 1.5


def test_clips_have_a_target_for_every_feature(parts, tiny_corpus):
    model, processor = parts
    (video,) = load_clips(processor, tiny_corpus)  # the one training video; test videos stay unseen
    with torch.no_grad():
        features = model.encode(**video.inputs)
    for modality in MODALITIES:
        _, mask = features[modality]
        assert video.words[modality].shape == (int(mask.sum()), len(VOCABULARY[modality]))
        assert video.words[modality].sum() > 0


@pytest.mark.slow
def test_training_changes_the_towers_alone_and_lowers_the_loss(parts, tiny_corpus):
    model, processor = parts
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def train(epochs):
        epochs = dict.fromkeys(MODALITIES, epochs)
        return pretrain_towers(model, processor, tiny_corpus, epochs=epochs, batch_videos=1, progress=False)

    first, last = train(10), train(30)
    assert all(last[modality] < first[modality] for modality in MODALITIES)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("_tower." in name for name in changed)
    assert not model.training


def test_frames_of_a_video_are_turned_alike_and_keep_their_pixels():
    videos = torch.arange(16.0).reshape(1, 1, 1, 4, 4).expand(40, 2, 3, 4, 4)
    turned = turn(videos, random.Random(0))
    assert torch.equal(turned.flatten(3).sort(dim=-1).values, videos.flatten(3))
    assert torch.equal(turned[:, 0], turned[:, 1])
    assert len({tuple(video[0, 0].flatten().tolist()) for video in turned}) == 8, "all turns and mirror images occur"
