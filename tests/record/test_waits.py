"""Measured waits against theory, the clock and the kernel: real threads, processes and locks."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import parmagic
from parmagic.model.kinds import MEASURED, WORKER_STATES
from parmagic.record import hooks
from parmagic.system.cpus import available_cpus
from parmagic.system.gil import gil_enabled, gil_notes

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")

under_a_gil = pytest.mark.skipif(not gil_enabled(), reason="there is no GIL")
without_a_gil = pytest.mark.skipif(gil_enabled(), reason="there is a GIL")

SPIN = "end = __import__('time').perf_counter() + 1.0\nwhile __import__('time').perf_counter() < end:\n    sum(range(500))"


def waits():
    """Return the extension."""
    return hooks.extension()[0]


@under_a_gil
@pytest.mark.parametrize("n", [2, 4, 8])
def test_threads_that_compute_wait_for_each_other(ip, n):
    """While N CPU-bound threads are at work, each spends (N - 1) / N of its time waiting for the GIL, on a busy machine, too."""
    run = ip(f"%%parallel threads={n} -q --once --trace off\n{SPIN}")
    (arm,) = run._study.timelines
    begin = max(batch.begins[0] for lane in arm.lanes for batch in lane.batches)
    end = min(batch.ends[-1] for lane in arm.lanes for batch in lane.batches)
    waited = sum(run._study.shares(arm, lane, np.array([begin, end]))["gil_wait"][0] for lane in arm.lanes)
    assert waited / (n * (end - begin)) == pytest.approx((n - 1) / n, abs=0.05)
    assert run.workers["measured"].all()


@without_a_gil
def test_threads_that_compute_run_at_once(ip):
    """Without a GIL nobody waits for it, and all that threads do on a core is running."""
    run = ip(f"%%parallel threads=2 -q --once --trace off\n{SPIN}")
    assert not run.summary["gil"].any()
    assert (run.workers["gil_wait_s"] == 0).all()
    assert run.workers["native_s"].isna().all()
    assert (run.workers["running_s"] + run.workers["cpu_wait_s"] > 0.9 * run.workers["wall_s"] - run.workers["startup_s"]).all()


@without_a_gil
def test_a_library_that_would_keep_the_gil(ip):
    """Its naps overlap, and no note says that it held anything."""
    ip("import ctypes; nap = ctypes.PyDLL(None).usleep")
    run = ip("%parallel threads=4 -q --once --trace off nap(50_000) for _ in range(4)")
    assert run.workers["io_wait_s"].sum() == pytest.approx(0.2, abs=0.02)
    assert run.workers["gil_wait_s"].sum() == 0
    assert not [note for note in run.notes if "held the GIL" in note]


@without_a_gil
@pytest.mark.skipif(available_cpus() < 2, reason="who is alone on a core finds the list free")
def test_what_several_threads_change_is_named(ip):
    """Without a GIL they wait for the object's own lock; the table knows the object and the line."""
    ip("shared = []")
    run = ip("%%parallel threads=4 -q --once --trace off for _ in range(16)\nfor k in range(100_000):\n    shared.append(k)\nshared.clear()")
    seconds = run.waits.groupby(["kind", "object", "line"])["total_s"].sum()
    waited = run.workers["lock_wait_s"].sum() - run.waits[run.waits["kind"] == "interpreter"]["total_s"].sum()
    assert seconds["object", "shared", 3] > 0.8 * waited > 0


@without_a_gil
def test_the_collector_stops_all_threads(ip):
    """Who is stopped for the collector of another thread waits for the interpreter, on the line where it was."""
    ip("import gc, time")
    run = ip("""%%parallel threads=2 -q --once --trace off
end = time.monotonic() + 0.5
while time.monotonic() < end:
    gc.collect() if worker.rank else sum(range(500))""")
    seconds = run.waits.groupby(["rank", "kind", "object"])["total_s"].sum()
    assert seconds.get((0, "interpreter", "stop of all threads"), 0.0) > 0.05, (run.waits, run.workers.T)


