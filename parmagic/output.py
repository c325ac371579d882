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
    r"""Cuts a stream of text into whole lines; of a rewritten line (``\\r``) the last state stays.

    A flood is cut: ``lost`` counts the characters that were not let through.
    """

    def __init__(self) -> None:
        self._open = ""
        self._held = ""
        self._shown = 0
        self.lost = 0

    def feed(self, text: str) -> str:
        """Take text, and return the lines that are complete now."""
        if self._shown >= MOST:
            self.lost += len(text)
            return ""
        whole = self._whole_lines(text)
        self._shown += len(whole)
        if self._shown < MOST:
            return whole
        self.lost += len(self._open) + len(self._held)
        self._open = self._held = ""
        return whole + _CUT

    def _whole_lines(self, text: str) -> str:
        """Return what is complete with this text.

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

    def last(self, rank: int, stream: str) -> Printed | None:
        """Return what is left to be shown, or to be said of what is not, at the end of a worker's stream."""
        text = self.rest()
        return Printed(rank, stream, text, self.lost) if text or self.lost else None

    def rest(self) -> str:
        """Return the line that was never ended, as a line."""
        text, blank, self._open, self._held = self._open, self._held, "", ""
        if not text:
            return blank
        return _last_state(text) + "\n" if text.strip("\r") else ""


MOST = 1_000_000
"""Characters of a worker's that are shown in an arm, of each stream."""

_CUT = f"… cut here: this worker has printed {MOST / 1e6:.0f} MB, the rest is counted only\n"
_LONG = 4096
_UP = "\x1b[A"  # what moves the cursor up


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def mark(printed: Printed, model: str) -> str:
    """Return the printed lines, each behind its worker: ``[procs 1] text``."""
    name = f"[{model} {printed.rank}] "
    return "".join(name + _uncoloured_after(line) for line in printed.text.splitlines(keepends=True))


def _uncoloured_after(line: str) -> str:
    """Let the colours of a line end with it: the next one may be another worker's."""
    if "\x1b[" not in line:
        return line
    text = line.rstrip("\r\n")
    return f"{text}\x1b[0m{line[len(text) :]}"


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
        """Emit what was never ended by a newline, and how much was not let through."""
        for rank, lines in list(self._lines.items()):  # a thread that was left behind may still print
            last = lines.last(rank, self._name)
            if last is not None:
                self._emit(last)

    def __getattr__(self, name: str) -> Any:
        """Be the original in everything else."""
        return getattr(self._original, name)
