"""Updates that threads lose are told of, always: what names end as, beside what they end as in the serial run."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pytest

from parmagic.analyze import ends
from parmagic.model.plan import Changes
from parmagic.record.ends import ends_of
from parmagic.result import study

LOSES = """
import threading
class Account:
    def __init__(self): self.balance = 0
counter, account, pair = 0, Account(), threading.Barrier(2)
def meet():
    if threading.current_thread() is not threading.main_thread():  # a serial run is alone
        pair.wait(30)
def add():
    global counter
    value = counter
    meet()
    counter = value + 1
def deposit():
    value = account.balance
    meet()
    account.balance = value + 1
"""


def told(run):
    """Return what was found of names that end otherwise."""
    return [finding for finding in study(run).findings if finding.rule == ends.RULE]


@pytest.mark.parametrize(("call", "name"), [("add()", "counter"), ("deposit()", "account.balance")])
def test_an_update_that_is_lost(ip, call, name):
    """Two threads read before either writes: one of the two is lost, and a note and the verdict say so."""
    ip(LOSES)
    run = ip(f"%%parallel threads=2 -q --chunk 1 for n in range(2)\n{call}")
    (finding,) = told(run)
    assert finding.text.startswith(f"threads=2: `{name}` ends as 1, and as 2 in the serial run. Either updates were lost"), finding.text
    assert finding.text in run.notes
    assert run.verdict.startswith("threads=2 may lose updates (see the notes). ") or run.verdict.startswith("Too short"), run.verdict


def test_with_a_lock(ip):
    """Nothing is said of what is guarded, of lists whose order alone differs, nor of numbers of threads and times."""
    ip("import os, threading, time\nlock, counter, done, who, times, last = threading.Lock(), 0, [], set(), {}, 0.0")
    run = ip(
        "%%parallel threads=4 -q --chunk 1 for n in range(40)\nglobal counter, last\nwith lock:\n    counter += 1\ndone.append(n)\n"
        "who.add(threading.get_ident())\ntimes[n] = time.perf_counter()\nlast = time.perf_counter()"
    )
    assert not told(run)
    assert ip.space["counter"] == 40


def test_who_has_no_serial_run(ip):
    """Without one there is nothing to compare with; processes change no memory of the notebook's."""
    ip("counter = 0")
    for line in ("threads=2 --once", "procs=2"):
        run = ip(f"%%parallel {line} -q for n in range(4)\nglobal counter\ncounter += n")
        assert not told(run)
        assert not study(run).timelines[0].ends  # nor is anything looked at


def test_the_first_arm_alone(ip):
    """A second arm begins with what the first one left: it ends otherwise, and nothing was lost."""
    ip("counter = 0")
    run = ip("%%parallel threads=1 threads=2 serial -q for n in range(4)\nglobal counter\ncounter += 1")
    assert not told(run)
    assert ip.space["counter"] == 8


def test_a_function(ip):
    """What is run by parmagic.run is looked at as well."""
    ip(
        "import threading, parmagic\ncounter, pair = 0, threading.Barrier(2)\ndef body(n):\n    global counter\n    value = counter\n"
        "    if threading.current_thread() is not threading.main_thread(): pair.wait(30)\n    counter = value + 1"
    )
    run = ip("parmagic.run(body, range(2), 'threads=2', chunk=1)")
    assert [finding.text.partition(". ")[0] for finding in told(run)] == ["threads=2: `counter` ends as 1, and as 2 in the serial run"]


def test_values_are_private(ip):
    """What names end as is in no file."""
    ip("import threading\ncounter, pair = 123_000, threading.Barrier(2)")
    run = ip(
        "%%parallel threads=2 -q --chunk 1 for n in range(2)\nglobal counter\nvalue = counter\n"
        "if threading.current_thread() is not threading.main_thread(): pair.wait(30)\ncounter = value + 1"
    )
    assert "123,001" in told(run)[0].text
    saved = study(run).saved
    assert not any("123" in note for note in saved.notes)
    assert any("`counter` ends otherwise than in the serial run" in note for note in saved.notes)
    assert all(timeline.ends == {} for timeline in saved.timelines)


