"""Mocks of ``unittest.mock``, whose every attribute is another mock, those that pickle asks for as well."""

from __future__ import annotations

import sys
from typing import Any


def reduced(value: Any) -> Any:
    """Return how to take a mock apart, or a call that it has noted; NotImplemented for anything else of that module."""
    mock: Any = sys.modules["unittest.mock"]
    kind: Any = type(value)
    if kind is mock._Call:  # noqa: SLF001
        return tuple.__new__, (kind, tuple(value)), dict(vars(value)), None, None, _fill
    if not issubclass(kind, mock.NonCallableMock) or kind.__mro__[1].__module__ != "unittest.mock":
        return NotImplemented
    return kind.__mro__[1], (), (dict(_space(value)), _operators(kind)), None, None, _set


def _space(value: Any) -> Any:
    return object.__getattribute__(value, "__dict__")


def _operators(kind: type) -> dict[str, Any]:
    """Return the ways of operators that were set: each mock has a class of its own, which holds them."""
    own = {name: each for name, each in vars(kind).items() if name.startswith("__") and type(each).__name__ != "MagicProxy"}
    return {name: each for name, each in own.items() if name not in {"__dict__", "__doc__", "__module__", "__weakref__"}}


def _set(made: Any, parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    space, operators = parts
    _space(made).update(space)
    for name, each in operators.items():
        type.__setattr__(type(made), name, each)


def _fill(made: Any, space: dict[str, Any]) -> None:
    _space(made).update(space)
