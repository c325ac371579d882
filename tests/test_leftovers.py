"""What killed workers leave in /dev/shm is removed, and what belongs to others is not."""

from __future__ import annotations

import os
import random
import string
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parmagic import WorkerDied
from parmagic.workers.leftovers import prefix, remove, remove_half_made

SHM = Path("/dev/shm")

pytestmark = pytest.mark.skipif(not SHM.is_dir(), reason="semaphores are not files here")


@pytest.fixture
def half() -> Iterator[Path]:
    """Yield a path such as the C library makes semaphores under."""
    path = SHM / ("sem." + "".join(random.SystemRandom().choices(string.ascii_letters, k=6)))
    yield path
    path.unlink(missing_ok=True)


def semaphores() -> set[str]:
    """Return the names of all semaphores of this machine's."""
    return {path.name for path in SHM.iterdir() if path.name.startswith("sem.")}


def wait_until_gone(path: Path) -> None:
    """Wait for the server to clean up, which nobody waits for."""
    until = time.monotonic() + 5
    while path.exists() and time.monotonic() < until:
        time.sleep(0.005)


def test_a_worker_that_is_killed_leaves_no_semaphore(ip, half):
    """Neither one that it had made, nor one that a child of its had, nor one that it was making."""
    ip("import multiprocessing, os; spawn = multiprocessing.get_context('spawn')")
    ip.space["half"] = str(half)
    error = ip.fails("""%%parallel procs=1 --once -q -o run for n in range(1)
mine = spawn.Lock()
ready, told = os.pipe()
if not os.fork():
    theirs = spawn.Lock()
    os.write(told, theirs._semlock.name.encode())
    os.read(ready, 0)
    import time
    time.sleep(60)
with open(half, 'wb'):
    pass
assert os.read(ready, 100)
os.kill(os.getpid(), 9)""")
    assert isinstance(error, WorkerDied)
    wait_until_gone(half)
    assert not half.exists()
    pid = ip.space["run"].workers["pid"].iloc[0]
    assert not [name for name in semaphores() if name.startswith(f"sem.{prefix(pid)[1:]}-")]


@pytest.mark.parametrize("method", ["", "--start-method fork", "--start-method spawn"])
def test_a_worker_names_its_semaphores(ip, method):
    """That is what they are found by."""
    ip("import multiprocessing, os; spawn = multiprocessing.get_context('spawn')")
    run = ip(f"%parallel procs=1 --once -q {method} (spawn.Lock()._semlock.name, os.getpid()) for n in range(1)")
    name, pid = run.results[0]
    assert name.startswith(prefix(pid) + "-")


def test_what_is_held_or_older_stays(half):
    """A semaphore that somebody is making, or that was there before, is left alone."""
    before = time.time() - 1
    with half.open("wb"):
        remove_half_made(before)
        assert half.exists()
    remove_half_made(time.time() + 60)
    assert half.exists()
    remove_half_made(before)
    assert not half.exists()


def test_only_the_ended_lose_theirs():
    """Of two processes whose numbers begin alike, one's semaphores go and the other's stay."""
    mine, other = SHM / f"sem.mp-{os.getpid()}-x", SHM / f"sem.mp-{os.getpid()}0-x"
    for path in (mine, other):
        path.touch()
    try:
        remove([os.getpid()])
        assert (mine.exists(), other.exists()) == (False, True)
    finally:
        other.unlink()
