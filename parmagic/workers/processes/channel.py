"""A worker's way home: recordings, results, what is displayed."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from logging import LogRecord
from time import perf_counter
from typing import Any, Self

from parmagic.model import words
from parmagic.model.progress import BEHIND, Displayed, Standing
from parmagic.model.recording import Batch, Moved, Readings, Recording, Span, WorkerId
from parmagic.system import limits
from parmagic.system.descriptors import Descriptor, OwnSocket
from parmagic.system.real import Lock
from parmagic.workers.processes import home, ipython
from parmagic.workers.processes.frames import Outbox
from parmagic.workers.processes.portable import give_up_on_values, logged, portable
from parmagic.workers.processes.reader import Reader
from parmagic.workers.settings import logs

READ_ONLY = (
    "All worker processes share the memory of {names} without a copy, so it is read-only in the body: "
    "write to a copy (mine = name.copy()), or use threads."
)


class Channel:
    """The way home: recordings, results, what is displayed."""

    def __init__(self, sock: socket.socket, rank: int, needed: Sequence[Descriptor] = ()) -> None:
        self._sock = OwnSocket(sock)
        self._outbox = Outbox(self._sock, rank)
        self.me = WorkerId(rank, os.getpid(), 0)
        self._needed = needed
        self._lock = Lock()
        self._logged: deque[home.Parcel] = deque()
        self.spans: list[Span] = []
        self.reader: Reader | None = None
        self.shared: tuple[str, ...] = ()
        self.unpack_s = self._return_s = 0.0
        self._returned = 0
        ipython.shows(self.display)
        logs.sends(self.log)

    def __enter__(self) -> Self:
        """Be closed at the end of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self._sock.close()

    def send(self, what: Any) -> None:
        """Send anything that pickles."""
        self._send(home.pack(what))

    def _send(self, parcel: home.Parcel) -> None:
        with self._lock:
            self._sock.must_be_ours()
            home.send(self._outbox, parcel)
        self._send_logged()

    def log(self, handler: int, record: LogRecord) -> None:
        """Send what was logged to the notebook's handler."""
        self._logged.append(home.pack(logged(self.me.rank, handler, record), beside=False))
        self._send_logged()

    def _send_logged(self) -> None:
        """Send what was logged, unless somebody is sending, and does so behind that: what a finalizer logs may be logged within."""
        while self._logged and self._lock.acquire(blocking=False):
            try:
                self._sock.must_be_ours()
                home.send(self._outbox, self._logged.popleft())
            finally:
                self._lock.release()

    def display(self, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Send what is to be shown under the notebook's cell; in a process that the body has forked, print it: two would use one socket."""
        if os.getpid() != self.me.pid:
            print(data.get("text/plain", ""))  # noqa: T201
            return
        self.send(Displayed(self.me.rank, data, metadata))

    def tell(self, doing: str) -> None:
        """Say at once what this worker does behind its last item, and note it."""
        self.send(Recording(self.me, notes=(f"Worker {self.me.rank} had done its items, and did not end: {doing}",), noted=True))
        self.send(Standing(self.me.rank, BEHIND, 0, doing))

    def moved(self) -> Moved:
        """Return what went each way so far."""
        return Moved(self.reader.size if self.reader else 0, self.unpack_s, self._returned, self._return_s)

    def wait(self) -> None:
        """Wait for the gate to open."""
        self._sock.must_be_ours()
        if not self._sock.recv(1):
            raise EOFError

    def take_spans(self) -> tuple[Span, ...]:
        """Return the spans so far and forget them."""
        spans, self.spans = tuple(self.spans), []
        return spans

    def report(self, batch: Batch, readings: Readings) -> None:
        """Send a batch with its results, and note how long that took."""
        begin = perf_counter()
        for item, error in batch.errors.items():
            if self.shared and issubclass(type(error), ValueError) and "read-only" in words.message(error):
                words.add_note(error, READ_ONLY.format(names=", ".join(map(repr, self.shared))))
            batch.errors[item] = portable(ipython.understood(error))
        batch = replace(batch, values=home.Values(batch.values), errors=home.Errors(batch.errors) if batch.errors else {})
        spans = self.take_spans()
        try:
            parcel = home.pack(Recording(self.me, spans=spans, batches=(batch,), readings=readings))
        except BaseException:  # noqa: BLE001  (found and reported item by item)
            give_up_on_values(batch)
            parcel = home.pack(Recording(self.me, spans=spans, batches=(batch,), readings=readings))
        try:
            self._send(parcel)
        except OSError as error:
            if limits.why(error) is None:
                raise
            self._send(home.pack(Recording(self.me, spans=spans, batches=(batch,), readings=readings), beside=False))  # without a file
        for descriptor in self._needed:  # by what comes next
            descriptor.fileno()
        end = perf_counter()
        self.spans.append(Span("transfer", begin, end))
        self._returned += parcel.size
        self._return_s += end - begin
