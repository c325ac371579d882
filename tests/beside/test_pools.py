"""Beside pools of processes that are alive, and what looks at a notebook from within."""

from __future__ import annotations

import pytest
from alongside import cells

pytest.importorskip("joblib")

MODELS = ["threads=2", "procs=2", "procs=2 --start-method spawn", "serial"]
POOLS = """
import multiprocessing, joblib
from work import f
pools = [multiprocessing.get_context(method).Pool(2) for method in ("fork", "forkserver", "spawn")]
def check(run):
    assert run.results == [n * n for n in range(8)], run.results
    assert [pool.map(f, range(4)) for pool in pools] == [[0, 1, 4, 9]] * 3
    assert joblib.Parallel(2)(joblib.delayed(f)(n) for n in range(4)) == [0, 1, 4, 9]
"""
LOOKING = """
import faulthandler, sys, threading, tracemalloc
faulthandler.enable()
tracemalloc.start()
seen = set()
def look(frame, event, arg):
    seen.add(frame.f_code.co_name)
    return look
threading.settrace(look)
"""


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a module."""
    (tmp_path / "work.py").write_text("def f(n):\n    return n * n\n")
    return tmp_path


def test_pools_of_others(folder):
    """Pools of multiprocessing (in each start method) and joblib's go on beside our server, and our runs beside them; all end."""
    runs = [f"%parallel {model} -q -o run f(n) for n in range(8)\ncheck(run)" for model in MODELS]
    end = "for pool in pools: pool.terminate(); pool.join()\njoblib.externals.loky.get_reusable_executor().shutdown(wait=True)"
    cells(POOLS, *runs, end, into=folder)


def test_what_looks_on(folder):
    """faulthandler, tracemalloc and trace functions of the notebook's stay on behind a run; the latter see bodies in threads."""
    run = "sys.settrace(look)\n%parallel MODEL -q -o run f(n) for n in range(8)\nseen_here = 'f' in seen\nseen.clear()\n"
    check = "print(run.results[-1], seen_here, sys.gettrace() is look, threading.gettrace() is look, faulthandler.is_enabled(), tracemalloc.is_tracing())"
    end = "sys.settrace(None)\nthreading.settrace(None)\ntracemalloc.stop()"
    _, _, *shown, _ = cells("from work import f", LOOKING, *[run.replace("MODEL", model) + check for model in MODELS], end, into=folder)
    assert shown == [f"49 {'procs' not in model} True True True True\n" for model in MODELS]
