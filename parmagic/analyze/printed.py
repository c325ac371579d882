"""Tables that are wider than a terminal: printed with the columns that one looks for."""

from __future__ import annotations

import shutil

import pandas as pd

LOOKED_FOR = ("wall_s", "speedup", "efficiency", "baseline", "cores_used", "gil_wait_share", "serial_s", "n_workers", "cpu_s")
"""Columns that a terminal shows before others, as far as it has room for them."""


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
        known = [name for name in LOOKED_FOR if name in self.columns]
        if _fits(shown, width) or not known:
            return shown
        while len(known) > 1 and not _fits(self[known].to_string(max_rows=rows), width):
            known.pop()
        return f"{self[known].to_string(max_rows=rows)}\n\n[{len(self)} rows x {len(self.columns)} columns: .T has all]"


def _fits(text: str, width: int) -> bool:
    return max(map(len, text.splitlines())) <= width
