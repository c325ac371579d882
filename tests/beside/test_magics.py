"""Our magics under those of profilers, and of IPython itself: all models in one kernel for each tool."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from alongside import cells

for name in ("line_profiler", "memory_profiler", "memray", "pyinstrument", "scalene"):
    pytest.importorskip(name)

MODELS = ["threads=2", "procs=2", "serial"]
EVERYWHERE = sys.version_info >= (3, 12)
"""Whether what profiles by events sees all threads of a process; before, only its own."""

MODULE = """\
def f(n):
    block = bytearray(50_000_000)
    total = 0
    for i in range(200):
        total += i * n
    return total
"""
RESULTS = str([19900 * n for n in range(8)])
RUN = "run = parmagic.run(f, range(8), 'MODEL', once=True)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a module."""
    (tmp_path / "work.py").write_text(MODULE)
    return tmp_path


def _beside(folder: Path, extension: str, cell: str) -> dict[str, str]:
    """Run a cell with an extension, in all models (LINE and MODEL stand for their words), each time ours alone behind it; return the notes."""
    sources = [f"%load_ext {extension}" if extension else "", "from work import f\nimport parmagic"]
    for model in MODELS:
        line = f"{model} --once -q -o run f(n) for n in range(8)"
        sources += [cell.replace("LINE", line).replace("MODEL", model), "print(run.results)", "print(run.notes)", f"%parallel {line}", "print(run.notes)"]
    _, _, *shown = cells(*sources, into=folder)
    assert [text.strip() for text in shown[1::5]] == [RESULTS] * 3
    assert "Functions were not traced" not in "".join(shown[4::5])
    return dict(zip(MODELS, shown[2::5], strict=True))


def _step_aside(notes: dict[str, str]) -> list[str]:
    """Return the models in which functions were not traced, because somebody else traces them in the notebook's process."""
    return [model for model, text in notes.items() if "Functions were not traced" in text]


IN_THE_NOTEBOOK = ["threads=2", "serial"]
WHERE_BOTH_SET_IT = [] if EVERYWHERE else IN_THE_NOTEBOOK
"""Where functions are not traced beside a profile function: from Python 3.12 on, ours is none, and both go on."""


def test_lprun(folder):
    """%lprun counts a body's lines in threads of Python 3.12 and later; ours steps aside there, and works again behind it."""
    notes = _beside(folder, "line_profiler", f"%lprun -T MODEL.txt -f f {RUN}")
    assert _step_aside(notes) == (IN_THE_NOTEBOOK if EVERYWHERE else [])
    for model in MODELS:
        hits = re.search(r"^ +5 +(\d+)", (folder / f"{model}.txt").read_text(), re.MULTILINE)
        assert int(hits[1] if hits else 0) == (8 * 200 if model in _step_aside(notes) else 0)


@pytest.mark.parametrize("cell", [f"%prun -q {RUN}", "%%prun -q\n%parallel LINE"])
def test_prun(folder, cell):
    """%prun profiles the notebook's thread, and all threads from Python 3.12 on; ours steps aside, and says so."""
    assert _step_aside(_beside(folder, "", cell)) == IN_THE_NOTEBOOK


@pytest.mark.parametrize("options", ["", "--follow-fork", "--native"])
def test_memray(folder, options):
    """%%memray_flamegraph over our line has what a body allocates in threads; in processes there is nothing of it, and nothing wrong."""
    assert _step_aside(_beside(folder, "memray", f"%%memray_flamegraph {options}\n%parallel LINE")) == WHERE_BOTH_SET_IT
    pages = sorted(folder.glob("memray-results/*/flamegraph.html"), key=lambda page: page.stat().st_mtime)
    assert ["work.py" in page.read_text() for page in pages] == [True, False, True]


@pytest.mark.skipif(find_spec("distutils") is None, reason="memory_profiler loads where there is distutils: in setuptools, from Python 3.12 on")
def test_memory_profiler(folder):
    """%memit and %mprun take a call of ``parmagic.run``."""
    _beside(folder, "memory_profiler", f"%memit {RUN}")
    _beside(folder, "memory_profiler", f"%mprun -T MODEL.txt -f f {RUN}")


def test_pyinstrument(folder):
    """%%pyinstrument samples the notebook's thread, which waits for the workers; before Python 3.12, ours steps aside, and says so."""
    assert _step_aside(_beside(folder, "pyinstrument", "%%pyinstrument\n%parallel LINE")) == WHERE_BOTH_SET_IT


def test_scalene(folder):
    """%scrun takes a call of ``parmagic.run``; it leaves a script in place of the interpreter, and our processes start all the same."""
    _beside(folder, "scalene", f"%scrun --cpu-only {RUN}")


@pytest.mark.parametrize("model", MODELS)
def test_ipythons_own(folder, model):
    """%%time, %%timeit and %%capture over our line: the run is the cell's value, shown or captured, and timed."""
    timed, _, captured = cells(
        f"%%time\n%parallel {model} --once abs(n) for n in range(3)",
        f"%%timeit -n1 -r2\n%parallel {model} --once -q abs(n) for n in range(3)",
        f"%%capture seen\nrun = %parallel {model} --once abs(n) for n in range(3)\nprint('x')\nrun",
        into=folder,
    )
    assert "Wall time" in timed
    assert model in timed
    assert captured == ""
