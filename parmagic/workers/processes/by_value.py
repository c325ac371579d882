"""What the notebook has defined, and neither pickle nor cloudpickle sends by value: caches, type aliases, weak collections, slots.

Pickle looks these up by their name, or cannot take them at all. Here they are taken apart where that
name leads to nothing in another process, and made anew there.
"""

from __future__ import annotations

import functools
import typing
import weakref
from collections.abc import Callable
from types import MemberDescriptorType
from typing import Any

from cloudpickle import cloudpickle as cloud

Way = Callable[[Any], tuple[Any, ...]]
"""Takes something apart as ``__reduce__`` does."""


def reduced(value: Any) -> Any:
    """Return how to take apart what has to go by value and would not; NotImplemented for anything else."""
    way = _WAYS.get(type(value))
    return NotImplemented if way is None or _is_known_elsewhere(value) else way(value)


def _is_known_elsewhere(value: Any) -> bool:
    """Tell whether another process finds it by its name."""
    named = hasattr(value, "__qualname__") or hasattr(value, "__name__")
    return named and cloud._lookup_module_and_qualname(value) is not None  # noqa: SLF001


def with_slots(kind: Any, reduction: Any) -> Any:
    """Have a class made with its slots, which cloudpickle adds as a mere name later; ``reduction`` is how that takes it apart.

    Its instances would have a ``__dict__`` otherwise, and not come back as that class.
    """
    if not isinstance(reduction, tuple) or reduction[0] is not cloud._make_skeleton_class:  # noqa: SLF001
        return reduction
    slots = [name for name, value in vars(kind).items() if type(value) is MemberDescriptorType and value.__objclass__ is kind]
    if not slots:
        return reduction
    make, (constructor, name, bases, keywords, *more), (attributes, *others), *rest = reduction
    fields = {key: value for key, value in attributes.items() if key not in slots}
    slots += [name for name in ("__dict__", "__weakref__") if name in vars(kind)]
    return make, (constructor, name, bases, {**keywords, "__slots__": tuple(slots)}, *more), (fields, *others), *rest


def remembers(value: Any) -> bool:
    """Tell whether it is a function with a cache (``functools.cache``) that has something in it."""
    return type(value) is _CACHE and value.cache_info().currsize > 0


def _cache(value: Any) -> tuple[Any, ...]:
    """Take a caching function apart: its cache is empty in the other process."""
    more = {name: each for name, each in vars(value).items() if name not in {"__wrapped__", "cache_parameters"}}
    return _new_cache, (value.__wrapped__, value.cache_parameters()), more


def _new_cache(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _property(value: Any) -> tuple[Any, ...]:
    """Take a property that is computed once apart; up to Python 3.11 it has a lock."""
    return functools.cached_property, (value.func,), {"attrname": value.attrname, "__doc__": value.__doc__}


def _new_type(value: Any) -> tuple[Any, ...]:
    return typing.NewType, (value.__name__, value.__supertype__), {"__module__": value.__module__, "__qualname__": value.__qualname__}


def _parameters(value: Any) -> tuple[Any, ...]:
    return type(value), (value.__name__,)


def _alias(value: Any) -> tuple[Any, ...]:
    return _new_alias, (value.__name__, value.__value__, value.__type_params__)


def _new_alias(name: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    return typing.TypeAliasType(name, value, type_params=parameters)  # type: ignore[attr-defined, unused-ignore]


def _weak(value: Any) -> tuple[Any, ...]:
    """Take a weak dictionary apart: what else nothing holds in the other process is gone there at once."""
    return type(value), (dict(value),)


_CACHE = type(functools.lru_cache(len))

_WAYS: dict[type, Way] = {
    _CACHE: _cache,
    functools.cached_property: _property,
    typing.NewType: _new_type,
    typing.ParamSpec: _parameters,
    typing.TypeVarTuple: _parameters,
    weakref.WeakKeyDictionary: _weak,
    weakref.WeakValueDictionary: _weak,
}
if hasattr(typing, "TypeAliasType"):
    _WAYS[typing.TypeAliasType] = _alias
