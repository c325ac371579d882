"""Beside pools of threads that libraries run in C++ or Rust: nothing hangs, and it is said why nothing is forked."""

from __future__ import annotations

import pytest
from alongside import cells

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
