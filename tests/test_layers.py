"""Imports go down only, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import parmagic

HOUSE = Path(parmagic.__file__).parent

FLOORS = {
    "ground": {"errors", "model", "interrupts", "words", "files", "places", "private", "descriptors", "limits", "cpus", "gil"},
    "door": {"line", "clause", "options", "cell", "names", "order", "refusals"},
    "meter": {"recorder", "meter", "things", "_waits", "ring", "tracing", "sampler"},
    "workshop": {"dispatch", "output", "workers"},
    "study": {"merge", "functions", "cells", "inferred", "measured", "ledger", "account", "holding", "compare", "verdict"},
    "gallery": {"render"},
    "hall": {"task", "conduct", "baseline", "story", "result"},
    "desk": {"notebook", "hush"},
    "magic": {"magic"},
    "street": {"__init__"},
}

KNOWS = {
    "ground": {"ground"},
    "door": {"ground", "door"},
    "meter": {"ground", "meter"},
    "workshop": {"ground", "meter", "workshop"},
    "study": {"ground", "study"},
    "gallery": {"ground", "gallery"},
    "hall": {"ground", "door", "meter", "workshop", "study", "gallery", "hall"},
    "desk": {"ground", "door", "hall", "desk"},
    "magic": {"gallery", "hall", "desk"},
    "street": {"ground", "meter", "hall", "magic"},
}


def _floor(room: str) -> str:
    return next(floor for floor, rooms in FLOORS.items() if room in rooms)


def _rooms(path: Path) -> set[str]:
    """Return the rooms that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "parmagic":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("parmagic."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_go_down_only(path):
    """A module knows only the floors that the table allows."""
    room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    assert {_floor(other) for other in _rooms(path)} <= KNOWS[_floor(room)]


@pytest.mark.parametrize("path", sorted(HOUSE.rglob("*.py")), ids=lambda path: str(path.relative_to(HOUSE)))
def test_only_the_magic_knows_ipython(path):
    """IPython is imported by the magic alone (and by a worker that displays something)."""
    names = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    knows = any(name.split(".")[0] == "IPython" for name in names)
    assert knows == (path.name in {"magic.py", "notebook.py", "hush.py", "child.py"})


@pytest.mark.parametrize("code", ["import parmagic", "from IPython.core.interactiveshell import InteractiveShell as S; S.instance().run_line_magic('load_ext', 'parmagic')"])
def test_heavy_packages_load_late(code):
    """Neither importing nor loading the extension imports pandas, NumPy, VizTracer or cloudpickle."""
    heavy = "{'pandas', 'numpy', 'viztracer', 'cloudpickle', 'tqdm', 'tblib'}"
    script = f"import sys; {code}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip().endswith("[]")


def test_the_extension_loads_with_the_first_cell():
    """Loading the extension imports what registers the magics, and no room that runs one."""
    script = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell as S; S.instance().run_line_magic('load_ext', 'parmagic');"
        "print(sorted(name for name in sys.modules if name.startswith('parmagic')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert ast.literal_eval(done.stdout.strip()) == ["parmagic", "parmagic.errors", "parmagic.magic"]


def test_late_names():
    """Names that load late are listed, are the real ones, and others are an AttributeError."""
    from parmagic.story import run

    assert parmagic.run is run
    assert set(parmagic.__all__) <= set(dir(parmagic))
    with pytest.raises(AttributeError, match="nothing"):
        _ = parmagic.nothing


def test_public_names():
    """What parmagic exports is what the README promises."""
    assert parmagic.__all__ == [
        "CellError", "LineError", "NotShippable", "ParmagicError", "Run", "RunTimeout", "WorkerDied", "current_worker", "last",
        "load_ipython_extension", "run", "unload_ipython_extension",
    ]  # fmt: skip
    assert all(hasattr(parmagic, name) for name in parmagic.__all__)
