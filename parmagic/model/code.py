"""What code names, and what callables stand for, without running any of it."""

from __future__ import annotations

import dis
from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any


@lru_cache(1000)
def globals_of(code: CodeType) -> frozenset[str]:
    """Return the globals that code reads, or code within it."""
    own = frozenset(each.argval for each in dis.get_instructions(code) if each.opname in {"LOAD_GLOBAL", "LOAD_NAME"})
    return own.union(*map(globals_of, inner(code)))


@lru_cache(1000)
def names_of(code: CodeType) -> frozenset[str]:
    """Return the names of globals, attributes and modules that code has, or code within it."""
    return frozenset(code.co_names).union(*map(names_of, inner(code)))


def bound_in(code: CodeType) -> frozenset[str]:
    """Return the names that code binds for itself, or code within it."""
    return frozenset(code.co_varnames + code.co_cellvars).union(*map(bound_in, inner(code)))


def inner(code: CodeType) -> list[CodeType]:
    """Return the code of what is defined in it: functions, classes, comprehensions."""
    return [each for each in code.co_consts if type(each) is CodeType]


def last_of(first: Any, following: Callable[[Any], Any]) -> Any:
    """Return the end of a chain: the one that ``following`` returns None for; where it leads back, the one that it leads back to."""
    each, seen = first, set[int]()
    while id(each) not in seen and (then := following(each)) is not None:
        seen.add(id(each))
        each = then
    return each
