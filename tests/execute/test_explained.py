"""What processes have otherwise than the notebook is said: modules that it has patched, and what functions and methods change behind the body's back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from parmagic.workers import patched

PATCHED = """
import calendar, math, string, functools
math.floor = lambda x: -1
calendar.isleap = functools.partial(max, 5)
calendar.Calendar.iterweekdays = lambda self: iter([9])
calendar.EPOCH = 7
string.digits = "abc"
class Own: pass
string.capwords = Own
def helper(n): return math.floor(n)
def untouched(n): return math.ceil(n)
"""
CHANGES = """
import collections
total, log, table, cells = 0, [], {}, []
class Model:
    made = 0
    def __init__(self): self.n, self.seen = 0, []
    def step(self):
        self.n += 1
        return self.n
    def keep(self, k):
        self.seen.append(k)
        return len(self.seen)
    def look(self, k): return self.n + k
    def quiet(self, k):
        own = []
        own.append(k)
        return own
    @classmethod
    def count(cls):
        cls.made += 1
        return cls.made
    def __call__(self):
        self.n -= 1
        return self.n
model = Model()
def count():
    global total
    total += 1
    return total
def keep(k):
    log.append(k)
    return len(log)
def deeper(k): return keep(k)
def store(k):
    table[k % 2] = table.get(k % 2, 0) + 1
    return table[k % 2]
def sorts(k):
    own = [k]
    own.sort()
    return own
"""


@pytest.fixture(autouse=True)
def as_they_were():
    """Put modules back in order."""
    import calendar
    import math
    import string

    kept = [(each, name, getattr(each, name)) for each, names in {
        math: ["floor"], calendar: ["isleap", "EPOCH"], calendar.Calendar: ["iterweekdays"], string: ["digits", "capwords"],
    }.items() for name in names]  # fmt: skip
    yield
    for each, name, value in kept:
        setattr(each, name, value)


def _notes(ip, models, expression):
    """Run it on every worker, once: in processes, none sees what another has done."""
    ip(f"%%parallel {models} -q -o there\nn = worker.rank\n{expression}")
    return ip.space["there"].notes


@pytest.mark.parametrize(
    ("expression", "name"), [("math.floor(2.5)", "math.floor"), ("helper(2.5)", "math.floor"), ("string.capwords.__name__", "string.capwords")]
)
def test_a_patched_module(ip, expression, name):
    """Processes say that they have it not; where threads disagree with them, so does that note."""
    ip(PATCHED)
    (note,) = [each for each in _notes(ip, "procs=2", expression) if "put into" in each]
    assert note.startswith(f"{name}: put into its module by the notebook; processes import modules as they are.")
    notes = _notes(ip, "threads=2 procs=2", expression)
    (note,) = [each for each in notes if "disagree" in each]
    assert f"What could explain it: {name} (the notebook has changed it in its module" in note
    assert "procs=2 disagree" in note
    assert not [each for each in _notes(ip, "threads=2", expression) if "put into" in each or "disagree" in each]


@pytest.mark.parametrize(
    ("expression", "name"),
    [("calendar.EPOCH", "calendar.EPOCH"), ("list(calendar.Calendar().iterweekdays())", "calendar.Calendar.iterweekdays"), ("string.digits", "string.digits")],
)
def test_what_is_seen_only_where_results_disagree(ip, expression, name):
    """Also values that the module's text assigns, and methods of its classes, are among what could explain it."""
    ip(PATCHED)
    (note,) = [each for each in _notes(ip, "threads=2 procs=2", expression) if "disagree" in each]
    assert f"{name} (the notebook has changed it in its module" in note


def test_a_module_as_it_was(ip):
    """Nothing is said of modules that nobody has changed, whole packages among them."""
    ip("import calendar, json, math, numpy as np, pandas as pd, string, collections, os, re, logging, random, enum, dataclasses")
    modules = [value for value in ip.space.values() if type(value) is type(sys)]
    assert patched.replaced(patched.around(modules)) == []
    plain = [each for each in modules if each.__name__ in {"json", "re", "string", "collections", "calendar", "dataclasses", "enum"}]
    assert patched.changed(plain) == []
    ip(PATCHED)
    assert sorted(patched.changed(plain)) == [
        "calendar.Calendar.iterweekdays", "calendar.EPOCH", "string.capwords", "string.digits",
    ]  # fmt: skip
    assert not [note for note in _notes(ip, "procs=2", "(json.dumps(n), np.sqrt(n), pd.NA is None)") if "put into" in note]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("count()", "total (by count())"),
        ("keep(n)", "log (by keep())"),
        ("deeper(n)", "log (by keep())"),
        ("store(0)", "table (by store())"),
        ("model.step()", "model (by model.step())"),
        ("model.keep(n)", "model (by model.keep())"),
        ("model()", "model (by model())"),
        ("Model.count()", "Model (by Model.count())"),
    ],
)
def test_what_helpers_change(ip, expression, told):
    """The name that a function or method changes is told with it; where threads, or a serial run, disagree, it is among what could explain that."""
    ip(CHANGES)
    notes = _notes(ip, "threads=2 procs=2", expression)
    assert f"{told}: changed by what the body calls; what processes change stays in them." in notes
    (note,) = [each for each in notes if "procs=2 disagree" in each]
    assert f"What could explain it: {told.replace('(by', '(changed by')}" in note
    ip(CHANGES)
    assert not [each for each in _notes(ip, "threads=2", expression) if "what the body calls" in each]


@pytest.mark.parametrize("expression", ["model.look(n)", "model.quiet(n)", "sorts(n)", "Model().look(n)", "collections.Counter('a')", "[].append(n)"])
def test_what_changes_nothing_of_the_notebooks(ip, expression):
    """Nothing is said where a function reads, or changes what is its own."""
    ip(CHANGES)
    assert not [each for each in _notes(ip, "procs=2", expression) if "stays in them" in each or "disagree" in each]


def test_run_says_it_too(tmp_path):
    """parmagic.run's note on a disagreement has the names as well."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, parmagic\nrows = []\ndef add(n):\n    rows.append(n)\n    return os.getpid()\ndef body(n): return add(n)\n"
        "print(*parmagic.run(body, range(6), 'procs=2', chunk=1).notes, sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert "What could explain it: rows (changed by add())." in done.stdout, done.stderr
