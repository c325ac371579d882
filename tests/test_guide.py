"""The guide's own examples, each as one would type it."""

from __future__ import annotations

import os

import pytest

from parmagic.record import hooks


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


NUMBERS = """import threading
def print_numbers():
    for i in range(10):
        print(i)
def print_chars():
    for char in 'abcdefghij':
        print(char)
t1 = threading.Thread(target=print_numbers)
t2 = threading.Thread(target=print_chars)
t1.start()
t2.start()
t1.join()
t2.join()"""
SQUARES = """import multiprocessing
p1 = multiprocessing.Process(target=print_square, args=(10,))
p2 = multiprocessing.Process(target=print_cube, args=(10,))
p1.start()
p2.start()
p1.join()
p2.join()"""
HELLO = """import threading
lock = threading.Lock()
def synchronized_task():
    with lock:
        print('Hello from', threading.current_thread().name)
threads = []
for i in range(5):
    t = threading.Thread(target=synchronized_task)
    threads.append(t)
    t.start()
for t in threads:
    t.join()"""


@pytest.mark.parametrize("model", ["threads=1", "procs=1"])
def test_its_threads_in_a_body(ip, capsys, model):
    """The script as it stands is a body: its threads are there by their names, and all that they print arrives, in whole lines."""
    run = ip(f"%%parallel {model} --once -q\n{NUMBERS}")
    assert {name.partition("(")[2] for name in run.children["name"]} == {"print_numbers)", "print_chars)"}
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(f"[{model.partition('=')[0]} 0] ") for line in lines), lines
    assert sorted(line.partition("] ")[2] for line in lines) == sorted([*map(str, range(10)), *"abcdefghij"])


@pytest.mark.skipif(not hasattr(os, "fork") or bool(hooks.why_inferred()), reason="no processes are seen here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("model", ["threads=1", "procs=1"])
def test_its_processes_in_a_body(ip, capsys, model):
    """So are its processes."""
    ip("import multiprocessing\nmultiprocessing = multiprocessing.get_context('fork')\ndef print_square(n):\n    print(f'Square: {n * n}')")
    ip("def print_cube(n):\n    print(f'Cube: {n * n * n}')")
    run = ip(f"%%parallel {model} --once -q\n{SQUARES.partition(chr(10))[2]}")
    assert [name.partition("-")[0] for name in run.children["name"]] == ["ForkProcess"] * 2
    assert sorted(line.partition("] ")[2] for line in capsys.readouterr().out.splitlines()) == ["Cube: 1000", "Square: 100"]


def test_its_lock_in_a_body(ip, capsys):
    """Five threads say hello, one after another, each by its own name."""
    run = ip(f"%%parallel threads=1 --once -q\n{HELLO}")
    assert len(run.children) == 5
    said = {line.partition("Hello from ")[2] for line in capsys.readouterr().out.splitlines()}
    assert said == {*run.children["name"]}
