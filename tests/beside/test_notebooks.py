"""Notebooks with our cells in the hands of those that check, format, convert and execute notebooks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from alongside import tool
from nbformat.v4 import new_code_cell, new_notebook

for name in ("black", "jupytext", "nbconvert", "nbmake", "nbval", "papermill"):
    pytest.importorskip(name)

CELL = "%%parallel threads=2 procs=2 --once -o run for n in range( count )\nx=n*2 ;print( 'item',n)\nx +1"
FORMATTED = '%%parallel threads=2 procs=2 --once -o run for n in range( count )\nx = n * 2\nprint("item", n)\nx + 1'
CELLS = [
    "%load_ext parmagic\nimport math",
    "count = 3",
    CELL,
    "%parallel threads=2 --once -q -o other math.sqrt(n*n) for n in range( count )",
    "squares = %parallel procs=2 --once -q n*n for n in range( count )",
    "run.results,other.results,squares.results",
]
RIGHT = "([1, 3, 5], [0.0, 1.0, 2.0], [0, 1, 4])"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a notebook that has our cells."""
    cells = [new_code_cell(source) for source in CELLS]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    nbformat.write(notebook, tmp_path / "cells.ipynb")
    return tmp_path


def _cells(path: Path) -> list[Any]:
    return list(nbformat.read(path, as_version=4).cells)


def _last(path: Path) -> str:
    """Return what the last cell shows: the results."""
    return str(_cells(path)[-1].outputs[0].data["text/plain"])


def test_ruff(folder):
    """Ruff takes our magics for what they are: it leaves ``%%parallel`` cells alone, and does not know the names that the magics use and give."""
    found = json.loads(tool("ruff", "check", "--isolated", "--exit-zero", "--output-format", "json", "cells.ipynb", into=folder))
    assert sorted((each["code"], each["cell"]) for each in found) == [("F401", 1), ("F821", 6), ("F821", 6)]
    quiet = ("--per-file-ignores", "*.ipynb:F401,*.ipynb:F821")
    assert "All checks passed" in tool("ruff", "check", "--isolated", *quiet, "cells.ipynb", into=folder)
    tool("ruff", "format", "--isolated", "cells.ipynb", into=folder)
    assert [cell.source for cell in _cells(folder / "cells.ipynb")] == [*CELLS[:-1], CELLS[-1].replace(",", ", ")]


def test_black(folder):
    """Black leaves our cells alone, and formats their bodies where it is told that they are Python."""
    tool("black", "-q", "cells.ipynb", into=folder)
    assert _cells(folder / "cells.ipynb")[2].source == CELL
    tool("black", "-q", "--python-cell-magics", "parallel", "cells.ipynb", into=folder)
    assert [cell.source for cell in _cells(folder / "cells.ipynb")] == [*CELLS[:2], FORMATTED, *CELLS[3:-1], CELLS[-1].replace(",", ", ")]


@pytest.mark.parametrize("form", ["py:percent", "py:light", "md"])
def test_jupytext(folder, form):
    """Our magics go to a text and back as they are; in a script they are comments, and the body is code."""
    text = f"cells.{form[:2]}"
    tool("jupytext", "-q", "--to", form, "cells.ipynb", "-o", text, into=folder)
    if form == "py:percent":
        assert f"# {CELL}" in (folder / text).read_text()
        compile((folder / text).read_text(), text, "exec")
    tool("jupytext", "-q", "--to", "ipynb", text, "-o", "back.ipynb", into=folder)
    assert [cell.source for cell in _cells(folder / "back.ipynb")] == CELLS


def test_nbval(folder):
    """``--nbval-lax`` passes; with ``--nbval``, which compares, a cell whose lines come in another order each time is marked, and passes."""
    notebook = nbformat.read(folder / "cells.ipynb", as_version=4)
    notebook.cells[2].metadata["tags"] = ["nbval-ignore-output"]
    nbformat.write(notebook, folder / "cells.ipynb")
    tool("nbconvert", "--execute", "--to", "notebook", "--inplace", "cells.ipynb", into=folder)
    for how in ("--nbval", "--nbval-lax"):
        assert "6 passed" in tool("pytest", "-p", "no:cacheprovider", how, "cells.ipynb", into=folder)


def test_nbmake(folder):
    """Nbmake runs the notebook as a test."""
    assert "1 passed" in tool("pytest", "-p", "no:cacheprovider", "--nbmake", "cells.ipynb", into=folder)


def test_papermill(folder):
    """Papermill's parameters reach the items and the body, and what our cells show is in its notebook."""
    tool("papermill", "cells.ipynb", "done.ipynb", "-p", "count", "4", "--no-progress-bar", into=folder)
    assert _last(folder / "done.ipynb") == "([1, 3, 5, 7], [0.0, 1.0, 2.0, 3.0], [0, 1, 4, 9])"
    (shown,) = [cell for cell in _cells(folder / "done.ipynb") if cell.source == CELL]
    printed = "".join(output.text for output in shown.outputs if output.output_type == "stream").splitlines()
    assert sorted(line.partition("] ")[2] for line in printed) == [f"item {n}" for n in range(4) for _ in range(2)]
    assert "procs=2" in shown.outputs[-1].data["text/html"]


def test_nbconvert(folder):
    """``nbconvert --execute`` runs our cells, and its pages have our reports."""
    tool("nbconvert", "--execute", "--to", "notebook", "--output", "done", "cells.ipynb", into=folder)
    assert _last(folder / "done.ipynb") == RIGHT
    tool("nbconvert", "--to", "html", "--output", "done", "done.ipynb", into=folder)
    assert "procs=2" in (folder / "done.html").read_text()
