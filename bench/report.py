"""The table: what was measured, beside what is aimed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `met` None where there is nothing to meet."""

    bench: str
    what: str
    measured: str
    target: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the line's cells as text."""
        verdict = {True: "met", False: "NOT MET", None: ""}[self.met]
        return self.bench, self.what, self.measured, self.target, verdict


HEAD = ("bench", "what", "measured", "target", "")


def at_most(bench: str, what: str, value: float, most: float, unit: str) -> Row:
    """Return a line whose value is to be at most `most`."""
    return Row(bench, what, f"{value:,.2f} {unit}", f"<= {most:g} {unit}", value <= most)


def at_least(bench: str, what: str, value: float, least: float, unit: str) -> Row:
    """Return a line whose value is to be at least `least`; whole numbers are enough."""
    digits = 2 if least < 100 else 0
    return Row(bench, what, f"{value:,.{digits}f} {unit}", f">= {least:,.0f} {unit}", value >= least)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in text."""
    cells = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
