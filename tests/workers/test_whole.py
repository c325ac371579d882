"""What a notebook holds reaches processes whole, and comes back as it was: shared cells, marks, classes and enumerations with all that they have."""

from __future__ import annotations

import subprocess
import sys

import pytest

CLOSURES = """
import functools
def counter():
    count = 0
    def up():
        nonlocal count
        count += 1
        return count
    def look(): return count
    return up, look
up, look = counter()
def pair():
    kept = []
    return kept.append, lambda: kept
def mutual():
    def even(k): return True if k == 0 else odd(k - 1)
    def odd(k): return False if k == 0 else even(k - 1)
    return even, odd
even, odd = mutual()
def maybe():
    late = None
    def get(): return late
    return get
get = maybe()
part = functools.partial(max, 1)
part.label = "kept"
"""
MARKS = """
import dataclasses, enum, inspect, random, threading
from random import randint
@dataclasses.dataclass
class Row:
    n: int
    k: int = dataclasses.field(default=2)
MISSING, marks = dataclasses.MISSING, [dataclasses.MISSING, inspect.Parameter.empty]
draw = random.random
"""
CLASSES = """
import abc, enum, typing
class Outer:
    class Inner: pass
def make(n):
    class Local: k = n
    return Local
Local = make(3)
class Compared:
    def __eq__(self, other): return True
class Never:
    __slots__ = ()
class Register:
    known = []
    def __init_subclass__(cls, *, must, **more):
        super().__init_subclass__(**more)
        Register.known.append((cls.__name__, must))
class One(Register, must=1): pass
class Meta(type):
    made = []
    def __new__(meta, name, bases, space, *, flag):
        return super().__new__(meta, name, bases, space | {"flag": flag})
    def __init__(cls, name, bases, space, *, flag):
        Meta.made.append(name)
class Flagged(metaclass=Meta, flag=5): pass
class Told(abc.ABC, typing.Generic[typing.TypeVar("T")]):
    def __init_subclass__(cls, how="plain", **more): cls.how = how
class Loud(Told[int], how="loud"): pass
class Loose(dict):
    def __setitem__(self, k, v): super().__setitem__(k, (v, "set"))
    def __repr__(self): return "loose"
class Twice(list):
    def append(self, x): super().append(x); super().append(x)
    def extend(self, xs): [self.append(x) for x in xs]
loose, twice = Loose(), Twice()
loose["k"] = 1
twice.append(1)
loose.more = twice
"""
HASHED = """
import dataclasses
class Key:
    def __init__(self, n): self.held, self.n = [], n
    def __eq__(self, other): return self.n == other.n
    def __hash__(self): return hash(("key", self.n))
@dataclasses.dataclass(frozen=True)
class Frozen:
    name: str
    among: list = dataclasses.field(compare=False)
key, frozen = Key(1), Frozen("f", [])
key.held.append({key: 5})
frozen.among.append({frozen})
"""
CIRCLES = """
import abc, collections, typing
class Goes(abc.ABC):
    @abc.abstractmethod
    def go(self): ...
class Gone(Goes):
    def go(self): return gone
gone = Gone()
class Point(typing.NamedTuple):
    x: int
    y: list = []
    def get(self): return around
Plain = collections.namedtuple("Plain", "a b", defaults=[5])
class Below(Plain):
    def get(self): return around
around = [Point(1), Below(2), Plain(3)]
Point.y_default = Point._field_defaults["y"]
Point.y_default.append(around)
"""
ENUMS = """
import enum
class Shade(enum.Enum):
    def __new__(cls, value, label):
        self = object.__new__(cls)
        self._value_, self.label = value, label
        return self
    DARK = 1, "night"
    LIGHT = 2, "day"
    BLACK = 1, "again"
class Way(enum.Flag):
    N, E = 1, 2
    NE = N | E
class Kept(enum.IntFlag, boundary=enum.KEEP):
    A = 1
"""


