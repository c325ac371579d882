"""How a worker ended before its time: in words, and as a recording of the item that it was in."""

from __future__ import annotations

import signal
from array import array

from parmagic.meter import Left
from parmagic.model import Batch, Recording, WorkerId
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


def how_it_ended(code: int, when: str) -> str:
    """Say in words how a process ended, and ``when`` (in item 3), with the likely cause."""
    if code >= 0:
        return f"ended with exit code {code} {when}" + ("" if code else " (did the body call os._exit?)")
    known = {int(each): each.name for each in signal.Signals}
    name = known.get(-code, f"signal {-code}")
    cause = {
        int(signal.SIGKILL): "; most often the system ran out of memory",
        int(signal.SIGSEGV): "; a C extension crashed",
        int(signal.SIGABRT): "; a C library gave up",
        int(signal.SIGBUS): "; a memory-mapped file shrank, or shared memory is full",
    }.get(-code, "")
    return f"was killed by {name} {when}{cause}"


def cut_off(me: WorkerId, item: int, left: Left, now: float, error: BaseException, note: str = "") -> Recording:
    """Report an item that did not come to its end."""
    begin, readings, totals = left
    batch = Batch(item, array("d", [begin]), array("d", [max(begin, now)]), [None], {item: error})
    return Recording(me, batches=(batch,), readings=readings, totals=totals, notes=(note,) if note else ())
