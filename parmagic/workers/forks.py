"""What processes print that a body has forked in a thread of this one: they have its memory, but no way back to it. A pipe is one.

::

    forked process ── piece, piece, … ──▶ pipe ──▶ lines of that process, as its worker's

Each piece goes in one write that the system does not divide, whoever else writes. When the
run is over, nobody reads any more, and what they print goes where this process prints.
"""

from __future__ import annotations

import os
import select
import struct
from codecs import IncrementalDecoder, getincrementaldecoder
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from parmagic.model.progress import Printed
from parmagic.system.descriptors import Descriptor, high
from parmagic.system.real import Lock, read_descriptor, write_descriptor
from parmagic.workers.lines import MOST, Lines

_STREAMS = ("stdout", "stderr")
_HEAD = struct.Struct("=iiBH")  # process, rank, stream, bytes of text
_PIECE = getattr(select, "PIPE_BUF", 512) - _HEAD.size
_WHOLE = 1 << 20
"""Bytes that the pipe holds, where it can be made to: so much can be printed between two looks at it."""

_open: list[Forks] = []


class Forks:
    """The way back from what the workers of one run fork."""

    def __init__(self, emit: Callable[[Printed], None]) -> None:
        self._emit = emit
        self.here = True  # not in what was forked
        self._ends: tuple[Descriptor, Descriptor] | None = None
        self._opening = Lock()
        self._rest = b""
        self._lines: dict[tuple[int, int, str], tuple[IncrementalDecoder, Lines]] = {}
        self._shown: Counter[tuple[int, str]] = Counter()

    def open(self) -> None:
        """Before a fork: have a way; nothing where no descriptor is left."""
        if self._ends is not None:
            return
        with self._opening, suppress(OSError):
            if self._ends is None:
                read, write = (Descriptor(high(end)) for end in os.pipe())
                os.set_blocking(read.number, False)
                _widen(write.number)
                _open.append(self)
                self._ends = read, write

    def send(self, rank: int, stream: str, data: bytes) -> bool:
        """In a forked process: send what is printed there; False where nobody takes it."""
        if self._ends is None or not self._ends[1].is_ours():
            return False
        for begin in range(0, len(data), _PIECE):
            piece = data[begin : begin + _PIECE]
            try:
                write_descriptor(self._ends[1].number, _HEAD.pack(os.getpid(), rank, _STREAMS.index(stream), len(piece)) + piece)
            except OSError:
                return False
        return True

    def take(self) -> None:
        """Emit what has come; at most what the pipe holds, so that this has an end."""
        if self._ends is None:
            return
        left = _WHOLE
        while left > 0 and (data := self._read()):
            left -= len(data)
            for process, rank, stream, text in self._pieces(data):
                self._print(process, rank, stream, text)

    def _read(self) -> bytes:
        assert self._ends is not None
        with suppress(OSError):  # nothing is there
            return read_descriptor(self._ends[0].fileno(), 1 << 16)
        return b""

    def _pieces(self, data: bytes) -> Iterator[tuple[int, int, str, bytes]]:
        """Yield (process, rank, stream, bytes), and keep what is there of one that has not come to its end."""
        data = self._rest + data
        begin = 0
        while begin + _HEAD.size <= len(data):
            process, rank, stream, size = _HEAD.unpack_from(data, begin)
            end = begin + _HEAD.size + size
            if end > len(data):
                break
            yield process, rank, _STREAMS[stream], data[begin + _HEAD.size : end]
            begin = end
        self._rest = data[begin:]

    def _print(self, process: int, rank: int, stream: str, data: bytes) -> None:
        key = process, rank, stream
        if key not in self._lines:
            self._lines[key] = getincrementaldecoder("utf-8")("replace"), Lines()
        decoder, lines = self._lines[key]
        if self._shown[rank, stream] > MOST:  # of all that this worker has forked
            lines.lost += len(data)
        elif whole := lines.feed(decoder.decode(data)):
            self._shown[rank, stream] += len(whole)
            self._emit(Printed(rank, stream, whole))

    def close(self) -> None:
        """At the run's end: take what is there, also lines that nobody ended, and let go of the way; once."""
        self.take()
        while self._lines:
            (_, rank, stream), (_, lines) = self._lines.popitem()
            if last := lines.last(rank, stream):
                self._emit(last)
        ends, self._ends = self._ends, None
        if ends is not None:
            _open.remove(self)
            for end in ends:
                end.close()

    def leave(self) -> None:
        """In a forked process: only send from now on."""
        self.here = False
        if self._ends is not None:  # else the notebook would not be seen to have let go of it
            self._ends[0].close()


def leave_all() -> None:
    """In a forked process: only send, to whichever run."""
    for each in _open:
        each.leave()


def _widen(descriptor: int) -> None:
    with suppress(ImportError, AttributeError, OSError):
        import fcntl  # noqa: PLC0415  (POSIX only)

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _WHOLE)