@under_a_gil
def test_a_library_that_keeps_the_gil(ip):
    """Four naps of 50 ms that keep the GIL take 200 ms: blocked with the GIL held, and named in a note."""
    ip("import ctypes; nap = ctypes.PyDLL(None).usleep")
    run = ip("%%parallel threads=4 -q --once --trace off\nnap(50_000)")
    assert run.summary["wall_s"].iloc[0] >= 0.2
    assert run.workers["io_wait_s"].sum() == pytest.approx(0.2, abs=0.02)
    assert run.workers["gil_wait_s"].sum() > 0.28  # 0 + 1 + 2 + 3 naps; and to get it back after a forced switch
    notes = [note for note in run.notes if "held the GIL while blocked" in note]
    assert len(notes) == 4
    assert "line 2" in notes[0]


def test_a_library_that_lets_the_gil_go(ip):
    """The same naps without the GIL overlap: nobody waits for it, and no note says so."""
    ip("import ctypes; nap = ctypes.CDLL(None).usleep")
    run = ip("%parallel threads=4 -q --once --trace off nap(50_000) for _ in range(4)")
    assert run.workers["io_wait_s"].sum() == pytest.approx(0.2, abs=0.02)
    assert run.workers["gil_wait_s"].sum() < 0.05
    assert not [note for note in run.notes if "held the GIL" in note]


@under_a_gil
def test_io_beside_a_loop_costs_a_switch_interval_per_request(ip):
    """A thread that comes back from I/O waits for the loop to give the GIL away: about a switch interval each time."""
    ip("import time")
    run = ip(f"""%%parallel threads=2 -q --once --trace off
if worker.rank == 0:
    end = time.perf_counter() + 1.0
    while time.perf_counter() < end:
        sum(range(500))
else:
    for _ in range(50):
        time.sleep({sys.getswitchinterval() / 5})
""")
    per_request = run.workers["gil_wait_s"].iloc[1] / 50 / sys.getswitchinterval()
    assert 0.8 < per_request < 2.0


def test_a_lock_that_is_held_in_turn(ip):
    """Four threads that each hold a lock for 20 ms wait 3 + 2 + 1 holds for it; the table knows the line and the lock."""
    ip("import threading, time; lock = threading.Lock()")
    run = ip("%%parallel threads=4 -q --once --trace off\nwith lock:\n    time.sleep(0.02)")
    holds = run.workers["lock_wait_s"].sum() / 0.02
    assert 5.5 < holds < 7.5
    table = run.waits[run.waits["kind"] == "lock"]
    assert set(table["line"]) == {2}
    assert set(table["object"]) == {"lock"}
    assert table["total_s"].sum() == pytest.approx(run.workers["lock_wait_s"].sum(), rel=0.02)
    assert run.waits[run.waits["kind"] == "sleep"]["n"].sum() == 4


def test_states_agree_with_the_clocks(ip):
    """On a core, by the hooks, is the thread's CPU time, by the kernel, for work with and without the GIL.

    Where other programs take the cores, part of the time in run queues may stand on either side.
    """
    ip("import hashlib; block = bytes(1 << 24)")
    run = ip("%%parallel threads=2 -q --once --trace off for n in range(40)\nhashlib.sha256(block).hexdigest(), sum(range(100_000))")
    mine = run.workers
    cpu = mine["cpu_s"].sum()
    assert mine["running_s"].sum() + mine["native_s"].sum() == pytest.approx(cpu, abs=0.05 * cpu + mine["cpu_wait_s"].sum())
    if gil_enabled():
        assert mine["native_s"].sum() > mine["running_s"].sum() > 0


