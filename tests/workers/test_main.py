"""What a body may do in a process with what the notebook has defined: pickle it, and hand it to pools of its own."""

from __future__ import annotations

import pytest

DEFINED = """
import concurrent.futures, dataclasses, enum, multiprocessing, pickle
class Thing:
    def __init__(self, n): self.n = n
    def double(self): return helper(self.n)
class Inner(Thing): pass
@dataclasses.dataclass
class Row:
    n: int
class Colour(enum.Enum):
    RED = 1
def helper(n): return 2 * n
def work(n): return helper(n) + 1
fork = multiprocessing.get_context("fork")
"""


@pytest.fixture
def defined(ip):
    """A notebook that has defined classes and functions."""
    ip(DEFINED)
    return ip


@pytest.mark.parametrize("method", ["", "--start-method spawn", "--start-method fork"])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pickle.loads(pickle.dumps(Thing(n))).double()", [0, 2]),
        ("type(pickle.loads(pickle.dumps(Inner(n)))) is Inner", [True, True]),
        ("pickle.loads(pickle.dumps([Row(n), Colour.RED, work, Row])) == [Row(n), Colour.RED, work, Row]", [True, True]),
        ("pool = fork.Pool(2)\n_ = pool.map(work, range(3))\npool.close(); pool.join()\n_", [[1, 3, 5]] * 2),
        ("pool = fork.Pool(1)\n_ = [each.n for each in pool.map(Thing, range(3))]\npool.close(); pool.join()\n_", [[0, 1, 2]] * 2),
        ("with concurrent.futures.ProcessPoolExecutor(1, fork) as pool: _ = list(pool.map(Thing.double, [Thing(n), Inner(3)]))\n_",
         [[0, 6], [2, 6]]),
    ],
)  # fmt: skip
def test_what_main_holds(defined, method, body, expected):
    """Plain pickle finds classes and functions of the notebook in ``__main__``, those that only others use as well."""
    defined(f"%%parallel procs=2 {method} -q --once -o there for n in range(2)\n{body}")
    assert defined.space["there"].results == expected


def test_main_keeps_its_own(defined):
    """What tells a process who it is stays: its name, its loader; and a module's function does not bring its module's names."""
    defined("%parallel procs=1 -q --once -o there __import__('sys').modules['__main__'].__name__ for n in range(1)")
    assert defined.space["there"].results == ["__main__"]
    import parmagic

    run = parmagic.run(_main_has, ["DEFINED", "pytest"], "procs=1", once=True)
    assert run.results == [False, False]


def _main_has(name):
    import sys

    return hasattr(sys.modules["__main__"], name)
