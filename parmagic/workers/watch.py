"""The notebook's end of the sampler."""

from __future__ import annotations

import socket
from multiprocessing.connection import Connection

from parmagic import sampler
from parmagic.errors import WorkerDied
from parmagic.model import Samples, WorkerId
from parmagic.workers import hub

READY_LIMIT = 2.0
"""Seconds to wait for a sampler that starts on a busy machine; about 0.1 on an idle one."""

ANSWER_LIMIT = 0.5
"""Seconds to wait for samples."""


class Watch:
    """Samples the workers of one arm after another; one process, kept between runs."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._server: hub.Hub | None = None
        self._watching = False
        self._ready = False

    def warm(self) -> None:
        """Start the sampler, so that it is there when the first arm begins."""
        if sampler.supported():
            self._connect()

    def wait_until_ready(self) -> None:
        """Wait for a sampler that is only just starting: the first run of a session shall have its figures, too."""
        self.warm()
        if not self._ready and self._connection is not None and self._connection.poll(READY_LIMIT):
            self._connection.recv()
            self._ready = True

    def add(self, worker: WorkerId) -> None:
        """Watch this worker from now on."""
        if not sampler.supported():
            return
        try:
            self._connect().send(worker)
            self._watching = True
        except (OSError, WorkerDied):
            self._drop()

    def take(self) -> dict[int, Samples]:
        """Return the samples by rank since the last call, and watch nobody."""
        if self._connection is None or not self._watching:
            return {}
        self._watching = False
        try:
            self._connection.send(None)
            while self._connection.poll(ANSWER_LIMIT):
                answer: dict[int, Samples] | str = self._connection.recv()
                if not isinstance(answer, str):
                    return answer
        except (OSError, EOFError):
            pass  # it is gone: the waits of this arm are not known, and the next arm starts a new one
        self._drop()
        return {}

    def _connect(self) -> Connection:
        server = hub.get()  # a new one has us warmed already
        if self._connection is None or self._server is not server:
            ours, theirs = socket.socketpair()
            server.start("parmagic.sampler:main", None, [theirs.fileno()])
            theirs.close()
            self._connection, self._server, self._ready = Connection(ours.detach()), server, False
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


watch = Watch()