WORK = {
    "loop": ("", "sum(range(300_000))"),
    "zlib": ("import zlib; data = bytes(1 << 21)", "len(zlib.compress(data))"),
    "hashlib": ("import hashlib; data = bytes(1 << 22)", "hashlib.sha256(data).hexdigest()"),
    "numpy": ("import numpy as np; a = np.ones((200, 200))", "float((a @ a @ a @ a).sum())"),
    "sleep": ("import time", "time.sleep(0.01)"),
    "socket": ("import socket", """a, b = socket.socketpair()
for _ in range(50):
    a.send(b'x'); b.recv(1)
a.settimeout(0.01)
try:
    a.recv(1)
except TimeoutError:
    pass
a.close(); b.close()"""),
    "child": ("import subprocess, sys", "subprocess.run(['sleep', '0.01'])"),
}


@pytest.mark.parametrize("model", ["threads=1", "threads=2", "threads=4", "threads=16", "procs=1", "procs=4"])
@pytest.mark.parametrize("work", sorted(WORK))
def test_every_second_is_accounted_for(ip, work, model):
    """No more than 2 % of any worker's wall time is unknown, whatever it does, and the states tile it."""
    setup, body = WORK[work]
    ip(setup)
    run = ip(f"%%parallel {model} -q --once --trace off for _ in range(48)\n{body}")
    assert_closed(run)


SHARED = {
    "lock": ("import threading, time; lock = threading.Lock()", "with lock:\n    time.sleep(0.001)"),
    "queue": (
        "import queue, time; things = queue.Queue(4)",
        "if worker.rank % 2 == 0: time.sleep(0.002)\nfor n in range(200):\n    things.put(n) if worker.rank % 2 == 0 else things.get()",
    ),
}


@pytest.mark.parametrize("n", [2, 4, 16])
@pytest.mark.parametrize("work", sorted(SHARED))
def test_every_second_of_waiting_for_each_other(ip, work, n):
    """The same where threads wait for each other's locks and queues."""
    setup, body = SHARED[work]
    ip(setup)
    clause = "for _ in range(64)" if work == "lock" else ""
    run = ip(f"%%parallel threads={n} -q --once --trace off {clause}\n{body}")
    assert_closed(run)
    assert run.workers["lock_wait_s"].sum() > 0


def test_every_second_of_a_queue_between_processes(ip):
    """The same for multiprocessing's queue: its locks and its pipe."""
    ip("import multiprocessing as mp, time; q = mp.get_context('forkserver').Queue()")
    run = ip(
        "%%parallel procs=2 -q --once --trace off\n"
        "for n in range(20):\n"
        "    if worker.rank == 0:\n"
        "        time.sleep(0.002); q.put(n)\n"
        "    else:\n"
        "        q.get()"
    )
    assert_closed(run)
    consumer = run.workers.loc["procs=2", 1]
    assert consumer["lock_wait_s"] > 0.02  # though it waits for a pipe there
    table = run.waits.loc["procs=2"]
    assert table[table["kind"] == "queue"].groupby("object")["total_s"].sum()["q"] > 0.02


NAMED = {
    "a lock in a list": ("things = [threading.Lock(), threading.Lock()]", "with things[1]:\n    nap()", "lock", "things[1]"),
    "a lock in an object": (
        "class Account: pass\naccount = Account(); account.lock = threading.Lock()", "with account.lock:\n    nap()", "lock", "account.lock",
    ),
    "a lock that may be taken again": ("again = threading.RLock()", "with again:\n    nap()", "lock", "again"),
    "a semaphore": ("places = threading.Semaphore(1)", "with places:\n    nap()", "lock", "places"),
    "a condition": ("ready = threading.Condition()", "with ready:\n    ready.wait(0.005)", "lock", "ready"),
    "a barrier": ("line = threading.Barrier(2)", "if worker.rank:\n    nap()\nline.wait()", "lock", "line"),
    "a queue": ("jobs = queue.Queue()", "if worker.rank:\n    nap(); jobs.put(1)\nelse:\n    jobs.get()", "queue", "jobs"),
    "a future": (
        "future = concurrent.futures.Future()", "if worker.rank:\n    nap(); future.set_result(1)\nelse:\n    future.result()", "lock", "future",
    ),
}  # fmt: skip


