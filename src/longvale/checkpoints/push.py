"""Upload of a checkpoint to the Hub: only the files of the checkpoint, and no others in its folder."""

from __future__ import annotations

import os
from pathlib import Path

from ..hub import CARD_FILE, Upload, plan_upload
from .card import LICENCES_FILE
from .loading import check_folder

#: Files that `save_pretrained` and `longvale convert` write directly in the folder. Adapters are excluded because they
#: refer to a base on this machine; trainer files, such as optimizer states, because others do not need them. The scores
#: of `longvale evaluate --card` go with them.
PATTERNS = (
    *("*.safetensors", "*.json", "*.jinja", "*.py", "*.model", "*.txt"),
    *(CARD_FILE, LICENCES_FILE, ".eval_results/*.yaml"),
)
_LEFT_OUT = ("trainer_state.json", "settings.json", "log_history.json")


def plan_model(folder: str | os.PathLike, repo_id: str) -> Upload:
    """List the files of a checkpoint to upload; [`longvale.hub.push`] uploads them.

    Args:
        folder: folder written by `save_pretrained`, `longvale convert` or `longvale init`, with a model card.
        repo_id: repository such as "me/longvale-7b".

    Raises:
        FileNotFoundError: if the folder is not a checkpoint or has no model card.
        ValueError: if a file is damaged or a link out of the folder, or `repo_id` is not a valid repository name.

    Example:
        >>> list(plan_model("longvale-7b", "me/longvale-7b").files)[:2]  # doctest: +SKIP
        ['README.md', 'config.json']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    check_folder(folder)
    return plan_upload(folder, repo_id, "model", patterns=PATTERNS, left_out=_LEFT_OUT)
