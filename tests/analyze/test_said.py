"""What a line says of the thing that it waits for, and what files and libraries are called."""

from __future__ import annotations

import linecache
import sys
import threading
from pathlib import Path

import pytest

from parmagic.analyze.places import placed
from parmagic.model import cells
from parmagic.model.private import public
from parmagic.model.sources import library_of, short
from parmagic.model.waits import Total
from parmagic.system import natives


def _total(line, begin, end, **more):
    """Return what is made of a wait in a line of a cell, of which the interpreter was at these bytes."""
    name = "<ipython-input-7-0123456789ab>"
    linecache.cache[name] = (len(line), None, [f"{line}\n"], name)
    try:
        return placed(Total("lock", 0xBEEF, 1, 1, 1.0, 1.0, place=f"{name}:1:{begin}:{end}", **more))
    finally:
        del linecache.cache[name]


SAID = {
    "with lock:": (0, 0, "lock", "lock"),  # the whole statement, as before Python 3.13
    "with self.lock:  # mine": (0, 0, "self.lock", "lock"),
    "with own: pass": (5, 8, "own", "lock"),  # as from then on
    "  with locks[n]: go()": (2, 21, "locks[n]", "lock"),
    "it.lock.acquire()": (0, 17, "it.lock", "lock"),
    "x = ü.get(); y()": (4, 12, "ü", "queue"),  # bytes, not characters
    "thing.method()": (0, 14, "thing", ""),
    "with one, two:": (0, 0, "", ""),
    "with make():": (0, 0, "", ""),
    "with pool.get() as it:": (5, 15, "", ""),  # for which of the two?
    "one @ two": (0, 9, "", ""),
    "next(it)": (0, 8, "", ""),
    "next(it).acquire()": (0, 18, "a lock", "lock"),
    "with (": (0, 0, "", ""),
    "": (0, 0, "", ""),
    "nonsense $": (0, 10, "", ""),
}


@pytest.mark.parametrize("line", SAID)
def test_what_a_line_says(line):
    """The object of a with block and of a method's call; nothing where it could be several, or something that has no name."""
    begin, end, name, thing = SAID[line]
    found = _total(line, begin, end)
    assert (found.name, found.thing, found.place) == (name, thing, "In[7]:1")


def test_keys_stay_on_screen():
    """What stands in brackets may be the name of a person."""
    found = _total("with locks['alice']:", 0, 0)
    assert (found.name, public(found.name)) == ("locks['alice']", "a lock")


def test_a_name_that_is_known_stays():
    """Also what a thing is, where the hooks know it by its class."""
    assert _total("with lock:", 0, 0, name="account.lock", thing="lock").name == "account.lock"
    assert _total("it.wait()", 0, 9, thing="event").thing == "event"
    assert _total("next(it).wait()", 0, 15, thing="event").name == "an event"


FILES = {
    "logging/__init__.py": "logging", "concurrent/futures/thread.py": "concurrent.futures", "threading.py": "threading",
    "site-packages/sqlalchemy/pool/impl.py": "sqlalchemy.pool", "site-packages/numpy/_core/numeric.py": "numpy", "site-packages/six.py": "six",
}  # fmt: skip


@pytest.mark.parametrize("path", FILES)
def test_libraries(path):
    """A library is called by at most two names that are not its own affair."""
    folder = "/opt/venv/lib" if path.startswith("site-") else Path(threading.__file__).parent
    assert library_of(f"{folder}/{path}") == FILES[path]


def test_what_is_the_users_own():
    """Cells, what was typed, and files that lie elsewhere are no library's; the frozen importer is."""
    assert [library_of(file) for file in ("<ipython-input-1-abc>", "<string>", "/home/me/project/tool.py")] == ["", "", ""]
    assert library_of("<frozen importlib._bootstrap>") == "importlib"


def test_short_names(tmp_path, monkeypatch):
    """A cell has its number; a file is called from where it is imported; else all of its path is shown, and a file keeps its name."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert short(f"{tmp_path}/package/tool.py") == "package/tool.py"
    assert short("<string>") == "<string>"
    elsewhere = short("/home/alice/elsewhere/tool.py")
    assert (elsewhere, public(elsewhere)) == ("/home/alice/elsewhere/tool.py", "tool.py")
    cells.ask(lambda: {"/tmp/ipykernel_1/2.py": 12})
    try:
        assert short("/tmp/ipykernel_1/2.py") == "In[12]"
    finally:
        cells.ask(dict)


NATIVE = {
    "/x/numpy.libs/libscipy_openblas64_-ff651d7f.so": "OpenBLAS", "/x/libopenblas.so.0": "OpenBLAS", "/x/torch/lib/libgomp-a34b3233.so.1": "torch",
    "/x/libstandin-r0-5007b62f.3.23.dev.so": "libstandin", "/x/_core.cpython-311-x86_64-linux-gnu.so": "_core",
}  # fmt: skip
PYTHONS = ["/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", "/usr/lib/libpython3.11.so.1.0", "/usr/bin/python3"]


@pytest.mark.parametrize("path", NATIVE)
def test_native_libraries(path):
    """They are called as users know them, else by their files without what tells builds apart."""
    assert natives.library_name(path) == NATIVE[path]
    assert not natives.is_pythons(path)


@pytest.mark.parametrize("path", PYTHONS)
def test_native_libraries_that_are_pythons_own(path):
    """The interpreter is none."""
    assert natives.is_pythons(path)


def test_a_body_without_python_code_is_at_no_place():
    """Our own code around it is none of the user's; where a cell is below it, it is what the cell called."""
    file = f"{cells.__file__}"
    assert placed(Total("sleep", 0, 0, 1, 1.0, 1.0, place=f"{file}:9:0:0")).place == ""
    found = placed(Total("lock", 0xBEEF, 3, 1, 1.0, 1.0, place=f"{file}:9:0:0"))
    assert (found.name, found.thing) == ("a lock in parmagic.model", "library")
