"""Where workers are: the stacks that were written to a file, of a worker process, and those of threads of this one.

A worker's file gets a stack when the process crashes, by faulthandler, and every few seconds while one claim of items
takes that long, by a thread of ours. That one takes the GIL to look: without it nobody may touch the frames of code that runs.
faulthandler's watchdog does, and its handlers of signals: these crash a busy process once in a hundred to ten thousand looks.
So of a body that never gives the GIL away, it is not known where it is.
"""

from __future__ import annotations

import faulthandler
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from time import monotonic
from typing import NamedTuple

import parmagic
from parmagic.record import lives, starts
from parmagic.system import limits
from parmagic.system.debugger import hide
from parmagic.system.descriptors import Descriptor
from parmagic.system.files import anonymous_file
from parmagic.system.gil import FREE_THREADED
from parmagic.system.interrupts import Latch
from parmagic.system.real import get_ident, new_thread

EVERY = 4.0
"""Seconds between two looks at a worker whose claim takes long."""

_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
_STILL, _HEAD = "Still at:", "Thread 0x0 (most recent call first):"  # what ours begins with
_DEEPEST = 100
_THREAD = re.compile(r"^(?:Current thread|Thread) (?P<thread>0x[0-9a-f]+) .*\(most recent call first\):$", re.MULTILINE)
_DUMP = re.compile(rf"^(?:{_STILL}$|Fatal Python error: )", re.MULTILINE)
_OURS = os.path.dirname(parmagic.__file__) + os.sep  # noqa: PTH120
_LIBRARY = os.path.dirname(threading.__file__) + os.sep  # noqa: PTH120
_STAND_INS = frozenset({lives.__file__, starts.__file__})
_MOST = 1 << 16


class Frame(NamedTuple):
    """A frame of a stack."""

    file: str
    line: int
    name: str


class Lookout:
    """Has this process's stack written to ``file`` when it crashes, and, until :meth:`end`, while a claim takes long."""

    def __init__(self, file: Descriptor) -> None:
        self._file = file
        self._worker = get_ident()
        self._armed = monotonic()
        self._ended = Latch()
        faulthandler.enable(file.fileno())
        with suppress(RuntimeError):  # no further thread may be started: it does without
            limits.start(hide(new_thread(self._run, name="parmagic lookout")))

    def end(self) -> None:
        """Look no more; the thread ends by itself."""
        self._ended.set()

    def arm(self) -> None:
        """A claim begins."""
        now = monotonic()
        if now - self._armed <= EVERY / 4:
            return
        self._armed = now
        if not self._file.is_ours():  # the body has closed it: it does without
            faulthandler.disable()

    def _run(self) -> None:
        while not self._ended.wait(EVERY):
            if monotonic() - self._armed >= EVERY and self._file.is_ours():
                self._write()

    def _write(self) -> None:
        frames = islice(frames_of(self._worker), _DEEPEST)
        text = "".join(f'  File "{file}", line {line} in {name}\n' for file, line, name in frames)
        number = self._file.number
        with suppress(OSError):  # there is no room for it
            if os.fstat(number).st_size > _MOST:  # only the last is read
                os.ftruncate(number, 0)
                os.lseek(number, 0, os.SEEK_SET)
            os.write(number, f"{_STILL}\n{_HEAD}\n{text}".encode(errors="replace"))


def frames_of(thread: int | None) -> Iterator[Frame]:
    """Yield the frames of a thread of this process, innermost first; none where it has ended.

    Without a GIL, frames of a thread that runs on must not be touched: faulthandler
    reads them while all threads are stopped (of a hundred threads at most).
    """
    if FREE_THREADED:
        yield from _dumped(thread or 0)
        return
    frame = sys._current_frames().get(thread or 0)  # noqa: SLF001  (the only way to see where it is)
    while frame is not None:
        yield Frame(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name)  # what the compiler adds is on no line
        frame = frame.f_back


def _dumped(thread: int) -> list[Frame]:
    try:
        with open(anonymous_file(), "rb") as file:  # noqa: PTH123
            faulthandler.dump_traceback(file)
            file.seek(0)
            text = file.read().decode(errors="replace")
    except OSError:
        return []  # no descriptor is left: where it is remains unknown
    heads = list(_THREAD.finditer(text))
    for place, head in enumerate(heads):
        if int(head["thread"], 16) == thread:
            return _frames(text, head.end(), heads[place + 1].start() if place + 1 < len(heads) else len(text))
    return []


def _frames(text: str, begin: int, end: int) -> list[Frame]:
    return [Frame(file, int(line), name) for file, line, name in _FRAME.findall(text, begin, end)]


def last_stack(file: int, *, crash: bool) -> list[Frame]:
    """Return the main thread's frames, innermost first, of the last stack in the file: of a crash, or of a long claim.

    Frames of ours are left out. Empty where there is none.
    """
    size = os.fstat(file).st_size
    text = os.pread(file, _MOST, max(0, size - _MOST)).decode(errors="replace")
    begins = [found.start() for found in _DUMP.finditer(text)]
    if not begins or text.startswith("Fatal", begins[-1]) != crash:
        return []
    dump = text[begins[-1] :]
    heads = list(_THREAD.finditer(dump))
    if not heads:
        return []
    # the oldest thread comes last; in a crash, the one that crashed is marked
    head = next((each for each in heads if crash and each.group().startswith("Current")), heads[-1])
    end = next((each.start() for each in heads if each.start() > head.start()), len(dump))
    return [frame for frame in _frames(dump, head.end(), end) if not frame.file.startswith(_OURS)]


def line_in(frames: Iterable[Frame], filename: str) -> int:
    """Return the innermost line of a file, or 0."""
    return next((frame.line for frame in frames if frame.file == filename), 0)


def in_library(thread: threading.Thread) -> bool:
    """Tell whether a thread runs Python code of the standard library, or of a debugger, at this moment.

    What stands in the place of one of its functions is its code.
    """
    files = [frame.file for frame in frames_of(thread.ident)]
    ours = next((place for place, file in enumerate(files) if not file.startswith(_OURS)), len(files))
    file = "".join(files[ours : ours + 1] if not _STAND_INS.isdisjoint(files[:ours]) else files[:1])
    return (file.startswith(_LIBRARY) and "-packages" not in file) or "pydevd" in file
