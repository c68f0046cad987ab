"""Downloads of the models of a preset into the cache of the Hub, and their sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .listing import megabytes
from .preset import Preset, RoleModel

#: Files that transformers reads besides weights, and the model card, which states the license.
_SMALL_FILES = ("*.json", "*.txt", "*.jinja", "*.model", "README.md", "LICENSE*")
#: Weights, the first kind that a model has: transformers prefers safetensors, and reads the other without code.
_WEIGHTS = (("model*.safetensors",), ("pytorch_model*.bin",))


@dataclass(frozen=True)
class Download:
    """What is to be downloaded of a model.

    Args:
        model: the model.
        files: sizes in bytes by file name.
        missing: sizes in bytes of the files that are not in the cache yet.
    """

    model: RoleModel
    files: Mapping[str, int]
    missing: Mapping[str, int]

    def __str__(self) -> str:
        """Return one line.

        Example:
            >>> model = RoleModel("tagger", model="some/model", revision="abc")
            >>> str(Download(model, {"model.safetensors": 3_000_000}, {}))
            'some/model@abc: 3.0 MB, all of it in the cache'
        """
        whole, left = sum(self.files.values()), sum(self.missing.values())
        state = f"{megabytes(left / 1e6)} to download" if left else "all of it in the cache"
        return f"{self.model.reference}: {megabytes(whole / 1e6)}, {state}"


def plan_downloads(preset: Preset) -> list[Download]:
    """Ask the Hub for the sizes of a preset's models; nothing is downloaded.

    Raises:
        ValueError: naming the model that the Hub does not give, and why; without a connection, that it is needed.
    """
    models = {model.reference: model for model in preset.roles.values() if model.downloads}
    return [_plan(model) for model in models.values()]


def download(plans: Sequence[Download], report: Callable[[str], None]) -> None:
    """Download models into the cache of the Hub; what is there is not fetched again.

    Args:
        plans: result of [`plan_downloads`].
        report: called with one line per model.

    Raises:
        ValueError: as [`plan_downloads`].
    """
    for plan in plans:
        report(str(plan))
        if plan.missing:
            _snapshot(plan.model, tuple(plan.files), dry_run=False)


def _plan(model: RoleModel) -> Download:
    for weights in _WEIGHTS:
        found = _snapshot(model, (*_SMALL_FILES, *weights), dry_run=True)
        if any(Path(file.filename).suffix in (".safetensors", ".bin") for file in found):
            files = {file.filename: file.file_size or 0 for file in found}
            missing = {file.filename: file.file_size or 0 for file in found if file.will_download}
            return Download(model, files, missing)
    raise ValueError(f"{model.reference}: has no weights that are read here: model*.safetensors or pytorch_model*.bin")


def _snapshot(model: RoleModel, patterns: Sequence[str], *, dry_run: bool) -> Any:
    import httpx2
    from huggingface_hub import constants, snapshot_download

    if constants.is_offline_mode():
        raise ValueError(f"{model.reference}: the Hub is not asked, since HF_HUB_OFFLINE is set; unset it to download")
    try:
        return snapshot_download(
            model.model, revision=model.revision, allow_patterns=list(patterns), dry_run=dry_run, max_workers=4
        )
    except (OSError, ValueError, httpx2.HTTPError) as error:  # the errors of the Hub are of these types
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ValueError(
            f"{model.reference}: cannot be downloaded: {reason}; connect, or check id and revision"
        ) from error
