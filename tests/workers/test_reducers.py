"""Of what libraries register with multiprocessing's pickler, which shares memory with a child, nothing is used; its own is."""

from __future__ import annotations

import functools
import multiprocessing
from multiprocessing.reduction import ForkingPickler

import pytest

import parmagic

LIBRARY = """
from multiprocessing.reduction import ForkingPickler
calls = []
class Block:
    def __init__(self, values): self.values = values
class Drawer(Block):
    __slots__ = ("key",)
def reduce_block(block):
    calls.append(block)
    return Block, ("what it shares",)
"""


@pytest.fixture
def blocks(tmp_path, monkeypatch):
    """A module that registers a class with multiprocessing's pickler, as torch does; it is forgotten afterwards."""
    (tmp_path / "blocks.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(ForkingPickler, "_extra_reducers", dict(ForkingPickler._extra_reducers))
    return __import__("blocks")


@pytest.mark.parametrize("wrap", [lambda reduce: reduce, functools.partial], ids=["function", "partial"])
@pytest.mark.parametrize("kind", ["Block", "Drawer"])
@pytest.mark.parametrize("line", ["procs=2", "procs=2 --start-method spawn"])
def test_a_library_registers(ip, blocks, wrap, kind, line):
    """Its objects go and come back as any other: as a name, an item, a result; what a worker changes is its own."""
    ForkingPickler.register(getattr(blocks, kind), wrap(blocks.reduce_block))
    ip(f"import blocks\nb, many = blocks.{kind}([0]), [blocks.{kind}([n]) for n in range(300)]")
    ip(f"%%parallel {line} -q --once --chunk 1 -o run for block in [b, *many[:3]]\nb.values[0] += 1\nblock.values, len(many), block")
    run, b = ip.space["run"], ip.space["b"]
    assert run.error is None
    assert [each[:2] for each in run.results[1:]] == [([n], 300) for n in range(3)]
    assert {type(each[2]) for each in run.results} == {type(b)}
    assert b.values == [0]
    assert blocks.calls == []


def test_multiprocessing_registers():
    """What multiprocessing itself registers goes as before: queues, pipes, arrays, locks are shared."""
    context = multiprocessing.get_context("forkserver")
    array, queue, lock = context.Array("i", 2), context.Queue(), context.Lock()
    ours, theirs = context.Pipe()

    def body(n):
        with lock:
            array[n] += n + 1
            theirs.send(n)
        queue.put(n)
        return n

    assert parmagic.run(body, range(2), "procs=2", once=True).results == [0, 1]
    assert array[:] == [1, 2]
    assert sorted([ours.recv(), ours.recv()]) == [0, 1]
    assert sorted([queue.get(timeout=10), queue.get(timeout=10)]) == [0, 1]
    for each in (ours, theirs, queue):
        each.close()
    queue.join_thread()
