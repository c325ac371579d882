"""Random notebooks of names: under processes, a body sees and returns what it does in plain Python, or is refused before anything ran.

    python tests/notebooks.py [--count 1000] [--seed N] [--only K] [--verbose]

A notebook is drawn from (seed, number) alone: some names, each of one of the *kinds* below, made of those before it; ties among
them that make circles; and items, which hold some of them. Its body reads a few of the names, looks at them and at its item with
``seen.py``, uses each as its kind is used, and returns all of that together with the names' values and the item.

The oracle is a plain loop over the same body in the same shell. Under ``procs=2`` must be equal

- what the body sees of all names that it reads, looked at together: types, contents, defaults, closures, globals of functions, what
  is one object and where it leads back to itself,
- what it sees of its item, the same way, but for what classes have; where that is, or holds, an object that a name holds, it is that object,
- what using them gives,
- what is returned, looked at in the notebook: instances are of the notebook's own classes; of an item that holds what a name holds,
  only what the body sees of it: that part of it is the name's, and the rest the item's own,
- the notebook itself, before the run and after.

Where a name that the body reads, or an item, leads to what cannot go (a generator, a lock, an open file …), the run is refused, no body
has run, and the message names a name, an item, or the body. Nothing else is refused.

Not asked for, as pickling is like that: that arrays which are views of one another still share their memory, that an item's array is
the name's (items are the body's own), and what a cache has in it (it begins empty).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import re
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from seen import seen
from traitlets.config import Config

from parmagic.errors import NotShippable

HEAD = """
import abc, array, asyncio, collections, contextlib, copy, copyreg, dataclasses, datetime, decimal, enum, fractions, functools, io, itertools
import json, logging, math, operator, os, pathlib, random, re, sqlite3, string, threading, types, typing, uuid, weakref
import numpy as np
import pandas as pd
import seen
"""


@dataclass
class Name:
    """One of a notebook's names: what defines it, how it is used, whether it cannot go, and what more can be tied to it (``{x}``)."""

    text: str
    uses: list[str] = field(default_factory=list)
    refused: bool = False
    ties: list[str] = field(default_factory=list)
    hashable: bool = False
    buffers: bool = False
    atom: bool = False


class Notebook:
    """A drawn notebook: its cell, its body, and whether that has to be refused."""

    def __init__(self, number: int, seed: int) -> None:
        self.rng = random.Random(f"{seed} notebook {number}")
        self.names: dict[str, Name] = {}
        self.leads: dict[str, set[str]] = {}
        self.kinds: dict[str, str] = {}
        for place in range(self.rng.randrange(3, 12)):
            self._add(f"v{place}", self.rng.choice(KINDS) if self.rng.random() < 0.97 else self.rng.choice(REFUSED))
        self.tied = [self._tie() for _ in range(self.rng.randrange(4))]
        self.items = self._add_items()
        self.read = sorted(self.rng.sample([*self.names], min(len(self.names), self.rng.randrange(1, 6))))

    def _add(self, name: str, kind: Callable[[Notebook], Name]) -> None:
        made = kind(self)
        self.leads[name] = set(re.findall(r"\bv\d+\b", made.text))
        self.names[name], self.kinds[name] = made, kind.__name__.strip("_")

    def _tie(self) -> str:
        able = [name for name, each in self.names.items() if each.ties]
        if not able:
            return ""
        name, other = self.rng.choice(able), self.rng.choice([*self.names])
        text = self.rng.choice(self.names[name].ties).format(n=name, x=other, k=self.rng.randrange(9))
        self.leads[name] |= set(re.findall(r"\bv\d+\b", text))
        return text

    def _add_items(self) -> str:
        text = f"items = [{', '.join(self.value(2) for _ in range(self.rng.randrange(2, 6)))}]"
        self.leads["items"] = set(re.findall(r"\bv\d+\b", text))
        return text

    def name(self, fits: Callable[[Name], bool] = lambda _: True) -> str:
        """Return a name from before, or an atom."""
        able = [name for name, each in self.names.items() if fits(each)]
        if not able or self.rng.random() < 0.1:
            return self.atom()
        return self.rng.choice(able)

    def key(self) -> str:
        """Return what can stand in a set."""
        return self.rng.choice([self.atom(), self.atom(), self.name(lambda each: each.hashable), f"({self.atom()}, {self.atom()})", f"frozenset([{self.atom()}])"])

    def atom(self) -> str:
        """Return a plain value."""
        return self.rng.choice(["0", "-7", "2**70", "1.5", "float('inf')", "None", "True", "'a'", "'\\ud800'", "'ü' * 3", "b'\\xff'", "...", "2j", "()", "''", "NotImplemented"])

    def value(self, depth: int = 1) -> str:
        """Return an expression for a value, of names from before, and of containers that may hold one of them twice."""
        rng = self.rng
        if not depth or rng.random() < 0.5:
            return rng.choice([self.atom, self.name, self.name])()
        one, two = self.value(depth - 1), self.value(depth - 1)
        return rng.choice([f"[{one}, {two}]", f"({one}, {one})", f"{{'k': {one}, 1: {two}}}", f"[[{one}], {one}]", f"(lambda x: [x, (x, x)])({one})", f"{{{self.key()}: {one}}}", f"(({one},), [])"])

    def reaches(self, *starts: str) -> set[str]:
        """Return all names that some lead to."""
        found, ways = set(starts), [*starts]
        while ways:
            new = self.leads[ways.pop()] - found
            found |= new
            ways += new
        return found

    @property
    def refused(self) -> bool:
        """Whether it cannot go."""
        return any(self.names[name].refused for name in self.reaches(*self.read, "items") - {"items"})

    def cell(self) -> str:
        """Return what defines all names."""
        return "\n".join([HEAD, *(each.text.replace("@@", name) for name, each in self.names.items()), *self.tied, self.items])

    def body(self) -> str:
        """Return the lines of the body."""
        told = [name for name in self.read if not self.names[name].atom]
        known = [name for name in told if not any(self.names[each].buffers for each in self.reaches(name))]
        known_to_items = not self.reaches("items") & {*known}
        uses = [use.replace("@@", name) for name in self.read for use in self.names[name].uses]
        return "\n".join([
            "with open(mark, 'a') as there: _ = there.write('x')",
            f"held = dict({', '.join(f'{name}={name}' for name in self.read)})",
            f"known = dict({', '.join(f'{name}={name}' for name in known)})",
            "saw = seen.seen(held), seen.seen(item, known, into_classes=False)",
            f"used = [{', '.join(uses)}]",
            f"(saw, used, held, {'item' if known_to_items else None})",
        ])  # fmt: skip


