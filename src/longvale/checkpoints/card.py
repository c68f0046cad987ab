"""Model card of a checkpoint: written with the checkpoint; an evaluation fills in the table of scores."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..events import MODALITIES
from ..hub import CARD_FILE, card_template, write_card
from ..io import atomic_write

if TYPE_CHECKING:
    from torch import nn

_TABLE = re.compile(r"(<!-- evaluation -->\n).*?(<!-- /evaluation -->)", re.DOTALL)

#: The Hub's name for what the model does.
_TASK_TYPE = "video-text-to-text"

#: File of a checkpoint to which the card's `license_link` points.
LICENCES_FILE = "LICENSE.md"

#: Licences of the parts of the published model, by model type. The publisher of a model must add those of other parts.
_LICENCES = {
    "clip_vision_model": "MIT (CLIP, OpenAI)",
    "beats": "MIT (BEATs, Microsoft)",
    "whisper": "Apache-2.0 (Whisper, OpenAI)",
}
_PUBLISHED_LANGUAGE_MODEL = "Llama 2 Community License (Vicuna v1.5, LMSYS)"
_UNKNOWN = "as its authors say"


def save_model_card(folder: str | os.PathLike, model: nn.Module, *, title: str, origin: str, published: bool) -> None:
    """Write the `README.md` of a checkpoint, and the file of its licences.

    Args:
        folder: folder of the checkpoint.
        model: model whose parts are listed; it may be on the meta device.
        title: title of the card, and the model name in its example.
        origin: origin of the weights, in one sentence or more.
        published: whether the language model is that of LongVALE-LLM, whose licence is known.
    """
    config, towers = model.config, {}
    for modality in MODALITIES:
        towers[modality] = getattr(model.model, f"{modality}_tower")
    rows = [("language model", config.text_config.model_type, model.model.language_model)]
    rows += [(f"{name} tower", tower and tower.config.model_type, tower) for name, tower in towers.items()]
    licences = {kind: _LICENCES.get(kind, _UNKNOWN) for _, kind, part in rows if part is not None}
    if published:
        licences[config.text_config.model_type] = _PUBLISHED_LANGUAGE_MODEL
    whole = all(towers.values())
    values = {
        "title": title,
        "name": title,
        "origin": origin,
        "parts": "\n".join(_row(part, kind, module, licences) for part, kind, module in rows),
        "video": 'videos="video.mp4"' if whole else "visual_features=v, audio_features=a, speech_features=s",
        "input": _INPUT_OF_FILES if whole else _INPUT_OF_FEATURES,
        "licences": "\n".join(f"- `{kind}`: {licence}" for kind, licence in licences.items()),
    }
    write_card(Path(folder) / CARD_FILE, card_template("model_card"), values)
    with atomic_write(Path(folder) / LICENCES_FILE) as file:
        file.write(f"# Licences of the parts\n\n{values['licences']}\n\nThe code is under the Apache License 2.0.\n")


def names_published_model(folder: str | os.PathLike) -> bool:
    """Return whether the licences of a checkpoint are those of the published model, also of one tuned from it."""
    path = Path(folder) / LICENCES_FILE
    return path.is_file() and _PUBLISHED_LANGUAGE_MODEL in path.read_text(encoding="utf-8", errors="replace")


_INPUT_OF_FILES = "A video may also be frames and a waveform, or stored features."
_INPUT_OF_FEATURES = (
    "Not all towers are in the checkpoint: where one is missing, the model takes features as they are stored in the "
    "LongVALE dataset, one array [n, width] a modality."
)


def _row(part: str, kind: str | None, module: nn.Module | None, licences: Mapping[str, str]) -> str:
    if module is None:
        return f"| {part} | none: stored features | | |"
    millions = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    return f"| {part} | {kind} | {millions:,.1f} M | {licences[kind]} |"


def fill_evaluation(
    card: str | os.PathLike, scores: Mapping[str, Any], columns: Mapping[str, Sequence[str]], data: str
) -> None:
    """Write scores into the table of a model card and into its YAML (`model-index`), which the Hub shows.

    Scores of an earlier evaluation are replaced: all of the table, those on the same data in the YAML.

    Args:
        card: path of the card, such as `README.md` of a checkpoint.
        scores: scores of an evaluation: `protocol`, per task its scores as fractions, and `counts` of its answers.
        columns: names of the scores to show, per task.
        data: name of the evaluation data.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the card has no markers for the table, or its YAML cannot be read.
    """
    import yaml
    from huggingface_hub import EvalResult, ModelCard

    card = Path(card)
    if not card.is_file():
        raise FileNotFoundError(f"{card}: no such file; give a model card")
    text = card.read_text(encoding="utf-8")
    if not _TABLE.search(text):
        raise ValueError(f"{card}: has no place for scores; put <!-- evaluation --> and <!-- /evaluation --> into it")
    lines = [f"On {data}, protocol `{scores['protocol']}`; scores times 100.", ""]
    lines += ["| task | score | value | answers parsed |", "| --- | --- | --- | --- |"]
    identity, results = re.sub(r"[^\w.-]+", "-", data), []
    for task, names in columns.items():
        if task in scores:
            counts = scores["counts"][task]
            parsed = f"{counts['parsed_share']:.1%} of {counts['answers']}"
            values = [(name, scores[task][name]) for name in names if name in scores[task]]
            lines += [f"| {task} | {name} | {100 * value:.2f} | {parsed} |" for name, value in values]
            results += [
                EvalResult(
                    task_type=_TASK_TYPE,
                    task_name=task,
                    dataset_type=identity,
                    dataset_name=data,
                    dataset_config=task,
                    metric_type=name,
                    metric_name=f"{name}, protocol {scores['protocol']}",
                    metric_value=round(100 * value, 2),
                )
                for name, value in values
            ]
    table = _TABLE.sub(lambda match: match[1] + "\n".join(lines) + "\n" + match[2], text, count=1)
    try:
        filled = ModelCard(table)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{card}: its YAML cannot be read ({' '.join(str(error).split())[:200]})") from None
    others = [result for result in filled.data.eval_results or [] if result.dataset_type != identity]
    title = re.search(r"^# (.+)$", filled.text, re.MULTILINE)
    filled.data.model_name = filled.data.model_name or (title[1].strip() if title else card.absolute().parent.name)
    filled.data.eval_results = [*others, *results]
    with atomic_write(card) as file:
        file.write(str(filled))
