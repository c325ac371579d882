"""Imports go down only, in no circle, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import parmagic

HOUSE = Path(parmagic.__file__).parent
MODULES = sorted(HOUSE.rglob("*.py"))

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


FLOORS = {_floor(name): path for name, path in NAMES.items() if name.count(".") == 1}


def _importers(path: Path) -> set[str]:
    """Return who may import a floor, as its docstring says; the package itself may import all."""
    says = ast.get_docstring(ast.parse(path.read_text())) or ""
    named = re.search(r"Imported by: ([a-z, ]+)\.", says)
    if named:
        return {"", *named[1].split(", ")}
    assert ("Everybody may import it" in says) != ("Nobody imports it" in says), f"{path} does not say who may import it"
    return {"", *FLOORS} if "Everybody" in says else {""}


IMPORTERS = {floor: _importers(path) for floor, path in FLOORS.items()}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_go_down_only(path):
    """A module knows its own floor and those that say so; all know the package's name."""
    floor = _floor(_name(path))
    assert not {other for other in {_floor(name) for name in _imports(path)} - {floor, ""} if floor not in IMPORTERS[other]}


def test_importers_are_floors():
    """Who is said to import a floor is there, and does."""
    imported = {(floor, _floor(_name(path))) for path in MODULES for floor in map(_floor, _imports(path))}
    named = {(floor, who) for floor, importers in IMPORTERS.items() if importers != {"", *FLOORS} for who in importers - {""}}
    assert named <= imported


def _circle(graph: dict[str, set[str]]) -> str:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        return " → ".join(circle.args[1])
    return ""


def test_no_circles():
    """No module and no floor imports itself by way of others: not late, not for types."""
    modules = {name: set(_imports(path)) - {name, "parmagic"} for name, path in NAMES.items() if name != "parmagic"}
    floors = {floor: {_floor(other) for name in modules if _floor(name) == floor for other in modules[name]} - {floor} for floor in FLOORS}
    assert not _circle(modules)
    assert not _circle(floors)


def _late(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line of each import within a function, and what it imports."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    yield node.lineno, [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    yield node.lineno, [full if (full := f"{node.module}.{alias.name}") in NAMES else str(node.module) for alias in node.names]


@pytest.mark.parametrize("path", [path for path in MODULES if any(_late(path))], ids=_name)
def test_late_imports_are_late_for_a_reason(path):
    """An import within a function says why, and nothing that is imported with its module has loaded it before."""
    lines = path.read_text().splitlines()
    assert not [lines[line - 1] for line, _ in _late(path) if not re.search(r"# noqa: [A-Z0-9, ]*PLC0415[A-Z0-9, ]*  \(.+\)", lines[line - 1])]
    late = {name for _, names in _late(path) for name in names} - sys.stdlib_module_names  # other systems lack some of those
    script = f"import sys, {_name(path)}; print(sorted({late} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert ast.literal_eval(done.stdout) == []


@pytest.mark.parametrize("path", [path for path in MODULES if _name(path) != "parmagic"], ids=_name)
def test_no_room_is_looked_up(path):
    """A room of ours is imported, and neither taken from ``sys.modules`` nor imported by its name; the package's own late names are."""
    for node in ast.walk(ast.parse(path.read_text())):
        subscript = isinstance(node, ast.Subscript) and ast.unparse(node.value) == "sys.modules"
        call = isinstance(node, ast.Call) and ast.unparse(node.func) in {"sys.modules.get", "sys.modules.pop", "import_module", "importlib.import_module"}
        assert not ((subscript or call) and "parmagic" in ast.unparse(node)), ast.unparse(node)


LONG_MODULES: dict[str, str] = {}
"""Modules of more than 350 lines, with the reason."""

LONG_FUNCTIONS = {
    "parmagic.notebook.magics.parallel": "its docstring is what users read as the magic's help",
    "parmagic.record.items.perform": "the loop around every item, in which a call less is time less",
}
"""Functions of more than 40 lines, with the reason."""


def test_modules_are_short():
    """A module has at most 350 lines; who needs more says why, and who needs it no more is taken off the list."""
    assert {name for name, path in NAMES.items() if len(path.read_text().splitlines()) > 350} == set(LONG_MODULES)


def test_functions_are_short():
    """A function has at most 40 lines; who needs more says why, and who needs it no more is taken off the list."""
    functions = [
        (f"{name}.{node.name}", node.end_lineno - node.lineno + 1)
        for name, path in NAMES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert {name for name, lines in functions if lines > 40} == set(LONG_FUNCTIONS)


def test_few_rooms_at_the_top():
    """Who comes here sees at once where things are."""
    rooms = {path.relative_to(HOUSE).parts[0] for path in MODULES}
    assert len(rooms) <= 12


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
    assert not knows or (_floor(_name(path)) == "notebook" and path.name != "__init__.py") or path.name == "ipython.py"


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
        "CellError", "Deadlock", "ItemTimeout", "LineError", "NotShippable", "ParmagicError", "Run", "RunTimeout", "Stuck", "WorkerDied",
        "current_worker", "last", "load_ipython_extension", "run", "unload_ipython_extension",
    ]  # fmt: skip
    assert all(hasattr(parmagic, name) for name in parmagic.__all__)