Kind = Callable[[Notebook], Name]


# --- what can go --------------------------------------------------------------------------


def _atom(b: Notebook) -> Name:
    return Name(f"@@ = {b.atom()}", hashable=True, atom=True)


def _container(b: Notebook) -> Name:
    one, two, three = b.value(2), b.value(), b.name()
    form, tie = b.rng.choice([("[{}, {}, {}]", "{n}.append({x})"), ("{{'a': {}, 'b': {}, 3: {}}}", "{n}['tied{k}'] = {x}"), ("[({}, {}), {}]", "{n}[0:0] = [({x},)]")])
    return Name(f"@@ = {form.format(one, two, three)}", ["len(@@)"], ties=[tie])


def _tuple(b: Notebook) -> Name:
    return Name(f"@@ = ({b.value(2)}, {b.value()}, [{b.name()}])", ["len(@@)"], ties=["{n}[2].append({x})", "{n}[2].append([{n}, {x}])"])


def _set(b: Notebook) -> Name:
    return Name(f"@@ = {b.rng.choice(['set', 'frozenset'])}([{b.key()}, {b.key()}, {b.key()}])", ["len(@@)"])


def _collection(b: Notebook) -> Name:
    one, two = b.value(), b.value()
    form, tie = b.rng.choice([
        ("collections.deque([{}, {}], maxlen=9)", "{n}.append({x})"), ("collections.OrderedDict(z={}, a={})", "{n}['t{k}'] = {x}"), ("collections.defaultdict(list, k={}, m={})", "{n}['t{k}'].append({x})"),
        ("collections.defaultdict(lambda: [1], k={}, m={})", "{n}['t{k}'].append({x})"), ("collections.ChainMap({{'k': {}}}, {{'m': {}}})", "{n}['t{k}'] = {x}"), ("collections.UserDict(k={}, m={})", "{n}['t{k}'] = {x}"),
        ("collections.UserList([{}, {}])", "{n}.append({x})"), ("types.SimpleNamespace(k={}, m={})", "{n}.t{k} = {x}"), ("collections.Counter({{'k': {}, 1: {}}})", "{n}['t{k}'] += 2"),
    ])  # fmt: skip
    return Name(f"@@ = {form.format(one, two)}", ["repr(type(@@))"], ties=[tie])


def _library(b: Notebook) -> Name:
    made = b.rng.choice([
        "datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc)", "datetime.timedelta(1, 2)", "decimal.Decimal('1.50')", "fractions.Fraction(1, 3)", "uuid.UUID(int=5)", "pathlib.Path('/a/b')",
        "re.compile('a+(?P<n>b)', re.I)", "range(3, 9, 2)", "slice(1, None, 2)", "operator.itemgetter(1, 'k')", "operator.methodcaller('get', 1)", "operator.attrgetter('real')", "string.Template('$a')",
        "np.float32(1.5)", "np.dtype('i4,f8')", "np.add", "math.sqrt", "len", "str.upper", "dict.fromkeys", "'-'.join", "[].append", "collections.namedtuple", "int", "list[int]", "int | None",
        "typing.Optional[int]", "typing.Callable[[int], str]", "logging.getLogger('a.b')", "json.JSONEncoder()", "array.array('d', [1.0, 2.0])", "bytearray(b'abc')", "io.StringIO('text')", "io.BytesIO(b'data')",
        "pd.Timestamp('2020-01-02')", "pd.NaT", "pd.NA", "np.datetime64('2020-01-02')", "datetime.timezone(datetime.timedelta(hours=2), 'x')", "os.environ", "random.Random(5).getstate()", "json", "np.linalg", "os.path",
        "contextlib.nullcontext(3)", "itertools.chain", "string.Formatter()", "enum.auto", "json.dumps", "re.I | re.M", "pathlib.PurePosixPath", "types.MethodType", "object()", "type(None)", "type(...)", "threading.Thread",
        "functools.reduce", "copy.copy", "collections.abc.Mapping", "abc.ABC", "Exception", "warnings" if b.rng.random() < 0 else "typing.Any", "staticmethod(len)", "memoryview(b'abc')", "memoryview(array.array('i', [1, 2]))", "types.MappingProxyType({'a': 1})", "dict(a=1).items()", "classmethod(type)", "property(len)",
    ])  # fmt: skip
    return Name(f"@@ = {made}", ["str(type(@@))"])


def _sentinel(b: Notebook) -> Name:
    return Name(b.rng.choice(["@@ = object()", "class Missing: pass\n@@ = Missing()", "class _Never:\n    __slots__ = ()\n    def __repr__(self): return 'never'\n@@ = _Never()"]), hashable=True)


