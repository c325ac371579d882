"""What workers print: whole lines, marked with their worker."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO

from parmagic.model import Printed
from parmagic.recorder import Worker, current_worker

Emit = Callable[[Printed], None]


class Lines:
    r"""Cuts a stream of text into whole lines; of a rewritten line (``\\r``) the last state stays."""

    def __init__(self) -> None:
        self._open = ""
        self._held = ""

    def feed(self, text: str) -> str:
        """Take text, and return the lines that are complete now.

        Several progress bars of one worker move the cursor down with newlines before
        a bar, and up again behind it: bare newlines are held until it shows which they are.
        """
        if text and not text.strip("\n") and (not self._open or "\r" in self._open):
            self._held += text
            return ""
        held, self._held = ("" if text.startswith("\r") else self._held), ""
        text = held + text.replace(_UP, "")
        whole, newline, self._open = (self._open + text).rpartition("\n")
        if len(self._open) > _LONG and "\r" in self._open:
            self._open = self._open[self._open.rstrip("\r").rfind("\r") + 1 :]
        if not newline:
            return ""
        return "".join(_last_state(line) + "\n" for line in whole.split("\n"))

    def rest(self) -> str:
        """Return the line that was never ended, as a line."""
        text, blank, self._open, self._held = self._open, self._held, "", ""
        if not text:
            return blank
        return _last_state(text) + "\n" if text.strip("\r") else ""


_LONG = 4096
_UP = "\x1b[A"  # what moves the cursor up


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def mark(printed: Printed, model: str) -> str:
    """Return the printed lines, each behind its worker: ``[procs 1] text``."""
    name = f"[{model} {printed.rank}] "
    return "".join(name + line for line in printed.text.splitlines(keepends=True))


class ThreadOutput:
    """While entered, what worker threads print goes to ``emit``; all other threads print as ever."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._kept: list[tuple[str, Any, _Router]] = []

    def __enter__(self) -> Self:
        """Stand in for ``sys.stdout`` and ``sys.stderr``."""
        for name in ("stdout", "stderr"):
            original = getattr(sys, name)
            router = _Router(original, name, self._emit)
            self._kept.append((name, original, router))
            setattr(sys, name, router)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Put the streams back, unless the body put others there, and emit unfinished lines."""
        for name, original, router in self._kept:
            if getattr(sys, name) is router:
                setattr(sys, name, original)
            router.finish()


class _Router:
    """A stream that asks who writes."""

    def __init__(self, original: TextIO, name: str, emit: Emit) -> None:
        self._original = original
        self._name = name
        self._emit = emit
        self._lines: dict[int, Lines] = {}

    def write(self, text: str) -> int:
        """Collect a worker's text; pass on everybody else's."""
        try:
            worker: Worker = current_worker()
        except RuntimeError:
            return self._original.write(text)
        whole = self._lines.setdefault(worker.rank, Lines()).feed(str(text))
        if whole:
            self._emit(Printed(worker.rank, self._name, whole))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write them all."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the original; workers' lines wait for their end."""
        try:
            current_worker()
        except RuntimeError:
            self._original.flush()

    def finish(self) -> None:
        """Emit what was never ended by a newline."""
        for rank, lines in self._lines.items():
            text = lines.rest()
            if text:
                self._emit(Printed(rank, self._name, text))

    def __getattr__(self, name: str) -> Any:
        """Be the original in everything else."""
        return getattr(self._original, name)
