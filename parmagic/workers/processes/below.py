"""What runs below a server: the ends of its children, and how to bring them about."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from parmagic.system.real import sleep

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


def name_of(pid: int) -> str:
    """Return what a process is called; empty where it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
