"""The processes that serve this one: they are nobody's children, so that no ``wait()`` waits for them, and are known by their title."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from parmagic.workers.processes import hub


def titled(pid: int) -> Iterator[tuple[int, int, str]]:
    """Yield (process, parent, name) of the servers of a process, and of all that was forked from these."""
    mark = f"for={pid}\0".encode()
    for each in filter(str.isdigit, os.listdir("/proc")):  # after every test, of every process of the machine: no more than it takes
        with suppress(OSError):
            if Path(f"/proc/{each}/cmdline").read_bytes().endswith(mark):
                before, _, after = Path(f"/proc/{each}/stat").read_text().rpartition(")")
                yield int(each), int(after.split()[1]), before.partition("(")[2]


def children(pid: int) -> set[int]:
    """Return a process's children, as the kernel lists them where it does: psutil would look at every process of the machine."""
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        return {child.pid for child in psutil.Process(pid).children()}
    found = set()
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found.update(map(int, listed.read_text().split()))
    return found


def other_servers() -> list[int]:
    """Return what serves this process, or came from what did, and is neither its server, nor the next one, nor below them."""
    known = {each.pid for each in (hub._server, hub._next) if each is not None and each.alive()}
    return [pid for pid, parent, _ in titled(os.getpid()) if not {pid, parent} & known]
