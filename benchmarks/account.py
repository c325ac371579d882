"""Whether every second is accounted for: the largest unknown share of any worker, for all kinds of work.

    python benchmarks/account.py

Each kind of work runs with 1, 2, 4 and 16 workers, tracing off. A cell of the table is the
largest share of its wall time that any worker's row calls unknown, in percent, and behind it
that of blocking in the kernel below the hooks, which is known as such and has no name.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import queue
import random
import socket
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from common import where

import parmagic
from parmagic.record import hooks

BLOCK = bytes(1 << 22)
LOCK = threading.Lock()
THINGS: queue.Queue[int] = queue.Queue(4)
BETWEEN: Any = multiprocessing.get_context("forkserver").Queue(4)


def loop(_: int) -> int:
    """Run pure Python."""
    return sum(range(400_000))


def sha(_: int) -> str:
    """Hash a big buffer."""
    return hashlib.sha256(BLOCK).hexdigest()


def pack(_: int) -> int:
    """Compress a big buffer."""
    return len(zlib.compress(BLOCK[: 1 << 20]))


def numpy_work(_: int) -> float:
    """Multiply matrices."""
    a = np.ones((300, 300))
    return float((a @ a @ a).sum())


def nap(_: int) -> None:
    """Sleep."""
    time.sleep(0.01)


def echo(_: int) -> None:
    """Talk to an echo server in a thread of its own."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        while data := theirs.recv(64):
            time.sleep(0.0005)
            theirs.sendall(data)

    server = threading.Thread(target=serve)
    server.start()
    for _each in range(10):
        ours.sendall(b"x")
        ours.recv(64)
    ours.close()
    server.join()
    theirs.close()


def pass_on(number: int) -> None:
    """Put into a queue, or take out of it."""
    for each in range(200):
        if number % 2:
            THINGS.put(each)
        else:
            THINGS.get()


def hold(_: int) -> None:
    """Hold a lock."""
    with LOCK:
        time.sleep(0.001)


def pass_between(number: int) -> None:
    """Put into a queue between processes, or take out of it."""
    for each in range(200):
        if number % 2:
            BETWEEN.put(each)
        else:
            BETWEEN.get()


def mix(number: int) -> None:
    """Do something of everything, in an order of its own."""
    kinds = [loop, sha, pack, numpy_work, nap, echo, hold]
    random.Random(number).shuffle(kinds)
    for kind in kinds:
        kind(number)


def worst(work: Callable[[int], object], models: str, items: int) -> str:
    """Return the largest unknown share of any worker, and the largest one without a name, in percent."""
    run = parmagic.run(work, range(items), models, once=True, trace="off", chunk=1)
    wall = run.workers["wall_s"]
    nameless = run.waits[run.waits["kind"] == "not named"].groupby(level=["arm", "rank"])["total_s"].sum()
    return f"{100 * (run.workers['unknown_s'] / wall).max():.2f} {100 * (nameless / wall).fillna(0).max():5.2f}"


def main() -> None:
    """Print the table."""
    why = hooks.why_inferred()
    if why:
        raise SystemExit(f"waits are not measured here: {why}")
    print(where(), "- the largest share of any worker that is unknown, and that has no name, %")
    contests: list[tuple[str, str, Callable[[int], object], int]] = [
        ("pure Python", "threads", loop, 48),
        ("pure Python", "procs", loop, 48),
        ("sha256", "threads", sha, 48),
        ("zlib", "threads", pack, 48),
        ("NumPy", "threads", numpy_work, 96),
        ("sleep", "threads", nap, 64),
        ("sleep", "procs", nap, 64),
        ("socket echo", "threads", echo, 32),
        ("queue.Queue", "threads", pass_on, 16),
        ("contended Lock", "threads", hold, 128),
        ("multiprocessing.Queue", "procs", pass_between, 16),
        ("a mix of all", "threads", mix, 32),
    ]
    print(f"{'':24}{'':10}{1:>13}{2:>13}{4:>13}{16:>13} workers")
    for title, model, work, items in contests:
        alone = 1 if work in {pass_on, pass_between} else 0  # a producer needs its consumer
        # of those that pass things on, there is a worker for each: nobody waits for one that has not begun
        cells = ["–" if count <= alone else worst(work, f"{model}={count}", count if alone else items) for count in (1, 2, 4, 16)]
        print(f"{title:24}{model:10}" + "".join(f"{cell:>13}" for cell in cells))


if __name__ == "__main__":
    main()
