"""Where waits were, and what was waited for there that the body has no name for: in words, in the notebook, which knows its cells."""

from __future__ import annotations

import ast
import linecache
import re
from dataclasses import replace

from parmagic.model.kinds import LOCKS
from parmagic.model.private import Private, joined
from parmagic.model.sources import library_of, module_path, short
from parmagic.model.waits import Total

_OF_LIBRARIES = {"concurrent.futures": "future", "multiprocessing.pool": "future", "importlib": "import"}
"""What is waited for in some: who waits there for a pool waits for what others compute."""

_BY_METHOD = {"acquire": "lock", "get": "queue", "put": "queue"}
"""What has a method that waits right in C."""


_WITH = re.compile(r"\bwith\b[^:]*$")


def placed(total: Total) -> Total:
    """Return a worker's total with its place as it is shown; what has no name is called as there, or by the library whose code that is.

    What our own code waits for around a body that has no Python code is at no place.
    """
    if not total.place:
        return total
    file, at, begin, end = total.place.rsplit(":", 3)
    library = library_of(file)
    if library.startswith("parmagic") and not total.line:
        return replace(total, place="")
    total = replace(total, place=joined(short(file), f":{at}"))
    if total.name or total.kind not in LOCKS:
        return total
    if library:
        thing = _OF_LIBRARIES.get(library) or ("pool" if "pool" in module_path(file).lower() else "library")
        return replace(total, name=f"a {total.kind} in {library}", thing=thing)
    line, first = linecache.getline(file, int(at)).encode(), int(begin)
    name, thing = _said(line[:first].decode(errors="replace"), line[first : int(end) or None].decode(errors="replace"))
    thing = total.thing or thing
    return replace(total, name=name or (f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}" if thing else ""), thing=thing)


def _said(before: str, text: str) -> tuple[str, str]:
    """Return what a line calls the thing that it waits for, and what that is; empty where it does not say.

    ``text`` is the part of it that the interpreter was at, behind ``before``: a ``with`` (of older Pythons, from its begin on) or its
    object, or a call of a method. Of a call in the head of a ``with``, nobody knows whether it waited, or the block for what it returned.
    """
    said, thing = _expression(text), "lock"
    called = isinstance(said, ast.Call)
    if said is None or called == bool(text.startswith("with ") or _WITH.search(before)):
        return "", ""
    if isinstance(said, ast.Call):
        method = said.func
        if not isinstance(method, ast.Attribute):
            return "", ""
        said, thing = method.value, _BY_METHOD.get(method.attr, "")
    if any(isinstance(each, ast.Call) for each in ast.walk(said)):
        return "", thing
    name = ast.unparse(said)
    hidden = any(isinstance(each, ast.Constant) for each in ast.walk(said))  # keys may be names of people
    return Private(name, "a lock") if hidden else name, thing


def _expression(text: str) -> ast.expr | None:
    """Return the tree of an expression, or of the only object of a ``with``, of which the first line is enough."""
    for whole in (text.strip(), f"{text.strip()}\n    pass"):
        try:
            found = ast.parse(whole).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        first = found[0] if len(found) == 1 else None
        if isinstance(first, ast.With) and len(first.items) == 1:
            return first.items[0].context_expr
        return first.value if isinstance(first, ast.Expr) else None
    return None