@pytest.mark.parametrize("thing", NAMED)
def test_what_is_waited_for_has_the_name_that_the_body_has_for_it(ip, thing):
    """The table calls a lock or a queue as the body does, and says on which line it was waited for."""
    setup, body, kind, name = NAMED[thing]
    ip("import threading, queue, time, concurrent.futures\ndef nap(): time.sleep(0.01)\n" + setup)
    run = ip("%%parallel threads=2 -q --once --trace off\n" + body)
    longest = run.waits[run.waits["kind"].isin(["lock", "queue"])].nlargest(1, "total_s").iloc[0]
    assert (longest["kind"], longest["object"]) == (kind, name)
    assert longest["line"] >= 2


def test_a_queue_in_c_has_a_name(ip):
    """A SimpleQueue is one lock in C, and a queue all the same."""
    ip("import queue, time; simple = queue.SimpleQueue()")
    run = ip("%%parallel threads=2 -q --once --trace off\nif worker.rank:\n    time.sleep(0.01); simple.put(1)\nelse:\n    simple.get()")
    row = run.waits[run.waits["kind"] == "queue"].iloc[0]
    assert row["object"] == "simple"


def assert_closed(run):
    """Assert that the account of every worker is closed."""
    for (arm, rank), row in run.workers.iterrows():
        assert row["measured"], (arm, rank)
        assert row["unknown_s"] <= 0.02 * row["wall_s"], (arm, rank, row)
        assert row[[f"{state}_s" for state in WORKER_STATES]].sum() == pytest.approx(row["wall_s"], rel=1e-6)  # NaN counts as 0
        assert row["native_s"] >= 0 or not gil_enabled()


def test_hooks_come_off_whatever_happens(ip):
    """After a run, an exception and an interrupt, no call of this process goes to the recorder."""
    ip("import time, _thread")
    for cell in ("%parallel threads=2 -q n for n in range(4)", "%parallel threads=2 -q 1 / n for n in range(4)"):
        ip.shell.run_cell(cell)
        assert waits().state()["patched"] == 0
    threading.Timer(0.2, lambda: os.kill(os.getpid(), 2)).start()
    error = ip.fails("%parallel threads=2 -q --once time.sleep(0.01) for n in range(1_000)")
    assert isinstance(error, KeyboardInterrupt)
    assert waits().state() == {"patched": 0, "on": False, "lanes": waits().state()["lanes"]}


def test_hooks_are_on_while_a_body_runs(ip):
    """While a body runs, calls go through the recorder, and what the body imports meanwhile is hooked, too."""
    ip("from parmagic.record import hooks; waits = hooks.extension()[0]")
    run = ip("%parallel threads=1 -q --once waits.state() for _ in range(1)")
    assert run.results[0]["on"]
    assert run.results[0]["patched"] > 20


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # as a user would do it
def test_a_forked_child_writes_nothing(ip):
    """A child that the body forks is no worker: its waits are not in the parent's account."""
    ip("import os, time")
    run = ip("""%%parallel threads=1 -q --once --trace off for _ in range(1)
pid = os.fork()
if not pid:
    time.sleep(0.05)
    os._exit(0)
os.waitpid(pid, 0)[1]""")
    kinds = run.waits.set_index("kind")["total_s"]
    assert "sleep" not in kinds.index
    assert kinds["child"] >= 0.04


def test_a_thread_that_outlives_its_run_does_no_harm(ip):
    """A worker that cannot be ended stays behind in its call, and later runs are measured as ever."""
    ip("import time, threading; done = threading.Event()")
    error = ip.fails("%parallel threads=2 -q --once --timeout 0.2 done.wait(5) for _ in range(2)")
    assert isinstance(error, parmagic.RunTimeout)
    run = ip("%parallel threads=2 -q --once --trace off time.sleep(0.01) for _ in range(8)")
    assert run.workers["sleep_s"].sum() == pytest.approx(0.08, abs=0.02)
    done_event = ip.space["done"]
    done_event.set()
    for thread in threading.enumerate():
        if thread.name.startswith("parmagic"):
            thread.join(5)
    assert_closed(ip("%parallel threads=2 -q --once --trace off time.sleep(0.01) for _ in range(8)"))


