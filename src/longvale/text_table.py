"""Text tables of the terminal: columns of cells, aligned."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], *, numbers: bool = True, gap: int = 2) -> list[str]:
    """Align the cells of rows into columns.

    Args:
        rows: cells; a row may have fewer than others.
        numbers: right-align all columns except the first, as numbers are read; otherwise left-align all.
        gap: number of spaces between columns.

    Returns:
        One line per row, without trailing spaces.

    Example:
        >>> print("\\n".join(align([["", "mIoU", "R@0.5"], ["grounding", "50.00", "100.00"]])))
                    mIoU   R@0.5
        grounding  50.00  100.00
    """
    widths = [max(map(len, column)) for column in itertools.zip_longest(*rows, fillvalue="")]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if numbers and index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append((" " * gap).join(cells).rstrip())
    return lines
