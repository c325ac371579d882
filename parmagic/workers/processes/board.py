"""The board of an arm of processes: its file, and how the notebook sees it. Behind it lie the rows in which they tell each other of locks.

A file that can be sealed has its size for good, and is mapped. Where there is no such, a worker
may cut it short, and who touches mapped memory that is not there any more is killed (SIGBUS):
workers do, and are reported; the notebook reads and writes by calls, and finds out.
"""

from __future__ import annotations

import mmap
import os
from array import array

from parmagic.errors import WorkerDied
from parmagic.record import notices
from parmagic.record.board import Board, blank_board, board_size, rank_of
from parmagic.system.files import anonymous_file, keep_size, write_all
from parmagic.system.real import close_descriptor

_SIZE = array("q").itemsize


class BoardFile:
    """A board in memory that processes share; ``places`` is the board, ``file`` what workers map.

    Blank, and nobody's, before it is opened and after it is closed.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._map: mmap.mmap | None = None
        self.places: Board = blank_board(workers)
        self.file = -1

    def open(self) -> None:
        """Make the file."""
        self.file = anonymous_file()
        write_all(self.file, memoryview(blank_board(self._workers)).cast("B"), 0)
        os.ftruncate(self.file, self._rows + notices.size(self._workers))  # of which no page is used before it is written to
        if keep_size(self.file):
            self._map = mmap.mmap(self.file, self._rows)
            self.places = memoryview(self._map).cast("q")
        else:
            self.places = ByCalls(self.file)

    @property
    def _rows(self) -> int:
        return _SIZE * board_size(self._workers)

    def told(self, rank: int, before: bytes = b"") -> tuple[bytes, bytes]:
        """Return how often a worker has written to its row, as 8 bytes, and what; nothing where that is as often as ``before``."""
        place = self._rows + rank * notices.ROOM
        times = os.pread(self.file, len(notices.NEVER), place)
        if times in {before, notices.NEVER, b""}:
            return times, b""
        whole = os.pread(self.file, notices.ROOM, place)
        return times, notices.read(whole) if len(whole) == notices.ROOM else b""

    def tell(self, times: int, data: bytes) -> None:
        """Write to the notebook's row, for the ``times``-th time."""
        for at, part in notices.parts(data, times):
            os.pwrite(self.file, part, self._rows + self._workers * notices.ROOM + at)

    def close(self) -> None:
        """Give the memory back."""
        places, self.places = self.places, blank_board(self._workers)
        if isinstance(places, memoryview):
            places.release()
        if self._map is not None:
            self._map.close()
        if self.file >= 0:
            close_descriptor(self.file)
            self.file = -1


class ByCalls:
    """A board in a file that may become shorter at any time."""

    def __init__(self, file: int) -> None:
        self._file = file

    def __getitem__(self, place: int, /) -> int:
        """Read a place; WorkerDied where it is not there any more."""
        data = os.pread(self._file, _SIZE, _SIZE * place)
        if len(data) < _SIZE:
            raise WorkerDied(
                f"What worker {rank_of(place)} was on cannot be told: it, or another worker, has cut short the memory that they share "
                "(does the body truncate or close descriptors that it has not opened?)."
            )
        return array("q", data)[0]

    def __setitem__(self, place: int, value: int, /) -> None:
        """Write a place."""
        os.pwrite(self._file, array("q", [value]), _SIZE * place)
