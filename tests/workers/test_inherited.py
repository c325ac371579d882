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
