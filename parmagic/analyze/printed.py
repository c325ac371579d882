"""Tables that are wider than a terminal: printed with the columns that one looks for."""

from __future__ import annotations

import shutil
from typing import Any

import pandas as pd

LOOKED_FOR = ("wall_s", "speedup", "efficiency", "baseline", "cores_used", "gil_wait_share", "serial_s", "n_workers", "cpu_s")
"""Columns that a terminal shows before others, as far as it has room for them."""

LOOKED_FOR_IN_SYNC = (
    "kind", "n", "contended", "wait_s", "hold_s", "hold_blocked_s", "busy", "puts", "gets", "full_s", "empty_s", "level_max", "capacity",
)  # fmt: skip
"""The same of what was taken: of these, those that have a figure."""


class Printed(pd.DataFrame):
    """A frame that is printed so: pandas leaves out the middle columns, whatever they are.

    What is made of it, a part, a copy or a pickle, is a plain frame. ``display.max_columns = None`` has pandas print all of it.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __reduce__(self) -> tuple[type[pd.DataFrame], tuple[pd.DataFrame]]:
        """Pickle as a plain frame: who reads it need not have parmagic."""
        return pd.DataFrame, (pd.DataFrame(self),)

    def __repr__(self) -> str:
        """Show all columns where they fit into a line, else those that are looked for, and say how to see the others."""
        rows = pd.get_option("display.max_rows")
        width = shutil.get_terminal_size((80, 24)).columns
        if pd.get_option("display.max_columns") is None:
            return super().__repr__()
        shown = self.to_string(max_rows=rows)
        names = LOOKED_FOR if LOOKED_FOR[0] in self.columns else LOOKED_FOR_IN_SYNC
        known = [name for name in names if name in self.columns and (self[name].notna().any() or not len(self))]
        if _fits(shown, width) or not known:
            return shown
        while len(known) > 1 and not _fits(self[known].to_string(max_rows=rows), width):
            known.pop()
        return f"{self[known].to_string(max_rows=rows)}\n\n[{len(self)} rows x {len(self.columns)} columns: .T has all]"

    def _repr_html_(self) -> str | None:
        """Show all columns of which something is known, where pandas would leave out some in the middle."""
        most, known = pd.get_option("display.max_columns"), self.dropna(axis=1, how="all")
        n_left = len(self.columns) - len(known.columns)
        if not most or len(self.columns) <= most or not n_left:
            return _html(pd.DataFrame(self))
        return f"{_html(known)}<div>{n_left} more columns, in which nothing is known: .T has all</div>"


def _html(frame: Any) -> str | None:
    found: str | None = frame._repr_html_()
    return found


def _fits(text: str, width: int) -> bool:
    return max(map(len, text.splitlines())) <= width
