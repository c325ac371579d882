"""A process that cannot be mistaken for another one: by a descriptor of it where the system has such, else by its number.

And what the system can be told of this one: its name, its limits.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from parmagic.system.descriptors import Descriptor, high, readable
from parmagic.system.real import sleep, waitpid

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
"""Numbers of Linux's :func:`prctl`."""

SERVER = "parmagic server"
"""What a server is called: by that, who runs below one knows."""

EVERY = 0.002
"""Seconds between two looks at a process where the system has no descriptor for it."""


def descriptor_of(pid: int) -> int:
    """Return a descriptor that becomes readable when this process ends; -1 where there is no such thing, or no such process."""
    try:
        return os.pidfd_open(pid)  # type: ignore[attr-defined, no-any-return, unused-ignore]
    except (AttributeError, OSError):
        return -1


class Handle:
    """A process, perhaps not a child of ours; ``descriptor`` is what :func:`descriptor_of` gives."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._closed = False
        self._descriptor = Descriptor(high(descriptor) if descriptor >= 0 else -1)

    def send(self, number: int) -> None:
        """Send it a signal; nothing where it has ended, or belongs to somebody else."""
        with suppress(OSError):
            if self._closed:
                return
            if self._descriptor.is_ours():
                signal.pidfd_send_signal(self._descriptor.number, number)  # type: ignore[attr-defined, unused-ignore]
            else:
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Tell whether it has ended after that many seconds at most; a child of ours is waited for, and leaves no zombie."""
        if self._closed:
            return True
        if not self._descriptor.is_ours():
            return self._has_gone_within(seconds)
        ended = readable(self._descriptor.number, seconds)
        if ended:
            with suppress(ChildProcessError):  # it is none of ours, or somebody who waits for all children was faster
                os.waitid(os.P_PIDFD, self._descriptor.number, os.WEXITED | os.WNOHANG)  # type: ignore[attr-defined, unused-ignore]
        return ended

    def _has_gone_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not (ended := self._has_gone()) and time.monotonic() < until:
            sleep(EVERY)
        return ended

    def _has_gone(self) -> bool:
        with suppress(ChildProcessError):
            return bool(waitpid(self.pid, os.WNOHANG)[0])
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    def close(self) -> None:
        """Let go of it."""
        self._closed = True
        self._descriptor.close()


def is_below(name: str) -> bool:
    """Tell whether a process of this name is our parent, its parent, or so on; False where the system does not show it."""
    pid = os.getppid()
    while pid > 1:
        try:
            before, _, after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        except OSError:
            return False
        if before.partition("(")[2] == name:
            return True
        pid = int(after.split()[1])
    return False


def raise_limit() -> tuple[int, int] | None:
    """Let this process open as many files as it may: two for every worker. Return the limit that workers are to have."""
    try:
        import resource  # noqa: PLC0415  (POSIX only)
    except ImportError:
        return None
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    return before


def restore_limit(files: tuple[int, int] | None) -> None:
    """Have the limit that :func:`raise_limit` has found."""
    if files is not None:
        import resource  # noqa: PLC0415  (POSIX only)

        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, files)


def name_after(entry: str) -> None:
    """Give this process the name of what it does: child, sampler."""
    call_me("parmagic " + entry.partition(":")[0].rpartition(".")[2])


def call_me(name: str) -> None:
    """Give this process a name that ``ps`` and ``top`` show, where the system has such (Linux, which keeps 15 characters of it)."""
    prctl(PR_SET_NAME, name.encode())


def prctl(option: int, value: int | bytes) -> None:
    """Call prctl where there is one (Linux)."""
    if sys.platform.startswith("linux"):
        argument = value if isinstance(value, bytes) else ctypes.c_ulong(value)
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