def _function(b: Notebook) -> Name:
    one, two = b.name(), b.value()
    text = b.rng.choice([
        f"def @@(n=1, *rest, k={two}, **more):\n    'A text.'\n    return n, k, {one}",
        f"def @@(n: int = 2, other=[{two}]) -> 'str':\n    return [n, other, {one}]",
        f"def @@(n=3):\n    return 1 if n < 1 else [{one}, @@(n - 1)]",
        f"@@ = lambda n=1, m={two}: (n, m, {one})",
        f"def @@(n=1):\n    def inner(k): return [k, {one}]\n    return inner(n), [x for x in range(n)], (lambda: n)()",
        f"def @@(n=1):\n    class Local:\n        k = n\n        def get(self): return __class__.__name__, self.k, {one}\n    return Local().get()",
        f"def @@(n=1): return [n, {one}, (lambda k=n: (k, {two}))()]",
        f"@@ = (lambda f: f)(lambda n=0: [{one} for _ in range(n + 1)])",
        f"def @@(n=1, /, *, k=({two},)):\n    import math as m\n    return m.floor(2.5) + n, k, {one}",
        f"def @@(n=1):\n    try:\n        raise KeyError(n)\n    except KeyError as e:\n        return e.args, {one}",
    ])  # fmt: skip
    return Name(text, ["@@()", "@@(2)", "@@.__name__"], ties=["{n}.tied = {x}", "{n}.more = [{x}, {n}]"], hashable=True)


def _closure(b: Notebook) -> Name:
    one, two = b.value(), b.value()
    text = b.rng.choice([
        f"def make(kept, other):\n    def inner(n=1): return n, kept, other\n    return inner\n@@ = make({one}, {two})",
        f"def make():\n    count, kept = 0, {one}\n    def up():\n        nonlocal count\n        count += 1\n        try: return count, kept\n        finally: count -= 1\n    def look(n=0): return count, up(), {two}\n    return look\n@@ = make()",
        f"def make(n):\n    def even(k=4): return True if k == 0 else odd(k - 1)\n    def odd(k): return False if k == 0 else even(k - 1)\n    even.kept = n\n    return even\n@@ = make({one})",
        f"def deco(*given):\n    def outer(f):\n        @functools.wraps(f)\n        def inner(*a): return given, f(*a)\n        return inner\n    return outer\n@deco({one})\ndef @@(): return {two}",
        f"def make():\n    later = lambda: unset\n    if 0: unset = 1\n    return lambda: [{one}, {two}]\n@@ = make()",
    ])  # fmt: skip
    return Name(text, ["@@()"], ties=["{n}.tied = {x}"], hashable=True)


def _partial(b: Notebook) -> Name:
    one, two = b.value(), b.value()
    form = b.rng.choice(["functools.partial(max, 3, key=abs)", "functools.partial(lambda *a, **k: (a, k), {}, k={})", "functools.partial(functools.partial(lambda *a: a, {}), {})", "functools.partial(dict, a={}, b={})"])
    return Name(f"@@ = {form.format(one, two)}", ["@@(5) if @@.func is not dict else @@()"], ties=["{n}.tied = {x}"], hashable=True)


def _coroutines(b: Notebook) -> Name:
    one = b.name()
    text, use = b.rng.choice([
        (f"def @@(n=2):\n    for k in range(n):\n        yield k, {one}\n    yield from [n]", "[*@@()]"),
        (f"async def @@(n=2):\n    return n, {one}", "asyncio.run(@@())"),
        (f"@contextlib.contextmanager\ndef @@(n=2):\n    yield n, {one}", "[(lambda c: (c.__enter__(), c.__exit__(None, None, None)))(@@())]"),
    ])  # fmt: skip
    return Name(text, [use], hashable=True)


def _class(b: Notebook) -> Name:
    one, two = b.value(), b.name()
    text, use = b.rng.choice([
        (f"class @@:\n    kept = {one}\n    def __init__(self, n=1): self.n = n\n    def get(self): return self.n, self.kept, {two}\n    @classmethod\n    def make(cls): return cls(3).get()\n    @staticmethod\n    def s(): return {two}\n    @property\n    def p(self): return self.n", "@@().get(), @@.make(), @@.s(), @@(2).p"),
        (f"class Base@@:\n    made = []\n    def __init_subclass__(cls, **more): cls.made.append((cls.__name__, more)); super().__init_subclass__()\n    def get(self): return {two}\nclass @@(Base@@, k=1):\n    def get(self): return super().get(), {one}, len(self.made)", "@@().get()"),
        (f"class Meta@@(type):\n    def __new__(m, name, bases, space, **more): return super().__new__(m, name, bases, {{**space, 'more': more}})\n    def __init__(self, *a, **k): self.begun = {one}\n    def told(cls): return cls.__name__, {two}\nclass @@(metaclass=Meta@@, flag=2): pass", "@@.told(), @@.more, type(@@).__name__"),
        (f"class Abstract@@(abc.ABC):\n    @abc.abstractmethod\n    def go(self): ...\nclass @@(Abstract@@):\n    def go(self): return {two}, isinstance(self, Abstract@@), {one}", "@@().go(), issubclass(@@, Abstract@@)"),
        (f"class Named@@:\n    def __set_name__(self, owner, name): self.names = getattr(self, 'names', []) + [name]\n    def __get__(self, obj, kind): return self.names, {two}\nclass @@:\n    field = Named@@()\n    other = {one}", "@@.field, @@().field"),
        (f"T@@ = typing.TypeVar('T@@')\nclass @@(typing.Generic[T@@]):\n    x: T@@\n    kept: int = 3\n    def get(self): return {two}, {one}", "@@[int].__args__, @@().get(), @@.__annotations__ == dict(x=T@@, kept=int)"),
        (f"class @@:\n    class Inner:\n        k = {one}\n    inner = Inner()\n    def __call__(self): return type(self.inner) is self.Inner, {two}\n    def __getattr__(self, name):\n        if name.startswith('__'): raise AttributeError(name)\n        return 'no ' + name", "@@()(), @@().other, @@.Inner.k"),
        (f"class @@(dict):\n    def __missing__(self, key): return key, {two}\n    __slots__ = ()", "@@()['k'], @@(a={one})['a']".format(one="1")),
        (f"class @@(Exception):\n    def __init__(self, a, b=2): super().__init__(a); self.b = b, {one}\n    def __str__(self): return 'odd'", "repr(@@(1)), str(@@(1))"),
        (f"@functools.total_ordering\nclass @@:\n    def __init__(self, n=0): self.n = n\n    def __eq__(self, other): return self.n == other.n\n    def __lt__(self, other): return self.n < other.n\n    def __hash__(self): return hash(self.n)\n    more = [{one}, {two}]", "@@(1) <= @@(2), hash(@@(3)), @@.more"),
        ("class @@(typing.Protocol):\n    def go(self) -> int: ...\n    n: int", "@@.__name__, typing.get_type_hints(@@)"),
        (f"class @@(typing.TypedDict, total=False):\n    n: int\n    more: list[int]\n@@.extra = {one}", "@@(n=1), sorted(@@.__optional_keys__), @@.extra"),
        (f"class @@:\n    def __new__(cls, *a):\n        self = super().__new__(cls)\n        self.given = a\n        return self\n    def __class_getitem__(cls, k): return cls.__name__, k, {two}\n    kept = {one}", "@@[3], @@(1).given"),
        (f"class @@:\n    pass\n@@.patched = lambda self: ({two}, 1)\n@@.kept = [{one}]", "@@().patched()"),
    ])  # fmt: skip
    return Name(text, [use], ties=["{n}.tied = {x}", "{n}.me = [{n}, {x}]"], hashable=True)


