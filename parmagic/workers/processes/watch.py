"""The notebook's end of the sampler."""

from __future__ import annotations

import os
from itertools import count

from parmagic.errors import WorkerDied
from parmagic.model.recording import Samples, WorkerId
from parmagic.record import hooks, sampler
from parmagic.system.descriptors import OwnConnection, high, socketpair
from parmagic.system.real import Lock
from parmagic.workers.processes import hub

READY_LIMIT = 2.0
"""Seconds to wait for a sampler that starts on a busy machine; about 0.1 on an idle one."""

ANSWER_LIMIT = 0.5
"""Seconds to wait for samples."""


class Watch:
    """Samples the workers of arms; one process, kept between runs.

    Arms of runs in several threads share it: what each is told, and asked for, names the arm.
    """

    def __init__(self) -> None:
        self._connection: OwnConnection | None = None
        self._server: hub.Hub | None = None
        self._talking = Lock()
        self._arms = count(1)
        self._watched: set[int] = set()
        self._ready = False

    def warm(self) -> None:
        """Start the sampler, so that it is there when the first arm begins."""
        if sampler.supported():
            server = hub.get()  # not while we hold our lock: it warms us when it is new
            with self._talking:
                self._connect(server)

    def wait_until_ready(self) -> None:
        """Wait for a sampler that is only just starting, so that the first run of a session has these figures as well.

        Threads need nothing else of another process: where there is none, they run, and their waits are not known.
        """
        try:
            self.warm()
        except (OSError, WorkerDied):
            return
        with self._talking:
            if not self._ready and self._connection is not None and self._connection.poll(READY_LIMIT):
                try:
                    self._connection.recv()
                    self._ready = True
                except (OSError, EOFError):
                    self._drop()  # the server is gone as well, which says why

    def arm(self) -> int:
        """Return a number for an arm, by which its workers are added and its samples taken."""
        return next(self._arms)

    def add(self, arm: int, worker: WorkerId) -> None:
        """Watch this worker of an arm from now on."""
        if not sampler.supported():
            return
        try:
            server = hub.get()
            with self._talking:
                self._connect(server).send((arm, worker))
                self._watched.add(arm)
        except (OSError, WorkerDied):
            self._drop()

    def take(self, arm: int) -> dict[int, Samples]:
        """Return an arm's samples by rank and stop watching its workers."""
        with self._talking:
            if self._connection is None or arm not in self._watched:
                return {}
            self._watched.remove(arm)
            try:
                self._connection.send((arm, None))
                while self._connection.poll(ANSWER_LIMIT):
                    answer: tuple[int, dict[int, Samples]] | str = self._connection.recv()
                    if not isinstance(answer, str):
                        return answer[1]
            except (OSError, EOFError):
                pass  # it is gone: the waits of this arm are not known, and the next arm starts a new one
            except BaseException:
                self._drop()  # an interrupt within a message: what comes next could not be read
                raise
            self._drop()
            return {}

    def _connect(self, server: hub.Hub) -> OwnConnection:
        if self._connection is None or self._server is None or self._is_left_behind(server):
            ours, theirs = socketpair()
            server.start("parmagic.record.sampler:main", None, [theirs.fileno()])
            theirs.close()
            self._drop()
            self._connection, self._server, self._ready = OwnConnection(high(ours.detach())), server, False
        return self._connection

    def _is_left_behind(self, server: hub.Hub) -> bool:
        """Tell whether the sampler is below a server that another has taken the place of, and watches nobody, or has ended with it."""
        return self._server is not server and not (self._watched and self._server is not None and self._server.alive())

    def _drop(self) -> None:
        self._watched.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


watch = Watch()


def _in_child() -> None:
    """Know nothing of the sampler of the process that this one was forked from, in which another thread may have been talking to it."""
    Watch.__init__(watch)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _warm() -> None:
    if hooks.why_inferred():
        watch.warm()


hub.at_launch.append(_warm)  # where waits are inferred, the sampler is the first that a server starts
