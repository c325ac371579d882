"""What a class is called and has, and what a value has by it, read past whatever its own code says of that."""

from __future__ import annotations

from types import GetSetDescriptorType
from typing import Any

_NAME, _QUALNAME, _MODULE, _MRO, _SPACE = (vars(type)[name] for name in ("__name__", "__qualname__", "__module__", "__mro__", "__dict__"))
_LONGEST_NAME = 200


def type_name(value: object) -> str:
    """Return the name of a value's type, whatever its class says of itself."""
    return str.__str__(_NAME.__get__(type(value)))[:_LONGEST_NAME]


def module_of(kind: type) -> str:
    """Return the name of a type's module; empty where it has none."""
    try:
        module = _MODULE.__get__(kind)
    except AttributeError:
        return ""
    return str.__str__(module) if isinstance(module, str) else ""


def bases_of(kind: type) -> tuple[type, ...]:
    """Return a class and those that it has something from, the nearest first."""
    bases: tuple[type, ...] = _MRO.__get__(kind)
    return bases


def own_name(kind: type) -> str:
    """Return what a class is called, without its module."""
    return str.__str__(_NAME.__get__(kind))[:_LONGEST_NAME]


def space_of(kind: type) -> Any:
    """Return what a class has of its own, by name."""
    return _SPACE.__get__(kind)


def long_type_name(value: object, kind: type | None = None) -> str:
    """Return the name of a value's type, or of ``kind``, with its module, but for what is built in or the notebook's."""
    kind = kind or type(value)
    name, module = str.__str__(_QUALNAME.__get__(kind))[:_LONGEST_NAME], module_of(kind)
    return name if module in {"", "builtins", "__main__"} else f"{module}.{name}"


def attributes_of(value: object) -> Any:
    """Return a value's own attributes, a dict, where it has them as most objects do; else None."""
    get = next((_SPACE.__get__(base)["__dict__"] for base in _MRO.__get__(type(value)) if "__dict__" in _SPACE.__get__(base)), None)
    return get.__get__(value) if type(get) is GetSetDescriptorType else None


def definer(kind: type, name: str) -> type | None:
    """Return the class that a type has an attribute from."""
    return next((base for base in _MRO.__get__(kind) if name in _SPACE.__get__(base)), None)
