"""Beside coverage.py and pytest-cov: what a body covers counts, wherever it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from alongside import tool

pytest.importorskip("coverage")
pytest.importorskip("pytest_cov")

MODULE = """\
def body(n):
    if n == 3:
        return -n
    return n


def nobody(n):
    return n + 1
"""
NEVER = [8]
"""The line that nothing runs."""

SCRIPT = """\
import sys
import parmagic, work
run = parmagic.run(work.body, range(8), sys.argv[1], start_method=sys.argv[2] if sys.argv[2:] else None, once=True)
assert run.results == [0, 1, 2, -3, 4, 5, 6, 7], run.results
print(*run.notes, sep="\\n")
"""
CELL = """\
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in ("%load_ext parmagic", "import work", f"%%parallel {sys.argv[1]} --once -q -o run for n in range(8)\\nwork.body(n)"):
    shell.run_cell(cell).raise_error()
assert shell.user_ns["run"].results == [0, 1, 2, -3, 4, 5, 6, 7]
"""
TEST = """\
import os, parmagic, work

def test_run():
    assert parmagic.run(work.body, range(8), os.environ["MODELS"], once=True).results == [0, 1, 2, -3, 4, 5, 6, 7]
"""
CORES = ["ctrace", "sysmon"] if sys.version_info >= (3, 12) else ["ctrace"]
WORDS = ["threads=2", "serial", "procs=2", "procs=2 spawn", "procs=2 fork"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a module, what runs it, and settings that ask for processes."""
    for name, text in {"work.py": MODULE, "script.py": SCRIPT, "cell.py": CELL, "test_work.py": TEST}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / ".coveragerc").write_text("[run]\ninclude = work.py\npatch = subprocess\n")
    return tmp_path


def _missing(folder: Path) -> list[int]:
    """Return the lines of the module that nothing ran, by all data files together; none of which may be broken or stay."""
    if list(folder.glob(".coverage.*")):
        assert "isn't a coverage data file" not in tool("coverage", "combine", into=folder)
    tool("coverage", "json", "-q", "-o", "seen.json", into=folder)
    assert {path.name for path in folder.glob(".coverage*")} == {".coverage", ".coveragerc"}
    return list(json.loads((folder / "seen.json").read_text())["files"]["work.py"]["missing_lines"])


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("words", WORDS)
def test_covered_where_coverage_asks_for_processes(folder, words, core):
    """With ``patch = subprocess``, each line that a body ran counts, in threads and in every kind of process."""
    assert "coverage" not in tool("coverage", "run", "script.py", *words.split(), into=folder, COVERAGE_CORE=core)
    assert _missing(folder) == NEVER


@pytest.mark.parametrize("words", ["threads=2", "procs=2"])
def test_a_cell_is_covered(folder, words):
    """The same for a cell in an IPython that runs under coverage."""
    tool("coverage", "run", "cell.py", words, into=folder)
    assert _missing(folder) == NEVER


@pytest.mark.parametrize("words", ["threads=2", "procs=2"])
@pytest.mark.parametrize("command", ["coverage run -m pytest", "pytest --cov=work --cov-report="])
def test_tests_are_covered(folder, words, command):
    """The same for pytest under coverage, and for pytest-cov."""
    tool(*command.split(), "-p", "no:cacheprovider", "test_work.py", into=folder, MODELS=words)
    assert _missing(folder) == NEVER


def test_an_ending_that_saves_leaves_whole_files(folder):
    """With ``patch = _exit`` as well, the server and its spares, which are ended at any moment, write no data file, and so no broken one."""
    (folder / ".coveragerc").write_text("[run]\ninclude = work.py\npatch = subprocess, _exit\n")
    tool("coverage", "run", "script.py", "procs=2", into=folder)
    assert len(list(folder.glob(".coverage.*"))) == 3  # the script's and the workers'
    assert _missing(folder) == NEVER


def test_what_is_not_covered_is_said(folder):
    """Without that setting, nothing of processes counts, and a note has the setting; threads need none."""
    (folder / ".coveragerc").write_text("[run]\ninclude = work.py\n")
    assert "patch = subprocess" not in tool("coverage", "run", "script.py", "threads=2", into=folder)
    assert _missing(folder) == NEVER
    assert "set `patch = subprocess`" in tool("coverage", "run", "script.py", "procs=2", into=folder)
    assert _missing(folder) == [2, 3, 4, 8]


def test_wrong_settings_end_no_worker(folder):
    """Where coverage cannot start in a worker, the run is right, and the worker says why."""
    printed = tool("script.py", "procs=2", into=folder, COVERAGE_PROCESS_CONFIG="no settings")
    assert "coverage could not start in a worker: " in printed


def test_a_notebook_is_covered(folder):
    """The same for a notebook's cells in a kernel, under nbval and pytest-cov."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbval")
    sources = ["%load_ext parmagic\nimport work", "%%parallel procs=2 --once -q -o run for n in range(8)\nwork.body(n)", "assert len(run.results) == 8"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "cells.ipynb")
    tool("pytest", "-p", "no:cacheprovider", "--nbval-lax", "--cov=work", "--cov-report=", "cells.ipynb", into=folder)
    assert _missing(folder) == NEVER