ROWS = [
    (1, 2, True), (2, 2, False), (3, 2, True), (1.0, 2, True), (1.5, 2.5, False), (float("nan"), 1, False), (float("inf"), 1, False),
    (2.0**60, 2.0**60 + 2**10, False), (10**400, 10**400 + 1, True), (10**400, 1, True), (True, False, False), (np.int64(1), 2, True),
    (np.float64(1), 2.0, True), ("ab", "abc", True), ("abd", "abc", False), ([1], [1, 2], True), ([2, 1], [1, 2], False),
    ([1, 2, 3], [1, 2], False), ([1], (1, 2), False), ({1}, {1, 2}, True), ({1, 2}, {3}, False), (deque([1]), deque([1, 2]), True),
    ({"a": 1}, {"a": 1, "b": 2}, True), ({"a": 1}, {"a": 2}, False), (OrderedDict(), OrderedDict(a=1), True),
    (Counter(a=1), Counter(a=2), True), (Counter(a=2), Counter(a=1), False), (np.array([1, 2]), np.array([1, 3]), True),
    (np.array([1, 4]), np.array([1, 3]), False), (np.array([1.0, 2.0]), np.array([1.0, 3.0]), False), (None, 1, False),
]  # fmt: skip


def ended(value, **changes):
    """Return what a name ends as that has this value."""
    return ends_of({"name": value}, Changes(frozenset({"name"}), **changes))


@pytest.mark.parametrize(("ours", "theirs", "lost"), ROWS)
def test_what_looks_lost(ours, theirs, lost):
    """Less than serially, or another whole number: the rest differs for other reasons, too."""
    found = [*ends.differ("threads=2", ended(ours), ended(theirs))]
    assert bool(found) is lost
    assert all(finding.text.startswith("threads=2: `name` ends as ") for finding in found)


@pytest.mark.parametrize(("ours", "theirs"), [({"a": 1}, {"a": 2}), (defaultdict(int, a=1), defaultdict(int, a=2)), ([1, 2], [1, 3])])
def test_what_is_counted_in(ours, theirs):
    """Elements are added up where the body updates them; else they may be times, or numbers of threads."""
    assert not [*ends.differ("threads=2", ended(ours), ended(theirs))]
    names = frozenset({"name"})
    assert len([*ends.differ("threads=2", ended(ours, tallies=names), ended(theirs, tallies=names))]) == 1


class Mine:
    """Not of __main__: a library's."""


NOTEBOOK = """
class Refuses:
    def refuse(self, *_): raise AssertionError("the user's code ran")
    __getattribute__ = __getattr__ = __len__ = __iter__ = __eq__ = __bool__ = __int__ = __index__ = __deepcopy__ = __reduce_ex__ = refuse
    __hash__ = None
class Slots:
    __slots__ = ("n", "empty")
class Owner:
    total = 5
    @property
    def code(self): raise AssertionError("the user's code ran")
class Bag(dict):
    def __len__(self): raise AssertionError("the user's code ran")
    values = __iter__ = items = __len__
class Meta(type):
    def __getattribute__(self, name): raise AssertionError("the user's code ran")
class Strange(metaclass=Meta):
    n = 3
refuses, slots, owner, bag, ring = Refuses(), Slots(), Owner(), Bag(a=1, b=2), []
slots.n, owner.count, owner.untold = 1, 2, 3
ring.append(ring)
"""


def test_what_is_looked_at():
    """Numbers, and how many elements there are; nothing of the user's runs for it, and nothing of the user's is kept."""
    space = {"__name__": "__main__"}
    exec(NOTEBOOK, space)
    space |= {
        "number": 1, "text": "x", "votes": Counter("aab"), "array": np.arange(3), "large": np.zeros(1 << 22, dtype=int), "many": [0] * 10**6,
        "objects": [Mine()], "mine": Mine(), "lock": threading.Lock(), "function": test_with_a_lock,
    }  # fmt: skip
    names = frozenset(space) | {"absent"}
    found = ends_of(space, Changes(names, frozenset({"n", "empty", "total", "code", "count"}), frozenset({"bag", "many"})))
    del found["__name__"], found["__builtins__"]
    assert {name: (end.kind, end.number, end.total) for name, end in found.items()} == {
        "array": ("array", 3, 3), "bag": ("Bag", 2, 3), "large": ("array", 1 << 22, None), "many": ("list", 10**6, None),
        "number": ("number", 1, None), "objects": ("list", 1, None), "owner.count": ("number", 2, None), "owner.total": ("number", 5, None),
        "Owner.total": ("number", 5, None), "ring": ("list", 1, None), "slots.n": ("number", 1, None), "Strange.n": ("number", 3, None),
        "text": ("str", 1, None), "votes": ("Counter", 2, 3),
    }  # fmt: skip


