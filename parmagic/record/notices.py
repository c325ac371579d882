"""Where processes of an arm tell each other of locks: who waits for what, in a row of memory for each, and whose waits end, in one more.

::

    worker, in a wait that is long ── its waits and locks ──▶ its row ──▶ notebook
    worker, in such a wait ◀── its row ◀── whose waits end, and why ── notebook

Each row has one writer. Who reads while it is written to reads nothing, and reads again.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple
from zlib import crc32

from parmagic.record.waiting import Held, Waiter

_HEAD = struct.Struct("=qII")
"""How often a row was written; then how many bytes that are, and their checksum."""

ROOM = 1 << 14
"""Bytes of a row, whose first are the head's."""

MOST = ROOM - _HEAD.size
"""Bytes that may stand in it."""

Told = tuple[int, int, float]
"""A wait: the rank, the handle of the thread's account, and since when."""


class Notice(NamedTuple):
    """What a worker tells: when, by which process, and of its threads.

    ``still`` are the handles of those that wait, where none of its threads goes on by itself. ``called`` is what things are called that
    are waited for, ``who`` who waits, ``why`` what is to be said of the thing, by the handles of those who wait.
    """

    at: float
    pid: int
    still: list[int]
    threads: list[Waiter]
    called: dict[int, str]
    who: dict[int, str]
    why: dict[int, str]


class Verdict(NamedTuple):
    """Waits that end, with what; ``stuck`` where they are in no circle."""

    told: list[Told]
    stuck: bool
    text: str


def size(workers: int) -> int:
    """Return how many bytes all rows take: those of so many workers, and the notebook's behind them."""
    return (workers + 1) * ROOM


def row(notice: Notice) -> bytes:
    """Return what stands in a worker's row."""
    threads = [each._replace(thing=None, lost=[]) for each in notice.threads]
    return json.dumps([notice.at, notice.pid, notice.still, threads, *([*names.items()] for names in notice[4:])]).encode()


def notice_in(data: bytes) -> Notice | None:
    """Return what a worker tells; None where nothing that can be read stands there."""
    try:
        at, pid, still, threads, *names = json.loads(data)
        called, who, why = map(dict, names)
        return Notice(at, pid, still, [_waiter(each) for each in threads], called, who, why)
    except (ValueError, TypeError):  # a body may have written there
        return None


def _waiter(fields: Sequence[Any]) -> Waiter:
    waiter = Waiter._make(fields)
    return waiter._replace(held=[Held._make(each) for each in waiter.held])


def verdicts(all_of_them: Sequence[Verdict]) -> bytes:
    """Return what stands in the notebook's row."""
    return json.dumps(all_of_them).encode()


def verdicts_in(data: bytes) -> list[Verdict]:
    """Return which waits end; none where nothing that can be read stands there."""
    try:
        return [Verdict([(rank, serial, since) for rank, serial, since in told], stuck, text) for told, stuck, text in json.loads(data)]
    except (ValueError, TypeError):
        return []


NEVER = bytes(8)
"""How often a row was written to that nobody has written to."""


def parts(data: bytes, times: int) -> list[tuple[int, bytes]]:
    """Return what to write into a row that is written for the ``times``-th time, in this order, and where in it."""
    head = _HEAD.pack(times, len(data), crc32(data))
    return [(_HEAD.size, data), (8, head[8:]), (0, head[:8])]


def read(whole: bytes | memoryview) -> bytes:
    """Return what stands in a row; nothing where it is being written to."""
    _, length, checksum = _HEAD.unpack_from(whole)
    data = bytes(whole[_HEAD.size : _HEAD.size + length])
    return data if crc32(data) == checksum else b""


class Row:
    """A worker's own row, and the notebook's, in memory that is mapped here."""

    def __init__(self, memory: memoryview, rank: int, count: int) -> None:
        self._mine = memory[rank * ROOM : (rank + 1) * ROOM]
        self._notebooks = memory[count * ROOM : (count + 1) * ROOM]
        self.told = self._notebooks[:8]
        self._times = 0

    def tell(self, notice: Notice) -> None:
        """Have the notebook know; nothing where that is too much."""
        data = row(notice)
        if len(data) > MOST:
            return
        self._times += 1
        for at, part in parts(data, self._times):
            self._mine[at : at + len(part)] = part

    def verdicts(self) -> list[Verdict]:
        """Return which waits the notebook ends."""
        return verdicts_in(read(self._notebooks)) if self.told != NEVER else []
