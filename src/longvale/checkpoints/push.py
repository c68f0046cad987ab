"""A checkpoint to the Hub: what belongs to it, and nothing else that lies in its folder."""

from __future__ import annotations

import os
from pathlib import Path

from ..hub import Upload, plan_upload
from .card import CARD_FILE
from .loading import check_folder

#: What `save_pretrained` and `longvale convert` write directly in the folder. Adapters name a base on this machine, and
#: what a trainer leaves, such as optimizer states, is of no use to others.
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.py", "*.model", "*.txt", CARD_FILE)
_LEFT_OUT = ("trainer_state.json", "settings.json", "log_history.json")


def plan_model(folder: str | os.PathLike, repo_id: str) -> Upload:
    """List what of a checkpoint a push would send; [`longvale.hub.push`] sends it.

    Args:
        folder: written by `save_pretrained`, `longvale convert` or `longvale init`, with a model card.
        repo_id: such as "me/longvale-7b".

    Raises:
        FileNotFoundError: if the folder is no checkpoint or has no model card.
        ValueError: if a file of it is damaged or a link out of the folder, or `repo_id` is no name of a repository.

    Example:
        >>> list(plan_model("longvale-7b", "me/longvale-7b").files)[:2]  # doctest: +SKIP
        ['README.md', 'config.json']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    check_folder(folder)
    return plan_upload(folder, repo_id, "model", patterns=PATTERNS, left_out=_LEFT_OUT)