def _instance(b: Notebook) -> Name:
    one, two, three = b.value(), b.name(), b.value()
    text, use = b.rng.choice([
        (f"class K@@:\n    def __init__(self, a): self.a = a; self.me = self; self.b = {two}\n    def get(self): return self.a, self.me is self, type(self) is K@@\n@@ = K@@({one})", "@@.get()"),
        (f"class K@@:\n    def __getstate__(self): return self.a, 'sent'\n    def __setstate__(self, state): self.a, self.how = state\n@@ = K@@(); @@.a, @@.how = {one}, 'sent'", "@@.how"),
        (f"class K@@:\n    def __init__(self, a, b): self.a, self.b = a, b\n    def __reduce__(self): return K@@, (self.a, self.b)\n@@ = K@@({one}, 5)", "@@.b"),
        (f"class K@@:\n    def __getnewargs_ex__(self): return (self.a,), dict(k=self.k)\n    def __new__(cls, a, *, k): self = super().__new__(cls); self.a, self.k = a, k; return self\n@@ = K@@(1, k={one})", "@@.k"),
        (f"class K@@: pass\ncopyreg.pickle(K@@, lambda k: (_new@@, (k.a,)))\ndef _new@@(a): k = K@@(); k.a = a; return k\n@@ = K@@(); @@.a = {one}", "@@.a"),
        (f"class K@@(list):\n    k = {two}\n@@ = K@@([{one}]); @@.more = {three}", "@@.k, @@[0], @@.more"),
        (f"class K@@(dict):\n    def __setitem__(self, k, v): super().__setitem__(k, (v, 'set'))\n@@ = K@@(a={one}); @@.more = {three}", "@@['a']"),
        (f"class K@@(int):\n    def __new__(cls, n, more=None): self = super().__new__(cls, n); self.more = more; return self\n@@ = K@@(3, {one})", "@@ + 1, @@.more"),
        (f"class K@@(str): __slots__ = ()\n@@ = [K@@('a'), {one}]", "@@[0] + 'b'"),
        (f"class K@@(tuple):\n    def first(self): return self[0]\n@@ = K@@(({one}, {two}))", "@@.first()"),
        (f"class K@@(K0@@ := type('K0@@', (), dict(k={one}))): pass\n@@ = K@@(); @@.a = {three}", "@@.k, @@.a"),
        (f"def make@@(n):\n    class Local:\n        k = n\n        def get(self): return self.k, n, {two}\n    return Local()\n@@ = make@@({one})", "@@.get()"),
        (f"class K@@:\n    @functools.cached_property\n    def size(self): return [self.a]\n    @functools.singledispatchmethod\n    def told(self, x): return 'any'\n    @told.register\n    def _(self, x: int): return 'int'\n    part = functools.partialmethod(lambda self, *a: a, 7)\n@@ = K@@(); @@.a = {one}; @@.size", "@@.size, @@.told(1), @@.told('a'), @@.part(8)"),
        (f"class K@@(collections.abc.Mapping):\n    def __init__(self, **k): self.k = k\n    def __getitem__(self, n): return self.k[n]\n    def __iter__(self): return iter(self.k)\n    def __len__(self): return len(self.k)\n@@ = K@@(a={one})", "dict(@@), len(@@)"),
    ])  # fmt: skip
    ties = ["{n}.tied = {x}", "{n}.pair{k} = [{n}, {x}]"] if "a.how" not in use and re.search("K@@:", text) and "__reduce__" not in text and "copyreg" not in text and "getnewargs" not in text and "state__" not in text else []
    return Name(text, [use], ties=ties)


