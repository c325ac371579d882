"""In the modes that Python itself has for finding faults."""

from __future__ import annotations

import sys
from importlib.metadata import version

import pytest
from alongside import tool

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

SCRIPT = """\
import parmagic
for models, method in (("threads=2", None), ("procs=2", None), ("procs=2", "spawn"), ("procs=2", "fork"), ("serial", None)):
    run = parmagic.run(abs, [-2, -1], models, start_method=method)
    assert run.results == [2, 1], run.results
"""


@pytest.mark.parametrize(
    "mode",
    [
        {"PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "error"},
        {"PYTHONMALLOC": "debug", "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"},
        {"PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "0"},
    ],
    ids=" ".join,
)
def test_right_and_quiet(tmp_path, mode):
    """Results are right, nothing is warned of, and no process is left, in threads and in all kinds of processes."""
    if "PYTHONWARNINGS" in mode and version("pandas") == "2.2.0":
        pytest.skip("pandas 2.2.0 warns of its own next release whenever it is imported")
    (tmp_path / "script.py").write_text(SCRIPT)
    assert tool("script.py", into=tmp_path, **mode) == ""


def test_times_of_imports(tmp_path):
    """``-X importtime`` times the imports of workers, too, on their stderr; results are right."""
    (tmp_path / "script.py").write_text(SCRIPT)
    assert "[procs 0] import time:" in tool("-X", "importtime", "script.py", into=tmp_path)
