"""Presets as text: their roles, models, sizes, licenses and hardware."""

from __future__ import annotations

from collections.abc import Iterable

from .preset import Preset, RoleModel


def megabytes(size_mb: float) -> str:
    """Format a size.

    Example:
        >>> megabytes(290), megabytes(3090.4), megabytes(3.04)
        ('290 MB', '3.1 GB', '3.0 MB')
    """
    if size_mb >= 1000:
        return f"{size_mb / 1000:.1f} GB"
    return f"{size_mb:.0f} MB" if size_mb >= 10 else f"{size_mb:.1f} MB"


def format_presets(presets: Iterable[Preset]) -> str:
    """Format presets as text, one line per role; packages with the extra of longvale that installs them.

    Example:
        >>> tagger = RoleModel("tagger", model="some/model", license="mit", size_mb=290, about="Names sounds.")
        >>> print(format_presets([Preset("mine", "Sounds alone.", "CPU", {"tagger": tagger})]))
        mine: Sounds alone. CPU; 290 MB to download.
          tagger  some/model  290 MB  mit  Names sounds.
    """
    return "\n\n".join(_format(preset) for preset in presets)


def _format(preset: Preset) -> str:
    hardware = preset.hardware + (" (not measured)" if "hardware" in preset.unverified else "")
    size = f"{megabytes(preset.size_mb)} to download" if preset.size_mb else "nothing to download"
    rows = [_cells(model) for model in preset.roles.values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"{preset.name}: {preset.summary} {hardware}; {size}.", *(f"  {line}" for line in lines)])


def _cells(model: RoleModel) -> tuple[str, ...]:
    size = megabytes(model.size_mb) if model.size_mb else "-"
    values = {"size_mb": size, "license": model.license or "not known"}
    shown = [value + (" (unverified)" if name in model.unverified else "") for name, value in values.items()]
    name = model.model or model.name + (f" (longvale[{model.extra}])" if model.extra else "")
    return (model.role, f"{name} (server)" if model.name == "server" else name, *shown, model.about)
