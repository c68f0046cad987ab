"""Modality ablation: grounding with some of a video's modalities omitted, or with all features set to 0."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...events import MODALITIES, Modality
from ...io import atomic_write
from ...text_table import align
from ..generation.generate import Split, annotations_path, generate
from ..generation.model import ModelLike, load_model
from ..scoring.score import GROUPS, score

#: Modalities that the model receives per setting. In `none` all features are set to 0; the others omit modalities.
SETTINGS: dict[str, tuple[Modality, ...]] = {
    "none": MODALITIES,
    "visual": ("visual",),
    "visual+audio": ("visual", "audio"),
    "visual+speech": ("visual", "speech"),
    "all": MODALITIES,
}


def ablation(
    model: ModelLike,
    data: str | os.PathLike,
    output: str | os.PathLike,
    *,
    split: Split = "test",
    device: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Ask the grounding questions in the five [`SETTINGS`] and compare the mean IoU.

    Args:
        model: folder, Hub ID, or (model, processor) pair.
        data: folder of the data set.
        output: folder for `ablation.json` and for the answers, `ablation/<setting>.jsonl`; resumable.
        split: "test" or "train".
        device: device such as "cpu"; by default an accelerator if available.
        options: further options of [`generate`], such as `features`, `batch_size`, `limit`, `progress`.

    Returns:
        The content of `ablation.json`: `metric`, `protocol`, `settings`; `count` of questions by group of events, and
        `mIoU` by group and setting. The groups are `all` and, if modalities are known, the event groups.

    Raises:
        FileNotFoundError, ValueError: as in [`generate`] and [`score`].
    """
    output = Path(output)
    pair = load_model(model, device)
    partial = options.get("limit") is not None or options.get("skip_missing", False)
    scores = {}
    for name, modalities in SETTINGS.items():
        log = generate(
            pair,
            data,
            output / "ablation" / f"{name}.jsonl",
            tasks=["grounding"],
            split=split,
            modalities=modalities,
            zero_features=name == "none",
            **options,
        )
        scores[name] = score(log, annotations_path(data, split), partial=partial)["grounding"]
    result = _tabulate(scores)
    with atomic_write(output / "ablation.json") as file:
        json.dump(result, file, indent=2)
        file.write("\n")
    return result


def _tabulate(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    groups = ["all", *(group for group in GROUPS if group in scores["all"].get("by_modality", {}))]

    def row(setting: str, group: str) -> Mapping[str, Any]:
        return scores[setting] if group == "all" else scores[setting]["by_modality"][group]

    return {
        "metric": "mIoU",
        "protocol": "strict",
        "settings": {name: {"modalities": list(SETTINGS[name]), "zero_features": name == "none"} for name in scores},
        "count": {group: row("all", group)["count"] for group in groups},
        "mIoU": {group: {name: row(name, group)["mIoU"] for name in scores} for group in groups},
    }


def format_ablation(result: Mapping[str, Any]) -> str:
    """Format the ablation as a text table, times 100.

    Example:
        >>> print(format_ablation({"settings": {"none": {}, "all": {}}, "count": {"all": 8, "audio": 3},
        ...                        "mIoU": {"all": {"none": 0.25, "all": 0.5}, "audio": {"none": 0.3, "all": 0.9}}}))
        grounding mIoU x 100   none    all
        all (8)               25.00  50.00
        audio (3)             30.00  90.00
    """
    names = list(result["settings"])
    rows = [
        (f"{group} ({result['count'][group]})", *(f"{100 * row[name]:.2f}" for name in names))
        for group, row in result["mIoU"].items()
    ]
    return "\n".join(align([("grounding mIoU x 100", *names), *rows]))
