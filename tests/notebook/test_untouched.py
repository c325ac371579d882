"""Names that nobody reads, and functions that are more than functions: neither is asked anything, and no callback of ours raises."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import IPython
import kernels
import pytest

HOSTILE = """
import functools, sys, types, weakref
class Gone: pass
gone = Gone()
proxy = weakref.proxy(gone)
del gone
class Lazy:
    @property
    def __class__(self): raise RuntimeError("not yet")
    def __getattr__(self, name): raise RuntimeError(f"not configured: {name}")
class Unset:
    def __getattribute__(self, name): raise ImportError("settings are not configured")
    def __eq__(self, other): raise ImportError("settings are not configured")
    def __bool__(self): raise ImportError("settings are not configured")
    __hash__ = None
class Meta(type):
    def __getattribute__(cls, name): raise RuntimeError("no attributes")
    def __hash__(cls): raise RuntimeError("no hash")
    def __eq__(cls, other): raise RuntimeError("no comparison")
    def __instancecheck__(cls, other): raise RuntimeError("no instances")
    def __subclasscheck__(cls, other): raise RuntimeError("no subclasses")
class Strange(metaclass=Meta): pass
class Liar:
    __module__ = 5
    __class__ = property(lambda self: types.FunctionType)
class Broken(types.ModuleType):
    def __getattribute__(self, name): raise AttributeError(name)
lazy, settings, strange, liar, broken = Lazy(), Unset(), type.__call__(Strange), Liar(), Broken("broken")
def odd(): pass
odd.__module__ = None
odd.__wrapped__ = odd
sys.modules["parmagic_test_lazy"] = lazy
sys.modules["parmagic_test_broken"] = broken
"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[Callable[[str], list[Any]]]:
    """Return a function that runs a cell in one real kernel, where such names are, and returns its outputs."""
    with kernels.kernel() as run:
        assert run(HOSTILE) == []
        yield run


def _text(outputs: list[Any]) -> str:
    parts = [output.get("text", "") + "".join(output.get("traceback", [])) + output.get("data", {}).get("text/plain", "") for output in outputs]
    return re.sub("\x1b\\[[0-9;]*m", "", "".join(parts))


OLD = pytest.mark.skipif(IPython.version_info < (8,), reason="IPython 7 shows no traceback beside such names, and its kernel does not answer")


@pytest.mark.filterwarnings("default")
class TestNamesThatNobodyReads:
    """They stay as they are."""

    @pytest.mark.parametrize("models", ["threads=2", "procs=2", "serial", "procs=2 --start-method spawn", "procs=2 --start-method fork", "threads=2 procs=2"])
    def test_runs(self, kernel, models):
        """A run gives what it should, and neither it nor the cell behind it says anything of them."""
        outputs = kernel(f"%parallel {models} -q --timeout 50 -o there n + 1 for n in range(4)\nprint(there.results, there.error)")
        assert _text(outputs) == "[1, 2, 3, 4] None\n"

    @pytest.mark.parametrize("cell", ["1 + 1", "import colorsys", "x = 5", "import pandas", pytest.param("raise KeyError('own')", marks=OLD)])
    def test_cells(self, kernel, cell):
        """After a cell, where there is a server that may import what it has, no callback fails."""
        kernel("%parallel procs=1 -q --once n for n in range(1)")
        for _ in range(2):
            text = _text(kernel(cell))
            assert "callback" not in text
            assert "not configured" not in text

    def test_functions_that_read_none_of_them(self, kernel):
        """What a function of the notebook's reads is sent, and nothing else; classes from there come back as they are."""
        outputs = kernel("class Fine: pass\ndef f(n): return Fine()")
        outputs += kernel("%parallel procs=2 -q -o there f(n) for n in range(4)\nprint([type.__call__(type, each) is Fine for each in there.results])")
        assert _text(outputs) == "[True, True, True, True]\n"

    @pytest.mark.parametrize(("name", "kind"), [("proxy", "weakproxy"), ("lazy", "Lazy"), ("settings", "Unset"), ("broken", "Broken")])
    def test_where_the_body_reads_one(self, kernel, name, kind):
        """It is refused, by its name and its type, or it is the body's own affair; the run ends."""
        text = _text(kernel(f"%parallel procs=1 -q --once --timeout 50 (n, {name})[0] for n in range(2)"))
        assert not text or name in text or kind in text
        assert "callback" not in text
        text = _text(kernel(f"%parallel threads=1 -q --once --timeout 50 -o there (n, {name})[0] for n in range(2)\nprint(there.results)"))
        assert text == "[0, 1]\n"


SCRIPT = """
import functools, sys
from unittest import mock
import parmagic
class Endless:
    def __getattr__(self, name): return self
    def __call__(self, *args): return 7
class Spoof:
    __class__ = functools.partial
    func = property(lambda self: self)
    def __call__(self, *args): return 7
def wrapped(n): return 7
wrapped.__wrapped__ = wrapped
circle = functools.partial(wrapped)
magic, spec, auto = mock.MagicMock(return_value=7), mock.MagicMock(spec=functools.partial, return_value=7), mock.create_autospec(wrapped, return_value=7)
def body(n): return wrapped(n)
for function in (magic, spec, mock.MagicMock(spec=wrapped, return_value=7), auto, mock.Mock(return_value=7), Endless(), Spoof(), wrapped, circle, body):
    for models in ("threads=2", "serial", "procs=2", "threads=2 procs=2"):
        try:
            run = parmagic.run(function, range(3), models, timeout=50)
        except parmagic.NotShippable as refused:
            assert "procs" in models and ("mock" in str(refused) or "Mock" in str(refused) or "body cannot be sent" in str(refused)), refused
        else:
            assert run.results == [7, 7, 7], (function, models, run.results)
circle.__setstate__((circle, (), {}, {}))
from parmagic.workers import loop
assert loop.globals_read(circle) == set() and loop.names_around(circle) == {}  # calling it would crash Python
circle.__setstate__((wrapped, (), {}, {}))
print("fine")
"""


def test_functions_that_are_more_than_functions(tmp_path):
    """Mocks, objects that have every attribute, that say to be something else, or that wrap themselves: run where they can, refused where not."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=110, check=False, cwd=tmp_path)
    assert done.stdout == "fine\n", done.stderr[-3000:]
