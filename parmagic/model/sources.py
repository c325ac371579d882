"""What the files of Python code are called where users read it: a cell, a short path, or the library that it is part of."""

from __future__ import annotations

import os
import re
import sys
import threading
from functools import lru_cache

from parmagic.model import cells
from parmagic.model.private import Private, joined

_FROZEN = re.compile(r"<frozen ([\w.]+)>")
_PACKAGES = re.compile(r".*/(?:site|dist)-packages/")
_STANDARD = os.path.dirname(threading.__file__).replace(os.sep, "/") + "/"  # noqa: PTH120
_OURS = os.path.dirname(os.path.dirname(__file__)).replace(os.sep, "/") + "/"  # noqa: PTH120
def short(file: str) -> str:
    """Return a name that tells a file from others: a cell's, or the path from where it is imported; elsewhere all of it."""
    cell = cells.called(file, cells.numbered())
    if cell != file or file.startswith("<"):
        return cell
    path = file.replace(os.sep, "/")
    for folder in sorted({_STANDARD, *map(_folder, (*_here(), *filter(None, map(str, sys.path))))}, key=len, reverse=True):
        if path.startswith(folder) and folder != "/":
            return path[len(folder) :]
    return Private(path, path.rpartition("/")[2])


def spoken(file: str | None, line: int) -> str:
    """Write a place for a sentence: a line of a cell is ``line 3``, one of a file ``util.py:3``."""
    name = short(file) if file else ""
    return f"line {line}" if not name or name.startswith("In[") else joined(name, f":{line}")


def _here() -> tuple[str, ...]:
    """Return the working directory, where there still is one."""
    try:
        return (os.getcwd(),)  # noqa: PTH109  (text)
    except OSError:
        return ()


def _folder(path: str) -> str:
    return path.replace(os.sep, "/").rstrip("/") + "/"


@lru_cache(256)
def library_of(file: str) -> str:
    """Return the library that a file of Python code is part of, by at most two names (``sqlalchemy.pool``); empty for the user's own."""
    path = module_path(file)
    parts = [part for part in path.removesuffix(".py").removesuffix("/__init__").split("/") if part]
    return ".".join(part for part in parts[:2] if part is parts[0] or not part.startswith("_"))


def is_standard(file: str) -> bool:
    """Tell whether a file is the standard library's, or the interpreter's own."""
    path = file.replace(os.sep, "/")
    return bool(_FROZEN.fullmatch(file)) or (path.startswith(_STANDARD) and not _PACKAGES.match(path))


def module_path(file: str) -> str:
    """Return where a file of a library lies below the folder that libraries are imported from; empty for the user's own."""
    frozen = _FROZEN.fullmatch(file)
    if frozen:
        return frozen[1].replace(".", "/")
    path = file.replace(os.sep, "/")
    packages = _PACKAGES.match(path)
    if packages:
        return path[packages.end() :]
    if path.startswith(_OURS):
        return "parmagic/" + path[len(_OURS) :]
    return path[len(_STANDARD) :] if path.startswith(_STANDARD) else ""
