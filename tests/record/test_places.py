"""What a lock is called wherever it is reached from, and where a wait really was: real threads and processes."""

from __future__ import annotations

import functools
import importlib
import shutil
import subprocess
import sys
import threading
import time

import pytest

import parmagic
from parmagic.model.kinds import LOCKS
from parmagic.model.private import public
from parmagic.model.waits import Total
from parmagic.record import hooks, objects, totals
from parmagic.system.gil import gil_enabled

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")

HELPER = """import threading, time

GUARD = threading.Lock()


def work():
    with GUARD:
        time.sleep(0.02)


class Store:
    shared = threading.Lock()

    def __init__(self):
        self.own = threading.Lock()

    def save(self):
        with self.own:
            time.sleep(0.02)

    def all(self):
        with self.shared:
            time.sleep(0.02)

    @property
    def size(self):
        with GUARD:
            time.sleep(0.02)
"""

CELL = """import collections, functools, threading, time, helper
from helper import work
lock = threading.Lock()
def nap(): time.sleep(0.02)
def hold(it):
    with it: nap()
def calls():
    with lock: nap()
def made():
    hidden = threading.Lock()
    return lambda: hold(hidden)
closure = made()
def default(guard=threading.Lock()): hold(guard)
def keyword(*, guard=threading.Lock()): hold(guard)
def attribute(): hold(attribute.guard)
attribute.guard = threading.Lock()
def synchronized(function):
    gate = threading.Lock()
    @functools.wraps(function)
    def run(*args):
        with gate: return function(*args)
    return run
nap_alone = synchronized(nap)
bound = functools.partial(hold, threading.Lock())
store = helper.Store()
save = store.save
stores = {"a": [helper.Store()], "b": (helper.Store(),)}
several = {threading.Lock()}
newest = collections.deque([threading.Lock()])
by_name = collections.defaultdict(threading.Lock); by_name["one"]
Pair = collections.namedtuple("Pair", "left right")
pair = Pair(threading.Lock(), threading.Lock())
class Slots: __slots__ = ("guard",)
slots = Slots(); slots.guard = threading.Lock()
class Mine(list): pass
mine = Mine(); mine.guard = threading.Lock(); mine.append(threading.Lock())
class Asked:
    guard = threading.Lock()
    def __getattr__(self, name): raise SystemExit("asked")
    def __len__(self): raise SystemExit("asked")
    def __iter__(self): raise SystemExit("asked")
    def __eq__(self, other): raise SystemExit("asked")
    __hash__ = None
asked = Asked()
"""

REACHED = {
    "a global of a function": ("calls()", "lock", "In[8]:8"),
    "a closure": ("closure()", "closure.hidden", "In[8]:6"),
    "a default": ("default()", "default.guard", "In[8]:6"),
    "a keyword's default": ("keyword()", "keyword.guard", "In[8]:6"),
    "an attribute of a function": ("attribute()", "attribute.guard", "In[8]:6"),
    "a decorator": ("nap_alone()", "nap_alone.gate", "In[8]:21"),
    "a partial": ("bound()", "bound.it", "In[8]:6"),
    "a global of a module's function": ("work()", "helper.GUARD", "helper.py:7"),
    "a module": ("helper.work()", "helper.GUARD", "helper.py:7"),
    "what a body imports": ("from helper import work as do\ndo()", "helper.GUARD", "helper.py:7"),
    "a method of an object": ("store.save()", "store.own", "helper.py:18"),
    "a class": ("store.all()", "store.shared", "helper.py:22"),
    "a bound method": ("save()", "save.__self__.own", "helper.py:18"),
    "a property": ("store.size", "helper.GUARD", "helper.py:27"),
    "an object in a list in a dict": ("stores['a'][0].save()", "stores['a'][0].own", "helper.py:18"),
    "an object in a tuple": ("stores['b'][0].save()", "stores['b'][0].own", "helper.py:18"),
    "a set": ("hold(*several)", "several", "In[8]:6"),
    "a deque": ("hold(newest[0])", "newest[0]", "In[8]:6"),
    "a defaultdict": ("hold(by_name['one'])", "by_name['one']", "In[8]:6"),
    "a named tuple": ("hold(pair.right)", "pair[1]", "In[8]:6"),
    "slots": ("hold(slots.guard)", "slots.guard", "In[8]:6"),
    "an attribute of a list": ("hold(mine.guard)", "mine.guard", "In[8]:6"),
    "an element of somebody's list": ("hold(mine[0])", "mine[0]", "In[8]:6"),
    "an object whose code nobody may run": ("hold(asked.guard)", "asked.guard", "In[8]:6"),
}


