"""An item, or a result, that cannot be unpickled on the other side fails by itself, with its name, type and reason; the others go on."""

from __future__ import annotations

import operator
import os
import pickle
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cloudpickle
import pytest

import parmagic
from parmagic import NotShippable
from parmagic.workers.processes import hub, salvage
from parmagic.workers.processes.home import Errors, Values

pytestmark = pytest.mark.skipif(not hub.supported(), reason="no processes here")

STARTS = ["", "--start-method spawn", "--start-method fork"]
HERE = os.getpid()
KINDS = f"""
import os, sys
HERE = {HERE}
def check(n, here):
    if (os.getpid() == HERE) is here and n == 3: raise ValueError("no three")
class State:
    here = False
    def __init__(self, n): self.n = n
    def __setstate__(self, state): vars(self).update(state); check(self.n, self.here)
def made(kind, n):
    check(n, kind.here)
    return kind(n)
class Call(State):
    def __reduce__(self): return made, (type(self), self.n)
class Missing(State):
    def __reduce__(self): return (Nowhere if self.n == 3 else made), (type(self), self.n)
class Key(State):
    def __hash__(self): check(vars(self).get("n", 3), self.here); return self.n
class Exits(State):
    def __setstate__(self, state):
        vars(self).update(state)
        try: check(self.n, self.here)
        except ValueError: sys.exit(4)
class StateHome(State): here = True
class CallHome(Call): here = True
class ExitsHome(Exits): here = True
"""
ITEMS = {
    "a state": ("State(n)", "State", "ValueError: no three"),
    "a call": ("Call(n)", "Call", "ValueError: no three"),
    "a key": ("{Key(n): 1}", "dict", "ValueError: no three"),
    "an element": ("{Key(n)}", "set", "ValueError: no three"),
    "an exit": ("Exits(n)", "Exits", "SystemExit: 4"),
    "within a tuple": ("(n, State(n))", "tuple", "ValueError: no three"),
    "within a list": ("[n, [State(n)]]", "list", "ValueError: no three"),
    "within an attribute": ("__import__('types').SimpleNamespace(n=n, s=[State(n)])", "types.SimpleNamespace", "ValueError: no three"),
}


@pytest.fixture
def kinds(ip):
    """Return a shell in which there is something that cannot be read elsewhere."""
    ip(KINDS)
    return ip


def _failed(run):
    """Return what the table of items tells of those that failed, without what it cuts off."""
    errors = run.items["error"]
    texts = dict(zip(errors.index.get_level_values("item"), errors, strict=True))
    return {item: text.rstrip("…").partition(". ")[0].removesuffix(".") for item, text in texts.items() if text}


@pytest.mark.parametrize("case", ITEMS)
def test_an_item_alone_fails(kinds, case):
    """Item 3 cannot be made in a process: it has an error that names it, its type and the reason, and all others have their results."""
    value, kind, reason = ITEMS[case]
    run = kinds(f"%%parallel procs=2 --once -q --keep-going --trace off for item in [{value} for n in range(8)]\ntype(item).__name__")
    assert _failed(run) == {3: f"NotShippable: Item 3 (a {kind}) cannot be read in a process: {reason}"[:79]}
    assert run.results == [kind.split(".")[-1] if n != 3 else None for n in range(8)]


@pytest.mark.parametrize("start", STARTS[:2])
def test_an_item_ends_a_run_as_an_exception_does(kinds, start, capsys):
    """Without --keep-going the item's error is raised, with what it comes from; no worker has died, and nothing was printed by one."""
    error = kinds.fails(f"%%parallel procs=2 --once --trace off {start} for item in [State(n) for n in range(8)]\nitem.n")
    assert isinstance(error, NotShippable)
    assert str(error).startswith("Item 3 (a State) cannot be read in a process: ValueError: no three. Loop over something")
    assert type(error.__cause__) is ValueError
    assert not [note for note in error.__notes__ if "died" in note]
    assert "[procs" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("size", [1, 10, 300, 2500])
def test_one_of_a_chunk(kinds, size):
    """Of however many that travel together one fails, also where all share a class, a text and an object that was made before them."""
    kinds(f"shared = State(0); items = [(n, State(n), 'text', shared) for n in range({size + 3})] + [(0, shared)]")
    run = kinds("%%parallel procs=2 --once -q --keep-going --trace off --chunk 50 for item in items\nitem[1].n, item[-1].n")
    assert [n for n, result in enumerate(run.results) if result is None] == [3]
    assert set(run.results[:3] + run.results[4:]) == {(n, 0) for n in range(size + 3) if n != 3}


