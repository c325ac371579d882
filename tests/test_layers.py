"""Imports go down only, in no circle, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import parmagic

HOUSE = Path(parmagic.__file__).parent
MODULES = sorted(HOUSE.rglob("*.py"))

KNOWS = {
    "errors": set(),
    "system": {"errors"},
    "model": {"errors", "system"},
    "parse": {"errors", "system", "model"},
    "record": {"errors", "system", "model"},
    "workers": {"errors", "system", "model", "record"},
    "analyze": {"errors", "system", "model"},
    "render": {"errors", "system", "model"},
    "result": {"errors", "system", "model", "analyze", "render"},
    "execute": {"errors", "system", "model", "parse", "record", "workers", "analyze", "result"},
    "notebook": {"errors", "system", "model", "parse", "execute", "render", "result"},
}
"""The floors, from below, and which of them each may import; ``parmagic`` itself may import all."""


def _name(path: Path) -> str:
    parts = path.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {_name(path): path for path in MODULES}


def _imports(path: Path) -> Iterator[str]:
    """Yield the modules of ours that a module imports, anywhere in it, also late and for types."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found = full if full in NAMES else node.module
                if found in NAMES:
                    yield found
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in NAMES)


def _floor(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_go_down_only(path):
    """A module knows its own floor and those that the table allows; all know the package's name."""
    floor = _floor(_name(path))
    known = KNOWS[floor] | {floor, ""} if floor else set(KNOWS)
    assert {_floor(other) for other in _imports(path)} <= known


def test_no_circles():
    """No module imports itself by way of others: not late, not for types."""
    graph = {name: {other for other in _imports(path) if other not in {name, "parmagic"}} for name, path in NAMES.items() if name != "parmagic"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" → ".join(circle.args[1]))


def test_few_rooms_at_the_top():
    """Who comes here sees at once where things are."""
    rooms = {path.relative_to(HOUSE).parts[0] for path in MODULES}
    assert len(rooms) <= 12
    assert rooms == {f"{name}.py" if name in {"errors", "result"} else name for name in KNOWS} | {"__init__.py"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_only_the_magic_knows_ipython(path):
    """IPython is imported by the magic alone (and by a worker that displays something)."""
    names = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    knows = any(name.split(".")[0] == "IPython" for name in names)
    assert knows == ((_floor(_name(path)) == "notebook" and path.name != "__init__.py") or path.name == "ipython.py")


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
    assert ast.literal_eval(done.stdout.strip()) == ["parmagic", "parmagic.errors", "parmagic.notebook", "parmagic.notebook.magics"]


def test_late_names():
    """Names that load late are listed, are the real ones, and others are an AttributeError."""
    from parmagic.execute.story import run

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
