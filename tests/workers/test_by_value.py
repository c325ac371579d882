"""What a cell defines, and pickle would look up by its name, reaches processes and comes back: caches, types, slots, weak collections."""

from __future__ import annotations

import sys

import pytest
from arms import spread

import parmagic
from parmagic.workers.processes import by_value, preload

CACHES = """
from functools import cache, cached_property, lru_cache, partial, singledispatch, singledispatchmethod
@cache
def square(n): return n * n
@lru_cache(maxsize=2, typed=True)
def typed(n): return type(n).__name__
@cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
@singledispatch
def kind(x): return "any"
@kind.register
def _(x: int): return "int"
class Machine:
    scale = 3
    @cached_property
    def size(self): return self.scale * 2
    @lru_cache(None)
    def times(self, n): return self.size * n
    @staticmethod
    @cache
    def one(): return 1
    @singledispatchmethod
    def told(self, x): return "any"
    @told.register
    def _(self, x: str): return "str"
machine = Machine()
square.label = "a square"
add = partial(square, 4)
"""
TYPES = """
from typing import Generic, NamedTuple, NewType, Optional, ParamSpec, TypedDict, TypeVar, TypeVarTuple
UserId = NewType("UserId", int)
Deep = NewType("Deep", UserId)
P, T, Ts = ParamSpec("P"), TypeVar("T"), TypeVarTuple("Ts")
class Pair(NamedTuple):
    a: int
    b: Optional[UserId] = None
class Config(TypedDict):
    n: int
class Box(Generic[T]):
    def __init__(self, x: T): self.x = x
def typed(n: UserId) -> Deep: return Deep(UserId(n))
"""
DERIVED = """
from typing import Generic, NotRequired, Protocol, Required, TypedDict, TypeVar, is_typeddict, runtime_checkable
T = TypeVar("T", bound=int)
class First(TypedDict):
    a: int
class Second(First, total=False):
    b: Required[str]
    c: NotRequired[T]
class Third(Second): pass
class Kept(TypedDict, Generic[T]):
    x: T
Made = TypedDict("Made", {"x": First})
@runtime_checkable
class Goes(Protocol[T]):
    def go(self) -> T: ...
class Has:
    def go(self): return 1
class Is(Goes[int]):
    def go(self): return 2
class Node(Generic[T]): pass
class Leaf(Node[T], Generic[T]): pass
def keys(): return sorted(Second.__required_keys__), sorted(Second.__optional_keys__), Third.__total__, Second.__annotations__["a"]
"""
FUNCTIONS = """
import contextlib, enum, math
from functools import cache, lru_cache, partialmethod, singledispatchmethod, total_ordering, update_wrapper, wraps
class Counted:
    def __init__(self, function): update_wrapper(self, function); self.function = function
    def __call__(self, *given): return self.function(*given), "counted"
def told(function):
    @wraps(function)
    def call(*given): return function(*given), "told"
    return call
@told
@cache
@told
def chain(n: int): return n
@Counted
def counted(n): return n
class Machine:
    @classmethod
    @cache
    def made(cls, n): return cls.__name__, n
    @property
    @lru_cache
    def size(self): return 5
    @singledispatchmethod
    def kind(self, x): return "any"
    @kind.register(int)
    def _(self, x): return "int"
    @kind.register
    @classmethod
    def _(cls, x: str): return cls.__name__
    def scaled(self, by, n): return by * n
    twice = partialmethod(scaled, 2)
    def __init__(self): self.own = cache(self.plus)
    def plus(self, n): return n + 1
machine = Machine()
root, number, text = lru_cache(math.sqrt), cache(int), cache(str)
number.label = "kept"
@contextlib.contextmanager
def held(n): yield n
@held(3)
def within(n): return n
class Meta(type):
    def __call__(cls, *given): return cls.__name__, super().__call__(*given)
    def __getitem__(cls, n): return n
    @property
    def shout(cls): return cls.__name__ + "!"
class Made(metaclass=Meta): pass
class Way(enum.Flag):
    N = enum.auto()
    E = enum.auto()
    def is_n(self): return Way.N in self
class Mode(enum.StrEnum):
    READ = enum.auto()
    @classmethod
    def _missing_(cls, value): return cls.READ
"""
SLOTS = """
from abc import ABC, abstractmethod
from dataclasses import dataclass
class Point:
    __slots__ = ("x", "__hidden")
    def __init__(self, x): self.x, self.__hidden = x, -x
    def hidden(self): return self.__hidden
class Point3(Point):
    __slots__ = "z"
    def __init__(self, x, z): super().__init__(x); self.z = z
class Open(Point):
    __slots__ = {"y": "a documented one", "__dict__": "and more"}
@dataclass(slots=True)
class Row:
    n: int
    name: str = "row"
@dataclass(slots=True, frozen=True, order=True)
class Frozen:
    n: int
class Base(ABC):
    __slots__ = ("a", "__weakref__")
    @abstractmethod
    def go(self): ...
class Real(Base):
    __slots__ = ("b",)
    def go(self): return self.a + self.b
class Odd(Exception):
    __slots__ = ("place",)
    def __init__(self, place): super().__init__(f"at {place}"); self.place = place
def real(n):
    made = Real(); made.a, made.b = n, 1
    return made
def opened(n):
    made = Open(n); made.y, made.free = 1, 2
    return made
"""
WEAK = """
import weakref
class Node: pass
node = Node()
by_key, by_value, both = weakref.WeakKeyDictionary({node: 1}), weakref.WeakValueDictionary({"k": node}), weakref.WeakSet({node})
"""


