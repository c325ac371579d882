"""Workers that wait for each other in all ways in which somebody comes in the end: no wait of theirs may be taken for a deadlock.

Longer than pytest should take::

    python tests/soak_locks.py --seconds 600

``test_soak.py`` runs it for some seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import functools
import gc
import importlib
import logging
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import parmagic

LONG = 1.3
"""Seconds: what stands still is found within less."""

Body = Callable[[int], Any]


def timed(chance: random.Random, count: int) -> Body:
    """All waits have an end of their own."""
    lock, cond, event, permits, jobs = threading.Lock(), threading.Condition(), threading.Event(), threading.Semaphore(1), queue.Queue[int]()
    seconds = [[chance.uniform(0, 0.4) for _ in range(5)] for _ in range(count)]

    def body(n: int) -> int:
        for each in seconds[n]:
            if lock.acquire(timeout=each):
                time.sleep(each / 2)
                lock.release()
            with cond:
                cond.wait(each)
            event.wait(each)
            if permits.acquire(timeout=each):
                permits.release()
            try:
                jobs.get(timeout=each)
            except queue.Empty:
                jobs.put(n)
        return n

    return body


def asleep(_chance: random.Random, count: int) -> Body:
    """All but one wait for it, and it is asleep."""
    lock, cond, ready, done = threading.Lock(), threading.Condition(), [False], threading.Event()

    def body(n: int) -> int:
        if n == 0:
            with lock:
                time.sleep(LONG)
            with cond:
                ready[0] = True
                cond.notify_all()
            time.sleep(LONG)
            done.set()
        with lock:
            pass
        with cond:
            cond.wait_for(lambda: ready[0])
        done.wait()
        return n

    return body if count > 1 else str  # type: ignore[return-value]


def turns(_chance: random.Random, count: int) -> Body:
    """Plain locks say whose turn it is: who waits has taken its lock itself, and another one lets go of it."""
    locks = [threading.Lock() for _ in range(count)]
    for lock in locks[1:]:
        lock.acquire()

    def body(n: int) -> int:
        for _ in range(2):
            locks[n].acquire()
            time.sleep(LONG / 3)
            locks[(n + 1) % count].release()
        return n

    return body


def switch(_chance: random.Random, _count: int) -> Body:
    """Readers and writers: the first reader takes the room, the last one leaves it, and a writer holds a turnstile while it waits for that."""
    gate, room, mutex, inside = threading.Lock(), threading.Lock(), threading.Lock(), [0]

    def read(seconds: float) -> None:
        gate.acquire()
        gate.release()
        mutex.acquire()
        inside[0] += 1
        if inside[0] == 1:
            room.acquire()
        mutex.release()
        time.sleep(seconds)
        mutex.acquire()
        inside[0] -= 1
        if not inside[0]:
            room.release()
        mutex.release()

    def body(n: int) -> int:
        if n == 0:
            time.sleep(0.2)
            gate.acquire()
            room.acquire()
            room.release()
            gate.release()
            return n
        for k in range(3):
            read(LONG if n == 1 and not k else 0.1)
        return n

    return body


def below(chance: random.Random, _count: int) -> Body:
    """Threads, timers and pools that bodies start wake their workers, in their time."""
    late = chance.uniform(0.1, LONG)

    def body(n: int) -> int:
        done, end = threading.Event(), threading.Lock()
        end.acquire()
        threading.Timer(late, done.set).start()
        done.wait()
        thread = threading.Thread(target=lambda: (time.sleep(late), end.release()))
        thread.start()
        end.acquire()
        thread.join()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first = pool.submit(time.sleep, late)
            assert sum(pool.map(lambda k: k, range(10))) == 45
            first.result()
        return n

    return body


def stages(chance: random.Random, count: int) -> Body:
    """Queues of all sorts hand on what a slow worker makes."""
    kinds = [lambda: queue.Queue(1), queue.SimpleQueue, lambda: queue.PriorityQueue(2), queue.LifoQueue]
    between: list[Any] = [chance.choice(kinds)() for _ in range(count)]

    def body(n: int) -> int:
        for k in range(3):
            if n == 0:
                time.sleep(LONG / 2)
            else:
                assert between[n - 1].get() is not None
            if n < count - 1:
                between[n].put(k)
        return n

    return body


def deep(_chance: random.Random, count: int) -> Body:
    """An RLock is taken again and again, and let go of wholly by its condition; others keep an order."""
    again, forks, ready = threading.RLock(), [threading.Lock() for _ in range(count + 1)], [0]
    cond = threading.Condition(again)

    def body(n: int) -> int:
        with again, again, cond:
            ready[0] += 1
            cond.notify_all()
            cond.wait_for(lambda: ready[0] >= count)
        for _ in range(20):
            with forks[n], forks[n + 1], again, again:
                time.sleep(0.002)
        return n

    return body


class _Late:
    """What takes a lock when it is collected, wherever that is."""

    lock = threading.RLock()

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        with self.lock:
            time.sleep(0.001)


def collected(_chance: random.Random, _count: int) -> Body:
    """The collector takes locks in the middle of everything."""

    def body(n: int) -> int:
        for _ in range(30):
            _ = [_Late() for _ in range(3)]
            with _Late.lock:
                gc.collect(0)
        return n

    return body


def logged(_chance: random.Random, count: int) -> Body:
    """Logging has locks of its own, and a handler is slow."""
    logger, handler = logging.getLogger("soak"), logging.Handler()
    handler.emit = lambda _: time.sleep(LONG / count / 4)  # type: ignore[method-assign]
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)

    def body(n: int) -> int:
        for _ in range(4):
            logger.info("%d", n)
        return n

    return body


def imported(chance: random.Random, _count: int) -> Body:
    """All import a module that takes its time."""
    name = f"soak_{chance.randrange(10**9)}"
    folder = tempfile.mkdtemp()
    Path(folder, f"{name}.py").write_text(f"import time\ntime.sleep({LONG})\nvalue = 1\n")

    def body(n: int) -> int:
        if folder not in sys.path:
            sys.path.insert(0, folder)
        assert importlib.import_module(name).value == 1
        return n

    return body


def looped(chance: random.Random, _count: int) -> Body:
    """Event loops in workers, with calls into threads and back."""
    late = chance.uniform(0.1, LONG)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        lock = asyncio.Lock()
        async with lock:
            await loop.run_in_executor(None, time.sleep, late)
        back = await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1, 7), loop).result())
        return int(back)

    def body(n: int) -> int:
        assert asyncio.run(main()) == 7
        return n

    return body


def piped(_chance: random.Random, count: int) -> Body:
    """One waits for a program, and all others for that one."""
    done = threading.Event()

    def body(n: int) -> int:
        if n == 0:
            subprocess.run([sys.executable, "-S", "-c", f"import time; time.sleep({LONG})"], check=True)
            done.set()
        done.wait()
        return n

    return body if count > 1 else str  # type: ignore[return-value]


def outside(chance: random.Random, count: int) -> Body:
    """A thread that none of the workers has started has the locks for a while, and lets go of some that they took."""
    lock, handed, ready = threading.Lock(), threading.Lock(), threading.Event()
    seconds = chance.uniform(0.1, LONG)

    def outsider() -> None:
        with lock:
            ready.set()
            time.sleep(seconds)
        for _ in range(count):
            while not handed.locked():
                time.sleep(0.001)
            time.sleep(seconds / count)
            handed.release()

    threading.Thread(target=outsider, daemon=True).start()
    ready.wait()

    def body(n: int) -> int:
        with lock:
            pass
        handed.acquire()
        return n

    return body


KINDS = (timed, asleep, turns, switch, below, stages, deep, collected, logged, imported, looped, piped, outside)
ALSO_ALONE = (timed, below, collected, logged, imported, looped)
"""Those in which nobody needs another worker: processes do them as well."""


@contextmanager
def struck() -> Iterator[None]:
    """Signals come meanwhile, and their handler takes a lock."""
    lock = threading.RLock()

    def handler(*_: object) -> None:
        with lock:
            time.sleep(0.001)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def soak(seconds: float, seed: int) -> tuple[Counter[str], list[str]]:
    """Run them for that long; return how many of each, and what was wrong."""
    end, seen, wrong = time.monotonic() + seconds, Counter[str](), list[str]()
    while time.monotonic() < end and len(wrong) < 5:
        number = seed + seen.total()
        chance = random.Random(number)
        kind, count = chance.choice(KINDS), chance.randint(2, 5)
        model = chance.choice(["threads", "threads", "procs"]) if kind in ALSO_ALONE else "threads"
        seen[f"{kind.__name__} {model}"] += 1
        run = functools.partial(parmagic.run, once=True, trace="off", chunk=1, seed=1, timeout=60, quiet=True)
        if model == "procs":  # which sends no locks, and forks where no thread is left
            for thread in threading.enumerate():
                if thread.name.endswith("(outsider)"):
                    thread.join()
            run = functools.partial(run, start_method="fork")
        try:
            if chance.random() < 0.3:
                with struck():
                    found = run(kind(chance, count), range(count), f"{model}={count}")
            else:
                found = run(kind(chance, count), range(count), f"{model}={count}")
            if [int(each) for each in found.results] != [*range(count)]:
                wrong.append(f"--seed {number}: {kind.__name__} {model}={count}: {found.results}")
        except BaseException as error:  # noqa: BLE001  (that is what is looked for)
            wrong.append(f"--seed {number}: {kind.__name__} {model}={count}: {type(error).__name__}: {error}")
    return seen, wrong


def main() -> int:
    """Read the command line, soak, and say how it went."""
    parser = argparse.ArgumentParser(description="Run workers that wait, and see that nobody is taken to wait for ever.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None, help="a random one by default")
    words = parser.parse_args()
    seed = words.seed if words.seed is not None else random.SystemRandom().randrange(1_000_000)
    seen, wrong = soak(words.seconds, seed)
    print(f"seed {seed}: {seen.total()} runs ({', '.join(f'{n} {kind}' for kind, n in sorted(seen.items()))}), {len(wrong)} wrong", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
