"""In a real Jupyter kernel: what arrives under the cell, and what an interrupt leaves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import kernels
import pytest
from kernels import printed

from parmagic.record import hooks


@pytest.fixture(scope="module")
def kernel() -> Iterator[Callable[[str], list[Any]]]:
    """Return a function that runs a cell in one real kernel and returns its outputs."""
    with kernels.kernel() as run:
        yield run


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("model", ["threads", "procs"])
class TestUnderTheCell:
    """What a body shows arrives under its cell, from either model."""

    def test_print(self, kernel, model):
        """Lines are whole and marked with their worker; of a rewritten line the last state shows."""
        outputs = kernel(f"%%parallel {model}=2 --once -q for n in range(2)\nprint('line', n)\nprint('10 %\\r50 %\\r100 %')")
        lines = sorted(line.split("] ")[1] for line in printed(outputs).splitlines() if line)
        assert lines == ["100 %", "100 %", "line 0", "line 1"]
        assert all(line.startswith(f"[{model} ") for line in printed(outputs).splitlines() if line)

    def test_display(self, kernel, model):
        """A displayed object keeps its rich form."""
        kernel("from IPython.display import HTML")
        outputs = kernel(f"%%parallel {model}=2 --once -q for n in range(2)\ndisplay(HTML(f'<b>item {{n}}</b>'))")
        shown = [output.data["text/html"] for output in outputs if output.output_type == "display_data"]
        assert sorted(shown) == ["<b>item 0</b>", "<b>item 1</b>"]

    def test_report(self, kernel, model):
        """The run shows itself as HTML, with the verdict first and no script."""
        outputs = kernel(f"%parallel {model}=2 sum(range(1000)) for n in range(20)")
        html = next(output.data["text/html"] for output in outputs if output.output_type == "execute_result")
        assert f"{model}=2" in html
        assert "<script" not in html
        assert len(html) < 200_000


@pytest.mark.filterwarnings("default")
def test_c_level_output(kernel):
    """What C code and child processes print in a worker arrives as well."""
    outputs = kernel("%%parallel procs=1 --once -q for n in range(1)\nimport os\n_ = os.system('echo from a child')\nos.write(1, b'from C\\n')")
    assert "[procs 0] from a child\n" in printed(outputs)
    assert "[procs 0] from C\n" in printed(outputs)


def test_only_the_run_is_hushed(kernel):
    """-q and a closing semicolon hide the run, and nothing else that the cell shows; Out[n] is what was last."""
    for line in ("%parallel threads=1 -q --once n for n in range(2)", "%parallel threads=1 --once n for n in range(2);"):
        (shown,) = kernel(f"{line}\n6 * 7")
        assert (shown.output_type, shown.data["text/plain"]) == ("execute_result", "42")
        assert printed(kernel(f"print(Out[{shown.execution_count}])")) == "42\n"
        assert kernel(line) == []
        assert printed(kernel("print(type(_).__name__)")) == "Run\n"


def _error(outputs):
    """Return the traceback that a cell showed, without colours."""
    (shown,) = [output for output in outputs if output.output_type == "error"]
    return re.sub("\x1b\\[[0-9;]*m", "", "\n".join(shown.traceback))


@pytest.mark.parametrize("model", ["threads", "procs"])
def test_traceback_shows_the_cell(kernel, model):
    """The failing line of the body and that of a function in it are shown with their numbers, and no frame of ours."""
    outputs = kernel(f"%%parallel {model}=2 --once -q for i in range(3)\ny = i\ndef g(x):\n    return 1 / x\ng(i - 1)")
    text = _error(outputs)
    assert "----> 5 g(i - 1)" in text
    assert "----> 4     return 1 / x" in text
    assert "parmagic/" not in text
    assert "in item 1 (1), worker" in text + printed(outputs, "stderr")  # where an IPython does not print notes, we do


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%parallel threads=2\nreturn 3", "CellError: line 2: `return` cannot stand"),
        ("%%parallel threads=2 -q --once --timeout 0.2 for _ in range(2)\nwhile True: pass", "RunTimeout: --timeout 0.2"),
        ("%%parallel procs=1 -q --once for _ in range(1)\nimport os\nos._exit(3)", "WorkerDied: Worker 0"),
    ],
)
def test_what_is_ours_has_no_traceback(kernel, cell, message):
    """What parmagic itself refuses or reports is shown by its message alone."""
    text = _error(kernel(cell))
    assert text.startswith(message)
    assert "Traceback" not in text


def test_progress_bars_of_threads(kernel):
    """Bars in the bodies of several threads end as one line each."""
    outputs = kernel("%%parallel threads=2 --once -q\nimport tqdm\nfor _ in tqdm.tqdm(range(50), mininterval=0):\n    pass")
    lines = [line for line in printed(outputs, "stderr").splitlines() if line.strip()]
    assert sorted(line[:11] for line in lines) == ["[threads 0]", "[threads 1]"]
    assert all("50/50" in line for line in lines)


@pytest.mark.parametrize("model", ["threads", "procs"])
def test_places_are_in_cells(kernel, model):
    """Files that a kernel compiles have paths; a place has the cell's number, of the body's and of another one's, also for a plain function."""
    if hooks.why_inferred():
        pytest.skip("waits are inferred here")
    (first,) = kernel("import time, parmagic\ndef nap():\n    for _ in range(5): time.sleep(0.01)\nsum([1])")
    cell = f"%%parallel {model}=1 --once -q --trace off -o run for _ in range(2)\nnap()\nfor _ in range(5): time.sleep(0.01)"
    kernel(cell)
    places = "print(sorted(run.waits[run.waits['kind'] == 'sleep']['place']))"
    there = f"In[{first.execution_count}]:3"
    assert printed(kernel(places)) == f"{sorted([there, f'In[{first.execution_count + 1}]:3'])}\n"
    kernel("run = parmagic.run(lambda _: nap(), range(2), 'threads=1', once=True, trace='off')")
    assert printed(kernel(places)) == f"{[there]}\n"