@pytest.mark.parametrize(
    ("definition", "expression", "expected"),
    [
        (CACHES, "square(n)", [0, 1, 4]),
        (CACHES, "square.label, add()", [("a square", 16)] * 3),
        (CACHES, "[typed(1), typed(1.0), typed.cache_info().currsize, typed.cache_parameters()['maxsize'], typed.__wrapped__('x')]",
         [["int", "float", 2, 2, "str"]] * 3),
        (CACHES, "fib(30 + n), fib.cache_info().hits > 20, fib.cache_clear()", [(832040, True, None), (1346269, True, None), (2178309, True, None)]),
        (CACHES, "kind(n), kind('x'), kind.dispatch(bool)(True)", [("int", "any", "int")] * 3),
        (CACHES, "machine.size, machine.times(n), Machine.one(), machine.told('x'), machine.told(n)",
         [(6, 0, 1, "str", "any"), (6, 6, 1, "str", "any"), (6, 12, 1, "str", "any")]),
        (TYPES, "typed(n), UserId(n), Deep.__supertype__ is UserId, typed.__annotations__['n'] is UserId", [(n, n, True, True) for n in range(3)]),
        (TYPES, "P.__name__, Ts.__name__, T.__name__", [("P", "Ts", "T")] * 3),
        (TYPES, "tuple(Pair(n, UserId(1))), Config(n=n), Box[int](n).x", [((n, 1), {"n": n}, n) for n in range(3)]),
        (DERIVED, "Second(b='x', a=n), keys(), is_typeddict(Third), Made(x=First(a=1)), Kept[int].__args__, Kept.__parameters__ == (T,)",
         [({"b": "x", "a": n}, (["a", "b"], ["c"], True, int), True, {"x": {"a": 1}}, (int,), True) for n in range(3)]),
        (DERIVED, "isinstance(Has(), Goes), isinstance(n, Goes), Is().go(), Goes[int].__args__, Leaf.__parameters__ == (T,), T.__bound__",
         [(True, False, 2, (int,), True, int)] * 3),
        (FUNCTIONS, "chain(n), chain.__wrapped__.__wrapped__.__wrapped__(n), chain.__name__, counted(n), counted.__name__",
         [(((n, "told"), "told"), n, "chain", (n, "counted"), "counted") for n in range(3)]),
        (FUNCTIONS, "Machine.made(n), machine.size, machine.kind(n), machine.kind('x'), machine.kind(None), machine.twice(n), machine.own(n)",
         [(("Machine", n), 5, "int", "Machine", "any", 2 * n, n + 1) for n in range(3)]),
        (FUNCTIONS, "root(4.0), number('3'), number.label, 'from_bytes' in vars(number), text(n)", [(2.0, 3, "kept", True, str(n)) for n in range(3)]),
        (FUNCTIONS, "within(n), within(n), held.__wrapped__.__name__, type(Made()[1]).__name__, Made[n], Made.shout",
         [(n, n, "held", "Made", n, "Made!") for n in range(3)]),
        (FUNCTIONS, "(Way.N | Way.E).is_n(), Way(3) == Way.N | Way.E, Mode('no') is Mode.READ, Mode.READ", [(True, True, True, "read")] * 3),
        (SLOTS, "hasattr(Point(n), '__dict__'), hasattr(opened(n), '__dict__'), Point(n).hidden(), Real.__slots__", [(False, True, -n, ("b",)) for n in range(3)]),
        (WEAK, "by_key[node], by_value['k'] is node, node in both", [(1, True, True)] * 3),
    ],
)  # fmt: skip
def test_what_a_cell_defines(ip, definition, expression, expected):
    """It works in processes as it does in the notebook."""
    ip(definition)
    ip(f"%parallel procs=2 -q --once -o there ({expression}) for n in range(3)")
    assert ip.space["there"].results == expected


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type statements are new in Python 3.12")
def test_type_statements(ip):
    """Aliases, generic ones as well, keep their names, values and parameters."""
    ip("type Number = int | float\ntype Many[T] = list[T]\ndef f(n: Number) -> Many[int]: return [n]")
    ip("%parallel procs=2 -q --once -o there (str(Number), str(Number.__value__), Many.__type_params__[0].__name__, f(n)) for n in range(2)")
    assert ip.space["there"].results == [("Number", "int | float", "T", [n]) for n in range(2)]


RESULTS = ["Point(n)", "Point3(n, 2)", "opened(n)", "Row(n)", "Frozen(n)", "real(n)", "[Row(n), {'k': Frozen(n)}]", "Odd(n)"]


