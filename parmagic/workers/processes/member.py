"""One worker process, as the notebook knows it: its pipes, its files, what it printed."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from time import perf_counter
from typing import NamedTuple

from parmagic.model.progress import Printed
from parmagic.record import meter
from parmagic.system.descriptors import readable, socketpair
from parmagic.system.files import anonymous_file, keep_size
from parmagic.system.real import close_descriptor, read_descriptor
from parmagic.workers.lines import Lines
from parmagic.workers.processes import cwd
from parmagic.workers.processes.frames import Inbox
from parmagic.workers.processes.link import Order


class Heir(NamedTuple):
    """A worker that is to be started: its rank, what a dead one of it left undone, which comes first, and how often that was tried."""

    rank: int
    left: tuple[range, ...] = ()
    tried: dict[int, int] = {}  # noqa: RUF012  (nobody writes to it)
    replaces: bool = False


class Member:
    """One worker process, as the notebook knows it."""

    def __init__(self, heir: Heir, since: int = 0) -> None:
        self.rank = heir.rank
        self.left = heir.left
        self.tried = heir.tried
        self.replaces = heir.replaces
        self.since = since  # items before this one were claimed by the dead, where the board has a claim of this rank
        self.pid = 0
        self.key = 0
        self.done = False
        self.released = False  # it may begin
        self.overdue: int | None = None  # the item that it is to end for, as that is over its time,
        self.told = 0.0  # when it was told,
        self.began = 0.0  # and when it had begun to try that
        self.ended: int | None = None
        self.broken = False  # nothing comes from it any more,
        self.fault = ""  # or nothing that can be read, and why
        self.reported = -1  # the item behind the last one that was reported
        self.heard = perf_counter()
        self.order: Order | None = None  # by which the server was asked for it
        self.theirs: list[int] = []
        self.pipes: dict[int, tuple[str, Lines, codecs.IncrementalDecoder]] = {}
        self.box = self.stack = -1
        ours, theirs = socketpair()
        self.inbox = Inbox(ours, heir.rank)
        self.theirs.append(theirs.detach())

    @property
    def item_begun(self) -> float:
        """When its item began at the latest, as far as is known here: it may have been heard of after that."""
        return min(self.heard, self.began) if self.began else self.heard

    def open_files(self) -> None:
        """Make its black box, and the file for its last stack."""
        self.box = anonymous_file()
        os.ftruncate(self.box, meter.box_size())
        keep_size(self.box)
        self.stack = anonymous_file()

    def open_pipe(self, stream: str) -> int:
        """Return the worker's end of a new pipe for what it prints."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        self.pipes[read] = (stream, Lines(), codecs.getincrementaldecoder("utf-8")("replace"))
        self.theirs.append(write)
        return write

    def open_folder(self, otherwise: int) -> int:
        """Return a descriptor by which the worker enters the working directory; ``otherwise`` where there is none."""
        try:
            self.theirs.append(cwd.descriptor())
        except OSError:
            return otherwise
        return self.theirs[-1]

    def release(self) -> None:
        """Close the ends that only the worker needs."""
        while self.theirs:
            close_descriptor(self.theirs.pop())  # never twice: the number may be another file's by then

    def printed(self, descriptor: int) -> Iterator[Printed]:
        """Take what is in a pipe, and yield the lines that are whole now."""
        stream, lines, decoder = self.pipes[descriptor]
        try:
            data = read_descriptor(descriptor, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            del self.pipes[descriptor]
            close_descriptor(descriptor)
        if lines.full:
            lines.lost += len(data)
        elif text := lines.feed(decoder.decode(data, final=not data)):
            yield Printed(self.rank, stream, text)
        if not data and (last := lines.last(self.rank, stream)):
            yield last

    def last_prints(self) -> Iterator[Printed]:
        """Yield what an ended worker left in its pipes; children that it left behind may still hold them."""
        for descriptor in list(self.pipes):
            while descriptor in self.pipes and readable(descriptor):
                yield from self.printed(descriptor)
        for stream, lines, _ in self.pipes.values():
            if last := lines.last(self.rank, stream):
                yield last

    def close(self) -> None:
        """Give all of it back."""
        self.release()
        self.inbox.close()
        while self.pipes:
            close_descriptor(self.pipes.popitem()[0])
        files, self.box, self.stack = (self.box, self.stack), -1, -1
        for file in files:
            if file >= 0:
                close_descriptor(file)
