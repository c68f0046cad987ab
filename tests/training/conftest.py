import pytest

from longvale.demo.checkpoint import build_checkpoint


@pytest.fixture(scope="session")
def corpus(telling_corpus):
    """The files of a synthetic corpus without its videos, and features that tell what they show."""
    return telling_corpus


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """An untrained tiny checkpoint."""
    folder = tmp_path_factory.mktemp("base")
    model, processor = build_checkpoint(vocab_videos=100)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def processor(base):
    from longvale.models.processing_longvale import LongVALEProcessor

    return LongVALEProcessor.from_pretrained(base)
