"""Complete checkpoints, and which one to resume: the newest whose files match the manifest.

The trainer writes a checkpoint file by file. One with a missing file would resume without an error and with other
losses. So it is written under another name, and is renamed with a manifest when all files are written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal

from longvale.io import atomic_write, load_json
from longvale.run_log import find_difference, load_settings, save_settings
from longvale.training.config import AUTO, SFTStageConfig

logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"checkpoint-(\d+)")
#: Checksums of a checkpoint's files, written last.
MANIFEST_FILE = "manifest.json"

#: The trainer's state in a checkpoint: steps, epochs, losses.
STATE_FILE = "trainer_state.json"

#: Settings that `output_dir` was trained with.
SETTINGS_FILE = "settings.json"
_SHAPING = (
    "stage", "model", "dtype", "data_dir", "features_dir", "videos_dir", "mixture", "streaming", "missing_media",
    "dialogues", "dialogues_size", "times", "lora_r", "lora_alpha", "lora_dropout", "max_length", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "num_train_epochs", "max_steps", "seed", "tasks",
    "questions", "rewards", "reward_weights", "num_generations", "temperature", "beta", "effective_batch_size",
    "max_completion_length",
)  # fmt: skip


def work_left(args: SFTStageConfig) -> tuple[Literal["nothing", "merge", "training"], str | None]:
    """Return the work that an earlier run into `output_dir` with the same settings left; nothing is changed.

    Returns:
        `nothing`: the merged checkpoint exists; `merge`, with the checkpoint to merge: all steps are trained;
        `training`: some are not, or `overwrite` requests all of them again.

    Raises:
        FileNotFoundError: if `resume_from_checkpoint` is a checkpoint that does not exist.
        ValueError: if `output_dir` contains results of a run with other settings.
    """
    output, resume = Path(args.output_dir), args.resume_from_checkpoint
    if args.overwrite:
        return "training", None
    if (output / "config.json").is_file() and (output / SETTINGS_FILE).is_file():
        difference = _find_difference(args)
        if difference is None:
            return "nothing", None
        if resume in (None, AUTO):
            raise ValueError(difference)
    for checkpoint in _checkpoints(output)[:1] if resume in (None, AUTO) else [Path(resume)]:
        # Merging needs no random states, so the number of processes may differ.
        if _is_trained(checkpoint, args) and not find_fault(checkpoint, processes=0):
            if resume in (None, AUTO) and (difference := _find_difference(args)):
                raise ValueError(difference)
            return "merge", str(checkpoint)
    return "training", None


def _is_trained(checkpoint: Path, args: SFTStageConfig) -> bool:
    """Return whether a checkpoint is that of the last step."""
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"{checkpoint}: no such checkpoint")
    try:
        state = load_json(checkpoint / STATE_FILE)
    except (FileNotFoundError, ValueError):  # it is not complete
        return False
    step, epochs = state.get("global_step", 0), state.get("num_train_epochs", 0)
    if args.max_steps > 0:
        return step >= args.max_steps
    return 0 < state.get("max_steps", 0) <= step and args.num_train_epochs <= epochs


def checkpoint_to_resume(args: SFTStageConfig) -> str | None:
    """Return the checkpoint that `resume_from_checkpoint` selects, and assign `output_dir` to this run.

    Returns:
        Its folder, or None to start from the beginning: none is selected, or the newest is and there is none.

    Raises:
        FileNotFoundError: if the selected folder does not exist.
        ValueError: if the selected one is not complete, `output_dir` contains checkpoints and none is selected, or
            they are of a run with other settings.
    """
    resume, found = args.resume_from_checkpoint, _checkpoints(args.output_dir)
    if args.overwrite:
        if args.process_index == 0:
            for path in found:
                shutil.rmtree(path)
        _claim(args)
        return None
    if resume is None and found:
        raise ValueError(
            f"{found[0]}: left by an earlier run; resume it with --resume_from_checkpoint auto, give another "
            "output_dir, or train from the beginning with --overwrite true"
        )
    if resume not in (None, AUTO) and (fault := find_fault(resume, args.world_size)):
        raise ValueError(f"{fault}; set resume_from_checkpoint to another one, or to auto for the newest whole one")
    if resume == AUTO and found and (difference := _find_difference(args)):
        raise ValueError(difference)
    _claim(args)
    return find_checkpoint(args.output_dir, args.world_size) if resume == AUTO else resume


def _settings(args: SFTStageConfig) -> dict[str, Any]:
    settings = {name: getattr(args, name) for name in _SHAPING if hasattr(args, name)}
    settings |= getattr(args, "recipe_settings", {})
    settings |= {
        name: os.path.abspath(settings[name])
        for name in ("data_dir", "features_dir", "videos_dir")
        if settings.get(name)
    }
    return json.loads(json.dumps(settings))


def _find_difference(args: SFTStageConfig) -> str | None:
    """Describe the first setting that differs from those `output_dir` was trained with; None if there is none."""
    path, now = Path(args.output_dir) / SETTINGS_FILE, _settings(args)
    # Earlier versions recorded fewer settings, or others.
    before = {name: value for name, value in load_settings(path).items() if name in now} if path.exists() else {}
    difference = find_difference(now | before, now)
    return difference and (
        f"{path}: was made with {difference}; give another output_dir or the settings from before, train from the "
        "beginning with --overwrite true, or name the checkpoint to continue with other settings in "
        "--resume_from_checkpoint"
    )


def _claim(args: SFTStageConfig) -> None:
    """Write the settings into `output_dir`, and delete the configuration of an earlier run's merged checkpoint."""
    if args.process_index == 0:
        path = Path(args.output_dir) / SETTINGS_FILE
        if path.exists():
            path.with_name("config.json").unlink(missing_ok=True)  # nothing loads without it
        save_settings(path, _settings(args))


