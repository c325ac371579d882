"""Which names a function reads where it was written: they are shipped, named where they are large, and looked at for generators."""

from __future__ import annotations

import functools

import pytest

import parmagic
from parmagic.workers import loop

CODE = """
import functools
import numpy as np
data, other, inner, default, annotated = (np.zeros(2_000_000) for _ in range(5))
class Point:
    data, other = 5, 6
    def at(self, n): return other[n]
point = Point()
def attribute(n): return point.data
def nested(n): return (lambda k: inner[k])(n), [inner[k] for k in range(n)]
def local(n):
    data = n
    return data
def given(n, more=default): return n
def shadowed(n, data=None): return data
part = functools.partial(nested)
"""


UNREAD = """
import functools, math, operator
import numpy as np
data, other = np.zeros(2_500_000), np.zeros(2_500_000)
class Config:
    data = 5
    @property
    def other(self): return 6
    def of_its_own(self): return self.data
config = Config()
def kept(n=0, **more): return n
def attributes(n): return Config.data, config.data + config.other, getattr(config, "data"), operator.attrgetter("data")(config)
def keywords(n): return kept(n, data=5), dict(data=n)["data"]
def stored(n): config.data = n
def inner(n):
    def given(data): return data + [other for other in range(3)][-1]
    def counts():
        nonlocal later
        later += 1
        return later
    later = 1
    return given(n), counts(), (lambda data=2: data)()
def in_a_class(n):
    class Local: data = 3
    return Local.data
def bound(n):
    import math as data
    for data in range(3): pass
    try: raise ValueError(n)
    except ValueError as data: pass
    first, *data = [1, 2]
    del data
    match {"k": n}:
        case {"k": other}: return other
def texts(n: "data"):
    "It reads neither data nor other."
    return "data", {"other": 1}["other"], f"{n} data"
partial = functools.partial(kept, data=3)
called = config.of_its_own
def helped(n): return attributes(n), called()
"""


def _space():
    space = {"__name__": "__main__"}
    exec(CODE, space)
    return space


def test_names_that_are_read():
    """Globals of the function and of those within it; no attributes, no locals, no arguments."""
    space = _space()
    found = {name: loop.globals_read(space[name]) for name in ("attribute", "nested", "local", "given", "shadowed", "part")}
    assert found == {
        "attribute": {"point"}, "nested": {"inner", "range"}, "local": set(), "given": set(), "shadowed": set(), "part": {"inner", "range"},
    }  # fmt: skip
    assert loop.globals_read(space["point"].at) == {"other"}
    for other in (len, 3, object(), functools.partial(len), type):
        assert loop.globals_read(other) == set()


LARGE = bytes(20_000_000)


def _reads_a_large_one(number):
    return len(LARGE) + number


def test_what_modules_have_is_not_shipped(ip):
    """A function that a process finds in its module finds what it reads there, too: nothing of it is sent, or named."""
    assert loop.globals_read(_reads_a_large_one) == set()
    run = parmagic.run(_reads_a_large_one, range(2), "procs=1", once=True)
    assert run.results == [20_000_000, 20_000_001]
    assert not [note for note in run.notes if "LARGE" in note]
    ip(CODE)
    ip("import parmagic\nrun = parmagic.run(attribute, range(2), 'procs=1', once=True)")
    assert not [note for note in ip.space["run"].notes if "data" in note]
    ip("run = parmagic.run(part, range(2), 'procs=1', once=True)")
    assert [note for note in ip.space["run"].notes if "inner: 16 MB" in note]


@pytest.mark.parametrize("name", ["attributes", "keywords", "stored", "inner", "in_a_class", "bound", "texts", "partial", "called", "helped"])
def test_what_is_called_alike_is_not_shipped(ip, name):
    """Attributes, keywords, locals of any kind, and words in texts, where the notebook has a large array of that name."""
    ip(UNREAD + "import parmagic")
    function = name if name != "called" else "lambda n: called()"
    ip(f"run = parmagic.run({function}, range(2), 'procs=1', once=True)")
    assert not [note for note in ip.space["run"].notes if "largest names" in note]
    assert ip.space["run"].transfers["packed_mb"].max() < 1