def test_whose_code_is_not_run(ip):
    """Not to find what a body changes either: classes are read past what they and their attributes say."""
    ip(NOTEBOOK + "class Holder:\n    strange = refuses")
    run = ip(
        "%%parallel threads=2 -q for n in range(2)\n"
        "owner.count += 1\nHolder.count = Holder.strange\nStrange, bag, ring, slots.n\nslots.n = slots.n + 1\nlist((Holder.strange, Strange))"
    )
    assert not told(run)


def test_a_callable_that_has_no_code(ip):
    """Of what is no function, nothing is asked."""
    ip(
        "import parmagic\nclass Doubles:\n    def __getattr__(self, name): raise AssertionError(f'{name} was asked for')\n"
        "    def __call__(self, n): return 2 * n"
    )
    assert ip("parmagic.run(Doubles(), range(3), 'threads=2')").results == [0, 2, 4]


def test_what_is_only_assigned(ip):
    """Who came last, and what is set anew, depends on the order; an update reads what it changes."""
    ip("import os, threading, time\nlast, who, state = None, 0, type('State', (), {'__module__': '__main__'})()")
    run = ip(
        "%%parallel threads=2 -q --chunk 1 for n in range(4)\nglobal last, who\ntime.sleep(0.02 * (4 - n))\nlast = n\n"
        "who = threading.get_ident()\nstate.last = n\nprint(who, last, state.last)"
    )
    assert not told(run)


COUNTS = """
import functools
def one():
    meet()
    return 1
class Slots:
    __slots__ = ("n",)
class Totals:
    n = 0
    def add(self): self.n += one()
class Within:
    def __init__(self): self.totals = Totals()
def counted(function):
    @functools.wraps(function)
    def wrapper():
        global calls
        calls += one()
        return function()
    return wrapper
@counted
def nothing(): pass
class Behind:
    _n = 0
    @property
    def n(self): return self._n
    @n.setter
    def n(self, n): self._n = n
module, library = type(functools)("module"), type("Library", (), {"__module__": "library"})()
module.n = library.n = 0
behind = Behind()
tally, slots, totals, calls, within, several = {"a": 0}, Slots(), Totals(), 0, Within(), [Totals(), Totals()]
slots.n = 0
"""


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("tally['a'] += one()", "tally"), ("old = tally['a']\none()\ntally['a'] = old + 1", "tally"), ("slots.n += one()", "slots.n"),
        ("tally['a'] = tally.get('a', 0) + one()", "tally"), ("Totals.n += one()", "Totals.n"), ("totals.add()", "totals.n"),
        ("within.totals.n += one()", "within.totals.n"), ("several[0].n += one()", "several[…].n"), ("nothing()", "calls"),
        ("within.totals.add()", "within.totals.n"), ("several[1].add()", "several[…].n"),
        ("behind.n += one()", "behind._n"), ("module.n += one()", "module.n"), ("library.n += one()", "library.n"),
    ],
)  # fmt: skip
def test_more_that_is_lost(ip, body, name):
    """Elements of dicts, slots, attributes of classes, of objects in others, and what a method or a decorator counts."""
    ip(LOSES + COUNTS)
    run = ip(f"%%parallel threads=2 -q --chunk 1 for n in range(2)\n{body}")
    (finding,) = told(run)
    assert finding.text.startswith(f"threads=2: `{name}` ends as 1")
    assert "and as 2" in finding.text


@pytest.mark.parametrize(
    "draw",
    [
        "random.random()", "randint(1, 9)", "np.random.rand()", "rng.random()", "shuffle([1])", "os.urandom(1)", "uuid.uuid4()", "drawn()",
    ],
)  # fmt: skip
def test_chance(ip, draw):
    """What differs from run to run anyway is no loss, as in the estimate of π that everybody writes first."""
    ip(
        LOSES + "import os, random, uuid\nimport numpy as np\nfrom random import randint, shuffle\n"
        "rng = np.random.default_rng()\ndef drawn():\n    from numpy.random import rand\n    return rand()"
    )
    run = ip(f"%%parallel threads=2 -q --chunk 1 for n in range(2)\n{draw}\nadd()")
    assert ip.space["counter"] == 1
    assert not told(run)