@pytest.mark.parametrize(
    ("definition", "expression", "expected"),
    [
        (CLOSURES, "look.__closure__[0] is up.__closure__[0]", True),
        (CLOSURES, "even(7), odd(7), even.__closure__[0].cell_contents is odd, get(), part(0), part.label", (False, True, True, None, 1, "kept")),
        (MARKS, "dataclasses.fields(Row)[0].default is dataclasses.MISSING, MISSING is dataclasses.MISSING, marks[1] is inspect.Parameter.empty", (True,) * 3),
        (MARKS, "[f.name for f in dataclasses.fields(dataclasses.make_dataclass('Less', [('m', int, 5)], bases=(Row,))(1))]", ["n", "k", "m"]),
        (CLASSES, "Outer.Inner.__qualname__, Local.__qualname__, __import__('pickle').loads(__import__('pickle').dumps(Outer.Inner())).__class__ is Outer.Inner",
         ("Outer.Inner", "make.<locals>.Local", True)),
        (CLASSES, "Compared.__hash__ is None, hasattr(Never(), '__dict__')", (True, False)),
        (CLASSES, "Register.known, One.__mro__[1] is Register", ([("One", 1)], True)),
        (CLASSES, "Flagged.flag, Meta.made, type(Flagged) is Meta, Loud.how, Loud.__orig_bases__[0].__args__, isinstance(Loud(), Told)",
         (5, ["Flagged"], True, "loud", (int,), True)),
        (CLASSES, "dict(loose), list(twice), list(loose.more), loose.more is twice", ({"k": (1, "set")}, [1, 1], [1, 1], True)),
        (HASHED, "key.held[0][key], frozen in frozen.among[0], list(vars(key)), next(iter(frozen.among[0])) is frozen", (5, True, ["held", "n"], True)),
        (CIRCLES, "gone.go() is gone, around[0].get() is around, around[1].get() is around, around[0].y[0] is around, [*map(len, around)], Point(4)[0], Plain(6), Point._fields",
         (True, True, True, True, [2, 2, 2], 4, (6, 5), ("x", "y"))),
        (ENUMS, "Shade.DARK.label, Shade.BLACK is Shade.DARK, Way.NE.name, Way(3) is Way.NE, [*Way.__members__], Kept(8).value, ~Way.N is Way.E",
         ("night", True, "NE", True, ["N", "E", "NE"], 8, True)),
    ],
)  # fmt: skip
def test_what_arrives(ip, definition, expression, expected):
    """It is in processes what it is in the notebook."""
    ip(definition)
    ip(f"%parallel procs=2 -q --once -o there ({expression}) for n in range(2)")
    assert ip.space["there"].results == [expected] * 2


@pytest.mark.skipif(sys.version_info < (3, 12), reason="generic functions are new in Python 3.12")
def test_generic_functions(ip):
    """They have the parameters of their types, in processes and back."""
    ip("def first[T: int](n: T) -> T: return n\nclass Box[T]:\n    def get[K](self, k: K) -> K: return k")
    ip("%parallel procs=2 -q --once -o there (first.__type_params__[0].__name__, Box.get.__type_params__[0].__name__, first) for n in range(2)")
    for own, method, function in ip.space["there"].results:
        assert (own, method, function.__type_params__[0].__name__) == ("T", "K", "T")


def test_a_cell_is_shared(ip):
    """Two functions that share a variable share it in a process, too: what one changes, the other sees."""
    ip(CLOSURES)
    ip("%parallel procs=1 -q --once -o there (up(), look()) for n in range(3)")
    assert ip.space["there"].results == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("name", ["rows", "table", "pair", "some", "both", "root"])
def test_an_item_that_a_name_holds(ip, name):
    """An item that is a list, dict, tuple, set or instance which a name holds is that very one, also by two names; and holds it."""
    ip("class Node: pass\nrows, table, pair, some, root = [1], {'k': 2}, (3, []), {4}, Node()\nboth = again = [5]")
    ip(f"%parallel procs=2 -q --once -o there (item[0] is {name}, item[1]['held'] is {name}, {name} is not None) for item in [({name}, {{'held': {name}}})] * 3")
    assert ip.space["there"].results == [(True, True, True)] * 3
    ip(f"%parallel procs=2 -q --once -o there item is {name} for item in [{name}, None, {name}]")
    assert ip.space["there"].results == [True, False, True]


PARTS = """
class Node: pass
inner = [1]; node = Node(); node.held = inner
def look(): return inner
config, plain = {'limits': inner, 'node': node, 'look': look}, 'k'
"""


@pytest.mark.parametrize("before", ["0", "__import__('numpy').zeros(5)"])
@pytest.mark.parametrize("order", ["cinf", "nicf", "finc"])
def test_an_item_that_holds_a_name_and_parts_of_it(ip, order, before):
    """They are one object, as in the notebook, wherever they stand in the item, and whatever name came first."""
    ip(f"{PARTS}\nalso = {before}\nall_of_it = {{'c': config, 'i': inner, 'n': node, 'f': look}}\nitem = {{key: all_of_it[key] for key in {order!r}}}")
    ip(
        "%%parallel procs=2 --chunk 1 -q --once -o there for item in [item, plain, item]\nalso\n"
        "item == plain or (item['c'] is config, item['i'] is config['limits'], item['n'] is config['node'], item['f']() is config['limits'])"
    )
    assert ip.space["there"].results == [(True,) * 4, True, (True,) * 4]


