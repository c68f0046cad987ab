"""Repositories of the Hub: cards of datasets and models, and the upload of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Literal

from .io import atomic_write

if TYPE_CHECKING:
    from huggingface_hub import CardData

#: File name of the card of a dataset or a model.
CARD_FILE = "README.md"


def card_template(name: Literal["dataset_card", "model_card"]) -> Path:
    """Return the path of a card template, in the source checkout or in the installed wheel.

    Raises:
        FileNotFoundError: if the package was installed without it.

    Example:
        >>> card_template("dataset_card").name
        'README.md'
    """
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parents[1] / name):
        if (folder / CARD_FILE).is_file():
            return folder / CARD_FILE
    raise FileNotFoundError(f"{package / name}: no card; install longvale again, from a wheel or a checkout")


def write_card(
    path: Path,
    template: Path,
    values: Mapping[str, str] | None = None,
    fill: Callable[[CardData], None] | None = None,
) -> None:
    """Write a card, atomically.

    Args:
        path: file to write.
        template: card with text and YAML.
        values: replace `$name` in the template; None leaves it as it is.
        fill: completes the YAML.

    Raises:
        FileNotFoundError: if the template does not exist.
        ValueError: if its YAML cannot be read.
    """
    import yaml
    from huggingface_hub import RepoCard

    if not template.is_file():
        raise FileNotFoundError(f"{template}: no such file")
    text = template.read_text(encoding="utf-8")
    try:
        card = RepoCard(text if values is None else Template(text).substitute(values))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{template}: its YAML cannot be read ({' '.join(str(error).split())})") from None
    if fill is not None:
        fill(card.data)
    with atomic_write(path) as file:
        file.write(str(card))


@dataclass(frozen=True)
class Upload:
    """Files to upload.

    Args:
        folder: with the files.
        repo_id: for example "me/longvale".
        repo_type: "dataset" or "model".
        files: sizes in bytes by file name.
    """

    folder: Path
    repo_id: str
    repo_type: Literal["dataset", "model"]
    files: Mapping[str, int]


def plan_upload(
    folder: str | os.PathLike,
    repo_id: str,
    repo_type: Literal["dataset", "model"],
    *,
    patterns: Sequence[str] | None = None,
    left_out: Sequence[str] = (),
) -> Upload:
    """List the files that a push would send; hidden files are left out.

    Args:
        folder: with a `README.md`, the card of the repository.
        repo_id: for example "me/longvale".
        repo_type: "dataset" or "model".
        patterns: of the files to send: "*.json" for those directly in the folder, ".eval_results/*.yaml" for those of a
            subfolder, also a hidden one; None for all files and subfolders.
        left_out: names that are not sent even if they match.

    Raises:
        FileNotFoundError: if the folder does not exist or contains no card.
        ValueError: if the repository name is invalid, or a link leads out of the folder.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if not (folder / CARD_FILE).is_file():
        raise FileNotFoundError(f"{folder / CARD_FILE}: no such file; it is the card that a {repo_type} is shown with")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"repository {repo_id!r}: {error}") from None
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in left_out or not _is_sent(name, patterns):
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path}: leads out of the folder, to {path.resolve()}; copy the file instead")
        files[name] = path.stat().st_size
    return Upload(folder, repo_id, repo_type, files)


def _is_sent(name: str, patterns: Sequence[str] | None) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    if patterns is None:
        return not hidden
    alike = [pattern for pattern in patterns if pattern.count("/") == name.count("/") and fnmatch(name, pattern)]
    return any(not hidden or pattern.startswith(".") for pattern in alike)


def format_upload(upload: Upload) -> str:
    """Format one line per file with its size, and the destination.

    Example:
        >>> print(format_upload(Upload(Path("x"), "me/longvale", "dataset", {"README.md": 1500})))
             0.00 MB  README.md
        1 files, 0.00 MB, to https://hf.co/datasets/me/longvale
    """
    lines = [f"{size / 1e6:9.2f} MB  {name}" for name, size in upload.files.items()]
    place = f"https://hf.co/{'datasets/' if upload.repo_type == 'dataset' else ''}{upload.repo_id}"
    total = sum(upload.files.values()) / 1e6
    return "\n".join([*lines, f"{len(upload.files)} files, {total:,.2f} MB, to {place}"])


def push(upload: Upload, *, private: bool = False, token: str | None = None) -> str:
    """Send the files as one commit; files that are already in the repository are not sent again.

    Args:
        upload: from [`plan_upload`].
        private: if the repository is created, make it private.
        token: token of the Hub; default that of `hf auth login`.

    Returns:
        The URL of the commit.

    Raises:
        ConnectionError: if the Hub refuses (the message contains its answer) or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # of the HTTP client that huggingface_hub uses

    api = HfApi(token=token)
    try:
        api.create_repo(upload.repo_id, repo_type=upload.repo_type, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=upload.repo_id,
            repo_type=upload.repo_type,
            folder_path=upload.folder,
            allow_patterns=list(upload.files),
            commit_message=f"Upload {len(upload.files)} files",
        )
    except HTTPError as error:
        reason = " ".join(str(error).split())
        raise ConnectionError(
            f"{upload.repo_id}: the Hub did not take it; what it has stays as it was ({reason})"
        ) from error
    return commit.commit_url
