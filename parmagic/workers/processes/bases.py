"""What heavy items share and is no buffer (a list, a dictionary, a text): it is packed by itself, and the items build upon that.

::

    base     = pickle of what is shared   its memory ──┐
    item 7   = what it has of its own ◀────────────────┘  read behind the base's pickle, with the memory of that reading

Who reads item 7 reads both, so that all that it holds is its own, and hangs together as in the notebook. Only items that took much
are looked at, and only as deep as costs nothing beside that; the first one has all in its own pickle, for nobody knew then.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Collection, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType, NoneType
from typing import Any, NamedTuple

from parmagic.workers.processes.orders import Blob
from parmagic.workers.processes.packer import Packer

HEAVY = 1 << 16
"""Bytes of a pickle, without what lies beside it, from which on others may build upon it."""

_MOST, _WIDE, _TEXT, _KEPT = 300, 100, 4096, 32
"""Objects of an item that are looked at, members of a container; characters of a text; bases that are kept in mind."""


class Base(NamedTuple):
    """What several items hold: what it was packed with, which has the memory of that, where it lies, and which objects it is."""

    packer: Packer
    blob: Blob
    ids: frozenset[int]


class Bases:
    """What was packed so far of which later items may hold the same."""

    def __init__(self) -> None:
        self._items: OrderedDict[int, list[Any]] = OrderedDict()  # heavy ones, by number: what each holds
        self._first: dict[int, int] = {}  # the first of them that holds an object
        self._light: set[int] = set()  # what was held by several, and takes little
        self._bases: list[Base] = []

    def common(self, part: Sequence[Any]) -> list[Any]:
        """Return what an item holds, and one that was packed before does as well; nothing for several items."""
        if not self._first or len(part) != 1:
            return []
        shared: dict[int, list[Any]] = {}
        known = self._first.keys() - self._light
        for each in _held(part[0], known):
            if id(each) in known:
                shared.setdefault(self._first[id(each)], []).append(each)
        return max(shared.values(), key=lambda found: sum(map(_size, found)), default=[])

    def base(self, common: Sequence[Any]) -> Base | None:
        """Return the largest base of which an item holds all."""
        ids = {id(each) for each in common}
        return max((base for base in self._bases if base.ids <= ids), key=lambda base: base.blob.weight, default=None)

    def add(self, common: Sequence[Any], packer: Packer, blob: Blob) -> Base | None:
        """Keep what was packed by itself as a base; None where it takes little."""
        ids = frozenset(map(id, common))
        if blob.pickle[1] < HEAVY:
            self.forgo(common)
            return None
        packer.release()
        self._bases = [*self._bases[1 - _KEPT :], Base(packer, blob, ids)]
        return self._bases[-1]

    def forgo(self, common: Sequence[Any]) -> None:
        """Remember that it is not worth while to have these by themselves."""
        self._light.update(map(id, common))

    def learn(self, part: Sequence[Any], size: int) -> None:
        """Keep an item in mind whose pickle took so many bytes."""
        if len(part) != 1 or size < HEAVY:
            return
        number = next(reversed(self._items), 0) + 1
        held = self._items[number] = _held(part[0])
        for each in held:
            self._first.setdefault(id(each), number)
        if len(self._items) > _KEPT:
            old, held = self._items.popitem(last=False)
            for each in held:
                if self._first.get(id(each)) == old:
                    del self._first[id(each)]

    def clear(self) -> None:
        """Hold nothing any more."""
        self._items.clear()
        self._first.clear()
        self._bases.clear()


def _held(item: Any, known: Collection[int] = frozenset()) -> list[Any]:
    """Return an item, and what it holds, nearest first; not what is within those that are known."""
    found, seen = [item], {id(item)}
    for each in found:
        for inner in _inside(each) if id(each) not in known else ():
            if id(inner) not in seen and not _is_small(inner):
                seen.add(id(inner))
                found.append(inner)
        if len(found) > _MOST:
            break
    return found


def _inside(value: Any) -> list[Any]:
    """Return the members of a small container, what an object has; no code of its runs."""
    if type(value) in _SIZED and len(value) > _WIDE:
        return []
    members = gc.get_referents(value)
    return members if len(members) <= 2 * _WIDE else []


def _is_small(value: Any) -> bool:
    kind = type(value)
    return kind in _SMALL or issubclass(kind, type) or (kind in _TEXTS and len(value) < _TEXT)


def _size(value: Any) -> int:
    return len(value) if type(value) in _SIZED else 1


_SMALL = {int, float, complex, bool, NoneType, FunctionType, BuiltinFunctionType, ModuleType}
_TEXTS = {str, bytes}
_SIZED = {str, bytes, bytearray, list, tuple, dict, set, frozenset}