def _slots(b: Notebook) -> Name:
    one, two = b.value(), b.name()
    text, use, tie = b.rng.choice([
        (f"class K@@:\n    __slots__ = ('a', '__hidden', 'unset')\n    def __init__(self): self.a, self.__hidden = {one}, {two}\n    def get(self): return self.a, self.__hidden, hasattr(self, 'unset'), hasattr(self, '__dict__')\n@@ = K@@()", "@@.get()", "{n}.a = [{x}, {n}]"),
        (f"class K0@@:\n    __slots__ = 'a'\nclass K@@(K0@@):\n    __slots__ = {{'b': 'documented', '__dict__': 'all', '__weakref__': 'w'}}\n@@ = K@@(); @@.a, @@.b, @@.c = {one}, {two}, 3", "@@.a, @@.b, @@.c", "{n}.tied = {x}"),
        (f"class K@@(tuple):\n    __slots__ = ()\n    def first(self): return self[0]\n@@ = K@@(({one}, {two}))", "@@.first()", ""),
        (f"class K@@(Exception):\n    __slots__ = ('place',)\n@@ = K@@({one}); @@.place = {two}", "@@.args, @@.place", "{n}.place = {x}"),
        (f"class K0@@(abc.ABC):\n    __slots__ = ('a',)\n    @abc.abstractmethod\n    def go(self): ...\nclass K@@(K0@@):\n    __slots__ = ('b',)\n    def go(self): return self.a, {two}\n@@ = K@@(); @@.a = {one}", "@@.go(), hasattr(@@, 'b')", "{n}.b = {x}"),
    ])  # fmt: skip
    return Name(text, [use], ties=[tie] if tie else [])


def _dataclass(b: Notebook) -> Name:
    one, two = b.value(), b.name()
    text, use, tie = b.rng.choice([
        (f"@dataclasses.dataclass\nclass K@@:\n    n: int\n    rest: list = dataclasses.field(default_factory=list, repr=False)\n    k: object = dataclasses.field(default=3, metadata={{'m': 1}})\n    def get(self): return {two}\n@@ = K@@(1, [{one}])", "@@.get(), @@ == K@@(1, @@.rest), [f.name for f in dataclasses.fields(@@)], repr(K@@(2))", "{n}.rest.append({x})"),
        (f"@dataclasses.dataclass(slots=True)\nclass K@@:\n    n: object\n    name: str = 'row'\n@@ = K@@({one})", "hasattr(@@, '__dict__'), dataclasses.replace(@@, name='b').name", "{n}.n = [{x}, {n}]"),
        (f"@dataclasses.dataclass(frozen=True, order=True)\nclass K@@:\n    n: int\n    held: object = dataclasses.field(default=None, compare=False)\n@@ = K@@(3, {one})", "@@ < K@@(4), hash(@@) == hash(K@@(3)), dataclasses.asdict(K@@(1))", ""),
        (f"@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)\nclass K@@:\n    n: object = 1\n    again: 'K@@ | None' = None\n@@ = K@@(n={one}, again=K@@())", "@@.again.n, @@.again.again", ""),
        (f"@dataclasses.dataclass\nclass K0@@:\n    a: int = 1\n@dataclasses.dataclass\nclass K@@(K0@@):\n    b: dataclasses.InitVar[int] = 2\n    c: typing.ClassVar[object] = {two}\n    _: dataclasses.KW_ONLY\n    d: object = dataclasses.MISSING if 0 else 4\n    def __post_init__(self, b): self.e = b, self.d\n@@ = K@@(5, 6, d={one})", "@@.e, repr(K@@()), K@@.c", "{n}.d = {x}"),
    ])  # fmt: skip
    return Name(text, [use], ties=[tie] if tie else [], hashable="frozen=True, order" in text)


def _namedtuple(b: Notebook) -> Name:
    one, two = b.value(), b.value()
    return Name(*b.rng.choice([
        (f"K@@ = collections.namedtuple('K@@', 'a b', defaults=[2])\n@@ = K@@({one}, {two})", ["@@.a, @@._asdict(), K@@(1), @@._replace(a=0).a"]),
        (f"class K@@(typing.NamedTuple):\n    a: object\n    b: list = {two}\n    def get(self): return self.a, type(self) is K@@\n@@ = K@@({one})", ["@@.get(), K@@._field_defaults, K@@.__annotations__"]),
        (f"class K@@(collections.namedtuple('Other', 'a b')):\n    def get(self): return self.b\n@@ = K@@({one}, {two}); @@.free = 3", ["@@.get(), @@.free"]),
    ]))  # fmt: skip


def _enum(b: Notebook) -> Name:
    one = b.name()
    text, use = b.rng.choice([
        (f"class K@@(enum.Enum):\n    A = 1\n    B = (2, 'x')\n    C = A\n    def get(self): return self.name, {one}\n@@ = K@@.B", "@@.get(), @@ is K@@.B, K@@(1) is K@@.C, [*K@@.__members__], @@ in {K@@.B}"),
        ("class K@@(enum.IntEnum):\n    A = enum.auto()\n    B = enum.auto()\n@@ = K@@.B", "@@ + 1, K@@(2) is @@, sorted(K@@)[0].name"),
        ("class K@@(enum.Flag):\n    A = enum.auto()\n    B = enum.auto()\n    AB = A | B\n@@ = K@@.A", "(@@ | K@@.B) is K@@.AB, K@@.A in K@@.AB, (~@@).value, [*K@@.AB] == [K@@.A, K@@.B]"),
        ("class K@@(str, enum.Enum):\n    A = 'a'\n    B = 'b'\n    @classmethod\n    def _missing_(cls, v): return cls.A\n@@ = K@@.B", "@@.upper(), K@@('zz') is K@@.A, @@ == 'b'"),
        (f"class K@@(enum.Enum):\n    def __new__(cls, n, label):\n        self = object.__new__(cls)\n        self._value_, self.label = n, label\n        return self\n    A = 1, 'one'\n    B = 2, 'two'\n    @property\n    def told(self): return self.label, {one}\n@@ = K@@.A", "@@.told, K@@(2).label, K@@.A is @@"),
        ("K@@ = enum.Enum('K@@', 'A B')\n@@ = K@@.B", "@@ is K@@['B'], @@.value, list(K@@) == [K@@.A, K@@.B]"),
        ("class K@@(enum.IntFlag, boundary=enum.KEEP):\n    A = 1\n    B = 4\n@@ = K@@.A | K@@.B", "@@ & 4, K@@(8).value, K@@.B in @@"),
    ])  # fmt: skip
    return Name(text, [use], hashable=True)


