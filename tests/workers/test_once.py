"""``worker.once``: what a worker makes at its first call is its own for all of its items, and is left behind the last of them."""

from __future__ import annotations

import ast

import pytest
from arms import MODELS

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


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("body", "before", "expected"), WAYS.values(), ids=WAYS)
def test_what_can_make_something(ip, told, model, body, before, expected):
    """Whatever can be called with nothing, known again at each item; a name that two functions share is not confused."""
    if before:
        ip(before)
    run = ip(f"%%parallel {model} -q --once for i in range(6)\n{body}")
    assert run.error is None
    if expected is not Ellipsis:
        assert run.results == [i if expected == "item" else expected for i in range(6)]
