"""What a forked worker inherits of multiprocessing's: managers, queues, locks: as in a Process, each has its own connection and threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing as mp, sys
import parmagic
def main():
    context, manager = mp.get_context("fork"), mp.Manager()
    table, rows, total, guard, way = manager.dict(), manager.list(), manager.Value("i", 0), manager.Lock(), manager.Queue()
    lock, queue = context.Lock(), context.Queue()
    table["begun"] = 0
    def with_tables(n):
        for k in range(20):
            table[n, k] = 100 * n + k
            rows.append(n)
        return [table[n, k] for k in range(20)]
    def with_locks(n):
        with lock:
            table["begun"] += 1
        with guard:
            total.value += 1
        way.put(n)
        return with_tables(n)
    def with_queues(n):
        queue.put(n)
        return n
    right = [[100 * n + k for k in range(20)] for n in range(16)]
    for function, options in {cases}:
        assert parmagic.run(function, range(16), "procs=4", chunk=1, timeout=60, **options).results == right, function
    runs = 4 if {locked} else 0  # two cases, each with its serial run
    assert (table["begun"], total.value) == (16 * runs, 16 * runs), (table["begun"], total.value)
    assert sorted(way.get() for _ in range(16 * runs)) == sorted([*range(16)] * runs)
    queue.put(-1)
    assert queue.get(timeout=10) == -1  # its thread is there, in the notebook
    for _ in range(2):
        try:
            assert parmagic.run(with_queues, range(16), "procs=4", once=True).results == [*range(16)]
        except parmagic.NotShippable as error:
            assert "QueueFeederThread" in str(error), error
        else:
            assert sorted(queue.get(timeout=10) for _ in range(16)) == [*range(16)]
    manager.shutdown()
    print("fine")
main()
"""


@pytest.mark.parametrize(
    ("cases", "locked"),
    [("[(with_tables, {}), (with_tables, {'start_method': 'fork'})]", False), ("[(with_locks, {}), (with_locks, {'start_method': 'fork'})]", True)],
    ids=["tables", "locks"],
)
def test_proxies_of_a_manager(cases, locked, tmp_path):
    """Workers that share a manager get right answers, also where they are forked: no two use one connection."""
    script = SCRIPT.replace("{cases}", cases).replace("{locked}", str(locked))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path)
    assert done.stdout == "fine\n", done.stderr[-3000:]


COUSINS = """
import multiprocessing as mp, os, random, ssl, threading
from multiprocessing import connection, managers
import parmagic
forked = []
class Store:
    def __init__(self): self.held = {}
    def set(self, key, value): self.held[key] = value
    def get(self, key): return self.held[key]
class Own(managers.BaseManager): pass
Own.register("Store", Store)
def main():
    os.register_at_fork(after_in_child=lambda: forked.append(os.getpid()))
    context = mp.get_context("fork")
    lock, (ours, theirs) = context.Lock(), context.Pipe()
    with Own() as own, managers.SyncManager() as plain, managers.SharedMemoryManager() as memory:
        store, row, numbers, nested, space = own.Store(), memory.ShareableList([0] * 16), plain.Array("i", [0] * 16), plain.dict({"in": plain.list()}), plain.Namespace()
        guard, told = plain.Condition(), plain.Event()
        def with_all(n):
            with guard:
                told.set()
            row[n] = numbers[n] = n
            setattr(space, f"of{n}", n)
            nested["in"].append(n)
            for k in range(20):
                store.set((n, k), n * k)
            right = [store.get((n, k)) for k in range(20)] == [n * k for k in range(20)]
            return right, row[n], numbers[n], getattr(space, f"of{n}"), n in list(nested["in"]), told.is_set()
        def locked(n):
            with lock:
                return with_all(n)
        right = [(True, n, n, n, True, True) for n in range(16)]
        for function, options in ((with_all, {}), (with_all, {"start_method": "fork"}), (locked, {}), (locked, {"start_method": "fork"})):
            assert parmagic.run(function, range(16), "procs=4", chunk=1, once=True, timeout=60, **options).results == right
        assert sorted(nested["in"]) == sorted([*range(16)] * 4) and store.get((3, 4)) == 12
    def sends(n):
        with lock:
            theirs.send(n)
    def draws(n): return random.random(), ssl.RAND_bytes(8), forked[-1:] == [os.getpid()]
    parmagic.run(sends, range(4), "procs=2", once=True)
    assert sorted(ours.recv() for _ in range(4)) == [0, 1, 2, 3]
    drawn = parmagic.run(draws, range(16), "procs=4", chunk=1, once=True, start_method="fork").results
    assert len({each[0] for each in drawn}) == len({each[1] for each in drawn}) == 16
    assert all(each[2] for each in drawn)
    listener = connection.Listener()
    def serve():
        for _ in range(4):
            with listener.accept() as each:
                each.send(each.recv() * 2)
    thread = threading.Thread(target=serve)
    thread.start()
    def asks(n, address=listener.address):
        with connection.Client(address) as each:
            each.send(n)
            return each.recv()
    assert parmagic.run(asks, range(4), "procs=2", once=True).results == [0, 2, 4, 6]
    thread.join()
    listener.close()
    with context.Pool(2) as pool:
        assert parmagic.run(abs, range(4), "procs=2", once=True).results == [0, 1, 2, 3]
        try:
            parmagic.run(abs, range(4), "procs=2", once=True, start_method="fork")
        except parmagic.NotShippable as error:
            assert "threads of yours are alive" in str(error)
        assert pool.map(abs, [-1]) == [1]
    print("fine")
if __name__ == "__main__":
    main()
"""


def test_other_ways_to_be_connected(tmp_path):
    """Managers of one's own, of shared memory, and proxies within proxies; pipes, listeners, a pool that the notebook holds, hooks at a fork."""
    script = tmp_path / "connected.py"
    script.write_text(COUSINS)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path)
    assert done.stdout == "fine\n", done.stderr[-3000:]
