"""Web page of a metric, to score pasted predictions and references; for a Space or local use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import path

if TYPE_CHECKING:
    import gradio

#: Initial content of the two input boxes.
EXAMPLES: dict[str, tuple[list, list]] = {
    "grounding": (["From 05 to 25."], [{"start": 3, "end": 15, "duration": 60}]),
    "dense_captioning": (
        ["From 05 to 25, a dog barks."],
        [{"duration": 60, "events": [{"start": 3, "end": 15, "caption": "A dog barks."}]}],
    ),
    "segment_captioning": (["a dog barks"], ["A dog barks."]),
}


def build_page(name: str) -> gradio.Interface:
    """Build the page of a task's metric; `.launch()` opens it. Requires the extra `app`.

    Args:
        name: name of a task.

    Raises:
        ValueError: if the metric is unknown.
    """
    import evaluate
    import gradio

    metric = evaluate.load(path(name))

    def compute(predictions: str, references: str, protocol: str) -> dict[str, Any]:
        try:
            given = {"predictions": json.loads(predictions), "references": json.loads(references)}
            return metric.compute(**given, protocol=protocol)
        except (ValueError, KeyError, TypeError) as error:  # shown on the page
            raise gradio.Error(str(error)) from error

    boxes = [
        gradio.Code(value=json.dumps(value, indent=1), language="json", label=label)
        for label, value in zip(("predictions", "references"), EXAMPLES[name], strict=True)
    ]
    protocol = gradio.Radio(["strict", "official"], value="strict", label="protocol")
    return gradio.Interface(
        compute,
        [*boxes, protocol],
        gradio.JSON(label="scores"),
        title=name.replace("_", " ").capitalize(),
        description=metric.description,
        article=_card(name),
        flagging_mode="never",
    )


def _card(name: str) -> str:
    """Return the text of the README without the Space's front matter."""
    text = (Path(path(name)) / "README.md").read_text(encoding="utf-8")
    return text.split("---\n", 2)[2]
