"""What a run leaves is gone when it ends: no circle of references keeps it, nor what the body read, until Python collects garbage."""

from __future__ import annotations

import gc
import types
import weakref

import pytest

import parmagic
from parmagic.model.classes import module_of

MODELS = ["serial", "threads=1", "threads=2", "procs=2", "serial threads=2 procs=2"]


def squares(n):
    """Compute."""
    return n * n


def _is_ours(what):
    if type(what) is types.FrameType:
        return what.f_globals.get("__name__", "").partition(".")[0] == "parmagic"
    return module_of(type(what)).partition(".")[0] == "parmagic"


@pytest.fixture
def garbage():
    """Return a function that returns what is garbage now and is ours: objects, and frames, which hold what their functions have."""

    def found():
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
        finally:
            gc.set_debug(0)
        ours = [each for each in gc.garbage if _is_ours(each)]
        gc.garbage.clear()
        return ours

    gc.collect()
    gc.disable()
    yield found
    gc.enable()
    gc.collect()


@pytest.mark.parametrize("models", MODELS)
def test_no_run_leaves_garbage(garbage, models):
    """Else our finalizers would run within the code of whoever is at work when garbage is collected: before the eyes of their debugger."""
    parmagic.run(squares, range(4), models)  # what is made once for all runs
    garbage()
    parmagic.run(squares, range(4), models)
    assert garbage() == []


class Table(list):
    """What can be known by a weak reference."""

    def at(self, n):
        """Return what is there."""
        return self[n]


@pytest.mark.parametrize("models", MODELS)
def test_what_the_body_read_is_the_users_again(garbage, models):
    """What they delete is gone at once, also where it was shipped."""
    table = Table(range(1000))
    known = weakref.ref(table)
    parmagic.run(table.at, range(4), models)
    del table
    assert known() is None
