"""Base class of the three `evaluate` metrics; it accepts rows of the data set as references."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import datasets
import evaluate

from .citation import CITATION


class TaskMetric(evaluate.Metric, ABC):
    """A metric whose references may have more fields than it needs.

    The class is abstract because `evaluate.load` selects the first class of a module that is not abstract.
    """

    #: Description of the metric, and its usage with an example.
    about: str
    usage: str
    #: Accepted formats of a prediction and of a reference.
    prediction_forms: tuple[Any, ...]
    reference_forms: tuple[Any, ...]

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.about,
            citation=CITATION,
            inputs_description=self.usage,
            features=[
                datasets.Features({"predictions": prediction, "references": reference})
                for prediction in self.prediction_forms
                for reference in self.reference_forms
            ],
            reference_urls=["https://arxiv.org/abs/2411.19772"],
        )

    @abstractmethod
    def _compute(self, predictions: list, references: list, **options: Any) -> dict[str, float]: ...

    def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, float] | None:
        """Compute the scores of what is given or was added; see `evaluate.Metric.compute`."""
        if predictions is None and references is None and self.writer is None:
            raise ValueError("nothing to score: give predictions and references, or add them first")
        return super().compute(predictions=predictions, references=references, **options)

    def add(self, *, prediction: Any = None, reference: Any = None, **others: Any) -> None:
        """Add one prediction with its reference; see `evaluate.Metric.add`."""
        super().add(prediction=self._fields(prediction), reference=self._needed(reference), **others)

    def add_batch(self, *, predictions: Any = None, references: Iterable | None = None, **others: Any) -> None:
        """Add predictions with their references; see `evaluate.Metric.add_batch`."""
        if predictions is None or references is None:
            raise ValueError("give both predictions and references")
        predictions = [self._fields(prediction) for prediction in predictions]
        needed = [self._needed(reference) for reference in references]
        if not predictions and not needed:
            raise ValueError(
                "nothing to score: predictions and references are empty; give one of both for each question"
            )
        super().add_batch(predictions=predictions, references=needed, **others)

    def _needed(self, reference: Any) -> Any:
        form = next(
            (form for form in self.reference_forms if isinstance(form, dict) == isinstance(reference, Mapping)), None
        )
        if form is None:
            raise ValueError(
                f"a reference must be a dict with {', '.join(self.reference_forms[-1])}, not {reference!r}"
            )
        return pick(form, reference)

    def _fields(self, prediction: Any) -> Any:
        """Reduce a list of predicted events to the required fields; return other predictions unchanged."""
        if not isinstance(prediction, list):
            return prediction
        return next(
            (pick(form, prediction, "prediction") for form in self.prediction_forms if _is_list(form)), prediction
        )


def _is_list(form: Any) -> bool:
    return isinstance(form, datasets.List)


def pick(form: Any, value: Any, of: str = "reference") -> Any:
    """Select the fields of `value` that are in `form`; `of` is the name of `value` in messages.

    Raises:
        ValueError: if a field is missing.

    Example:
        >>> pick({"start": datasets.Value("float64")}, {"start": 3.0, "video_id": "abc"})
        {'start': 3.0}
    """
    if isinstance(form, dict) and isinstance(value, Mapping):
        if lacking := [name for name in form if name not in value]:
            raise ValueError(f"a {of} lacks {lacking[0]!r}; it has {', '.join(map(str, value)) or 'nothing'}")
        return {name: pick(part, value[name], of) for name, part in form.items()}
    if _is_list(form) and isinstance(value, list):
        return [pick(form.feature, part, of) for part in value]
    return value
