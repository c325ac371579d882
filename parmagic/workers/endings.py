"""How a worker process ended, in words."""

from __future__ import annotations

import signal

from parmagic.workers.stack import Frame


def where(stack: list[Frame], filename: str, most: int = 5) -> str:
    """Say where a crashed worker was: its innermost frames, up to the cell's."""
    words = []
    for frame in stack[:most]:
        in_cell = frame.file == filename
        words.append(f"line {frame.line} of the body" if in_cell else f"{frame.name} ({frame.file}:{frame.line})")
        if in_cell:
            break
    return ", called from ".join(words)


def how_it_ended(code: int) -> str:
    """Say in words how a process ended, with the likely cause."""
    if code >= 0:
        return f"ended with exit code {code}" + ("" if code else " (did the body call os._exit?)")
    known = {int(each): each.name for each in signal.Signals}
    name = known.get(-code, f"signal {-code}")
    cause = {
        int(signal.SIGKILL): "; most often the system ran out of memory",
        int(signal.SIGSEGV): "; a C extension crashed",
        int(signal.SIGABRT): "; a C library gave up",
        int(signal.SIGBUS): "; a memory-mapped file shrank, or shared memory is full",
    }.get(-code, "")
    return f"was killed by {name}{cause},"
