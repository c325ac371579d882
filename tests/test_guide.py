"""The guide's own examples, each as one would type it."""

from __future__ import annotations

import os

import pytest

from parmagic.record import hooks

measured = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")


def taken(run):
    """Return how often each thing was taken, by its name; nothing where waits are inferred."""
    return run.sync.droplevel("arm")["n"].to_dict() if not hooks.why_inferred() else {}


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
    run = ip("%%parallel threads=5 --once -q\nwith lock:\n    inside.append(worker.rank)\n    print('Hello from', threading.current_thread().name)")
    assert sorted(ip.space["inside"]) == list(range(5))
    assert capsys.readouterr().out.count("Hello from") == 5
    assert hooks.why_inferred() or taken(run) == {"lock": 5}


def test_rlock_is_reentrant(ip):
    """A thread takes its RLock twice."""
    ip("import threading\nrlock = threading.RLock()")
    run = ip("%%parallel threads=2 --once -q\nwith rlock:\n    with rlock:\n        result = worker.rank\nresult")
    assert run.results == [0, 1]
    assert hooks.why_inferred() or taken(run) == {"rlock": 4}


def test_manager_dict(ip):
    """Two processes each add to a manager's dict, and the notebook sees both."""
    ip("from multiprocessing import Manager\nmanager = Manager()\nd = manager.dict()")
    try:
        run = ip("%%parallel procs=2 --once -q for key, value in ((1, 'one'), (2, 'two'))\nd[key] = value")
        assert dict(ip.space["d"]) == {1: "one", 2: "two"}
        assert hooks.why_inferred() or taken(run) == {"d.__setitem__": 2}
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
    seen = taken(run)
    once_each = dict.fromkeys(("lock", "rlock", "semaphore", "condition", "event", "barrier", "queue", "simple", "writer"), 2)
    assert hooks.why_inferred() or {name: seen[name] for name in once_each} == once_each
    assert hooks.why_inferred() or (seen["value"], seen["array"]) == (4, 4)  # looked at, and set
    ip("queue.close(); queue.join_thread(); simple.close(); reader.close(); writer.close()")


NUMBERS = """import threading
import time

def print_numbers():
    for i in range(10):
        time.sleep(0.02)
        print(i)

def print_chars():
    for char in 'abcdefghij':
        time.sleep(0.02)
        print(char)

t1 = threading.Thread(target=print_numbers)
t2 = threading.Thread(target=print_chars)

t1.start()
t2.start()

t1.join()
t2.join()"""
SQUARES = """import multiprocessing
import time

def print_square(number):
    time.sleep(0.2)
    print(f'Square: {number * number}')

def print_cube(number):
    time.sleep(0.2)
    print(f'Cube: {number * number * number}')

p1 = multiprocessing.Process(target=print_square, args=(10,))
p2 = multiprocessing.Process(target=print_cube, args=(10,))

p1.start()
p2.start()

p1.join()
p2.join()"""
HELLO = """import threading
import time

lock = threading.Lock()

def synchronized_task():
    with lock:
        # Only one thread can execute this at a time
        time.sleep(0.05)
        print('Hello from', threading.current_thread().name)

threads = []
for i in range(5):
    t = threading.Thread(target=synchronized_task)
    threads.append(t)
    t.start()

for t in threads:
    t.join()"""
MANAGER = """from multiprocessing import Process, Manager

def add_elements(d, key, value):
    d[key] = value

if __name__ == '__main__':
    with Manager() as manager:
        d = manager.dict()
        p1 = Process(target=add_elements, args=(d, 1, 'one'))
        p2 = Process(target=add_elements, args=(d, 2, 'two'))
        p1.start()
        p2.start()
        p1.join()
        p2.join()
        print(sorted(d.items()))"""
MODELS = ["threads=1", "procs=1", "serial"]


def line_of(text, code):
    """Return the line of a cell on which a text is, behind the magic's."""
    return code[: code.index(text)].count("\n") + 2


def said(run, capsys, model):
    """Return the lines that a body printed, each of which says who did; what the verdict says is of the work that it started."""
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(f"[{model.partition('=')[0]} 0] ") for line in lines), lines
    assert "Too short" not in run.verdict
    return sorted(line.partition("] ")[2] for line in lines)


def speaks_of(run, what, model):
    """Tell whether the verdict says what the body's worker waited for; that of a serial run has nothing to compare with."""
    return "A serial run of " in run.verdict if model == "serial" else f"waiting for {what} that its body starts" in run.verdict


@measured
@pytest.mark.parametrize("model", MODELS)
def test_its_threads_in_a_body(ip, capsys, model):
    """The script as it stands is a body: its threads are there by their names, and all that they print arrives, in whole lines."""
    run = ip(f"%%parallel {model} --once -q\n{NUMBERS}")
    assert {name.partition("(")[2] for name in run.children["name"]} == {"print_numbers)", "print_chars)"}
    assert said(run, capsys, model) == sorted([*map(str, range(10)), *"abcdefghij"])
    assert speaks_of(run, "2 threads", model), run.verdict
    lines = [line_of(f"{name} = threading", NUMBERS) for name in ("t1", "t2")]
    assert sorted(taken(run).items()) == sorted((f"thread made at In[1]:{line}", 1) for line in lines)
    assert (run.sync["wait_s"] > 0).any()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@measured
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("model", MODELS)
def test_its_processes_in_a_body(ip, capsys, model):
    """So are its processes."""
    ip("import multiprocessing\nmultiprocessing = multiprocessing.get_context('fork')")  # the default up to 3.13
    run = ip(f"%%parallel {model} --once -q\n{SQUARES.partition(chr(10))[2]}")
    assert [name.partition("-")[0] for name in run.children["name"]] == ["ForkProcess"] * 2
    assert said(run, capsys, model) == ["Cube: 1000", "Square: 100"]
    assert speaks_of(run, "2 processes", model), run.verdict
    assert taken(run) == {}


@measured
@pytest.mark.parametrize("model", MODELS)
def test_its_lock_in_a_body(ip, capsys, model):
    """Five threads say hello, one after another, each by its own name; its lock is called by where it is made, and was taken by each."""
    run = ip(f"%%parallel {model} --once -q\n{HELLO}")
    assert len(run.children) == 5
    assert said(run, capsys, model) == sorted(f"Hello from {name}" for name in run.children["name"])
    assert speaks_of(run, "5 threads", model), run.verdict
    name, threads = (f"{sort} made at In[1]:{line_of(text, HELLO)}" for sort, text in (("lock", "lock = "), ("thread", "t = threading")))
    assert taken(run) == {name: 5, threads: 5}
    row = run.sync.droplevel("arm").loc[name]
    assert (row["kind"], 1 <= row["contended"] <= 4) == ("lock", True)
    assert 0.24 <= row["hold_blocked_s"] <= row["hold_s"]
    assert any("was held for" in note and "Sleep outside of it." in note for note in run.notes), run.notes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@measured
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("model", MODELS)
def test_its_manager_in_a_body(ip, capsys, model):
    """The manager's process is there by its name, and what the body asks it for is counted, though the body has just imported it."""
    ip("import multiprocessing\ncontext = multiprocessing.get_context('fork')")
    run = ip(f"%%parallel {model} --once -q\n{MANAGER.replace('from multiprocessing import Process, Manager', 'Process, Manager = context.Process, context.Manager')}")
    assert sorted(name.partition("-")[0] for name in run.children["name"]) == ["ForkProcess", "ForkProcess", "SyncManager"]
    assert said(run, capsys, model) == ["[(1, 'one'), (2, 'two')]"]
    assert taken(run).get("a proxy.items") == 1
