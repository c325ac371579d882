"""What the names end as that a body changes, in numbers: they are compared with those of another run.

Nothing of the user's runs for it, and nothing of the user's is kept: classes are read past what they say of themselves, and what is
no number is only counted.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MemberDescriptorType, ModuleType
from typing import Any

from parmagic.model.classes import attributes_of, definer, module_of, own_name, space_of
from parmagic.model.plan import Changes
from parmagic.model.recording import End

MOST = 10_000
"""Elements of a thing that are added up; of a larger one it is known how many there are."""

LARGEST = 1 << 20
"""The same of arrays, in bytes."""

MANY = 300
"""Objects in a list or a dict whose attributes are looked at, and"""

DEEPEST = 3
"""how deep these lie in other objects."""

_EXACT = 1 << 53
"""From here on, floats are whole numbers only because they have no digits left."""

_LENGTHS: tuple[type, ...] = (dict, list, set, deque, tuple, frozenset, str, bytes, bytearray)


def ends_of(space: Mapping[str, Any], changes: Changes) -> dict[str, End]:
    """Return what the names of a space end as that are changed; of objects, modules and classes of the notebook's, their attributes."""
    found: dict[str, End] = {}
    for name in sorted(changes.names & space.keys()):
        with suppress(RuntimeError):  # a thread that goes on changes it
            for label, value in _parts(name, space[name], sorted(changes.read), DEEPEST, set()):
                end = _end(value, counts=label.rpartition(".")[2] in changes.tallies)
                if end is not None and (changes.numbers or end.kind != "number"):
                    found[label] = end if changes.numbers else replace(end, total=None)
    return found


def _parts(name: str, value: Any, read: Sequence[str], deep: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield a thing and those of its attributes that are read, by what they are called; these stand in code, so they are no secret."""
    yield name, value
    if _own(value) is None and not _is_the_notebooks(value):
        yield from _sums(name, value, read)
    elif deep and id(value) not in seen:
        seen.add(id(value))
        for key in read:
            for each in _got(value, key):
                yield from _parts(f"{name}.{key}", each, read, deep - 1, seen)


def _sums(name: str, value: Any, read: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield what attributes of the objects in a list or a dict add up to."""
    if not any(type(value) is each for each in (dict, list, tuple)) or not 0 < len(value) <= MANY:
        return
    objects = [*(value.values() if type(value) is dict else value)]
    if not all(map(_is_the_notebooks, objects)):
        return
    for key in read:
        numbers = [_whole(each) for each in _got(objects[0], key)]
        if numbers and None not in numbers:
            numbers = [_whole(each) for thing in objects for each in _got(thing, key)]
            yield f"{name}[…].{key}", sum(number for number in numbers if number is not None)


def _is_the_notebooks(value: Any) -> bool:
    return module_of(value if issubclass(type(value), type) else type(value)) == "__main__"


def _own(value: Any) -> Mapping[str, Any] | None:
    """Return the attributes of an object, or of a module; None of a class, and of what keeps none by name."""
    if type(value) is ModuleType:
        return vars(value)
    own: Mapping[str, Any] | None = attributes_of(value) if not issubclass(type(value), type) else None
    return own


def _got(value: Any, key: str) -> Iterator[Any]:
    """Yield an attribute of an object, a module or a class, if it has one that is no more than a value."""
    kind = value if issubclass(type(value), type) else type(value)
    own = _own(value)
    if own is not None and key in own:
        yield own[key]
        return
    base = definer(kind, key)
    there = space_of(base)[key] if base is not None and module_of(base) == "__main__" else None
    if type(there) is not MemberDescriptorType:
        yield there
    elif kind is not value:
        with suppress(AttributeError):  # a slot that is empty
            yield there.__get__(value)


def _end(value: Any, *, counts: bool) -> End | None:
    """Return what a value is in numbers; None where it is neither a whole number nor has elements."""
    kind = type(value)
    number = _whole(value)
    if number is not None:
        return End("number", number)
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is getattr(numpy, "ndarray", None):
        return End("array", value.size, int(value.sum()) if value.dtype.kind in "iu" and value.nbytes <= LARGEST else None)
    base = next((each for each in _LENGTHS if issubclass(kind, each)), None)
    if base is None:
        return None
    number = base.__len__(value)  # type: ignore[attr-defined]  # that of its own class may say anything
    return End(own_name(kind), number, _total(value, base) if (counts or kind is Counter) and number <= MOST else None)


def _whole(value: Any) -> int | None:
    """Return a whole number as an int; None of all else."""
    kind = type(value)
    if kind is int:
        return int(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and module_of(kind) == "numpy" and issubclass(kind, numpy.integer):
        return int(value)
    is_float = kind is float or (numpy is not None and kind is getattr(numpy, "float64", None))
    return int(value) if is_float and -_EXACT < value < _EXACT and value == int(value) else None


def _total(value: Any, base: type) -> int | None:
    """Return what whole numbers add up to that are a dict's values, or a list's elements; None where there are others."""
    if base not in {dict, list}:
        return None
    parts = [*(dict.values(value) if base is dict else list.__iter__(value))]
    return sum(parts) if all(type(each) is int for each in parts) else None
