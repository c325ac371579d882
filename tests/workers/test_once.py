"""``worker.once``: what a worker makes at its first call is its own for all of its items, and is left behind the last of them."""

from __future__ import annotations

import ast
import gc
import os
import sqlite3
import threading
import weakref
from pathlib import Path

import pytest
from arms import MODELS, spread

import parmagic
from parmagic import current_worker

HELP = """
import contextlib, functools, os, time, types
def tell(*words):
    with open({log!r}, "a") as file: file.write(repr(words) + "\\n")
class Session:
    def __init__(self, name="session"):
        self.name, self.who = name, (os.getpid(), __import__("threading").get_ident())
        tell("made", name, *self.who)
    def __enter__(self):
        tell("entered", self.name, *self.who)
        return self
    def __exit__(self, *error):
        tell("left", self.name, os.getpid(), __import__("threading").get_ident(), error == (None, None, None))
@contextlib.contextmanager
def opened(name="opened"):
    tell("made", name)
    try:
        yield name
    finally:
        tell("left", name)
"""


@pytest.fixture
def told(ip, tmp_path):
    """Define helpers in the notebook, and return a function that reads what they have told."""
    log = tmp_path / "log"
    ip(HELP.format(log=str(log)))

    def read():
        lines = [ast.literal_eval(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.write_text("")
        return lines

    return read


def words(lines, *names):
    """Return how often each of these words was told."""
    return [[line[0] for line in lines].count(name) for name in names]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("chunk", ["", "--chunk 3"])
def test_each_worker_has_its_own(ip, told, model, chunk):
    """Made, entered and left once by each worker that asks for it, by itself; all of its items have the same one."""
    run = ip(f"%%parallel {model} {chunk} -q --once for i in range(12)\ntime.sleep(0.005)\nmine = worker.once(Session)\nworker.rank, mine.who, id(mine)")
    by_rank = {rank: {each for each in run.results if each[0] == rank} for rank, _, _ in run.results}
    assert all(len(each) == 1 for each in by_rank.values())
    lines = told()
    assert words(lines, "made", "entered", "left") == [len(by_rank)] * 3
    assert {line[2:4] for line in lines} == {who for _, who, _ in run.results}
    assert all(line[4] for line in lines if line[0] == "left")
    assert run.error is None
    assert not any("once" in note for note in run.notes)


WAYS = {
    "a class": ("worker.once(Session)", "", Ellipsis),
    "a lambda": ("worker.once(lambda: [0])", "", [0]),
    "a lambda that reads the notebook's names": ("worker.once(lambda: LIMIT)", "LIMIT = 7", 7),
    "a function of the body": ("def make(): return {'a': 1}\nworker.once(make)", "", {"a": 1}),
    "one that calls itself": ("def make(n=3): return make(n - 1) if n else 'end'\nworker.once(make)", "", "end"),
    "one that closes over modules and functions": ("import math\ndef f(): return math.pi\nworker.once(lambda: f() * math.e)", "", 3.141592653589793 * 2.718281828459045),
    "one that knows the worker": ("worker.once(lambda: worker.count > 0)", "", True),
    "a generator": ("worker.once(opened)", "", "opened"),
    "a generator of the body's": ("@contextlib.contextmanager\ndef mine():\n    yield 5\nworker.once(mine)", "", 5),
    "a partial": ("worker.once(functools.partial(opened, 'db'))", "", "db"),
    "a method": ("worker.once(box.make)", "class Box:\n    def make(self): return 'made'\nbox = Box()", "made"),
    "a function in C": ("worker.once(os.getpid) > 0", "", True),
    "a callable object": ("worker.once(call)", "class Call:\n    def __call__(self): return 'called'\ncall = Call()", "called"),
    "a factory's function": ("worker.once(make)", "def factory(n):\n    return lambda: n\nmake = factory([5])", [5]),
    "a default that stays": ("worker.once(lambda n=2, *, k=3: n * k)", "", 6),
    "what an item closes over, by a key": ("worker.once(lambda: i, key=('i', i))", "", "item"),
    "beside others": ("[worker.once(lambda: 1), worker.once(lambda: 2), worker.once(opened), worker.once(lambda: 3, key=1)]", "", [1, 2, "opened", 3]),
    "within another one": ("def inner(): return 'inner'\nworker.once(lambda: [worker.once(inner), worker.once(lambda: 1)])", "", ["inner", 1]),
}


@pytest.mark.parametrize(("model", "name"), spread(MODELS, WAYS, "one that knows the worker", "beside others"))
def test_what_can_make_something(ip, told, model, name):
    """Whatever can be called with nothing, known again at each item; a name that two functions share is not confused."""
    body, before, expected = WAYS[name]
    if before:
        ip(before)
    run = ip(f"%%parallel {model} -q --once for i in range(6)\n{body}")
    assert run.error is None
    if expected is not Ellipsis:
        assert run.results == [i if expected == "item" else expected for i in range(6)]


@pytest.mark.parametrize("model", MODELS)
def test_none_is_something_as_well(ip, told, model):
    """A make that returns None is called once; so is one whose object is false."""
    run = ip(f"%%parallel {model} -q --once for i in range(8)\ndef make(): tell('made')\nworker.once(make), worker.once(list), worker.rank")
    assert [each[:2] for each in run.results] == [(None, [])] * 8
    assert words(told(), "made") == [len({rank for *_, rank in run.results})]


REFUSED = {
    "the clause's": ("worker.once(lambda: open(i))", "closes over `i`"),
    "the body's": ("path = f'a{i}'\nworker.once(lambda: [path])", "closes over `path`"),
    "a function's of the body": ("def make():\n    return [i]\nworker.once(make)", "closes over `i`"),
    "within another function": ("path = [i]\ndef inner(): return path\nworker.once(lambda: inner())", "closes over `path`"),
    "a factory's of the body": ("def factory(n):\n    return lambda: n\nworker.once(factory(i))", "closes over `n`"),
    "in a partial": ("def make(n): return [n, i]\nworker.once(functools.partial(make, 3))", "closes over `i`"),
    "as a default": ("worker.once(lambda i=i: [i])", "has `i=i` among its parameters"),
    "as a keyword's default": ("worker.once(lambda *, i=i: [i])", "has `i=i` among its parameters"),
    "a class of the body": ("class Mine: pass\nworker.once(Mine)", "class `Mine` is made anew"),
    "a function that makes one": ("class Mine: pass\nworker.once(lambda: Mine())", "closes over `Mine`"),
    "no function": ("worker.once(i)", "takes a function"),
    "a key that has no hash": ("worker.once(list, key=[i])", "unhashable"),
    "a coroutine": ("async def make(): return 1\nworker.once(make)", "asynchronous"),
    "an asynchronous context manager": ("@contextlib.asynccontextmanager\nasync def make(): yield 1\nworker.once(make)", "asynchronous"),
    "itself": ("def make(): return worker.once(make)\nworker.once(make)", "asks for what it is making itself"),
}


@pytest.mark.parametrize(("model", "name"), spread(MODELS, REFUSED, "a factory's of the body"))
def test_what_is_refused(ip, told, model, name):
    """At the first item that asks, whichever that is, and with the reason; nothing has been made."""
    body, why = REFUSED[name]
    error = ip.fails(f"%%parallel {model} -q --once for i in range(4)\n{body}")
    assert why in str(error)
    run = ip(f"%%parallel {model} -q --once --keep-going for i in range(4)\n{body}")
    assert len(run._study.timelines[0].errors) == 4


DIFFERENT = {
    "another default": "worker.once(lambda n=i: [n])",
    "another argument": "worker.once(functools.partial(opened, i))",
    "another keyword": "worker.once(functools.partial(opened, name=i))",
    "another one's method": "worker.once(Box(i).make)",
    "a factory's with another argument": "worker.once(factory(i))",
    "another object": "worker.once(Call(i))",
    "another string's method": "worker.once(('a' * i).upper)",
}


@pytest.mark.parametrize("model", ["serial", "threads=1", "procs=1"])
@pytest.mark.parametrize("body", DIFFERENT.values(), ids=DIFFERENT)
def test_another_one_is_refused(ip, told, model, body):
    """What brings along something else than what made the object is not taken for the same."""
    ip("class Box:\n    def __init__(self, n): self.n = n\n    def make(self): return [self.n]\n    __call__ = make\nCall = Box\ndef factory(n):\n    return lambda: [n]")
    run = ip(f"%%parallel {model} -q --once --keep-going for i in range(4)\n{body}")
    assert list(run._study.timelines[0].errors) == [1, 2, 3]
    assert all("Give it a key" in str(error) for error in run._study.timelines[0].errors.values())


@pytest.mark.parametrize("model", MODELS)
def test_a_make_that_fails(ip, told, model):
    """The item fails, and the next call tries again: of make as of what is entered."""
    ip("class Refuses(Session):\n    def __enter__(self):\n        if self.name < 3: raise OSError('refused')\n        return super().__enter__()")
    body = "def make():\n    if len(tries) < 2: 1 / 0\n    return Refuses(len(tries))\ntries = worker.once(list)\ntries.append(i)\nworker.once(lambda: make(), key=1).name"
    run = ip(f"%%parallel {model} -q --once --keep-going --chunk 9 for i in range(9)\n{body}")
    (arm,) = run._study.timelines
    ran = next(lane for lane in arm.lanes if lane.n_done == 9)
    assert [type(error).__name__ for error in ran.errors.values()] == ["ZeroDivisionError", "OSError"]
    assert run.results[2:] == [3] * 7
    assert words(told(), "made", "entered", "left") == [2, 1, 1]


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_leaving(ip, told, model):
    """What was made last is left first; what another one's make asked for, behind that one."""
    body = "worker.once(lambda: opened('a'))\nworker.once(lambda: (worker.once(lambda: opened('c')), opened('b'))[1])"
    run = ip(f"%%parallel {model} -q --once for i in range(1)\n{body}")
    assert run.results == ["b"]
    assert [line[1] for line in told() if line[0] == "left"] == ["b", "c", "a"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("raised", ["ValueError('secret 5')", "SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()"])
def test_an_exit_that_raises(ip, told, model, raised):
    """A note says so, with the make's line; results stay, others are left, and nothing of the error's words goes to a file."""
    ip(f"class Bad(Session):\n    def __exit__(self, *error):\n        super().__exit__(*error)\n        raise {raised}")
    run = ip(f"%%parallel {model} -q --once for i in range(4)\nworker.once(Session)\nworker.once(lambda: Bad('bad'))\nworker.once(opened)\ni * 10")
    assert run.results == [0, 10, 20, 30]
    assert run.error is None
    lines = told()
    assert words(lines, "made") == words(lines, "left")
    notes = [note for note in run.notes if "could not leave what `<lambda>` (line 3) made by worker.once" in note]
    assert notes
    assert all(raised.split("(")[0] in note for note in notes)
    run.save("report.html")
    text = Path("report.html").read_text()
    assert "secret 5" not in text
    assert "could not leave what" in text


@pytest.mark.parametrize("model", ["serial", "threads=3", "procs=3", "procs=3 --start-method fork", "serial threads=3"])
def test_by_rank_without_a_loop(ip, told, model):
    """In SPMD each rank has its own, also where ranks run in turn; there, too, it is left as that rank, behind the last one."""
    ip("class Ranked(Session):\n    def __exit__(self, *error): tell('left', parmagic.current_worker().rank)\nimport parmagic")
    run = ip(f"%%parallel {model} -q --once\nfor _ in range(3): mine = worker.once(lambda: Ranked(worker.rank))\nmine.name, worker.count")
    for timeline in run._study.timelines:
        assert [rank for rank, _ in timeline.results] == list(range(timeline.n_items))
    lines = told()
    ranks = sorted(rank for timeline in run._study.timelines for rank in range(timeline.n_items))
    assert sorted(line[1] for line in lines if line[0] == "made") == ranks
    assert sorted(line[1] for line in lines if line[0] == "left") == ranks


@pytest.mark.parametrize("model", ["threads=2", "procs=2", "procs=2 --start-method fork"])
def test_in_the_baseline(ip, told, model):
    """The serial baseline makes one, and leaves it, also where that takes longer than it waits for a process that does nothing."""
    ip("class Slow(Session):\n    def __exit__(self, *error):\n        time.sleep(2.5)\n        super().__exit__(*error)")
    run = ip(f"%%parallel {model} -q for i in range(6)\ntime.sleep(0.02)\nworker.once(Slow if worker.model == 'serial' else Session).name")
    assert run.summary["baseline"].tolist() == ["measured"]
    assert run.summary["serial_s"].max() < 2
    lines = told()
    assert words(lines, "made") == words(lines, "left")
    assert 2 <= words(lines, "made")[0] <= 3
    assert not any("disagree" in note for note in run.notes)


@pytest.mark.parametrize("model", MODELS)
def test_leaving_is_none_of_the_arms_time(ip, told, model):
    """Neither wall_s, nor the workers' waits and CPU seconds, know of what an exit does."""
    ip("class Slow:\n    def __enter__(self): return self\n    def __exit__(self, *error):\n        time.sleep(0.8)\n        for _ in range(3_000_000): pass")
    run = ip(f"%%parallel {model} -q --once for i in range(4)\nworker.once(Slow)\ntime.sleep(0.01)")
    (arm,) = run._study.timelines
    assert arm.end - max(batch.ends[-1] for lane in arm.lanes for batch in lane.batches) < 0.7
    assert run.workers["cpu_s"].max() < arm.wall_s + 0.05
    assert not (run.waits[run.waits["kind"] == "sleep"]["max_s"] > 0.7).any()  # NaN where waits are inferred


@pytest.mark.parametrize("model", ["procs=2", "procs=2 --start-method spawn"])
def test_a_worker_that_dies(ip, told, model):
    """What it had entered was not left, which a note says; the one in its place makes its own, and leaves it."""
    body = "worker.once(Session)\nif i == 3: os.kill(os.getpid(), 9)\ntime.sleep(0.01)\ni"
    run = ip(f"%%parallel {model} -q --once --keep-going for i in range(12)\n{body}")
    assert run.results == [None if i == 3 else i for i in range(12)]
    made, left = words(told(), "made", "left")
    assert made in {2, 3}  # a worker that starts late may find nothing to do
    assert left == made - 1
    (note,) = [note for note in run.notes if "worker.once" in note]
    assert "ended before it left what worker.once had made there" in note


def test_a_worker_that_dies_while_it_makes(ip, told):
    """Nothing was entered, so nothing is to be said."""
    error = ip.fails("%%parallel procs=2 -q --once for i in range(4)\nworker.once(lambda: os._exit(3))")
    assert isinstance(error, parmagic.WorkerDied)
    assert not any("worker.once" in note for note in parmagic.last().notes)


@pytest.mark.parametrize("model", ["procs=2", "procs=2 --start-method fork"])
def test_a_worker_that_dies_while_it_leaves(ip, told, model):
    """All results are there; a note says what was not left."""
    ip("class Deadly(Session):\n    def __exit__(self, *error): os._exit(5)")
    run = ip(f"%%parallel {model} -q --once for i in range(4)\nworker.once(Deadly)\ni")
    assert run.results == [0, 1, 2, 3]
    assert any("ended before it left what worker.once had made there" in note for note in run.notes)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("end", ["break", "1 / 0", "raise SystemExit(3)"])
def test_whatever_ends_the_loop(ip, told, model, end):
    """Behind a break, and behind an item that failed, everything is left by each worker."""
    body = f"worker.once(Session)\ntime.sleep(0.005)\nif i == 5: {end}"
    (ip if end == "break" else ip.fails)(f"%%parallel {model} -q --once for i in range(100)\n{body}")
    lines = told()
    assert words(lines, "made")[0] > 0
    assert words(lines, "made") == words(lines, "left")
    assert {line[2:4] for line in lines if line[0] == "made"} == {line[2:4] for line in lines if line[0] == "left"}


INTERRUPTED = {
    "in an item": ("Session", "if i == 3: strike()\ntime.sleep(0.01)"),
    "while it is made": ("Making", ""),
    "while it is left": ("Leaving", ""),
}
STRIKES = """
import _thread, signal, threading
notebook = os.getpid()
def strike():
    with contextlib.suppress(FileExistsError):
        os.close(os.open("struck", os.O_CREAT | os.O_EXCL))
        os.kill(notebook, signal.SIGINT)  # a second one would end workers at once
        for _ in range(300): time.sleep(0.01)
def late(after, what):
    class Late(Session):
        def __enter__(self):
            if what == "making": strike()
            return super().__enter__()
        def __exit__(self, *error):
            try:
                if what == "leaving": strike()
            finally:
                super().__exit__(*error)
    return Late
Making, Leaving = late(0, "making"), late(0, "leaving")
"""


@pytest.mark.parametrize("model", ["serial", "threads=1", "threads=2", "procs=1", "procs=2", "procs=2 --start-method fork"])
@pytest.mark.parametrize(("make", "body"), INTERRUPTED.values(), ids=INTERRUPTED)
def test_an_interrupt(ip, told, model, make, body):
    """Ctrl-C ends the run wherever it comes; what was entered is left all the same, by who entered it."""
    ip(STRIKES)
    count = 2 if make == "Leaving" else 100
    error = ip.fails(f"%%parallel {model} -q --once for i in range({count})\nworker.once(Session)\nworker.once({make})\n{body}")
    assert isinstance(error, KeyboardInterrupt)
    assert not any("ended before it left" in note for note in parmagic.last().notes)
    if "2" in model:
        return  # another worker may be struck within its own enter or exit
    lines = told()
    assert words(lines, "entered") == words(lines, "left")
    assert {line[2:4] for line in lines if line[0] == "entered"} == {line[2:4] for line in lines if line[0] == "left"}
    if make == "Leaving" and "procs" not in model:  # what a process has sent may still be on its way
        assert parmagic.last().items["error"].isna().all()


@pytest.mark.parametrize("model", ["threads=2", "procs=2"])
def test_timeout_while_it_leaves(ip, told, model):
    """--timeout ends an exit that would go on and on; results stay."""
    ip("class Endless(Session):\n    def __exit__(self, *error):\n        while True: time.sleep(0.01)")
    error = ip.fails(f"%%parallel {model} -q --once --timeout 1 for i in range(2)\nworker.once(Endless)\ni")
    assert isinstance(error, parmagic.RunTimeout)
    assert parmagic.last().results == [0, 1]


def test_who_does_not_end_is_named(ip, told):
    """A process that was killed, as it swallowed its end, has not left what it kept: a note says so."""
    body = "worker.once(Session)\nwhile True:\n    try: time.sleep(0.01)\n    except BaseException: pass"
    ip.fails(f"%%parallel procs=1 -q --once --timeout 1 for i in range(2)\n{body}")
    assert words(told(), "entered", "left") == [1, 0]
    assert any("ended before it left" in note for note in parmagic.last().notes)


@pytest.mark.parametrize("model", MODELS)
def test_threads_of_the_bodys(ip, told, model):
    """Threads that the body starts ask for the same thing at once: one of them makes it, the others have it."""
    body = (
        "import threading, concurrent.futures as futures\ngate = threading.Barrier(4)\ndef ask():\n    gate.wait()\n    return worker.once(Session)\n"
        "with futures.ThreadPoolExecutor(4) as pool:\n    found = [each.result() for each in [pool.submit(ask) for _ in range(4)]]\nlen(set(map(id, found))), worker.rank"
    )
    run = ip(f"%%parallel {model} -q --once for i in range(4)\n{body}")
    assert {number for number, _ in run.results} == {1}
    assert words(told(), "made", "left") == [len({rank for _, rank in run.results})] * 2


@pytest.mark.parametrize("model", ["serial", "threads=2", "threads=2 procs=2"])
def test_connections_stay_with_their_thread(ip, told, model, tmp_path):
    """sqlite3 refuses a connection in another thread than its own: neither items nor the end of the arm take it there."""
    with sqlite3.connect(tmp_path / "db") as db:
        db.execute("create table squares (n, square)")
        db.executemany("insert into squares values (?, ?)", [(n, n * n) for n in range(40)])
    db.close()
    body = f"import sqlite3\ndb = worker.once(lambda: contextlib.closing(sqlite3.connect({str(tmp_path / 'db')!r})))\ndb.execute('select square from squares where n = ?', (i,)).fetchone()[0]"
    run = ip(f"%%parallel {model} -q for i in range(40)\n{body}")
    assert run.results == [i * i for i in range(40)]
    assert not any("worker.once" in note or "disagree" in note for note in run.notes)


def test_nothing_outlives_the_arm():
    """What was made is gone with its arm, though run and worker are still there; and that worker makes nothing more."""

    class Model:
        pass

    made, workers = [], []

    def body(_):
        mine = current_worker().once(Model)
        made.append(weakref.ref(mine))
        workers.append(current_worker())

    run = parmagic.run(body, range(4), "threads=2", once=True)
    gc.collect()
    assert not any(each() for each in made)
    with pytest.raises(RuntimeError, match="has done its items"):
        workers[0].once(list)
    assert run.error is None


def test_a_function_closes_over_its_own():
    """In ``parmagic.run`` what the function binds is refused as what a body binds; what is around it stays the same, and is not."""
    limit = [5]
    run = parmagic.run(lambda _: current_worker().once(lambda: limit), range(4), "threads=2", once=True)
    assert run.results == [[5]] * 4
    with pytest.raises(ValueError, match="closes over `item`"):
        parmagic.run(lambda item: current_worker().once(lambda: [item]), range(4), "threads=2", once=True)


@pytest.mark.parametrize("model", ["serial", "threads=2", "procs=2"])
def test_processes_of_the_bodys(ip, told, model):
    """A process that the body forks, or sends its worker to, makes nothing, for nobody would leave it there."""
    ip("def ask(worker):\n    try: return worker.once(list)\n    except RuntimeError as error: return str(error)")
    body = "import multiprocessing as mp\nworker.once(Session)\nwith mp.get_context('fork').Pool(1) as pool: found = pool.apply(ask, (worker,))\nfound"
    run = ip(f"%%parallel {model} -q --once for i in range(2)\n{body}")
    assert all("in a process that the body has started" in each for each in run.results)
    lines = told()
    assert words(lines, "made") == words(lines, "left")


@pytest.mark.parametrize("model", MODELS)
def test_the_last_item_is_the_first_that_asks(ip, told, model):
    """Made for one item only, and left; others' workers have nothing to leave."""
    run = ip(f"%%parallel {model} -q --once for i in range(8)\nworker.once(opened) if i == 7 else i")
    assert run.results == [*range(7), "opened"]
    assert words(told(), "made", "left") == [1, 1]
    assert run._study.timelines[0].made == {7}


@pytest.mark.parametrize("model", MODELS)
def test_a_lock_is_not_held(ip, told, model):
    """A lock has the methods of a context manager; who makes one wants to take it when it is needed."""
    run = ip(f"%%parallel {model} -q --once for i in range(4)\nimport threading\nwith worker.once(threading.Lock): pass\nworker.once(threading.Lock).locked()")
    assert run.results == [False] * 4


def test_who_makes_nothing_leaves_nothing(ip):
    """Without it nothing is noted, nor reported."""
    run = ip("%%parallel threads=2 procs=2 -q --once for i in range(8)\ni")
    assert [timeline.made for timeline in run._study.timelines] == [set(), set()]


def test_in_this_thread_only(ip, told):
    """A worker is left in the thread and the context that it ran in, before that ends."""
    seen = []
    ip.shell.user_ns["seen"] = seen
    ip("import threading\nclass Here(Session):\n    def __exit__(self, *error): seen.append((self.who, (os.getpid(), threading.get_ident()), threading.current_thread().name))")
    ip("%%parallel threads=2 -q --once for i in range(8)\ntime.sleep(0.005)\nworker.once(Here)")
    assert all(made == left for made, left, _ in seen)
    assert {name for *_, name in seen} <= {"parmagic threads 0", "parmagic threads 1"}
    assert threading.current_thread().name not in {name for *_, name in seen}
    assert {made[0] for made, *_ in seen} == {os.getpid()}
