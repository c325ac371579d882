"""A short part of each kind of fuzzing; ``tests/fuzz.py`` runs for longer."""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
import threading

import fuzz
import programs
import pytest

from parmagic.errors import CellError
from parmagic.render import serve


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_lines():
    """Of thousands of lines, each is a plan or an error that points into it; the median takes a millisecond, and none a second."""
    assert fuzz.fuzz_lines(range(10_000), seed=11) == []


def test_requests(capfd):
    """A thousand requests, most of them malformed: a 4xx or a closed connection, nothing printed, nothing left, and the next one is served."""
    url = serve.open_trace(b"{}", "title")
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    try:
        assert fuzz.fuzz_server(range(1000), 11, url) == []
        right = f"GET /{url.split('/', 3)[3]} HTTP/1.1\r\nHost: {url.split('/')[2]}\r\n\r\n"
        assert fuzz.answer_to(right.encode(), int(url.split(":")[2].split("/")[0])).startswith(b"HTTP/1.1 200 ")
        assert threading.active_count() == threads
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
    finally:
        serve.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_cells():
    """A body does what the cell does, or is refused for what the cell could not do without the notebook's name; its names say what it reads and writes."""
    assert fuzz.fuzz_cells(range(300), seed=11) == []


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_cells_in_workers(ip):
    """The same holds for whole runs: a thread and a process give the value of the cell, or its error and line."""
    ip(programs.NOTEBOOK)
    ran = 0
    for number in range(15):
        text, names = fuzz.program(number, 12), programs.notebook()
        try:
            for name in programs.as_body(text, names).writes & names.keys():
                del names[name]
        except (CellError, SyntaxError):
            continue
        expected = programs.watched(lambda: programs.as_cell(text, names), names)  # noqa: B023  (called here and now)
        ip("q[:] = [1, 2, 3]; r.clear(); r['k'] = 1; g = 0; box.n = 1")
        run = ip(f"%%parallel threads=1 procs=1 -q --once --keep-going --trace off\n{text}")
        for arm in run._study.timelines:
            assert programs.plain(repr(run.arm(arm.arm.label).results[0])) == expected.value, text
        errors = [programs.plain(error).partition(":")[0] for error in run.items["error"].fillna("")]
        assert errors == [expected.error[0]] * 2, text
        ran += 1
    assert ran > 5


def _bodies(module):
    """Return the bodies of a module's tests, with what they need to run."""
    source = inspect.getsource(module)
    rows = source.splitlines()
    for cls in ast.parse(source).body:
        for test in cls.body if isinstance(cls, ast.ClassDef) else ():
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test"):
                text = textwrap.dedent("\n".join(rows[test.body[0].lineno - 1 : test.end_lineno]))
                yield test.name, text, lambda name=test.name, made=cls.name: {**vars(module), "self": getattr(module, made)(name), "__name__": "__main__"}


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["test_grammar", "test_named_expressions", "test_patma", "test_augassign", "test_raise", "test_decorators"])
def test_what_python_tests_itself_with(name, monkeypatch):
    """The bodies of Python's own tests do as bodies of a cell what they do in a cell, but for ``nonlocal``, which a cell cannot have."""
    module = pytest.importorskip(f"test.{name}")
    failures = []
    for test, text, space in _bodies(module):
        monkeypatch.setattr(programs, "notebook", space)
        if (wrong := programs.difference(text)) and "no binding for nonlocal" not in wrong:
            failures.append(f"{test}: {wrong}")
    assert failures == []
