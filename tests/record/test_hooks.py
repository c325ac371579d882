"""The extension is used only where its numbers mean the same as ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parmagic.record import hooks

pytestmark = pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}")

OTHERS = {
    "version": 1,
    "states": ("native", "running", "gil_wait", "lock_wait", "io_wait", "sleep", "cpu_wait"),
    "kinds": (("gil", "lock_wait"),),
    "events": ("waited", "released", "took"),
    "layout": (("begin", "q"), ("end", "q")),
    "totals": ("kind", "object", "line", "n", "total_s", "max_s", "with_gil_s", "file", "at"),
    "stopped": 0,
    "callers": -1,
}


def test_the_extension_that_was_built_fits():
    """It tells the tables that are compared, and no others."""
    told = hooks.extension()[0].tables()
    assert hooks.mismatch(told) == []
    assert set(told) == set(OTHERS)


@pytest.mark.parametrize("name", OTHERS)
def test_a_mismatch_is_named(name):
    """Whatever differs, or is not told at all, is named."""
    told = hooks.extension()[0].tables()
    assert hooks.mismatch({**told, name: OTHERS[name]}) == [name]
    assert hooks.mismatch({each: value for each, value in told.items() if each != name}) == [name]


def test_a_mismatch_is_refused():
    """Where the extension counts kinds otherwise than the table, nothing is hooked, a run infers and says why."""
    script = """
import parmagic.model.kinds as kinds
kinds.WAIT_KINDS = ("lock", "gil", *kinds.WAIT_KINDS[2:])
from parmagic.record import hooks
import parmagic
run = parmagic.run(abs, [-1, -2], "threads=2", once=True, trace="off")
print(run.workers["measured"].any(), hooks.why_inferred(), run.notes)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("False the C extension was built for another parmagic, which differs in kinds: install parmagic again")


@pytest.mark.parametrize(("beside", "says"), [(["pyproject.toml"], "in this source folder; `pip install -e .` in it"), ([], "installing it again")])
def test_a_house_without_its_extension_says_what_to_do(tmp_path, beside, says):
    """Also a source folder, which hides an installed package from who works in it; a run says that it infers, and why."""
    house = Path(hooks.__file__).parents[2]
    shutil.copytree(house / "parmagic", tmp_path / "parmagic", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in beside:
        (tmp_path / name).touch()
    ask = "import parmagic; print(*parmagic.run(abs, [1, 2], 'threads=2').notes, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert says in done.stdout, done.stderr
    assert "was not built" in done.stdout