def _method(b: Notebook) -> Name:
    one, two = b.value(), b.name()
    return Name(*b.rng.choice([
        (f"class K@@:\n    def __init__(self): self.a = {one}\n    def get(self, n=1): return n, self.a, {two}\nk@@ = K@@()\n@@ = k@@.get", ["@@(), @@.__self__ is k@@"]),
        (f"class K@@:\n    @classmethod\n    def make(cls): return cls.__name__, {two}\n@@ = K@@.make", ["@@(), @@.__self__ is K@@"]),
        (f"class K@@:\n    def get(self): return {two}\n    hook = None\n@@ = K@@(); @@.hook = @@.get; @@.kept = {one}", ["@@.hook(), @@.hook.__self__ is @@"]),
        (f"def free@@(self): return self, {two}\n@@ = types.MethodType(free@@, [{one}])", ["@@()"]),
        ("l@@ = [1]\n@@ = l@@.copy", ["@@(), @@.__self__ is l@@"]),
        ("d@@ = {'a': 1}\n@@ = [d@@.get, d@@]", ["@@[0]('a')"]),
    ]))  # fmt: skip


def _cached(b: Notebook) -> Name:
    one, two = b.name(), b.value()
    return Name(*b.rng.choice([
        (f"@functools.cache\ndef @@(n=1): return n, {one}\n@@()", ["@@(), @@(2), @@.__wrapped__(3), @@.__name__"]),
        (f"@functools.lru_cache(maxsize=3, typed=True)\ndef @@(n=1): return n if n < 2 else @@(n - 1)\n@@.kept = {two}", ["@@(5), @@.cache_parameters(), @@.kept"]),
        (f"@functools.singledispatch\ndef @@(n=1): return 'any', {one}\n@@.register(int, lambda n: ('int', n))\n@@.register(list)(lambda n: len(n))", ["@@(1), @@([1]), @@('a'), @@.dispatch(bool)(True)"]),
        (f"class K@@:\n    @functools.lru_cache(None)\n    def get(self, n): return n, {one}\n    @staticmethod\n    @functools.cache\n    def s(): return 5\n@@ = K@@(); @@.get(1)", ["@@.get(1), @@.get(2), K@@.s()"]),
    ]), hashable=True)  # fmt: skip


def _type(b: Notebook) -> Name:
    text, use = b.rng.choice([
        ("@@ = typing.NewType('@@', int)", "@@(3), @@.__supertype__, @@.__name__"), ("@@ = typing.TypeVar('@@', bound='int')", "@@.__name__, @@.__bound__.__forward_arg__"), ("@@ = typing.ParamSpec('@@')", "@@.__name__"),
        ("@@ = typing.TypeVarTuple('@@')", "@@.__name__"), ("A@@ = typing.NewType('A@@', str)\n@@ = list[A@@] | dict[str, A@@]", "@@.__args__[0].__args__[0] is A@@"),
        ("class K@@: pass\n@@ = typing.Union[K@@, None]", "@@.__args__[0] is K@@"), ("class K@@: pass\n@@ = dict[str, K@@]", "@@.__args__[1] is K@@"), ("@@ = typing.Annotated[int, 'm', [1]]", "@@.__metadata__"),
        ("T@@ = typing.TypeVar('T@@', int, str)\nclass K@@(typing.Generic[T@@]): pass\n@@ = K@@[int]", "@@().__class__ is K@@, @@.__origin__ is K@@"),
    ] + ([("type @@ = int | list[@@]", "@@.__name__, @@.__value__.__args__[1].__args__[0] is @@"), ("def @@[T: int](n: T = 1, *more: T) -> T: return n", "@@(), @@.__type_params__[0].__name__"),
          ("class @@[T]:\n    x: T\n    def get(self, n: T) -> T: return n", "@@[int]().get(3), @@.__type_params__[0].__name__")] if sys.version_info >= (3, 12) else []))  # fmt: skip
    return Name(text, [use])


def _numpy(b: Notebook) -> Name:
    one = b.value()
    text = b.rng.choice([
        "np.arange(6.0)", "np.arange(6)[::2]", "np.arange(6).reshape(2, 3).T", "np.zeros((2, 0))", "np.array(5)", "np.array(['a', 'bcd'])", "np.array([(1, 2.0)], dtype=[('a', 'i4'), ('b', 'f8')])", "np.arange(200_000.0)",
        "np.asfortranarray(np.ones((3, 2)))", "np.ma.masked_array([1, 2, 3], mask=[0, 1, 0])", "np.array(['2020-01-01'], 'M8[D]')", "np.frombuffer(b'abcdefgh', 'i4')", "np.rec.array([(1, 2)], names='a,b')", "np.broadcast_to(3, (4,))",
        "np.matrix([[1, 2]])", f"np.array([{one}, None], dtype=object)", f"np.array([[{one}]] + [None], dtype=object)[:1]",
    ])  # fmt: skip
    made = f"@@ = {text}"
    if b.rng.random() < 0.2:
        made = f"class K@@(np.ndarray):\n    def __array_finalize__(self, other): self.label = getattr(other, 'label', 'none')\n@@ = {'np.arange(3)'}.view(K@@)"
    return Name(made, ["@@.shape, str(@@.dtype)"], buffers=True)


