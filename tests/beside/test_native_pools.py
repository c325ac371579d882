"""Beside pools of threads that libraries run in C++ or Rust: nothing hangs, and it is said why nothing is forked."""

from __future__ import annotations

import pytest
from alongside import cells

from parmagic.system.cpus import available_cpus

pytest.importorskip("polars")

WORK = """
import polars, os
table = polars.DataFrame({"a": range(100_000)})
def count(n): return table.lazy().group_by(polars.col("a") % (n + 2)).agg(polars.len()).collect().height
"""
REFUSED = """
try:
    get_ipython().run_line_magic("parallel", "procs=2 -q --timeout 30 --start-method fork count(n) for n in range(4)")
except Exception as error:
    print(type(error).__name__, "polars (" in str(error))
"""
ARROW = """
import pyarrow, pyarrow.parquet
pyarrow.parquet.write_table(pyarrow.table({"a": range(1_000_000), "b": range(1_000_000)}), "table")
def rows(n): return pyarrow.parquet.read_table("table").num_rows + n
rows(0)
threads = len(os.listdir("/proc/self/task"))
"""


def test_polars(tmp_path):
    """Once it is used, its pool is there: the baseline is a clean process's, a fork is refused, processes work."""
    runs = [f"%%parallel {line} -q --timeout 60 -o run for n in range(4)\ncount(n)" for line in ("threads=2", "procs=2")]
    shows = "print(run.results, run.summary['baseline'].tolist())"
    *_, threads, _, processes, refused = cells(WORK, "count(0)", runs[0], shows, runs[1], shows, REFUSED, into=tmp_path)
    assert threads == processes == "[2, 3, 4, 5] ['measured']\n"
    assert refused == "NotShippable True\n"


def test_polars_before_it_is_used(tmp_path):
    """Imported alone, it has no pool yet: a fork makes its own."""
    run = "%%parallel procs=2 -q --timeout 60 --start-method fork -o run for n in range(4)\ncount(n)"
    assert cells(WORK, run, "print(run.results)", into=tmp_path)[-1] == "[2, 3, 4, 5]\n"


def test_arrow(tmp_path):
    """Its pool is made anew in a fork: forking goes on beside it."""
    pytest.importorskip("pyarrow")
    run = "%%parallel procs=2 -q --timeout 60 --start-method fork -o run for n in range(4)\nrows(n)"
    other = "%%parallel threads=2 -q --timeout 60 -o there for n in range(4)\nrows(n)"
    check = "print([n - 1_000_000 for n in run.results], there.summary['baseline'].tolist(), threads == len(os.listdir('/proc/self/task')))"
    assert cells("import os", ARROW, run, other, check, into=tmp_path)[-1] == "[0, 1, 2, 3] ['measured'] True\n"


HELPED = """
import numpy, time
def computed(_, seconds=0.6):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end: once()
"""
POLARS = """
import polars
frame = polars.DataFrame({"a": numpy.arange(2_000_000) % 1000, "b": numpy.arange(2_000_000)})
def once(): frame.group_by("a").agg(polars.col("b").median())
"""
READS = """
import pyarrow, pyarrow.parquet
pyarrow.parquet.write_table(pyarrow.table({f"c{n}": numpy.random.rand(500_000) for n in range(8)}), "table")
def once(): pyarrow.parquet.read_table("table")
"""
TREES = """
import sklearn.ensemble
x = numpy.random.rand(5000, 10)
def once(): sklearn.ensemble.HistGradientBoostingRegressor(max_iter=5).fit(x, x[:, 0])
"""


@pytest.mark.skipif(available_cpus() < 2, reason="pools of one thread have no helpers")
@pytest.mark.parametrize(
    ("module", "makes", "library", "waits"),
    [("polars", POLARS, "polars", True), ("pyarrow", READS, "Arrow", True), ("sklearn", TREES, "OpenMP", False)],
)
def test_whose_threads_compute(tmp_path, module, makes, library, waits):
    """What they used is the library's, and waits for them, but for those below what can be hooked, are no I/O."""
    pytest.importorskip(module)
    run = "%%parallel threads=2 procs=2 -q --once --trace off --timeout 60 -o run for n in range(2)\ncomputed(n)"
    check = f"""
from parmagic.result import study
for timeline in study(run).timelines:
    assert "{library}" in [each.library for each in timeline.helpers], timeline.helpers
if {waits} and run.workers["measured"].all():
    for arm in ("threads=2", "procs=2"):
        assert "helper threads of {library}" in [*run.waits.loc[arm]["object"]], run.waits
print("fine")
"""
    assert cells(HELPED, makes, run, check, into=tmp_path)[-1] == "fine\n"