def _checkpoints(output_dir: str | os.PathLike) -> list[Path]:
    """Return folders of checkpoints, the newest first."""
    found = [(int(match[1]), path) for path in Path(output_dir).glob("*") if (match := _FOLDER.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def find_checkpoint(output_dir: str | os.PathLike, processes: int = 1) -> str | None:
    """Return the newest complete checkpoint below `output_dir`, or None; a warning names each one that is skipped.

    Args:
        output_dir: of the trainer; it need not exist.
        processes: number of training processes; each has a file of random states, which resuming needs.
    """
    for path in _checkpoints(output_dir):
        fault = find_fault(path, processes)
        if fault is None:
            return str(path)
        logger.warning("passed over a checkpoint that is not whole: %s", fault)
    return None


def find_fault(checkpoint: str | os.PathLike, processes: int = 1) -> str | None:
    """Return why a checkpoint cannot be resumed: the first file that is missing or damaged, or None.

    Files are compared with the checksums that [`publish`] has recorded; nothing in them is executed.

    Raises:
        FileNotFoundError: if the folder does not exist.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such checkpoint")
    path = folder / MANIFEST_FILE
    try:
        files = load_json(path)
    except FileNotFoundError:
        return f"{path}: no such file"
    except ValueError:
        return f"{path}: the file is damaged"
    ranks = [""] if processes == 1 else [f"_{rank}" for rank in range(processes)]
    for name in [f"rng_state{rank}.pth" for rank in ranks]:
        if name not in files:
            return f"{folder / name}: no such file; the checkpoint is of another number of processes"
    for name, noted in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path}: no such file"
        if _digest(path) != noted:
            return f"{path}: the file is damaged"
    return None


def publish(unfinished: Path, checkpoint: Path) -> None:
    """Rename a completely written checkpoint to its final name, with a manifest for later checks.

    Files are flushed to disk before the rename: if the run or the machine is killed, only complete checkpoints remain.
    """
    files = {
        path.relative_to(unfinished).as_posix(): _digest(path, to_disk=True)
        for path in sorted(unfinished.rglob("*"))
        if path.is_file()
    }
    with atomic_write(unfinished / MANIFEST_FILE) as file:
        json.dump(files, file, indent=1)
    shutil.rmtree(checkpoint, ignore_errors=True)
    os.replace(unfinished, checkpoint)


def _digest(path: Path, to_disk: bool = False) -> str:
    with open(path, "rb") as file:
        if to_disk:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