@pytest.mark.parametrize(("method", "result"), spread(["", "--start-method spawn", "--start-method fork"], RESULTS, "opened(n)", "Odd(n)"))
def test_slotted_results(ip, result, method):
    """An instance of a class with slots comes back as one of that class, with all fields."""
    ip(SLOTS + f"def make(n): return {result}")
    ip(f"%parallel procs=2 {method} -q --once -o there make(n) for n in range(3)")
    space = ip.space
    for n, found in enumerate(space["there"].results):
        made = space["make"](n)
        assert type(found) is type(made)
        if isinstance(made, (space["Row"], space["Frozen"], list)):
            assert found == made
        for name in ("x", "z", "y", "free", "a", "b", "n", "place"):
            assert getattr(found, name, "none") == getattr(made, name, "none")
        if isinstance(made, space["Point"]):
            assert found.hidden() == -n


def test_a_class_that_the_body_makes(ip):
    """A class with slots, and a function with a cache, that the body defines come home."""
    ip(
        "%%parallel procs=2 -q --once -o there for n in range(2)\n"
        "class Local:\n    __slots__ = ('a',)\n"
        "import functools\n"
        "@functools.cache\ndef double(x): return 2 * x\n"
        "made = Local(); made.a = double(n)\n(made, double)"
    )
    for n, (made, double) in enumerate(ip.space["there"].results):
        assert (made.a, hasattr(made, "__dict__"), double(5)) == (2 * n, False, 10)


def test_a_cache_begins_empty_and_a_note_says_so(ip):
    """What a cache holds is not sent: told where it held something, and only there."""
    ip(CACHES)
    line = "%parallel procs=2 -q --once -o there (square(n), fib(n)) for n in range(3)"
    ip(line)
    assert not [note for note in ip.space["there"].notes if "cache" in note]
    ip("square(3), fib(3)")
    ip(line)
    (note,) = [note for note in ip.space["there"].notes if "cache" in note]
    assert note.startswith("What the cache of fib, square holds stayed in the notebook")
    ip(line.replace("procs", "threads"))
    assert not [note for note in ip.space["there"].notes if "cache" in note]


def test_what_modules_define_goes_by_name():
    """A cached function of a module that can be imported is that module's in the worker, not a copy of it."""
    assert by_value.reduced(preload._roots) is NotImplemented
    assert by_value.reduced(object()) is NotImplemented
    assert parmagic.run(_uses_a_module, range(2), "procs=1", once=True).results == [True, True]


def _uses_a_module(_):
    return preload._roots is sys.modules["parmagic.workers.processes.preload"]._roots


NAMED = """
import dataclasses
import numpy as np
MISSING = object()
class Node:
    def __init__(self, name): self.name = name
@dataclasses.dataclass
class Holds:
    what: object
root, leaf = Node("root"), Node("leaf")
table = {"root": root}
def double(n): return 2 * n
big, small = np.zeros(1_000_000), np.zeros(3)
items = [MISSING, root, leaf, (MISSING, 1), {"k": [root]}, Holds(MISSING), double, None, object(), Holds(root), table]
"""


@pytest.mark.parametrize("method", ["", "--start-method spawn", "--start-method fork", "--chunk 1"])
def test_what_a_name_holds_is_one_object(ip, method):
    """An item that is, or holds, an object that a name holds is, or holds, that object in the worker, too."""
    ip(NAMED)
    ip(
        f"%%parallel procs=2 {method} -q --once -o there for v in items\n"
        "inner = v[0] if type(v) is tuple else v['k'][0] if type(v) is dict and 'k' in v else v['root'] if type(v) is dict else getattr(v, 'what', v)\n"
        "[name for name, each in dict(MISSING=MISSING, root=root, leaf=leaf, double=double).items() if inner is each], table['root'] is root"
    )
    expected = [["MISSING"], ["root"], ["leaf"], ["MISSING"], ["root"], ["MISSING"], ["double"], [], [], ["root"], ["root"]]
    assert ip.space["there"].results == [(names, True) for names in expected]


def test_an_items_buffers_stay_its_own(ip):
    """An array that is an item and a name as well can be written to as an item, and the name's keeps what it had."""
    ip(NAMED)
    ip(
        "%%parallel procs=2 -q --once -o there for v in [big, small, big]\n"
        "v += 1\n(v[0], big[0], small[0], v is big, v is small)"
    )
    assert ip.space["there"].results == [(1.0, 0.0, 0.0, False, False)] * 3


def test_segments_stay_lazy(ip):
    """Many items that are, or hold, what a name holds are packed in segments, small ones."""
    ip(NAMED)
    ip("root.weight = bytes(1_000_000)\nmany = [root if n % 2 else Holds(root) for n in range(20_000)]")
    ip("%parallel procs=2 -q --once -o there (v if type(v) is Node else v.what) is root for v in many")
    run = ip.space["there"]
    assert run.results == [True] * 20_000
