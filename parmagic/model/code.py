"""What code names, and what callables stand for, without running any of it."""

from __future__ import annotations

import dis
from collections.abc import Callable
from functools import lru_cache
from types import CodeType, FunctionType, MethodType
from typing import Any


def code_of(function: Any) -> CodeType | None:
    """Return the code of a function or method; None for any other callable, of which nothing is asked."""
    plain = function.__func__ if type(function) is MethodType else function
    return plain.__code__ if type(plain) is FunctionType else None


@lru_cache(1000)
def _named(code: CodeType) -> tuple[tuple[str, str], ...]:
    """Return what code does by name, in order, and these names; to read code takes long."""
    return tuple((each.opname, each.argval) for each in dis.get_instructions(code) if each.opcode in dis.hasname)


@lru_cache(1000)
def globals_of(code: CodeType) -> frozenset[str]:
    """Return the globals that code reads, or code within it."""
    own = frozenset(name for does, name in _named(code) if does in {"LOAD_GLOBAL", "LOAD_NAME"})
    return own.union(*map(globals_of, inner(code)))


@lru_cache(1000)
def names_of(code: CodeType) -> frozenset[str]:
    """Return the names of globals, attributes and modules that code has, or code within it."""
    return frozenset(code.co_names).union(*map(names_of, inner(code)))


@lru_cache(1000)
def assigned_in(code: CodeType) -> frozenset[str]:
    """Return the globals that code assigns or deletes, or code within it."""
    own = frozenset(name for does, name in _named(code) if does in {"STORE_GLOBAL", "DELETE_GLOBAL"})
    return own.union(*map(assigned_in, inner(code)))


@lru_cache(1000)
def read_first(code: CodeType) -> frozenset[str]:
    """Return the globals and attributes that code reads, or code within it, but for those that it has assigned by then."""
    read, assigned = set[str](), set[str]()
    for does, name in _named(code):
        if does in {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_ATTR", "LOAD_METHOD"}:
            read |= {name} - assigned
        elif does in {"STORE_GLOBAL", "STORE_ATTR"}:
            assigned.add(name)
    return frozenset(read).union(*map(read_first, inner(code)))


@lru_cache(1000)
def attributes_in(code: CodeType) -> frozenset[str]:
    """Return the attributes that code reads, or takes from a module, or code within it."""
    own = frozenset(name for does, name in _named(code) if does in {"LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"})
    return own.union(*map(attributes_in, inner(code)))


@lru_cache(1000)
def imported_by(code: CodeType) -> frozenset[str]:
    """Return the modules that code imports, or code within it."""
    own = frozenset(name for does, name in _named(code) if does == "IMPORT_NAME")
    return own.union(*map(imported_by, inner(code)))


def bound_in(code: CodeType) -> frozenset[str]:
    """Return the names that code binds for itself, or code within it."""
    return frozenset(code.co_varnames + code.co_cellvars).union(*map(bound_in, inner(code)))


def inner(code: CodeType) -> list[CodeType]:
    """Return the code of what is defined in it: functions, classes, comprehensions."""
    return [each for each in code.co_consts if type(each) is CodeType]


def chain_of(first: Any, following: Callable[[Any], Any]) -> list[Any]:
    """Return a chain, each link of which ``following`` returns the next of; until it returns None, or one that was there."""
    chain: list[Any] = []
    each = first
    while each is not None and not any(each is link for link in chain):
        chain.append(each)
        each = following(each)
    return chain


def last_of(first: Any, following: Callable[[Any], Any]) -> Any:
    """Return the end of a chain: the one that ``following`` returns None for; where it leads back, the one that it leads back to."""
    each, seen = first, set[int]()
    while id(each) not in seen and (then := following(each)) is not None:
        seen.add(id(each))
        each = then
    return each
