"""Segment captioning as an `evaluate` metric."""

import datasets
from evaluate.utils.file_utils import add_start_docstrings

from longvale.metrics.answers import pair
from longvale.metrics.base import TaskMetric
from longvale.metrics.segment_captioning.compute_score import compute_score

_DESCRIPTION = """\
Segment captioning: the caption of a given stretch of a video against that of its event. METEOR, CIDEr, ROUGE-L and
BLEU, tokenized and scored as coco-caption does, without Java.
"""

_INPUTS = """
Args:
    predictions: a caption a question.
    references: a caption a question, or a dict with reference: rows of `load_dataset("longvale", "segment_captioning")`
        as they are; in the same order as the predictions.
    protocol: "strict" (default), or "official", which gives the numbers of the published scorer.

Returns:
    METEOR, ROUGE_L, BLEU_1 to BLEU_4 as fractions, CIDEr (up to 10), count of pairs.

Example:
    >>> import evaluate, longvale
    >>> metric = evaluate.load(longvale.metrics.path("segment_captioning"))
    >>> scores = metric.compute(predictions=["a dog barks"], references=["A dog barks."])
    >>> scores["ROUGE_L"], scores["METEOR"], scores["count"]
    (1.0, 1.0, 1)
"""

_TEXT = datasets.Value("string")


@add_start_docstrings(_DESCRIPTION, _INPUTS)
class SegmentCaptioning(TaskMetric):
    """The segment captioning metric; load it with `evaluate.load(longvale.metrics.path("segment_captioning"))`."""

    about, usage = _DESCRIPTION, _INPUTS
    prediction_forms = (_TEXT,)
    reference_forms = (_TEXT, {"reference": _TEXT})

    def _compute(self, predictions, references, protocol="strict"):
        found, wanted = pair("segment_captioning", predictions, references, protocol)
        return compute_score(dict(enumerate(found)), dict(enumerate(wanted)), protocol=protocol)
