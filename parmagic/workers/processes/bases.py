"""What heavy items share and is no buffer (a list, a dictionary, a text): the first that has it is packed, and later ones build upon that.

::

    item 0   = pickle                     its memory ──┐
    item 7   = what it has of its own ◀────────────────┘  read behind item 0's pickle, with the memory of that reading

Who reads item 7 reads both, so that all that it holds is its own, and hangs together as in the notebook. Only items that took much
are looked at, and only as deep as costs nothing beside that.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType, NoneType
from typing import Any, NamedTuple

from parmagic.workers.processes.orders import Blob
from parmagic.workers.processes.packer import Packer

HEAVY = 1 << 16
"""Bytes of a pickle, without what lies beside it, from which on others may build upon it."""

_MOST, _WIDE, _TEXT, _KEPT = 300, 100, 4096, 32
"""Objects of an item that are looked at, members of a container; characters of a text; bases that are kept in mind."""


class Base(NamedTuple):
    """An item that was packed: what that was done with, which has its memory, where it lies, and what it holds."""

    packer: Packer
    blob: Blob
    held: list[Any]


class Bases:
    """The items that later ones may build upon."""

    def __init__(self) -> None:
        self._bases: OrderedDict[int, Base] = OrderedDict()
        self._of: dict[int, Base] = {}
        self._light: set[int] = set()  # what was held in common, and saved little

    def find(self, part: Sequence[Any]) -> Base | None:
        """Return the one that most of an item is in already; None for several items."""
        if not self._of or len(part) != 1:
            return None
        sizes: dict[int, int] = {}
        for each in _held(part[0]):
            base = self._of.get(id(each))
            if base is not None and id(each) not in self._light:
                sizes[id(base.packer)] = sizes.get(id(base.packer), 0) + (len(each) if type(each) in _SIZED else 1)
        return self._bases[max(sizes, key=sizes.__getitem__)] if sizes else None

    def learn(self, part: Sequence[Any], packer: Packer, blob: Blob) -> None:
        """Keep an item in mind that was packed by itself, where it took much."""
        if len(part) != 1 or blob.pickle[1] < HEAVY:
            return
        packer.release()
        base = self._bases[id(packer)] = Base(packer, blob, _held(part[0]))
        for each in base.held:
            self._of.setdefault(id(each), base)
        if len(self._bases) > _KEPT:
            _, old = self._bases.popitem(last=False)
            self._of = {key: base for key, base in self._of.items() if base is not old}

    def forgo(self, part: Sequence[Any]) -> None:
        """Remember that what this item holds of others saves little."""
        self._light.update(id(each) for each in _held(part[0]) if id(each) in self._of)

    def clear(self) -> None:
        """Hold nothing any more."""
        self._bases.clear()
        self._of.clear()


def _held(item: Any) -> list[Any]:
    """Return an item, and what it holds, nearest first."""
    found, seen = [item], {id(item)}
    for each in found:
        for inner in _inside(each):
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


_SMALL = {int, float, complex, bool, NoneType, FunctionType, BuiltinFunctionType, ModuleType}
_TEXTS = {str, bytes}
_SIZED = {str, bytes, bytearray, list, tuple, dict, set, frozenset}
