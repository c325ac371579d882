"""What the notebook has defined, and neither pickle nor cloudpickle sends by value: caches, type aliases, weak collections, slots.

Pickle looks these up by their name, or cannot take them at all. Here they are taken apart where that
name leads to nothing in another process, and made anew there.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import pickle
import typing
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from types import CellType, FunctionType
from typing import Any

from cloudpickle import cloudpickle as cloud

from parmagic.model.words import is_plain
from parmagic.parse import strings
from parmagic.workers.processes import classes, mocks
from parmagic.workers.settings import variables

Way = Callable[[Any], tuple[Any, ...]]
"""Takes something apart as ``__reduce__`` does."""


def reduced(value: Any) -> Any:
    """Return how to take apart what has to go by value and would not; NotImplemented for anything else."""
    kind = type(value)
    way = _WAYS.get(kind)
    if way is None:
        if kind.__module__ == "unittest.mock":
            return mocks.reduced(value)
        if issubclass(kind, (dict, list)):
            return _raw(value) if _has_own_way(kind) else NotImplemented
        return _hashed(value) if type(kind.__hash__) is FunctionType else NotImplemented
    return NotImplemented if _is_known_elsewhere(value) else way(value)


def _is_known_elsewhere(value: Any) -> bool:
    """Tell whether another process finds it by its name."""
    named = hasattr(value, "__qualname__") or hasattr(value, "__name__")
    return named and cloud._lookup_module_and_qualname(value) is not None  # noqa: SLF001


def _hashed(value: Any) -> Any:
    """Take an object apart that tells its own hash: it has its plain attributes from the first, for what it holds may be a set of it."""
    space = None if any(_OWN_WAYS & vars(base).keys() for base in type(value).__mro__[:-1]) else getattr(value, "__dict__", None)
    reduction: Any = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL) if type(space) is dict else ()
    if len(reduction) < 3 or reduction[2] is not space or any(each is not None for each in reduction[3:]):  # noqa: PLR2004  (it has a state)
        return NotImplemented
    make, arguments, fields = reduction[:3]
    return _begun, (make, arguments, {name: each for name, each in fields.items() if is_plain(each)}), fields, None, None, _completed


_OWN_WAYS = {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"}


def _begun(make: Callable[..., Any], arguments: tuple[Any, ...], plain: dict[str, Any]) -> Any:
    made = make(*arguments)
    vars(made).update(plain)
    return made


def _completed(made: Any, space: dict[str, Any]) -> None:
    """Have all attributes, in their order."""
    vars(made).clear()
    vars(made).update(space)


def _iterator(value: Any) -> tuple[Any, ...]:
    """Take an iterator over a list apart: its place in that holds, also where the list leads back to it, and so is filled later."""
    reduction: tuple[Any, ...] = value.__reduce__()
    if len(reduction) < 3:  # noqa: PLR2004  (it is at its end)
        return reduction
    make, (held,), place = reduction
    return _at_place, (make is reversed, held, list.__len__(held), place)


def _at_place(is_reversed: bool, held: list[Any], length: int, place: int) -> Any:
    is_filled_to = list.__len__(held)
    list.extend(held, [None] * (length - is_filled_to))
    iterator: Any = list.__reversed__(held) if is_reversed else list.__iter__(held)
    iterator.__setstate__(place)
    list.__delitem__(held, slice(is_filled_to, None))
    return iterator


def _raw(value: Any) -> tuple[Any, ...]:
    """Take a dict or list apart whose class has its own way to set an item: what is in it has gone that way already."""
    make, arguments, state, items, pairs = (*value.__reduce_ex__(pickle.HIGHEST_PROTOCOL), None, None, None)[:5]
    return make, arguments, (state, list(items or ()), list(pairs or ())), None, None, _fill_raw


def _fill_raw(made: Any, parts: tuple[Any, list[Any], list[Any]]) -> None:
    state, items, pairs = parts
    if items:
        list.extend(made, items)
    if pairs:
        dict.update(made, pairs)
    if state is not None and hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    space, slots = state if isinstance(state, tuple) else (state, None)
    vars(made).update(space or {}) if space else None
    for name, each in (slots or {}).items():
        object.__setattr__(made, name, each)


def _has_own_way(kind: Any) -> bool:
    """Tell whether a kind of dict or list has its own way to set an item, and none to be pickled."""
    ways = {kind.__setitem__, getattr(kind, "append", list.append), getattr(kind, "extend", list.extend)}
    return not ways <= _PLAIN_WAYS and {kind.__reduce_ex__, kind.__reduce__} == {object.__reduce_ex__, object.__reduce__}


_PLAIN_WAYS: set[Any] = {dict.__setitem__, list.__setitem__, list.append, list.extend}


def as_defined(value: Any, reduction: Any) -> Any:
    """Make good what cloudpickle forgets of a class, or of a function; ``reduction`` is how that takes it apart."""
    way = _FORGETFUL.get(reduction[0]) if isinstance(reduction, tuple) else None
    return reduction if way is None else way(value, *reduction)


def _function(function: Any, make: Any, arguments: Any, state: Any, *rest: Any) -> tuple[Any, ...]:
    """Have a function made with its own cells, which others may share, the parameters of its types, and the names in its strings."""
    *before, _ = arguments
    attributes, members = state
    generic = getattr(function, "__type_params__", ())
    space = function.__globals__
    names = {**members["__globals__"], **{name: space[name] for name in strings.named_by(function)}}
    members = {**members, "__globals__": names, "__closure__": None, **({"__type_params__": generic} if generic else {})}
    return make, (*before, function.__closure__), (attributes, members), *rest


def _cell(cell: Any) -> tuple[Any, ...]:
    """Take a cell apart: what it holds comes after it, for that may be the function that it belongs to."""
    try:
        return cloud._make_empty_cell, (), (cell.cell_contents,), None, None, _fill  # noqa: SLF001
    except ValueError:
        return cloud._make_empty_cell, ()  # noqa: SLF001


def _fill(cell: Any, contents: tuple[Any]) -> None:
    (cell.cell_contents,) = contents


def _view(value: memoryview) -> tuple[Any, ...]:
    """Take a view of memory apart, which is then one of a copy."""
    return _new_view, (bytearray(value), value.format, value.shape, value.readonly)


def _new_view(data: bytearray, form: str, shape: tuple[int, ...], readonly: bool) -> memoryview:
    view: memoryview[Any] = memoryview(data).cast(form, shape) if 0 not in shape else memoryview(data)  # type: ignore[call-overload]
    return view.toreadonly() if readonly else view


def _with_module(value: Any, reduction: Any) -> Any:
    """Tell, of what is made in another module there, where it is from."""
    return *reduction, value.__module__, None, None, _set_module


def _set_module(value: Any, module: str) -> None:
    value.__module__ = module


def remembers(value: Any) -> bool:
    """Tell whether it is a function with a cache (``functools.cache``) that has something in it."""
    return type(value) is _CACHE and value.cache_info().currsize > 0


def _cache(value: Any) -> tuple[Any, ...]:
    """Take a caching function apart: its cache is empty in the other process."""
    known = {**getattr(value.__wrapped__, "__dict__", {}), "__wrapped__": value.__wrapped__, "cache_parameters": value.cache_parameters}
    more = {name: each for name, each in vars(value).items() if known.get(name, value) is not each}
    return _new_cache, (value.__wrapped__, value.cache_parameters()), more


def _new_cache(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _property(value: Any) -> tuple[Any, ...]:
    """Take a property that is computed once apart; up to Python 3.11 it has a lock."""
    return functools.cached_property, (value.func,), {"attrname": value.attrname, "__doc__": value.__doc__}


def _context(value: Any) -> Any:
    """Take what a ``contextlib.contextmanager`` has returned apart, which may decorate functions; not where it has begun."""
    generator = value.gen
    begun = inspect.getgeneratorstate(generator) != inspect.GEN_CREATED
    return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL) if begun else (type(value), (value.func, value.args, value.kwds))


def _new_type(value: Any) -> tuple[Any, ...]:
    return typing.NewType, (value.__name__, value.__supertype__), {"__module__": value.__module__, "__qualname__": value.__qualname__}


def _parameters(value: Any) -> Any:
    return _with_module(value, (type(value), (value.__name__,)))


def _variable(value: Any) -> Any:
    return _with_module(value, cloud._typevar_reduce(value))  # noqa: SLF001


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
    ContextVar: variables.reduced,
    contextlib._GeneratorContextManager: _context,  # noqa: SLF001
    functools.cached_property: _property,
    typing.NewType: _new_type,
    typing.TypeVar: _variable,
    CellType: _cell,
    memoryview: _view,
    typing.ParamSpec: _parameters,
    typing.TypeVarTuple: _parameters,
    weakref.WeakKeyDictionary: _weak,
    weakref.WeakValueDictionary: _weak,
    type(iter([])): _iterator,
    type(reversed([])): _iterator,
}
if hasattr(typing, "TypeAliasType"):
    _WAYS[typing.TypeAliasType] = _alias

_FORGETFUL: dict[Any, Callable[..., tuple[Any, ...]]] = {
    cloud._make_skeleton_class: classes.taken_apart,  # noqa: SLF001
    cloud._make_skeleton_enum: classes.enum_taken_apart,  # noqa: SLF001
    cloud._make_function: _function,  # noqa: SLF001
}
