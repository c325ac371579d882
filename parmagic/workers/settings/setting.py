"""One setting: how it is read, how it is made, and what a new process has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """A setting, by the name that users know it by; nobody can have made it where ``module`` is not loaded.

    ``read`` returns what is set, ``apply`` sets exactly that. Both are called only where the module is loaded. What equals the
    ``default`` is not sent. ``of_thread``: each thread has its own, and a new one begins with the default.
    """

    name: str
    module: str
    read: Callable[[], Any]
    apply: Callable[[Any], object]
    default: Any
    of_thread: bool = False


class _Always:
    """Equals nothing: a default that depends on the system, or on how Python was started."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


ALWAYS = _Always()


def pair(module: str, read: str, apply: str, default: Any = ALWAYS, *, of_thread: bool = False) -> Setting:
    """Return a setting that has a function to read it and one to make it."""
    return Setting(f"{module}.{apply}", module, call(module, read), call(module, apply), default, of_thread)


def call(module: str, name: str) -> Callable[..., Any]:
    """Return what calls a function of a module, which need not be loaded yet."""
    return lambda *arguments: of(module, name)(*arguments)  # noqa: PLW0108  (which is looked up now)


def of(module: str, name: str) -> Any:
    """Return something of a module that is loaded."""
    return getattr(sys.modules[module], name)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal; those that cannot be compared are not."""
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001  (arrays, or code of the user's)
        return False
