"""What VizTracer has recorded, as bytes: without the names of threads, and by a file of the run where it is large."""

from __future__ import annotations

import mmap
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from parmagic.model.private import Private, say
from parmagic.model.recording import on_our_clock
from parmagic.record.profiler import Profiler
from parmagic.system.files import RunFile, anonymous_file
from parmagic.system.interrupts import held_back

SMALL = 1 << 18
"""Bytes up to which what was recorded needs no file: it comes with a worker's last words."""

_NAMED = b'{"ph":"M"'
_CALL = b'"ph":"X"'
_OVERFLOWED, _TAIL = b'"overflow":true', 200
_ENDED = re.compile(rb'"ts":([\d.]+),"ph":"X","cat":"fee","dur":([\d.]+)')


def dump(profiler: Profiler) -> bytes:
    """Return what was recorded, which VizTracer only writes to files: one in memory, where the system has such.

    An OSError or ValueError where that is not possible; the latter is VizTracer's, where it cannot open the file.
    """
    with held_back(), _file_with_a_path() as (file, path):
        profiler.dump(path)
        _leave_names_out(file.fileno())
        file.seek(0)
        return bytes(file.read())


def write(data: bytes, file: RunFile) -> str:
    """Write what was recorded to a private file of the run; return its path, or raise an OSError."""
    with held_back():
        descriptor, path = file.create()
        with open(descriptor, "wb") as stream:  # noqa: PTH123
            stream.write(data)
    return path


def unwritten(error: OSError | ValueError) -> str:
    """Say why there is nothing."""
    why = Private(str(error), getattr(error, "strerror", None) or type(error).__name__)  # without the paths
    return say("The functions that were traced could not be written: {why}.", why=why)


def calls(data: bytes) -> int:
    """Count the calls of a recording."""
    return data.count(_CALL)


def overflowed(data: bytes) -> bool:
    """Tell whether VizTracer says that there were more."""
    return _OVERFLOWED in data[-_TAIL:]


def first_end(data: bytes, anchors: tuple[tuple[float, float], tuple[float, float]]) -> float | None:
    """Return when the first call of a recording ended, on our clock: VizTracer writes calls in the order of their ends."""
    first = _ENDED.search(data)
    return on_our_clock(anchors, float(first[1]) + float(first[2])) if first else None


def _leave_names_out(file: int) -> None:
    """Blank what VizTracer says of threads and processes: they may be called after an item; who is who, we know better."""
    with mmap.mmap(file, 0) as data:
        begin = data.find(b"[") + 1
        if data[begin : begin + len(_NAMED)] == _NAMED:
            first = data.find(b',{"pid":')  # no name can have this in it: its quotes have backslashes
            end = first + 1 if first >= 0 else data.rfind(b"]")
            data[begin:end] = b" " * (end - begin)


@contextmanager
def _file_with_a_path() -> Iterator[tuple[IO[bytes], str]]:
    if Path("/dev/fd").exists():  # a link into /proc
        with open(anonymous_file(), "rb") as memory:  # noqa: PTH123
            yield memory, f"/dev/fd/{memory.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(prefix="parmagic-") as file:
            yield file, file.name