GROWTH = """
import sys, psutil
from IPython.core.interactiveshell import InteractiveShell
from parmagic.record import hooks
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "parmagic")
cell = "%parallel threads=4 -q --once --trace off __import__('time').sleep(0) for _ in range(8)"
process = psutil.Process()
def some(n):
    for _ in range(n):
        shell.run_cell(cell, store_history=False).raise_error()  # IPython keeps what was typed
    shell.displayhook.flush()
    state = hooks.extension()[0].state()
    return process.num_fds(), process.num_threads(), state["lanes"], state["patched"], process.memory_info().rss
before, after = some(250), some(750)
assert after[:-1] == before[:-1], (before, after)
# a free-threaded 3.13 keeps the constants of all code that was ever compiled, of cells as well
assert after[-1] - before[-1] < (12_000_000 if "t" in sys.abiflags else 3_000_000), (before, after)
"""


def test_nothing_grows(tmp_path):
    """A thousand runs need no more descriptors, threads, accounts or memory than two hundred and fifty, in a process of their own."""
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", GROWTH], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("before", "state"),
    [("time.sleep(60)", "sleep_s"), ("while True:\n        pass", "running_s"), ("lock = threading.Lock()\n    lock.acquire()\n    lock.acquire(timeout=60)", "lock_wait_s")],
)
def test_the_black_box(ip, tmp_path, before, state):
    """What a killed worker did until it died is in the run: its item, and what it was in at the end."""
    ip("import os, signal, threading, time")
    ip("""def die(begin):
    with open(f'/proc/self/task/{os.getpid()}/schedstat') as clocks, open('on_core', 'w') as told:
        told.write(str(int(clocks.read().split()[0]) * 1e-9 - begin))
    os.kill(os.getpid(), signal.SIGKILL)
""")
    error = ip.fails(f"""%%parallel procs=2 -q --once --trace off -o run for n in range(2)
if n == 0:
    threading.Timer(0.4, die, (time.thread_time(),)).start()
    {before}
time.sleep(0.01)""")
    assert isinstance(error, parmagic.WorkerDied)
    run = ip.space["run"]
    dead = run.workers.loc["procs=2", int(run.items["rank"].iloc[0])]
    assert "WorkerDied" in run.items["error"].iloc[0]
    assert 0.35 < run.items["wall_s"].iloc[0] < 2.0
    on_core = float((tmp_path / "on_core").read_text())  # by the kernel: on a busy machine, not all of an item that computes
    wall = run.items["wall_s"].iloc[0]
    starved = max(wall - on_core, 0.0) if state == "running_s" else 0.0
    assert dead[state] == pytest.approx(wall - starved, rel=0.1)
    assert dead["unknown_s"] < 0.1 * dead["wall_s"] + starved


def test_off_by_the_environment(ip, monkeypatch):
    """PARMAGIC_WAITS=off infers, in threads and in processes, and every figure that is inferred says so."""
    monkeypatch.setenv("PARMAGIC_WAITS", "off")
    assert hooks.why_inferred() == "PARMAGIC_WAITS is off"
    run = ip("%%parallel threads=2 procs=2 -q --once --trace off for _ in range(8)\nimport time\ntime.sleep(0.05)")
    assert not run.workers["measured"].any()
    assert "~" in repr(run)
    monkeypatch.delenv("PARMAGIC_WAITS")
    run = ip("%%parallel threads=2 procs=2 -q --once --trace off for _ in range(8)\nimport time\ntime.sleep(0.05)")
    assert run.workers["measured"].all()


def test_a_run_within_a_run_infers(ip):
    """The hooks belong to the outer run; a run inside of its body works, and infers its waits."""
    ip("import parmagic, time")
    run = ip("""%%parallel threads=1 -q --once --trace off for _ in range(1)
inner = parmagic.run(lambda n: time.sleep(0.01), range(4), 'threads=2', once=True, trace='off')
bool(inner.workers['measured'].any())""")
    assert run.results == [False]
    assert run.workers["measured"].all()


