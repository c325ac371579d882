"""What runs below a server, or a worker: the ends of its children, and how to bring them about, or wait for them."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from parmagic.system.real import Poll, close_descriptor, sleep
from parmagic.workers.processes.handle import descriptor_of

MERCY = 5.0
"""Seconds until a server goes away beside processes that do not end though they were killed."""


def ended() -> Iterator[tuple[int, int, float]]:
    """Yield (pid, status, CPU seconds) of every child that has ended."""
    while True:
        try:
            pid, status, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, status, used.ru_utime + used.ru_stime


def killed(pid: int) -> bool:
    """Kill a process; False where it is another user's by now (it ran a set-user-ID program), and we may not."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def end_descendants(keep: set[int]) -> set[int]:
    """Kill all children of this process but ``keep``: workers at the end, what dead workers left. Return those that may not be killed."""
    return {pid for pid in children() - keep if not killed(pid)}


def end_all(keep: set[int]) -> None:
    """Kill all children of this process but ``keep``, and theirs, which become its own when their parents have ended."""
    immune, until = set(keep), time.monotonic() + MERCY
    while children() - immune and time.monotonic() < until:
        immune |= end_descendants(immune)
        if not any(True for _ in ended()):
            sleep(0.001)


def children() -> set[int]:
    """Return the children of this process; none where the system does not tell."""
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    except OSError:
        return set()  # no /proc (macOS): what workers start ends by itself


def all_children() -> set[int]:
    """Return the children of all threads of this process; none where the system does not tell."""
    found: set[int] = set()
    with suppress(OSError):  # without a child, the first line ends it
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # it has ended
                found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


_HELPERS = (b"resource_tracker", b"multiprocessing.forkserver")
_OURS = ("parmagic server", "parmagic sample")  # as the system cuts them short


def is_helper(pid: int) -> bool:
    """Tell whether a process is one that serves multiprocessing, joblib or a run of ours, and ends behind those that it serves."""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return name_of(pid).startswith(_OURS) or any(each in command for each in _HELPERS)
    return True


def outlasting(pids: Iterable[int], until: float) -> list[int]:
    """Wait for processes, until that moment of the monotonic clock; return those that go on then. None of them is reaped."""
    poll, going = Poll(), {}
    for pid in pids:
        if (end := descriptor_of(pid)) >= 0:
            poll.register(end, select.POLLIN)
            going[end] = pid
    try:
        while going:
            left = until - time.monotonic()
            ended = poll.poll(max(0.0, left) * 1e3)
            for end, _ in ended:
                poll.unregister(end)
                del going[end]
                close_descriptor(end)
            if left <= 0 and not ended:
                break
        return list(going.values())
    finally:
        for end in going:
            close_descriptor(end)


def name_of(pid: int) -> str:
    """Return what a process is called; empty where it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
