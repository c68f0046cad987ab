"""A checkpoint to the Hub: what belongs to it, and nothing else that lies in its folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .card import CARD_FILE
from .loading import check_folder

#: What `save_pretrained` and `longvale convert` write directly in the folder. Adapters name a base on this machine, and
#: what a trainer leaves, such as optimizer states, is of no use to others.
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.py", "*.model", "*.txt", CARD_FILE)
_LEFT_OUT = ("trainer_state.json", "settings.json", "log_history.json")
_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Pushed:
    """What [`push_model`] sent or would send.

    Args:
        files: path in the repository and size in bytes.
        url: of the commit; None for a dry run.
    """

    files: tuple[tuple[str, int], ...]
    url: str | None = None


def push_model(
    folder: str | os.PathLike, repo: str, *, private: bool = False, dry_run: bool = False, message: str = "Upload model"
) -> Pushed:
    """Send a checkpoint to a repository of the Hub, which is made if it does not exist.

    Args:
        folder: written by `save_pretrained`, `longvale convert` or `longvale init`, with a model card.
        repo: "user/name".
        private: make a new repository private.
        dry_run: send nothing, and ask the network nothing.
        message: of the commit.

    Raises:
        FileNotFoundError: if the folder is no checkpoint or has no model card.
        ValueError: if a file of it is damaged, `repo` is no name of a repository, or the Hub refuses.

    Example:
        >>> push_model("longvale-7b", "user/longvale-7b", dry_run=True).files  # doctest: +SKIP
        (('README.md', 4215), ('config.json', 3180), ...)
    """
    if not _REPO.fullmatch(repo):
        raise ValueError(f"{repo!r} is no repository of the Hub; give USER/NAME")
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such model folder")
    check_folder(folder)
    if not (folder / CARD_FILE).is_file():
        raise FileNotFoundError(
            f"{folder / CARD_FILE}: no such file; describe the model in one, beginning with that of `longvale init`"
        )
    paths = sorted(find_files(folder))
    files = tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths)
    if dry_run:
        return Pushed(files)
    return Pushed(files, _upload(folder, repo, [name for name, _ in files], private, message))


def find_files(folder: Path) -> Iterable[Path]:
    """The files of a checkpoint; links that lead out of the folder are none."""
    root = folder.resolve()
    for path in {path for pattern in PATTERNS for path in folder.glob(pattern)}:
        inside = path.is_file() and path.resolve().is_relative_to(root)
        if inside and path.name not in _LEFT_OUT and not path.name.startswith("."):
            yield path


def _upload(folder: Path, repo: str, names: list[str], private: bool, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names]
        return api.create_commit(repo, operations, commit_message=message).commit_url
    except (HfHubHTTPError, OfflineModeIsEnabled) as error:
        raise ValueError(f"{repo}: the Hub refuses: {' '.join(str(error).split())[:200]}") from error