@pytest.mark.parametrize("look", ["time.monotonic_ns()", "perf_counter()"])
def test_clocks(ip, look):
    """Nor is a number that what looks at a clock has changed; what only takes a while changes none."""
    ip(LOSES + "import time\nfrom time import perf_counter")
    run = ip(f"%%parallel threads=2 -q --chunk 1 for n in range(2)\nglobal counter\n{look}\nvalue = counter\nmeet()\ncounter = value + 1")
    assert not told(run)
    assert len(told(ip(f"%parallel threads=2 -q --chunk 1 ({look}, add()) for n in range(2)"))) == 1


@pytest.mark.parametrize(
    "body",
    [
        "if worker.rank == 0: add()", "worker.once(Connection)", "if get_ident() not in known:\n    known.add(get_ident())\n    add()",
        "if not hasattr(here, 'connection'): here.connection = Connection()",
    ],
)  # fmt: skip
def test_once_per_worker(ip, body):
    """A serial run has one worker, and does so once."""
    ip(
        "import threading\nfrom threading import get_ident\ncounter, known, here, lock = 0, set(), threading.local(), threading.Lock()\n"
        "def add():\n    global counter\n    with lock:\n        counter += 1\nclass Connection:\n    def __init__(self): add()"
    )
    run = ip(f"%%parallel threads=2 -q --chunk 1 for n in range(8)\n{body}\nthreading.Event().wait(0.01)")
    assert not told(run)


def test_ranks(ip):
    """Where each worker runs the body, a serial run does so for each of them, in turn."""
    ip(LOSES)
    (finding,) = told(ip("%%parallel threads=2 -q\nglobal counter\nvalue = counter\nmeet()\ncounter = value + worker.rank + 1"))
    assert "as 3 in the serial run" in finding.text


@pytest.mark.parametrize("other", ["worker.rng.random()", "time.sleep(0)", "time.strftime('%Y')", "np.arange(3)"])
def test_what_is_the_same_in_each_run(ip, other):
    """Numbers of the worker's generator are the item's own; who sleeps looks at no clock."""
    ip(LOSES + "import time\nimport numpy as np")
    (finding,) = told(ip(f"%%parallel threads=2 -q --chunk 1 for n in range(2)\n{other}\nadd()"))
    assert "`counter` ends as 1, and as 2" in finding.text


def test_forked_processes(ip):
    """Forks of the notebook change what is theirs: nothing is lost that any of them has not."""
    ip("counter = 0")
    run = ip("%%parallel procs=2 threads=2 -q --start-method fork for n in range(4)\nglobal counter\ncounter += 1")
    assert not told(run)


def test_items_that_fail(ip):
    """What did not run in an arm has lost nothing."""
    ip("import threading\ncounter = 0")
    run = ip(
        "%%parallel threads=2 -q --keep-going for n in range(4)\nglobal counter\n"
        "if n == 2 and threading.current_thread() is not threading.main_thread(): raise ValueError\ncounter += 1"
    )
    assert not told(run)
    assert ip.space["counter"] == 3


@pytest.mark.parametrize("where", ["is not", "is"])
def test_items_that_are_tried_again(ip, where):
    """In the arm, or in the serial run alone: each try changes what it changes."""
    ip("import threading\ncounter, failed = 0, set()")
    run = ip(
        "%%parallel threads=2 -q --retry 1 for n in range(4)\nglobal counter\ncounter += 1\n"
        f"if n not in failed and threading.current_thread() {where} threading.main_thread():\n    failed.add(n)\n    raise ValueError"
    )
    assert not told(run)
    assert ip.space["counter"] == (8 if where == "is not" else 4)


def test_who_goes_on(ip):
    """Threads that still run have not yet changed all; a serial run's end does not wait for them either, nor for what ends a process."""
    ip("import atexit, threading\ncounter, done, adders, go = 0, [], [], threading.Event()\ndef add():\n    global counter\n    go.wait(30)\n    counter += 1")
    run = ip(
        "%%parallel threads=2 -q for n in range(2)\nadder = threading.Thread(target=add, daemon=True)\nadders.append(adder)\nadder.start()\ndone.append(n)\n"
        "if threading.current_thread() is threading.main_thread():\n    go.set()\n    atexit.register(done.clear)"
    )
    ip.space["go"].set()
    for adder in ip.space["adders"]:
        adder.join(30)
    assert not told(run)
    assert study(run).timelines[0].ends["done"].number == 2
    assert not any(baseline.ends for baseline in study(run).baselines.values())