def test_a_run_beside_a_run_infers(ip):
    """Of two runs at once the first one has the hooks for itself, to its end, and its figures are not the other's."""
    ready, runs = threading.Event(), {}

    def first(_):
        ready.set()
        time.sleep(0.4)

    beside = threading.Thread(target=lambda: runs.update(one=parmagic.run(first, range(1), "threads=1", once=True, trace="off")))
    beside.start()
    assert ready.wait(5)
    other = parmagic.run(lambda _: time.sleep(0.01), range(2), "threads=1", once=True, trace="off")
    beside.join()
    assert not other.workers["measured"].any()
    assert runs["one"].workers["measured"].all()
    assert runs["one"].workers["sleep_s"].sum() == pytest.approx(0.4, abs=0.05)


def test_hooks_of_what_is_unloaded(ip):
    """A library that the body loads and unloads takes its slots along; taking the hooks off touches none of them."""
    ip("import _ctypes, ctypes, ctypes.util, os; name = ctypes.util.find_library('sqlite3') or ctypes.util.find_library('z')")
    run = ip("""%%parallel threads=1 -q --once --trace off for _ in range(20)
handle = _ctypes.dlopen(name, os.RTLD_NOW)
_ctypes.dlclose(handle)""")
    assert run.error is None
    assert waits().state()["patched"] == 0


def test_a_body_that_closes_descriptors_of_others(ip):
    """A body may close what is not its own; a file that takes such a number later is not closed with the worker."""
    run = ip("""%%parallel threads=1 -q --once --trace off for _ in range(1)
import os
before = set(os.listdir('/proc/self/fd'))
for number in before:
    if 'schedstat' in (os.readlink(f'/proc/self/fd/{number}') if os.path.islink(f'/proc/self/fd/{number}') else ''):
        os.close(int(number))
        mine = os.open('/dev/null', os.O_RDONLY)
mine""")
    os.fstat(run.results[0])
    os.close(run.results[0])


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # as a user would do it
def test_children_that_load_libraries_do_not_hang(ip):
    """A child that is forked while other threads load libraries can load one itself."""
    ip("import ctypes, os, _ssl; path = _ssl.__file__")
    run = ip("""%%parallel threads=2 -q --once --trace off for _ in range(60)
ctypes.CDLL(path)
pid = os.fork()
if not pid:
    ctypes.CDLL(path)
    os._exit(0)
os.waitpid(pid, 0)[1]""")
    assert run.results == [0] * 60


def test_a_scribbled_box_tells_nothing():
    """What a crashing worker wrote over its black box is not trusted."""
    extension = waits()
    with tempfile.TemporaryFile() as box:
        box.truncate(extension.box_size())
        assert extension.autopsy(box.fileno(), 1.0, 0.0) is None
        box.write(b"\xff" * 4096)
        box.flush()
        assert extension.autopsy(box.fileno(), 1.0, 0.0) is None


def test_many_threads_that_come_back_late(ip):
    """A hundred threads that wake up while the interrupted run looks at them are each reported once."""
    threading.Timer(0.3, lambda: os.kill(os.getpid(), 2)).start()
    with pytest.raises(KeyboardInterrupt):
        parmagic.run(lambda n: time.sleep(1.2 + n / 500), range(100), "threads=100", once=True, trace="off")
    for thread in threading.enumerate():
        if thread.name.startswith("parmagic"):
            thread.join(5)
    assert waits().state()["patched"] == 0


def test_libc_is_called_whatever_happens():
    """Hooked calls keep their results and errno: an error of the system is the same with the hooks on."""
    extension = waits()
    with hooks.hooked():
        extension.attach(0)
        try:
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                os.read(10_000, 1)
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.usleep(1) == 0
        finally:
            extension.detach()
    assert caught.value.errno == 9