def test_an_object_that_several_items_share(kinds):
    """Where what cannot be made is shared, the items that hold it fail, and only these."""
    kinds("bad = State(3); items = [1, (2, bad), [bad], 'text', {'a': bad}, (5,)]")
    run = kinds("%%parallel procs=2 --once -q --keep-going --trace off --chunk 6 for item in items\nlen(str(item))")
    assert [n for n, result in enumerate(run.results) if result is None] == [1, 2, 4]


RESULTS = {
    "a state": ("StateHome(n)", "StateHome", "ValueError: no three"),
    "a call": ("(n, CallHome(n))", "tuple", "ValueError: no three"),
    "an exit": ("[ExitsHome(n)]", "list", "SystemExit: 4"),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("case", RESULTS)
def test_a_result_alone_fails(kinds, case, start):
    """A result that cannot be read in the notebook costs its item, with --keep-going, and no other one, however the workers started."""
    value, kind, reason = RESULTS[case]
    run = kinds(f"%%parallel procs=2 --once -q --keep-going --trace off {start} --chunk 4 for n in range(8)\n{value}")
    assert _failed(run) == {3: f"NotShippable: The result of item 3 (a {kind}) cannot be read here: {reason}"[:79]}
    assert [n for n, result in enumerate(run.results) if result is None] == [3]


def test_a_result_ends_a_run_as_an_exception_does(kinds):
    """Without --keep-going the item's error is raised, no further item begins, and what was read is kept."""
    error = kinds.fails("%%parallel procs=2 --once -q --trace off for n in range(8)\nStateHome(n)")
    assert str(error).startswith("The result of item 3 (a StateHome) cannot be read here: ValueError: no three. Return what is in it")
    run = parmagic.last()
    assert run.results[3] is None
    assert all(result is None or result.n == n for n, result in enumerate(run.results))


def test_ranks(kinds):
    """Of an SPMD body's results one cannot be read: the other ranks' are there."""
    run = kinds("%%parallel procs=5 --once -q --keep-going --trace off\nStateHome(worker.rank)")
    assert [result and result.n for result in run.results] == [0, 1, 2, None, 4]
    assert list(_failed(run)) == [3]


def test_in_a_line_and_in_a_call(kinds):
    """The same holds for one-liners and for parmagic.run, and beside a serial baseline, which fails in the same item."""
    kinds("items = [State(n) for n in range(8)]")
    run = kinds("%parallel procs=2 -q --keep-going --trace off item.n for item in items")
    assert run.results == [0, 1, 2, None, 4, 5, 6, 7]
    called = parmagic.run(operator.attrgetter("n"), kinds.space["items"], "procs=2", keep_going=True, once=True)
    assert called.results == run.results


def test_an_exception_that_cannot_be_read_here(kinds):
    """An exception which can be made in the worker, and not in the notebook, is told by its type; the other items' stay as they are."""
    kinds("""
class Odd(Exception):
    def __reduce__(self): return raised, self.args
def raised(n):
    check(n, True)
    return Odd(n)
""")
    run = kinds("%%parallel procs=2 --once -q --keep-going --trace off --chunk 4 for n in range(8)\nif n % 3 == 0: raise Odd(n)\nn")
    errors = _failed(run)
    assert errors == {0: "Odd: 0", 3: "NotShippable: The body raised a result of raised in item 3, which cannot be read here: "[:79], 6: "Odd: 6"}
    assert [result for result in run.results if result is not None] == [1, 2, 4, 5, 7]


# ---------------------------------------------------------------------------------------------------------------------------------
# the reader by itself


@dataclass(slots=True)
class Slotted:
    """Has a state that is set in a way of its own."""

    n: int
    more: list[Any] = field(default_factory=list)


@dataclass
class Node:
    """May hold itself."""

    name: str
    others: list[Any] = field(default_factory=list)


class Fails:
    """Cannot be made again, but where it is allowed."""

    allowed: ClassVar[bool] = False

    def __setstate__(self, state: Any) -> None:
        """Fail."""
        if not self.allowed:
            raise ValueError("not here")

    def __getstate__(self) -> Any:
        """Have a state."""
        return 1


def _cyclic() -> Node:
    node = Node("a")
    node.others += [node, (node,), {"self": node}]
    return node


GOOD = [
    1, -5.5, "text", b"bytes", bytearray(b"b"), None, True, 10**40, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [[]], {}, {"a": {1: [2]}}, {1}, frozenset({1, 2}),
    OrderedDict(a=1), defaultdict(list, {1: [2]}), Slotted(1, [2]), complex(1, 2), range(3), slice(1, 2), ValueError("a", 1), len, dict, list(range(3000)),
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(2, 6))
def test_it_reads_what_pickle_reads(protocol):
    """What can be made is the same as pickle makes it."""
    data = pickle.dumps(GOOD, protocol=protocol)
    assert repr(salvage.read((data, ()))) == repr(pickle.loads(data))
    node = salvage.read((pickle.dumps(_cyclic(), protocol=protocol), ()))
    assert node.others[0] is node.others[1][0] is node.others[2]["self"] is node


def test_it_reads_what_the_notebook_defined():
    """Classes and functions that travel by value, and buffers that lie beside, are read as well."""
    np = pytest.importorskip("numpy")
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("class A:\n    x = 1\n    def f(self): return self.x + g()\n\ndef g(): return 2\na = A()", space)
    buffers: list[Any] = []
    data = cloudpickle.dumps((space["a"], space["g"], np.arange(10)), protocol=5, buffer_callback=buffers.append)
    a, g, array = salvage.read((data, buffers))
    assert (a.f(), g(), array.sum()) == (3, 2, 45)


HOLD = {
    "itself": lambda bad: bad,
    "a tuple": lambda bad: (1, bad),
    "tuples": lambda bad: ((1, (2, bad, 3)), 4),
    "a long tuple": lambda bad: (1, 2, 3, 4, bad),
    "a list": lambda bad: [1, [bad], 2],
    "one of many": lambda bad: [*range(1500), bad],
    "a dict": lambda bad: {"a": 1, "b": bad},
    "a dict of one": lambda bad: {"a": bad},
    "a set": lambda bad: {1, bad},
    "a frozen set": lambda bad: frozenset({1, bad}),
    "an attribute": lambda bad: Node("a", [bad]),
    "a slot": lambda bad: Slotted(1, [bad]),
    "an argument": lambda bad: OrderedDict(a=bad),
    "an exception": ValueError,
    "a default": lambda bad: defaultdict(list, a=[bad]),
}


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("holder", HOLD)
def test_what_holds_it_is_lost(holder, protocol):
    """Whatever holds what cannot be made is lost with it, and what stands before and behind it is not."""
    values = Values([1, (2, 3), HOLD[holder](Fails()), [4], Node("b"), (5, {6: [7]})])
    read = salvage.read((pickle.dumps(values, protocol=protocol), ()))
    assert [type(each) is salvage.Lost for each in read] == [False, False, True, False, False, False]
    assert str(read[2].error) == "not here"
    assert repr(read[3:]) == repr(list(values[3:]))


def test_what_is_within_a_circle_is_lost():
    """Where an object cannot be filled that something of its own refers to, whoever has that gets no half of it."""
    node = Node("a")
    inner = ("inner", node)
    node.others += [inner, Fails()]
    read = salvage.read((pickle.dumps(Values([1, node, inner, 2])), ()))
    assert [type(each) is salvage.Lost for each in read] == [False, True, True, False]


def test_a_function_whose_state_cannot_be_set_is_lost():
    """A function that travels by value is made, then filled by a call of which the pickle drops what it returns: it is lost all the same."""
    space: dict[str, Any] = {"__name__": "__main__", "bad": Fails()}
    exec("def g(): return bad", space)
    read = salvage.read((cloudpickle.dumps(Values([1, space["g"], (2, space["g"]), 3])), ()))
    assert [type(each) is salvage.Lost for each in read] == [False, True, True, False]


def test_errors_are_lost_one_by_one():
    """Of errors by item one is lost, and the others are there."""
    read = salvage.read((pickle.dumps(Errors({1: ValueError(1), 2: ValueError(Fails()), 3: KeyError(3)})), ()))
    assert [type(each) for each in read.values()] == [ValueError, salvage.Lost, KeyError]


def test_what_is_no_pickle():
    """What cannot be read at all is lost as a whole."""
    assert type(salvage.read((b"\x80\x05]", ()))) is salvage.Lost
    assert type(salvage.read((b"cno\nsuch\n.", ()))) is salvage.Lost
