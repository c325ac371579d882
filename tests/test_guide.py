"""The guide's own examples, each as one would type it."""

from __future__ import annotations

import pytest


def test_print_numbers_and_chars(ip, capsys):
    """Two threads run two functions at the same time, and every line says who printed it."""
    ip("def print_numbers():\n    for i in range(10):\n        print(i)\ndef print_chars():\n    for char in 'abcdefghij':\n        print(char)")
    ip("%%parallel threads=2 --once -q for f in (print_numbers, print_chars)\nf()")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[threads ")]
    assert [line[12:] for line in lines if line[12:].isdigit()] == [str(i) for i in range(10)]
    assert [line[12:] for line in lines if line[12:].isalpha()] == list("abcdefghij")


def test_print_square_and_cube(ip, capsys):
    """Two processes calculate and print the square and the cube of a number."""
    ip("def print_square(n):\n    print(f'Square: {n * n}')\ndef print_cube(n):\n    print(f'Cube: {n * n * n}')")
    ip("%%parallel procs=2 --once -q for f in (print_square, print_cube)\nf(10)")
    text = capsys.readouterr().out
    assert "] Square: 100\n" in text
    assert "] Cube: 1000\n" in text


def test_lock_with_five_threads(ip, capsys):
    """Five threads enter one after another, and nobody is lost."""
    ip("import threading\nlock = threading.Lock()\ninside = []")
    ip("%%parallel threads=5 --once -q\nwith lock:\n    inside.append(worker.rank)\n    print('Hello from', threading.current_thread().name)")
    assert sorted(ip.space["inside"]) == list(range(5))
    assert capsys.readouterr().out.count("Hello from") == 5


def test_rlock_is_reentrant(ip):
    """A thread takes its RLock twice."""
    ip("import threading\nrlock = threading.RLock()")
    run = ip("%%parallel threads=2 --once -q\nwith rlock:\n    with rlock:\n        result = worker.rank\nresult")
    assert run.results == [0, 1]


def test_manager_dict(ip):
    """Two processes each add to a manager's dict, and the notebook sees both."""
    ip("from multiprocessing import Manager\nmanager = Manager()\nd = manager.dict()")
    try:
        ip("%%parallel procs=2 --once -q for key, value in ((1, 'one'), (2, 'two'))\nd[key] = value")
        assert dict(ip.space["d"]) == {1: "one", 2: "two"}
    finally:
        ip("manager.shutdown()")


@pytest.mark.parametrize("context", ["forkserver", "fork"])
def test_primitives_reach_processes(ip, context):
    """Every primitive of multiprocessing that the body names works in the workers, in either context."""
    ip(
        f"import multiprocessing\nctx = multiprocessing.get_context({context!r})\n"
        "lock, rlock, semaphore, event, condition, barrier = "
        "ctx.Lock(), ctx.RLock(), ctx.Semaphore(2), ctx.Event(), ctx.Condition(), ctx.Barrier(2)\n"
        "queue, simple, value, array = ctx.Queue(), ctx.SimpleQueue(), ctx.Value('i', 0), ctx.Array('d', 3)\n"
        "reader, writer = ctx.Pipe()\nevent.set()"
    )
    run = ip(
        "%%parallel procs=2 -q\n"
        "with lock:\n    value.value += 1\nwith rlock, semaphore, condition:\n    array[0] += 1\n"
        "event.wait()\nbarrier.wait()\nqueue.put(worker.rank)\nsimple.put(worker.rank)\nwriter.send(worker.rank)\nworker.rank"
    )
    space = ip.space
    assert run.results == [0, 1]
    assert (space["value"].value, space["array"][0]) == (2, 2.0)
    assert sorted(space["queue"].get(timeout=5) for _ in range(2)) == [0, 1]
    assert sorted(space["simple"].get() for _ in range(2)) == [0, 1]
    assert sorted(space["reader"].recv() for _ in range(2)) == [0, 1]
    assert any("forked" in note for note in run.notes) == (context == "fork")
    assert run.summary["baseline"].tolist() == ["estimated"]  # ranks in turn would wait at the barrier forever
    ip("queue.close(); queue.join_thread(); simple.close(); reader.close(); writer.close()")
