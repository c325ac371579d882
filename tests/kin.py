"""The processes that serve this one: they are nobody's children, so that no ``wait()`` waits for them, and are known by their title."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from parmagic.workers.processes import hub


def titled(pid: int) -> Iterator[tuple[int, int, str]]:
    """Yield (process, parent, name) of the servers of a process, and of all that was forked from these."""
    mark = f"for={pid}\0".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            before, _, after = (folder / "stat").read_text().rpartition(")")
            if (folder / "cmdline").read_bytes().endswith(mark):
                yield int(folder.name), int(after.split()[1]), before.partition("(")[2]


def other_servers() -> list[int]:
    """Return what serves this process, or came from what did, and is neither its server, nor the next one, nor below them."""
    known = {each.pid for each in (hub._server, hub._next) if each is not None and each.alive()}
    return [pid for pid, parent, _ in titled(os.getpid()) if not {pid, parent} & known]
