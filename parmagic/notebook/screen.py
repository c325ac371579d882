"""What stands under the cell while it runs: a bar, what the workers print and display, what they are doing."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from IPython.display import display

from parmagic.execute.task import Quiet, own_stream
from parmagic.model.progress import BEHIND, QUIET_FOR, Displayed, Printed, Pulse, Standing

NARROW = 90
"""Columns of a terminal from which on a progress bar has room beside the words on what the workers are doing."""


class WithBar(Quiet):
    """Progress and prints under the cell."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._begin = 0.0

    def begin(self, arm: str, n_items: int) -> None:
        """Prepare the bar of an arm."""
        from tqdm import tqdm  # noqa: PLC0415  (loads when a run needs it)

        self._begin, stream = time.perf_counter(), _bar_stream()
        if stream is not None:
            in_terminal = stream is own_stream("stderr")
            narrow = in_terminal and shutil.get_terminal_size().columns < NARROW
            self._bar = tqdm(
                total=n_items, desc=arm, delay=QUIET_FOR, leave=False, unit="item", file=stream, dynamic_ncols=True,
                position=None if in_terminal else 0,  # that of a run beside this one is under another cell
                bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]" if narrow else None,
            )  # fmt: skip

    def done(self, n_items: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(n_items)

    def printed(self, printed: Printed, model: str) -> None:
        """Print above the bar."""
        if self._bar is not None and time.perf_counter() - self._begin > QUIET_FOR:
            self._bar.clear()
        super().printed(printed, model)

    def displayed(self, displayed: Displayed, model: str) -> None:  # noqa: ARG002  (as all screens)
        """Display as the notebook does."""
        display(displayed.data, metadata=displayed.metadata, raw=True)

    def standing(self, standing: Standing, model: str) -> None:
        """Say it on a line of its own."""
        line = f", line {standing.line}" if standing.line else ""
        doing = f": {standing.doing}" if standing.doing else ""
        item = f"no item has ended for a while; item {standing.item}{line}" if standing.item != BEHIND else "has done its items"
        text = f"{item}{doing}\n"
        self.printed(Printed(standing.rank, "stdout", text), model)

    def pulse(self, pulse: Pulse) -> None:
        """Say behind the bar how many workers are doing what."""
        if self._bar is not None:
            self._bar.set_postfix_str(counted(pulse.doing))

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def counted(doing: Iterable[str]) -> str:
    """Count what workers are doing: ``2 running · 1 waiting for the GIL · 1 asleep``."""
    texts = (text.replace("waits", "waiting") for text in doing if text)
    found = Counter(_AT_IT.get(text, text) for text in texts)
    return " · ".join(f"{n} {text}" for text, n in found.most_common())


_AT_IT = {"runs Python": "running", "runs": "running", "sleeps": "asleep", "is blocked": "blocked",
          "is held by the debugger": "held by the debugger"}


def _bar_stream() -> Any:
    """Return where a bar is drawn; None in a file or a pipe, where its frames would pile up.

    In a notebook that is stdout: its stderr is shown as an alarm.
    """
    if sys.stderr.isatty():
        return own_stream("stderr")
    shown = own_stream("stdout")
    return shown if type(shown).__module__.startswith("ipykernel") else None


class NoBar(WithBar):
    """Prints under the cell, without a bar (``-q``)."""

    def begin(self, arm: str, n_items: int) -> None:
        """Show nothing."""

    def standing(self, standing: Standing, model: str) -> None:
        """Show only what keeps a run from ending that has nothing more to do."""
        if standing.item == BEHIND:
            super().standing(standing, model)
