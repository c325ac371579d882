"""Wherever Python runs: scripts, modules, notebooks without a front end; and a short storm of interrupts."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import interrupts
import nbformat
import pytest

CELLS = [
    "%load_ext parmagic\ncount = 6",
    "def square(n):\n    return n * n",
    "%%parallel procs=2 threads=2 -o run for n in range(count)\nprint('item', n)\nsquare(n)",
    "print([run.arm(label).results for label in ('procs=2', 'threads=2')], run.error)",
]
SQUARES = "[[0, 1, 4, 9, 16, 25], [0, 1, 4, 9, 16, 25]] None"

SCRIPT = """
import pathlib, sys
import parmagic

with open("starts", "a") as starts:
    starts.write("started\\n")

class Pair:
    def __init__(self, n, twice):
        self.n, self.twice = n, twice

def helper(n):
    return 2 * n

def pair(n):
    return Pair(n, helper(n))

options = {"start_method": sys.argv[1]} if len(sys.argv) > 1 else {}
run = parmagic.run(pair, range(6), "procs=2 threads=2", **options)
for label in ("procs=2", "threads=2"):
    results = run.arm(label).results
    assert all(type(each) is Pair for each in results), results
    print([(each.n, each.twice) for each in results])
"""
PAIRS = [str([(n, 2 * n) for n in range(6)])] * 2


def _python(*words: str, text: str = "") -> str:
    """Run this Python with these arguments and ``text`` as its input; return what it printed."""
    environment = {**os.environ, "IPYTHONDIR": str(Path("ipython").absolute())}
    done = subprocess.run([sys.executable, *words], input=text, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.sub(r"\x1b\[22;0t|\x1b\]0;.*?\x07", "", done.stdout)  # older IPythons name the terminal's window


@pytest.mark.parametrize("method", [[], ["spawn"]], ids=["forkserver", "spawn"])
class TestPlainPython:
    """A program without a main guard: its own functions and classes go to processes and come back, and its top level runs once."""

    def _ran_once(self, output: str) -> bool:
        return output.splitlines() == PAIRS and Path("starts").read_text() == "started\n"

    def test_script(self, method):
        """``python script.py``: workers do not run the script again."""
        Path("script.py").write_text(SCRIPT)
        assert self._ran_once(_python("script.py", *method))

    def test_module_of_a_package(self, method):
        """``python -m package.module``: the module is ``__main__``, and still may import its neighbours."""
        Path("package").mkdir()
        Path("package/__init__.py").touch()
        Path("package/neighbour.py").write_text("FACTOR = 2\n")
        text = SCRIPT.replace("import parmagic\n", "import parmagic\nfrom .neighbour import FACTOR\n").replace("2 * n", "FACTOR * n")
        Path("package/module.py").write_text(text)
        assert self._ran_once(_python("-m", "package.module", *method))

    def test_standard_input(self, method):
        """``python - < script``: there is no file that a worker could read."""
        assert self._ran_once(_python("-", *method, text=SCRIPT))

    def test_command(self, method):
        """``python -c``: the same."""
        assert self._ran_once(_python("-c", SCRIPT, *method))


class TestIPython:
    """IPython without a prompt: magics work as in a session."""

    def test_script(self):
        """``ipython script.ipy`` runs line magics, with functions of the script."""
        Path("script.ipy").write_text(f"{CELLS[0]}\n{CELLS[1]}\n%parallel procs=2 threads=2 -q -o run square(n) for n in range(count)\n{CELLS[3]}\n")
        assert _python("-m", "IPython", "--no-banner", "script.ipy") == f"{SQUARES}\n"

    def test_notebook(self, notebook):
        """``ipython notebook.ipynb`` runs cell magics, and shows what they print, marked with their worker."""
        lines = _python("-m", "IPython", "--no-banner", str(notebook)).splitlines()
        assert SQUARES in lines
        printed = sorted(line.partition("] ")[2] for line in lines if line.startswith(("[procs ", "[threads ")))
        assert printed == sorted(f"item {n}" for n in range(6) for _ in range(2))

    def test_command(self):
        """``ipython -c`` runs a line magic, and with ``--start-method spawn`` as well."""
        code = "%load_ext parmagic\n%parallel procs=2 --start-method spawn -q -o run n * n for n in range(6)\nprint(run.results, run.error)"
        assert "[0, 1, 4, 9, 16, 25] None" in _python("-m", "IPython", "--no-banner", "-c", code)

    def test_plain_script(self):
        """``ipython script.py`` with parmagic.run: the script is ``__main__`` without being the process's own, and runs once."""
        Path("script.py").write_text(SCRIPT)
        assert _python("-m", "IPython", "--no-banner", "script.py").splitlines() == PAIRS
        assert Path("starts").read_text() == "started\n"


@pytest.fixture
def notebook() -> Path:
    """Return a notebook on disk whose last cell prints the results."""
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(content, "in.ipynb")
    return Path("in.ipynb")


def _last_output(path: str) -> str:
    return str(nbformat.read(path, as_version=4).cells[-1].outputs[0].text).strip()


@pytest.mark.skipif(not importlib.util.find_spec("nbconvert"), reason="nbconvert is not installed")
def test_nbconvert(notebook):
    """``jupyter nbconvert --execute`` runs the notebook and keeps its report."""
    _python("-m", "nbconvert", "--to", "notebook", "--execute", "--output", "out.ipynb", str(notebook))
    assert _last_output("out.ipynb") == SQUARES
    shown = nbformat.read("out.ipynb", as_version=4).cells[2].outputs
    assert any("threads=2" in output.get("data", {}).get("text/html", "") for output in shown)


@pytest.mark.skipif(not importlib.util.find_spec("papermill"), reason="papermill is not installed")
def test_papermill(notebook):
    """Papermill runs the notebook with a parameter put in."""
    _python("-m", "papermill", str(notebook), "out.ipynb", "-p", "count", "3")
    assert _last_output("out.ipynb") == "[[0, 1, 4], [0, 1, 4]] None"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("where", "model"), [("kernel", "procs=4"), ("kernel", "threads=4"), ("terminal", "procs=4")])
def test_interrupts(where, model):
    """Interrupted at random moments, a cell ends soon, leaves no process, and the next one works; see ``interrupts.py``."""
    score = interrupts.storm(where, model, count=6, seed=1)
    assert not score.failures, "\n\n".join(score.failures)
    assert score.n == 6
    assert score.hit


@pytest.mark.filterwarnings("default")
def test_deaths():
    """Where the kernel is killed or restarted in the middle of a run, no process of it outlives it."""
    score = interrupts.deaths("kernel", "procs=4", count=3, seed=1)
    assert not score.failures, "\n\n".join(score.failures)
