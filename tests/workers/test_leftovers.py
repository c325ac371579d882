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
from parmagic.workers.processes.leftovers import prefix, remove

SHM = Path("/dev/shm")

pytestmark = pytest.mark.skipif(not SHM.is_dir(), reason="semaphores are not files here")


def _named() -> Path:
    """Return a path such as the C library makes semaphores under."""
    return SHM / ("sem." + "".join(random.SystemRandom().choices(string.ascii_letters, k=6)))


@pytest.fixture
def theirs() -> Iterator[list[Path]]:
    """Yield what files of other programs' are called, which look as if somebody had been killed who made a semaphore."""
    paths = [SHM / "sem.worker", SHM / f"sem.mp-{os.getpid()}-abcdefgh", _named()]
    yield paths
    for path in paths:
        path.unlink(missing_ok=True)


def semaphores() -> set[str]:
    """Return the names of all semaphores of this machine's."""
    return {path.name for path in SHM.iterdir() if path.name.startswith("sem.")}


def wait_until_gone(path: Path) -> None:
    """Wait for the server to clean up, which nobody waits for."""
    until = time.monotonic() + 5
    while path.exists() and time.monotonic() < until:
        time.sleep(0.005)


def test_a_worker_that_is_killed_leaves_no_semaphore(ip, theirs):
    """Neither one that it had made, nor one that a child of its had, nor the C library's own name for one; what others make meanwhile stays."""
    ip("import multiprocessing, os; spawn = multiprocessing.get_context('spawn')")
    ip.space["half"], ip.space["theirs"] = str(_named()), [*map(str, theirs)]
    error = ip.fails("""%%parallel procs=1 --once -q -o run for n in range(1)
mine = spawn.Lock()
os.link('/dev/shm/sem.' + mine._semlock.name[1:], half)
ready, told = os.pipe()
if not os.fork():
    child = spawn.Lock()
    os.write(told, child._semlock.name.encode())
    import time
    time.sleep(60)
names = [mine._semlock.name, os.read(ready, 100).decode()]
for path in theirs:
    with open(path, 'xb') as file:
        file.write(bytes(32))
with open('names', 'w') as file:
    file.write(' '.join(names))
os.kill(os.getpid(), 9)""")
    assert isinstance(error, WorkerDied)
    first, second = Path("names").read_text().split()
    wait_until_gone(SHM / f"sem.{first[1:]}")
    ip("%parallel procs=1 --once -q n for n in range(1)")  # the server has an ear for it when it has cleaned up
    assert not semaphores() & {f"sem.{first[1:]}", f"sem.{second[1:]}", Path(ip.space["half"]).name}
    assert [path for path in theirs if path.exists()] == theirs


@pytest.mark.parametrize("method", ["", "--start-method fork", "--start-method spawn"])
def test_a_worker_names_its_semaphores(ip, method):
    """By that they are found: another name for each worker, and none that a process id may bring back."""
    ip("import multiprocessing, os; spawn = multiprocessing.get_context('spawn')")
    run = ip(f"%parallel procs=2 --once -q {method} spawn.Lock()._semlock.name for n in range(4)")
    beginnings = {name.rpartition("-")[0] for name in run.results}
    assert all(len(each) == len(prefix()) and each.startswith("/mp-") for each in beginnings)
    again = ip(f"%parallel procs=2 --once -q {method} spawn.Lock()._semlock.name for n in range(4)")
    assert not beginnings & {name.rpartition("-")[0] for name in again.results}


def test_only_the_ended_lose_theirs(theirs):
    """Of two workers, one's semaphores go and the other's stay, and so does all that is called nearly so."""
    ended, alive = prefix(), prefix()
    mine, other = SHM / f"sem.{ended[1:]}-x", SHM / f"sem.{alive[1:]}-x"
    for path in (mine, other, *theirs):
        path.touch()
    try:
        remove([ended])
        assert (mine.exists(), other.exists()) == (False, True)
        remove([])
        assert [path for path in theirs if path.exists()] == theirs
    finally:
        other.unlink()