def test_misuse_of_the_extension():
    """Calls at the wrong time are a RuntimeError, not a crash."""
    extension = waits()
    for call in (extension.mark, extension.take, extension.detach, lambda: extension.attach(0)):
        with pytest.raises(RuntimeError):
            call()
    assert extension.peek(123456789, 0.0, 0.0) is None
    with hooks.hooked(), tempfile.TemporaryFile() as small:
        assert extension.start() is False
        with pytest.raises(OSError, match="Invalid argument"):
            extension.attach(0, small.fileno())
        extension.attach(0)
        with pytest.raises(RuntimeError, match="already"):
            extension.attach(1)
        with pytest.raises(TypeError):
            extension.lines_of(b"bytes")
        extension.detach()


def test_time_within_and_between_marks():
    """The states between two marks add up to the time between them, to a microsecond."""
    extension = waits()
    with hooks.hooked():
        extension.attach(0)
        extension.mark()
        begin = time.perf_counter()
        time.sleep(0.02)
        sum(range(100_000))
        end = time.perf_counter()
        rows, events, lost = extension.take()
        extension.detach()
    numbers = memoryview(rows).cast("d").tolist()
    width = 1 + len(MEASURED)
    first, last = numbers[width : 2 * width], numbers[-width:]
    assert last[0] - first[0] == pytest.approx(sum(last[1:]) - sum(first[1:]), abs=1e-6)
    assert last[0] - first[0] == pytest.approx(end - begin, abs=1e-3)
    assert (len(events), lost) == (40, 0)


@pytest.mark.parametrize(("built_without", "asked"), [(True, None), (True, 1), (False, 1)])
@pytest.mark.parametrize(("before", "after", "said"), [(False, False, ""), (True, True, "has a GIL"), (False, True, "while the body ran")])
def test_a_gil_that_came_on(monkeypatch, built_without, asked, before, after, said):
    """A free-threaded interpreter that runs under a GIL all the same is told of, and how to prevent it, unless that was asked for."""
    monkeypatch.setattr("parmagic.system.gil.FREE_THREADED", built_without)
    monkeypatch.setattr("parmagic.system.gil.sys", SimpleNamespace(flags=SimpleNamespace(gil=asked)))
    notes = gil_notes(before=before, after=after)
    assert bool(notes) == bool(said and built_without and not asked)
    assert all(said in note and "PYTHON_GIL=0" in note for note in notes)


def test_a_ctrl_c_while_hooks_come_on_leaves_none(monkeypatch):
    """It is held back until the hooks are on, and takes them off again."""
    extension = hooks.extension()[0]
    start = extension.start

    def struck():
        on = start()
        os.kill(os.getpid(), signal.SIGINT)
        return on

    monkeypatch.setattr(extension, "start", struck)
    with pytest.raises(KeyboardInterrupt), hooks.hooked():
        raise AssertionError("the block is not entered")
    assert not extension.state()["patched"]


def test_a_ctrl_c_just_before_hooks_go_off_leaves_none(monkeypatch):
    """Where it comes before they are taken off, they are taken off all the same."""
    undo, calls = hooks.undo, []

    def struck(what):
        calls.append(what)
        if len(calls) == 1:
            raise KeyboardInterrupt
        undo(what)

    monkeypatch.setattr(hooks, "undo", struck)
    with pytest.raises(KeyboardInterrupt), hooks.hooked() as on:
        assert on
    assert not hooks.extension()[0].state()["patched"]


@pytest.mark.parametrize("model", ["threads", "procs"])
def test_a_wait_on_no_line_has_none(model):
    """What the compiler adds, behind a with block say, is on no line of the body: its waits have no line, and -1 is none."""

    def body(item):
        time.sleep(0.02)
        return item

    units = len(body.__code__.co_code) // 2
    nowhere = b"".join(bytes([0xF8 | min(8, units - at) - 1]) for at in range(0, units, 8))  # entries of the table that give no place
    body.__code__ = body.__code__.replace(co_linetable=nowhere)
    run = parmagic.run(body, range(2), f"{model}=1", once=True, trace="off")
    asleep = run.waits[run.waits["kind"] == "sleep"]
    assert asleep["n"].sum() >= 2
    assert asleep["line"].isna().all()
