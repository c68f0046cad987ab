"""A cache with room gives what the one of transformers does, and copies nothing for a token."""

import pytest
import torch
from transformers.cache_utils import DynamicCache

from longvale.evaluation.generation.preallocated_cache import preallocated_cache

ROWS = torch.tensor([1, 1, 0])


@pytest.fixture
def cache():
    torch.manual_seed(0)
    cache = DynamicCache()
    for layer in range(2):
        cache.update(torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4), layer)
    return cache


def test_rows_are_chosen_and_tokens_appended(cache):
    before = [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]
    ours = preallocated_cache(cache, ROWS, more=3)
    assert ours.get_seq_length() == 5
    theirs = DynamicCache()
    for layer, (keys, values) in enumerate(before):
        theirs.update(keys[ROWS], values[ROWS], layer)
    for count in (2, 1):
        for layer in range(2):
            new = torch.randn(2, 3, 3, count, 4)
            for ours_is, theirs_is in zip(ours.update(*new, layer), theirs.update(*new, layer), strict=True):
                assert torch.equal(ours_is, theirs_is)
    assert ours.get_seq_length() == 8
    for layer, (keys, values) in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)


def test_a_token_is_written_in_place(cache):
    ours = preallocated_cache(cache, ROWS, more=2)
    places = {ours.update(*torch.randn(2, 3, 3, 1, 4), 0)[0].data_ptr() for _ in range(2)}
    assert len(places) == 1


def test_more_than_there_is_room_for_is_refused(cache):
    with pytest.raises(ValueError, match="has memory for 7 tokens, not for 8"):
        preallocated_cache(cache, ROWS, more=2).update(*torch.randn(2, 3, 3, 3, 4), 0)
