"""Dense captioning as an `evaluate` metric."""

import datasets
from evaluate.utils.file_utils import add_start_docstrings

from longvale.metrics.answers import pair
from longvale.metrics.base import TaskMetric
from longvale.metrics.dense_captioning.compute_score import compute_score

_DESCRIPTION = """\
Dense captioning: are the events of a video found, and are they described rightly? SODA_c, and METEOR, CIDEr, ROUGE-L,
BLEU, precision, recall and F1 at temporal IoUs of .3, .5, .7 and .9, tokenized and scored as coco-caption does, without
Java.
"""

_INPUTS = """
Args:
    predictions: one answer per video: a text of lines such as "From 05 to 25, a dog barks." (timecodes in percent of
        the duration), or a list of dicts with start and end in seconds and caption.
    references: one dict per video with duration and events (dicts with start, end, caption): rows of
        `load_dataset("longvale", "dense_captioning")` or `"videos"` as they are.
    protocol: "strict" (default), or "official", which gives the numbers of the published scorer.

Returns:
    soda_c, METEOR, ROUGE_L, BLEU_1 to BLEU_4, precision, recall, F1 as fractions and CIDEr (up to 10), each but soda_c
    also with @0.3, @0.5, @0.7, @0.9; counts.

Example:
    >>> import evaluate, longvale
    >>> metric = evaluate.load(longvale.metrics.path("dense_captioning"))
    >>> references = [{"duration": 60, "events": [{"start": 3, "end": 15, "caption": "A dog barks."}]}]
    >>> scores = metric.compute(predictions=["From 05 to 25, a dog barks."], references=references)
    >>> scores["F1"], scores["ROUGE_L"], scores["METEOR"]
    (1.0, 1.0, 1.0)
"""

_EVENTS = datasets.List(
    {"start": datasets.Value("float64"), "end": datasets.Value("float64"), "caption": datasets.Value("string")}
)


@add_start_docstrings(_DESCRIPTION, _INPUTS)
class DenseCaptioning(TaskMetric):
    """The dense captioning metric; load it with `evaluate.load(longvale.metrics.path("dense_captioning"))`."""

    about, usage = _DESCRIPTION, _INPUTS
    prediction_forms = (datasets.Value("string"), _EVENTS)
    reference_forms = ({"duration": datasets.Value("float64"), "events": _EVENTS},)

    def _compute(self, predictions, references, protocol="strict"):
        return compute_score(*pair("dense_captioning", predictions, references, protocol), protocol=protocol)