def _pandas(b: Notebook) -> Name:
    one = b.value()
    text = b.rng.choice([
        "pd.DataFrame({'a': [1, 2], 'b': ['x', None]})", "pd.Series([1.5, 2.5], index=['p', 'q'], name='s')", "pd.DataFrame({'c': pd.Categorical(['a', 'b', 'a'])})", "pd.Index([1, 2, 3], name='i')",
        "pd.date_range('2020', periods=3)", "pd.DataFrame({'a': [1, 2]}, index=pd.MultiIndex.from_tuples([(1, 'x'), (2, 'y')]))", "pd.DataFrame()", "pd.Series(pd.array([1, None], dtype='Int64'))",
        f"pd.Series([[{one}], None], dtype=object)", "pd.DataFrame(np.zeros((300, 500)))", "pd.DataFrame({'a': [1, 2, 3]})[1:]", "pd.DataFrame({'a': ['x', 'y']}).groupby('a').size()",
    ])  # fmt: skip
    return Name(f"@@ = {text}", ["len(@@)"], buffers=True)


def _exception(b: Notebook) -> Name:
    one, two = b.value(), b.value()
    return Name(*b.rng.choice([
        (f"@@ = ValueError('text', {one}); @@.add_note('n'); @@.more = {two}", ["repr(@@.__notes__)"]),
        (f"class K@@(OSError):\n    def __init__(self, a, b): super().__init__(a); self.b = b\n@@ = K@@('a', {one})", ["@@.b, str(@@)"]),
        (f"@@ = ExceptionGroup('g', [KeyError({one}), TypeError()])", ["len(@@.exceptions)"]),
        (f"@@ = [UnicodeDecodeError('ascii', b'a', 0, 1, 'no'), FileNotFoundError(2, 'gone', 'f'), {one}]", ["str(@@[0]), @@[1].filename"]),
    ]))  # fmt: skip


def _weak(b: Notebook) -> Name:
    form = b.rng.choice(["weakref.WeakKeyDictionary({o@@: 1})", "weakref.WeakValueDictionary({'k': o@@})", "weakref.WeakSet([o@@])"])
    return Name(f"class K@@: pass\no@@ = K@@()\n@@ = [o@@, {form}]", ["len(@@[1]), @@[0] in @@[1] or @@[1]['k'] is @@[0]"])


def _callable(b: Notebook) -> Name:
    one, two = b.value(), b.name()
    return Name(*b.rng.choice([
        (f"class K@@:\n    def __init__(self, f): self.f, self.calls = f, []\n    def __call__(self, *a): return self.f(*a)\n@K@@\ndef @@(n=1): return n, {two}", ["@@(), type(@@) is K@@"], False, ["{n}.calls.append({x})"]),
        (f"class K@@:\n    def __get__(self, obj, kind=None): return {two}, obj is None\nclass O@@:\n    d = K@@()\n    k = {one}\n@@ = O@@()", ["@@.d, O@@.d"], False, ["{n}.tied = {x}"]),
        (f"@@ = {{'add': lambda a, b: a + b, 'get': lambda: {two}, 'k': {one}}}", ["@@['add'](1, 2), @@['get']()"], False, ["{n}['t{k}'] = {x}"]),
    ]))  # fmt: skip


def _random(b: Notebook) -> Name:
    made, use = b.rng.choice([("random.Random(3)", "copy.copy(@@).random()"), ("np.random.default_rng(3)", "copy.deepcopy(@@).random()"), ("np.random.RandomState(4)", "copy.deepcopy(@@).rand()")])
    return Name(f"@@ = {made}", [use], buffers="np." in made)


def _hashed(b: Notebook) -> Name:
    one, two = b.value(), b.name()
    text = f"class K@@:\n    def __init__(self, n, held): self.n, self.held = n, held\n    def __eq__(self, other): return type(other) is K@@ and self.n == other.n\n    def __hash__(self): return hash(('K', self.n))\nk@@ = K@@(1, {one})\n"
    return Name(text + f"@@ = {b.rng.choice(['{{k@@: {two}, K@@(2, None): k@@}}', '[{{k@@, K@@(3, {two})}}, k@@]', 'k@@']).format(two=two)}", ["K@@(1, 0) in (@@ if type(@@) is dict else [k@@]), hash(k@@) == hash(('K', 1))"])


def _iterator(b: Notebook) -> Name:
    one, two = b.value(), b.value()
    made = b.rng.choice([f"iter([{one}, {two}])", f"enumerate([{one}])", f"zip([{one}], [{two}])", f"reversed([{one}, {two}])", f"iter(({one},))", "iter('abc')", f"map(repr, [1, {two}])", "iter(range(5))"])
    return Name(f"@@ = {made}", ["str(type(@@))"])


def _deep(b: Notebook) -> Name:
    one = b.value()
    text = b.rng.choice(["for _ in range(100): @@ = [@@]", "for _ in range(60): @@ = {'k': @@, 'again': @@}", "for _ in range(50): @@ = (@@, [])", "@@ = [@@]; @@.append(@@)", "@@ = {'k': @@}; @@['me'] = [@@]", "@@ = ([@@],); @@[0].append(@@)"])
    return Name(f"@@ = {one}\n{text}", ["len(@@)"])


def _large(b: Notebook) -> Name:
    made = b.rng.choice(["'a\\ud800' * 700_000", "bytes(1_500_000)", "bytearray(1_200_000)", "list(range(50_000))", "{str(n): n for n in range(20_000)}", "array.array('d', bytes(1_600_000))", "2 ** 100_000", "frozenset(range(10_000))"])
    return Name(f"@@ = {made}", ["@@.bit_length() if type(@@) is int else len(@@)"])


KINDS: list[Kind] = [
    _atom, _container, _container, _tuple, _set, _collection, _collection, _library, _library, _sentinel, _function, _function, _function, _closure, _closure, _partial, _coroutines, _class, _class, _class,
    _instance, _instance, _instance, _slots, _dataclass, _dataclass, _namedtuple, _enum, _enum, _method, _cached, _type, _numpy, _pandas, _exception, _weak, _callable, _random, _hashed, _iterator, _deep, _large,
]  # fmt: skip


