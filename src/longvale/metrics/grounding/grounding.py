"""Temporal grounding as an `evaluate` metric."""

import datasets
from evaluate.utils.file_utils import add_start_docstrings

from longvale.metrics.answers import pair
from longvale.metrics.base import TaskMetric
from longvale.metrics.grounding.compute_score import THRESHOLDS, compute_score

_DESCRIPTION = """\
Temporal grounding: how well the interval that a model names meets that of the event it was asked for. Mean IoU, and the
share of questions whose IoU reaches each threshold.
"""

_INPUTS = """
Args:
    predictions: an answer a question: a text that holds timecodes (percent of the duration), such as
        "From 05 to 25.", or start and end in seconds, [3.0, 15.0], or [] for none.
    references: a dict a question with start, end and duration in seconds: rows of
        `load_dataset("longvale", "grounding")` as they are.
    protocol: "strict" (default), or "official", which reads and rounds as the published scorer does.
    thresholds: of the IoU, (0.3, 0.5, 0.7) by default.

Returns:
    mIoU, R@0.3, R@0.5, R@0.7 as fractions, count of questions, parsed: how many answers named an interval.

Example:
    >>> import evaluate, longvale
    >>> metric = evaluate.load(longvale.metrics.path("grounding"))
    >>> references = [{"start": 0, "end": 30, "duration": 60}, {"start": 30, "end": 60, "duration": 60}]
    >>> metric.compute(predictions=["From 00 to 50.", "I do not know."], references=references)
    {'mIoU': 0.5, 'R@0.3': 0.5, 'R@0.5': 0.5, 'R@0.7': 0.5, 'count': 2, 'parsed': 1}
"""

_SECONDS = datasets.Value("float64")


@add_start_docstrings(_DESCRIPTION, _INPUTS)
class Grounding(TaskMetric):
    """The grounding metric; load it with `evaluate.load(longvale.metrics.path("grounding"))`."""

    about, usage = _DESCRIPTION, _INPUTS
    prediction_forms = (datasets.Value("string"), datasets.List(_SECONDS))
    reference_forms = ({"start": _SECONDS, "end": _SECONDS, "duration": _SECONDS},)

    def _compute(self, predictions, references, protocol="strict", thresholds=THRESHOLDS):
        found, wanted = pair("grounding", predictions, references, protocol)
        return compute_score(found, wanted, thresholds=thresholds, protocol=protocol)