def test_items_that_hold_one_name_then_another_then_both(ip):
    """What was found for the items before is no guess at those behind them: thousands, which are packed part by part."""
    ip(f"{PARTS}\nother = {{'rows': [inner]}}; rows = other['rows']")
    ip("items = [(config, inner)] * 3_000 + [(other, rows)] * 3_000 + [(config, inner, other, rows)] * 3_000 + [(rows, rows)] * 3_000 + [(config, inner)] * 3_000")
    ip(
        "%%parallel procs=2 -q --once -o there for item in items\n"
        "item[0] is config and item[1] is config['limits'], item[-2] is other and item[-1] is other['rows']"
    )
    expected = [(True, False), (False, True), (True, True), (False, False), (True, False)]
    assert ip.space["there"].results == [each for each in expected for _ in range(3_000)]


def test_a_part_by_itself_is_the_items_own(ip):
    """What is done to it is not done to the name: an item is its body's own, but where it holds what the name holds."""
    ip(PARTS)
    ip("%parallel procs=1 -q --once -o there (item.append(2), item, config['limits'])[1:] for item in [inner, inner]")
    assert ip.space["there"].results == [([1, 2], [1]), ([1, 2], [1])]


def test_a_method_of_c_and_what_it_is_bound_to(ip):
    """Such a method is a name's value with one part."""
    ip("rows = [1]; add = rows.append")
    ip("%parallel procs=2 -q --once -o there (item[0] is add, item[1] is add.__self__) for item in [(add, rows), (add, rows)]")
    assert ip.space["there"].results == [(True, True)] * 2


def test_names_within_a_name_that_has_an_array(ip):
    """What has buffers is the item's own; names that are within it, or functions of C beside it, are the names'."""
    ip("import numpy as np\na, inner, join = np.zeros(5), {'k': []}, '-'.join\nouter = [inner, a, inner['k']]")
    ip("%parallel procs=2 -q --once -o there (item[0][0] is inner, item[0][2] is inner['k'], item[1] is join, item[0][1] is a, outer is a) for item in [(outer, join), (outer, join)]")
    assert ip.space["there"].results == [(True, True, True, False, False)] * 2


def test_text_that_looks_like_a_name(ip):
    """A pickle with the bytes that take a name's value out of the memory, and none that does."""
    ip("config = {'k': []}\ntexts = ['h\\x00.', b'h\\x00}', [104 + 256 * n for n in range(9)], [float(n) / 7 for n in range(5_000)]]")
    ip("%parallel procs=2 -q --once -o there (item, config) for item in texts")
    assert ip.space["there"].results == [(item, {"k": []}) for item in ip.space["texts"]]


def test_a_large_name_behind_an_array_is_the_items(ip):
    """It has no buffers, which is looked for when an item holds it."""
    ip("import numpy as np\na, rows = np.zeros(9), bytearray(2_000_000)")
    ip("%parallel procs=2 -q --once -o there item[0] is rows and len(a) for item in [(rows,), (rows, a)]")
    assert ip.space["there"].results == [9, 9]


def test_a_contextvar_that_holds_a_name_and_a_part_of_it(ip, tmp_path, monkeypatch):
    """Variables of modules share with the names what items do."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "parted.py").write_text("from contextvars import ContextVar\nheld = ContextVar('held')\n")
    ip(f"{PARTS}\nimport parted; _ = parted.held.set((inner, config))")
    ip("%parallel procs=2 -q --once -o there (parted.held.get()[1] is config, parted.held.get()[0] is config['limits']) for n in range(2)")
    assert ip.space["there"].results == [(True, True)] * 2


@pytest.mark.parametrize(("made", "left"), [("iter(rows)", 2), ("reversed(rows)", 2), ("enumerate(reversed(rows))", 2), ("iter([])", 0)])
def test_an_iterator_in_a_circle(ip, made, left):
    """It is at its place, though what it goes over leads back to it; one at its end stays there."""
    ip(f"rows = [1, 2, 3]\nthere = {made}; next(there, None); rows[1] = there")
    ip("%parallel procs=1 -q --once -o run (rows[1] is there, len(rows), len(list(there)), item[1] is item[0][1], len(list(item[1]))) for item in [[rows, there][:]]")
    (found,) = ip.space["run"].results
    assert found[:4] == (True, 3, left, True)
    ip("%parallel procs=1 -q --once -o run (len(item[0]), item[1] is item[0][1], len(list(item[1]))) for item in [[rows, there]]")
    assert ip.space["run"].results == [(3, True, left)]


def test_an_item_has_buffers_of_its_own_whatever_name_came_first(ip):
    """What holds another name's array is its item's own: it can be written to, and the name keeps what it had."""
    ip("import numpy as np\nclass Box: pass\na = np.zeros(300_000)\nbox = Box()\nbox.array = a")
    ip("%%parallel procs=2 -q --once -o there for item in [box, box]\nitem.array += 1\nitem.array[0], a[0], box.array[0]")
    assert ip.space["there"].results == [(1.0, 0.0, 0.0)] * 2


def test_results_leave_the_notebooks_classes_alone(ip):
    """Instances whose class only the items brought come home as that class, whose methods stay the notebook's own."""
    ip("class Thing:\n    def get(self): return 5\nbefore = Thing.get\nthings = [Thing() for _ in range(50)]")
    ip("%parallel procs=2 --chunk 5 -q --once -o there [thing, type(thing)] for thing in things")
    space = ip.space
    assert {(type(thing), kind) for thing, kind in space["there"].results} == {(space["Thing"], space["Thing"])}
    assert space["Thing"].get is space["before"]