# --- what cannot --------------------------------------------------------------------------


def _refused(b: Notebook) -> Name:
    made = b.rng.choice([
        "(x for x in [1])", "threading.Lock()", "threading.RLock()", "threading.Condition()", "open(os.devnull)", "sqlite3.connect(':memory:')", "weakref.ref(seen.Eye)", "sqlite3.connect(':memory:').cursor()",
        "(lambda: (yield))()", "threading.local()", "__import__('subprocess').Popen(['true'])", "__import__('queue').Queue()", "threading.Event()",
        "__import__('tempfile').TemporaryFile()", "__import__('sys')._getframe()", "threading.current_thread()", "os.scandir('/')",
    ])  # fmt: skip
    hidden = b.rng.choice(["@@ = {}", "@@ = {}", "@@ = [{}]", "@@ = {{'k': ({},)}}", "class K@@: pass\n@@ = K@@(); @@.a = {}", "l@@ = {}\ndef @@(): return l@@", "def m@@(l):\n    return lambda: l\n@@ = m@@({})", "class @@:\n    held = {}", "def @@(l={}): return l", "@@ = functools.partial(print, {})"])
    return Name(hidden.format(made), refused=True)


REFUSED: list[Kind] = [_refused]


# --- the oracle ---------------------------------------------------------------------------


class Shell:
    """An IPython with the extension loaded."""

    def __init__(self, folder: Path) -> None:
        InteractiveShell.clear_instance()
        quiet = Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"cache_size": 0, "xmode": "Plain"}})
        self.shell = InteractiveShell.instance(config=quiet)
        self.shell.run_line_magic("load_ext", "parmagic")
        self.mark = folder / "mark"

    def run(self, cell: str) -> BaseException | None:
        """Run a cell; return what it raised."""
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            done = self.shell.run_cell(cell)
        return done.error_in_exec or done.error_before_exec

    def wrong(self, notebook: Notebook) -> str:
        """Return what is wrong with how a notebook runs; nothing where it is as it must be."""
        self.shell.reset(new_session=False)
        self.mark.write_text("")
        error = self.run(f"mark = {str(self.mark)!r}\n" + notebook.cell())
        if error is not None:
            return f"the notebook itself: {_told(error)}"
        space, names = self.shell.user_ns, [*notebook.names, "items"]
        before = seen({name: space[name] for name in names})
        error = self.run(f"%%parallel procs=2 -q --once --timeout 60 -o there for item in items\n{notebook.body()}")
        if (after := seen({name: space[name] for name in names})) != before:
            return f"the run has changed the notebook: {_where(after, before)}"
        if notebook.refused:
            return self._refusal(error)
        if error is not None:
            return f"the run: {_told(error)}"
        return self._difference(notebook, space["there"].results)

    def _refusal(self, error: BaseException | None) -> str:
        if not isinstance(error, NotShippable):
            return f"not refused: {error and _told(error)}"
        if self.mark.read_text():
            return "a body ran before it was refused"
        return "" if re.search(r"The body reads '\w+' \(a |^Item \d+ \(a |^The body cannot", str(error)) else f"badly refused: {error}"

    def _difference(self, notebook: Notebook, found: list[Any]) -> str:
        space = self.shell.user_ns
        error = self.run("plain = []\nfor item in items:\n" + "\n".join("    " + line for line in notebook.body().splitlines()[:-1]) + f"\n    plain.append({notebook.body().splitlines()[-1]})")
        if error is not None:
            return f"the plain loop: {_told(error)}"
        classes = {name: each for name, each in space.items() if isinstance(each, type) and each.__module__ == "__main__"}
        for number, (ours, theirs) in enumerate(zip(found, space["plain"], strict=True)):
            for what, one, other in zip(("names", "item"), ours[0], theirs[0], strict=True):
                if one != other:
                    return f"item {number}: what it sees of the {what}: {_where(one, other)}"
            for what, one, other in zip(("what using gives", "names", "item"), ours[1:], theirs[1:], strict=True):
                if (one := seen(one, classes, into_classes=False)) != (other := seen(other, classes, into_classes=False)):
                    return f"item {number}: what comes home of the {what}: {_where(one, other)}"
        return ""


def _where(found: str, expected: str) -> str:
    begin = max(0, next((place for place, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other), 0) - 150)
    return f"\n    processes … {found[begin : begin + 400]}\n    plain     … {expected[begin : begin + 400]}"


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-4))[-1500:] if not isinstance(error, NotShippable) else f"refused: {error}"


def check(numbers: Iterable[int], seed: int, *, verbose: bool = False) -> tuple[list[str], Counter[str]]:
    """Run notebooks; return what was wrong, and how many there were of each kind, and refused."""
    failures: list[str] = []
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shell = Shell(Path(folder))
        for number in numbers:
            notebook = Notebook(number, seed)
            counts.update(set(notebook.kinds.values()))
            counts["runs refused"] += notebook.refused
            if verbose:
                print(f"--- {number}", notebook.cell().removeprefix(HEAD), notebook.body(), sep="\n", flush=True)
            if wrong := shell.wrong(notebook):
                failures.append(f"{number}: {wrong}\n{notebook.cell().removeprefix(HEAD)}\n    body reads {notebook.read}")
        shell.shell.reset(new_session=False)
        InteractiveShell.clear_instance()
    return failures, counts


def main() -> int:
    """Read the command line, and run notebooks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--only", type=int)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    numbers = range(given.count) if given.only is None else [given.only]
    failures, counts = check(numbers, given.seed, verbose=given.verbose)
    print(*failures[:20], dict(counts), f"seed {given.seed}: {len(failures)} of {len(numbers)} notebooks failed", sep="\n")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