@pytest.fixture
def cells(ip, tmp_path, monkeypatch):
    """A notebook with a module beside it, and a cell that is number 8."""
    (tmp_path / "helper.py").write_text(HELPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    ip.shell.execution_count = 8
    ip(CELL)
    ip.shell.execution_count = 9
    yield ip
    sys.modules.pop("helper", None)
    importlib.invalidate_caches()


def longest(run, *kinds):
    """Return the row of the locks and queues that was waited for longest."""
    return run.waits[run.waits["kind"].isin(kinds or ["lock", "queue"])].nlargest(1, "total_s").iloc[0]


@pytest.mark.parametrize("way", REACHED)
def test_a_lock_has_a_name_wherever_it_is_reached_from(cells, way):
    """The table calls it as a user would write it, with the place where it was waited for; its line is still the cell's."""
    body, name, place = REACHED[way]
    found = longest(cells(f"%%parallel threads=2 -q --once --trace off\n{body}"))
    assert (found["object"], found["place"]) == (name, place)
    assert found["line"] == 1 + len(body.splitlines())


def test_a_lock_of_an_item(cells):
    """What the body gets with its item is known by the name that the notebook has for it."""
    found = longest(cells("%%parallel threads=2 -q --once --trace off for each in [stores['a'][0]] * 4\neach.save()"))
    assert found["object"] == "stores['a'][0].own"


def test_a_place_in_the_cell(cells):
    """It has the cell's number, also of another kind of wait; places in a function are told apart where the cell's line is one."""
    run = cells("%%parallel threads=1 -q --once --trace off\nfor _ in range(5): time.sleep(0.005)\nfor _ in range(5): nap()\nnap(); nap(); helper.time.sleep(0.02); time.sleep(0.02)")
    table = run.waits[run.waits["kind"] == "sleep"]
    assert sorted(zip(table["line"], table["place"], strict=True)) == [(2, "In[9]:2"), (3, "In[8]:4"), (4, "In[8]:4"), (4, "In[9]:4")]


def test_a_place_of_a_plain_function():
    """Without a notebook, a place is a file and a line; the body's own line is the same."""
    guard = threading.Lock()

    def body(_):
        with guard:
            threading.Event().wait(0.02)

    run = parmagic.run(body, range(2), "threads=2", once=True, trace="off")
    found = run.waits[run.waits["object"] == "guard"].iloc[0]
    line = body.__code__.co_firstlineno + 1
    assert found["line"] == line
    assert found["place"].endswith(f"test_places.py:{line}")


def test_a_body_without_python_code():
    """It has no line, and no place: not our own code's."""
    run = parmagic.run(time.sleep, [0.01] * 5, "threads=1", once=True, trace="off")
    found = run.waits[run.waits["kind"] == "sleep"]
    assert len(found) == 1
    assert found[["line", "place"]].isna().all(axis=None)


@pytest.mark.skipif(not gil_enabled(), reason="there is no GIL")
def test_a_wait_for_the_gil_is_where_it_was_lost(cells, tmp_path):
    """Also in another file than the cell."""
    (tmp_path / "spinning.py").write_text("import time\ndef spin():\n    end = time.perf_counter() + 0.2\n    while time.perf_counter() < end: sum(range(500))\n")
    run = cells("import spinning")
    run = cells("%%parallel threads=2 -q --once --trace off\nspinning.spin()")
    sys.modules.pop("spinning")
    table = run.waits[(run.waits["kind"] == "gil") & (run.waits["line"] == 2)]
    assert table.groupby("place")["total_s"].sum().idxmax() == "spinning.py:4"


def test_more_places_than_can_be_told_apart(cells):
    """What does not fit is told apart by the cell's lines, and no second of it is lost."""
    cells("many = compile('time.sleep(1e-4)\\n' * 700, 'many.py', 'exec')")
    run = cells("%%parallel threads=1 -q --once --trace off\nexec(many, {'time': time})\ntime.sleep(0.01)")
    table = run.waits[run.waits["kind"] == "sleep"]
    assert table["n"].sum() > 600  # who was preempted for longer than it was to sleep does not sleep
    assert 300 < table["place"].notna().sum() <= 512
    assert table[table["place"].isna() & (table["line"] == 2)]["n"].sum() > 50
    assert table["total_s"].sum() == pytest.approx(run.workers["sleep_s"].sum(), rel=0.01)


NAMES = {"ascii": "plain.py", "latin": "gr\u00fc\u00dfe.py", "wide": "\u65e5\u672c/\U0001f600.py", "a lone surrogate": "x\udcff.py"}


@pytest.mark.parametrize("name", NAMES)
def test_files_of_any_name(cells, name):
    """The names of files come as they are; of a very long one, its end."""
    cells.space["codes"] = [compile("for _ in range(5): time.sleep(0.005)", file, "exec") for file in (NAMES[name], "/" + "long/" * 60 + NAMES[name])]
    run = cells("%%parallel threads=1 -q --once --trace off\nfor code in codes: exec(code, {'time': time})")
    short, long = run.waits[run.waits["kind"] == "sleep"].sort_values("place", key=lambda places: places.str.len())["place"]
    assert short == f"{NAMES[name]}:1"
    assert long.endswith(f"{NAMES[name]}:1")
    assert 40 < len(long.encode(errors="surrogatepass")) < 260


def test_more_files_than_fit(cells):
    """Waits in further files have their line in the cell, and no place."""
    cells("codes = [compile('time.sleep(0.001)', f'file{k}.py', 'exec') for k in range(80)]")
    run = cells("%%parallel threads=1 -q --once --trace off\nfor code in codes: exec(code, {'time': time})")
    table = run.waits[run.waits["kind"] == "sleep"]
    assert table["n"].sum() > 70
    assert 50 < table["place"].nunique() <= 64
    assert set(table["line"]) == {2}


def test_places_of_a_worker_that_was_killed(cells):
    """They are in what it leaves behind."""
    cells("import os, signal")
    cells.fails("%%parallel procs=2 -q --once --trace off -o run for n in range(2)\nfor _ in range(5): time.sleep(0.01)\nos.kill(os.getpid(), signal.SIGKILL)")
    table = cells.space["run"].waits
    assert set(table[table["kind"] == "sleep"]["place"].dropna()) == {"In[10]:2"}


def test_what_a_partial_brings_is_named():
    """A body that is a partial knows its arguments by its own names for them."""
    def body(guard, _):
        with guard:
            threading.Event().wait(0.02)

    run = parmagic.run(functools.partial(body, threading.Lock()), range(2), "threads=2", once=True, trace="off")
    assert "guard" in run.waits["object"].tolist()


IN_PROCESSES = {
    "a global of a function": ("calls()", "guard", "In[8]:7"),
    "an object": ("store.save()", "store.own", "In[8]:4"),
    "a list of a dict": ("hold(stores['a'][0].own)", "stores['a'][0].own", "In[8]:6"),
    "a module's own": ("beside()", "helper.GUARD", "helper.py:7"),
}


@pytest.mark.parametrize("way", IN_PROCESSES)
def test_names_and_places_in_processes(cells, way):
    """They are the same where the objects are the worker's own copies."""
    body, name, place = IN_PROCESSES[way]
    cells.shell.execution_count = 8
    cells("""import multiprocessing, threading, time, helper; shared = multiprocessing.get_context('forkserver')
class Own:
    def __init__(self): self.own = shared.Lock()
    def save(self): hold(self.own)
def hold(it):
    with it: time.sleep(0.02)
def calls(): hold(guard)
def beside():
    helper.GUARD.acquire()
    threading.Timer(0.02, helper.GUARD.release).start()
    helper.work()
guard = shared.Lock(); store = Own(); stores = {"a": [Own()]}""")
    place = "In[8]:6" if place.startswith("In") else place
    cells.shell.execution_count = 9
    found = longest(cells(f"%%parallel procs=2 -q --once --trace off\n{body}"))
    assert (found["object"], found["place"], found["line"]) == (name, place, 2)


SORTS = {
    "an event": ("event", "threading.Event()", "if worker.rank:\n    nap(); it.set()\nelse:\n    it.wait()"),
    "a barrier": ("barrier", "threading.Barrier(2)", "if worker.rank:\n    nap()\nit.wait()"),
    "a condition": ("condition", "threading.Condition()", "with it:\n    it.wait(0.05)"),
    "a semaphore": ("semaphore", "threading.BoundedSemaphore(1)", "with it:\n    nap()"),
    "a queue": ("queue", "queue.Queue()", "if worker.rank:\n    nap(); it.put(1)\nelse:\n    it.get()"),
    "a queue in C": ("queue", "queue.SimpleQueue()", "if worker.rank:\n    nap(); it.put(1)\nelse:\n    it.get()"),
    "a queue of somebody's": ("queue", "Jobs()", "if worker.rank:\n    nap(); it.put(1)\nelse:\n    it.get()"),
    "a future": ("future", "concurrent.futures.Future()", "if worker.rank:\n    nap(); it.set_result(1)\nelse:\n    it.result()"),
    "a thread": ("thread", "started()", "it.join()"),
    "a lock": ("lock", "threading.RLock()", "with it:\n    nap()"),
}


@pytest.fixture
def sorts(ip):
    """A notebook with what makes each sort."""
    ip("""import itertools, queue, threading, time, concurrent.futures
class Jobs(queue.Queue): pass
def nap(): time.sleep(0.05)
def started():
    thread = threading.Thread(target=nap)
    thread.start()
    return thread""")
    return ip


def most(run):
    """Return the total of the locks and queues that took longest."""
    found = [total for lane in run._study.timelines[0].lanes for total in lane.totals if total.kind in LOCKS]
    return max(found, key=lambda total: total.total_s)


@pytest.mark.parametrize("sort", SORTS)
def test_what_a_thing_is_to_its_user(sorts, sort):
    """It is known by its class, and only who waits for a plain lock is told to hold it for less; the place is not in the standard library."""
    thing, make, body = SORTS[sort]
    sorts(f"it = {make}")
    run = sorts("%%parallel threads=2 -q --once --trace off\n" + body)
    assert (most(run).name, most(run).thing) == ("it", thing)
    assert most(run).place.startswith("In[")
    assert ("Hold the lock" in run.verdict) <= (thing == "lock")


@pytest.mark.parametrize("sort", SORTS)
def test_what_a_thing_without_a_name_is(sorts, sort):
    """Where nothing leads to it, it is called as it is at its place."""
    thing, make, body = SORTS[sort]
    sorts(f"hidden = itertools.repeat({make})")
    run = sorts("%%parallel threads=2 -q --once --trace off\nit = next(hidden)\n" + body)
    assert (most(run).name, most(run).thing) == ("it", thing)
    assert most(run).place.startswith("In[")


UNSAID = {
    "an event": ("threading.Event()", "if worker.rank:\n    nap(); next(hidden).set()\nelse:\n    next(hidden).wait()"),
    "a barrier": ("threading.Barrier(2)", "if worker.rank:\n    nap()\nnext(hidden).wait()"),
    "a semaphore": ("threading.Semaphore(1)", "with next(hidden):\n    nap()"),
    "a queue": ("queue.Queue()", "if worker.rank:\n    nap(); next(hidden).put(1)\nelse:\n    next(hidden).get()"),
    "a future": ("concurrent.futures.ThreadPoolExecutor(1)", "list(next(hidden).map(time.sleep, [0.05]))"),
}


@pytest.mark.parametrize("what", UNSAID)
def test_what_has_no_name_at_all(sorts, what):
    """It is called what it is, by the method that was called; in the verdict as well."""
    make, body = UNSAID[what]
    sorts(f"hidden = itertools.repeat({make})")
    run = sorts("%%parallel threads=2 -q --once --trace off\n" + body)
    assert (most(run).name, most(run).thing) == (what, what.split()[1])
    assert "0x" not in run.verdict
    if "ThreadPool" in make:
        sorts("next(hidden).shutdown()")


def test_a_lock_that_is_only_an_address(sorts):
    """Where nothing tells, the table has its address, and the verdict does not; nobody is told to hold it for less."""
    sorts("hidden = itertools.repeat(threading.Lock())")
    run = sorts("%%parallel threads=3 -q --once --trace off for _ in range(9)\nwith next(hidden):\n    nap()")
    assert longest(run)["object"].startswith("0x")
    assert "0x" not in run.verdict
    assert "Hold" not in run.verdict


STANDIN = """import threading, time, queue

_guard = threading.RLock()
_free = queue.Queue()
_free.put("connection")


def call():
    with _guard:
        time.sleep(0.03)


def connect():
    it = _free.get()
    time.sleep(0.03)
    _free.put(it)


class Client:
    def __init__(self):
        self._guard = threading.Lock()

    def call(self):
        with self._guard:
            time.sleep(0.03)
"""


@pytest.fixture
def library(ip, tmp_path, monkeypatch):
    """A notebook with two libraries, one of which lends connections."""
    packages = tmp_path / "site-packages"
    (packages / "standin" / "_inner").mkdir(parents=True)
    for name in ("__init__", "pool", "_inner/__init__", "_inner/deep"):
        (packages / "standin" / f"{name}.py").write_text(STANDIN)
    monkeypatch.syspath_prepend(str(packages))
    ip("import standin, standin.pool, standin._inner.deep, logging, time\nclient = standin.Client()")
    yield ip
    for name in [each for each in sys.modules if each.partition(".")[0] == "standin"]:
        del sys.modules[name]


LIBRARIES = {
    "a module of a library": ("standin.call()", "a lock in standin", "library", "standin/__init__.py:9"),
    "a library's inner module": ("standin._inner.deep.call()", "a lock in standin", "library", "standin/_inner/deep.py:9"),
    "a pool": ("standin.pool.connect()", "a queue in standin.pool", "pool", "standin/pool.py:14"),
    "an object of a library": ("client.call()", "client._guard", "library", "standin/__init__.py:24"),
    "logging": ("logging.getLogger('slow').warning('x')", "a lock in logging", "library", "logging/__init__.py:"),
}


@pytest.mark.parametrize("where", LIBRARIES)
def test_a_lock_of_a_library(library, where):
    """It is called by its library where the body has no name for it, and nobody is told to hold it for less."""
    body, name, thing, place = LIBRARIES[where]
    library("""class Slow(logging.Handler):
    def emit(self, record): time.sleep(0.03)
logging.getLogger("slow").handlers = [Slow()]; logging.getLogger("slow").propagate = False""")
    run = library(f"%%parallel threads=3 -q --trace off --once for _ in range(9)\n{body}")
    found = longest(run)
    assert found["object"] == name
    assert found["place"].startswith(place)
    assert {total.thing for lane in run._study.timelines[0].lanes for total in lane.totals if total.name == name} == {thing}
    assert "Hold the lock" not in run.verdict
    assert "0x" not in run.verdict


def test_a_lock_inside_a_native_library(ip, tmp_path):
    """It is called by the library that asked for it; the interpreter's own locks are no library's."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source = tmp_path / "standin.c"
    source.write_text("""#include <pthread.h>
#include <unistd.h>
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
int work(void) { int outcome = pthread_mutex_lock(&guard); usleep(30000); pthread_mutex_unlock(&guard); return outcome; }
""")
    subprocess.run([compiler, "-shared", "-fPIC", "-pthread", "-o", tmp_path / "libstandin-0.3.so", source], check=True)
    ip(f"import ctypes; work = ctypes.CDLL({str(tmp_path / 'libstandin-0.3.so')!r}).work")
    run = ip("%%parallel threads=3 -q --once --trace off for _ in range(9)\nwork()")
    assert longest(run)["object"] == "a lock inside libstandin"
    assert "Hold the lock" not in run.verdict


def address(lock):
    """Return an address that a wait for a lock has."""
    return next(iter(objects._addresses(lock)))


def test_only_what_is_wanted_is_looked_for():
    """What is too many steps away is not found, nor what stands behind a crowd, unless it was waited for for long."""
    locks = [threading.Lock() for _ in range(3)]
    people = [object() for _ in range(objects.FEW)]
    behind = [[[threading.Lock()]]]
    far = threading.Lock()
    nest = [far]
    for _ in range(objects.DEEPEST):
        nest = [nest]

    def body():
        return locks, people, behind, nest

    def found(lock, seconds):
        return [known.name for known in objects.names(body, {address(lock)}, seconds).values()]

    assert objects.names(body, (), 1.0) == {}
    assert found(locks[2], 0.0) == ["locks[2]"]
    assert found(behind[0][0][0], 0.0) == []
    assert found(behind[0][0][0], 1.0) == ["behind[0][0][0]"]
    assert found(far, 1.0) == []


def test_names_of_what_may_be_private():
    """Keys may be names of people: on screen, and in no file."""
    locks = {"alice": [threading.Lock()]}
    (known,) = objects.names(lambda: locks, {address(locks["alice"][0])}, 0.0).values()
    assert (known.name, public(known.name)) == ("locks['alice'][0]", "locks[…][0]")


def test_who_took_the_place_of_another_is_not_named():
    """Where a thing of another sort lies at the address by now, that one's name is not given to what was waited for."""
    gone = threading.Event()

    def body():
        return gone

    (known,) = objects.names(body, {id(gone)}, 0.0).values()
    assert (known.name, known.thing, known.itself) == ("gone", "event", "event")
    assert totals.with_name(Total("lock", id(gone), 1, 1, 1.0, 1.0, thing="event"), known).name == "gone"
    assert totals.with_name(Total("lock", id(gone), 1, 1, 1.0, 1.0, thing="barrier"), known).name == ""