def test_functions_come_home_with_their_file(ip):
    """A traceback shows the line of a function that a process has sent."""
    ip("def f(): return 1 / 0")
    ip("%parallel procs=1 -q --once -o there f for n in range(1)")
    (found,) = ip.space["there"].results
    assert found.__code__.co_filename == ip.space["f"].__code__.co_filename


def test_exceptions_among_names_and_items(ip):
    """They arrive with their fields, notes and causes, whatever their ``__init__`` asks for."""
    ip(
        "class Odd(OSError):\n    def __init__(self, a, b): super().__init__(a); self.b = b\n"
        "kept = Odd('a', [1]); kept.add_note('n'); kept.__cause__ = KeyError('k')\n"
        "def raised():\n    try: kept.b.index(5)\n    except ValueError as error: return error"
    )
    ip("%parallel procs=2 -q --once -o there (kept.b, kept.args, kept.__notes__, repr(kept.__cause__), item is kept, type(item).__name__) for item in [kept, raised()]")
    expected = [[1], ("a",), ["n"], "KeyError('k')"]
    assert ip.space["there"].results == [(*expected, True, "Odd"), (*expected, False, "ValueError")]


def test_what_every_process_has_of_its_own(ip):
    """Streams and the environment go by name; functions of the random module draw from the worker's own generator, and no note warns of them."""
    ip(MARKS)
    ip("import os, sys\nenvironment, out = os.environ, sys.stdout\ndef say(text, file=sys.stderr): return file is sys.stderr")
    ip("%parallel procs=2 --chunk 1 -q --once -o there (environment is os.environ, say(1), randint(0, 10**9), draw()) for n in range(8)")
    run = ip.space["there"]
    assert {each[:2] for each in run.results} == {(True, True)}
    assert len({each[2:] for each in run.results}) == 8
    assert not [note for note in run.notes if "same numbers" in note]


@pytest.mark.parametrize(("text", "name"), [("held = file", "held"), ("held = {'k': [file]}", "held"), ("def held(file=file): pass", "held")])
def test_an_open_file_is_refused(ip, tmp_path, text, name):
    """Others would read a copy of it from its place on, each the same lines: said before anything has run, with what to do."""
    (tmp_path / "file").write_text("one\ntwo\n")
    ip(f"file = open({str(tmp_path / 'file')!r})\n{text}")
    error = ip.fails("%parallel procs=2 -q --once held for n in range(2)")
    assert f"{name!r}" in str(error)
    assert "it is an open file" in str(error)
    assert "Make it in the body" in str(error)
    ip("file.close()")


MODULE = "NOTHING = object()\nclass Mark:\n    def __repr__(self): return 'mark'\nMARK = Mark()\ndef is_nothing(x): return x is NOTHING, x is MARK\n"
SCRIPT = """
import parmagic, marks
from marks import NOTHING, MARK, is_nothing
held = [NOTHING]
def body(item): return is_nothing(item), is_nothing(held[0])
run = parmagic.run(body, [NOTHING, MARK, None], "procs=2", once=True)
assert run.results == [((True, False), (True, False)), ((False, True), (True, False)), ((False, False), (True, False))], run.results
print("fine")
"""


def test_marks_of_modules(tmp_path):
    """An object that a module holds, and that is nothing but itself, is the one that the module holds in the worker."""
    (tmp_path / "marks.py").write_text(MODULE)
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.stdout == "fine\n", done.stderr[-2000:]
