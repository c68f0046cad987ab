"""A server of the tiny model, once for all tests of a module."""

import pytest

from longvale.evaluation.generation.model import load_model
from longvale.serving.server import serve
from longvale.serving.videos import ServingLimits


@pytest.fixture(scope="session")
def pair(tiny_model):
    """The tiny model, with weights enlarged: as they are initialised, answers hardly depend on what is read."""
    import torch

    model, processor = load_model(tiny_model, "cpu")
    with torch.no_grad():
        for parameter in model.model.language_model.layers.parameters():
            parameter.mul_(4)
        for modality in ("visual", "audio", "speech"):
            getattr(model.model, f"{modality}_projector").weight.mul_(20)
    return model, processor


@pytest.fixture(scope="session")
def folder(_corpus):
    """The videos of the tiny corpus."""
    return _corpus / "videos"


@pytest.fixture(scope="module")
def url(pair, folder):
    """A server that may read the corpus, and refuses videos of more than 2 MB or 60 s."""
    limits = ServingLimits(size=2 * 2**20, length=60.0, stored=3 * 2**20, waiting=64, fetch_s=5.0)
    with serve(pair, name="tiny", port=0, limits=limits, media_folders=[folder], media_hosts=["127.0.0.1"]) as url:
        yield url
