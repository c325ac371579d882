"""Which parts of what names hold items hold as well, beside that itself: they are one object in the notebook, and so in a worker.

::

    name   config ──▶ {...} ──▶ [limits]
                        ▲          ▲
    item   (config, limits) ───────┘     the worker's item has the name's dictionary, and the list that is in that

Only an item that holds what a name holds is looked at as closely: without that, a copy of a part is the item's own.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Collection, Iterable
from types import ModuleType, NoneType
from typing import Any

from parmagic.workers.processes.packer import Known, Packer, Popen, Shipping, has_buffers

_WHOLE = (NoneType, bool, int, float, complex, str, bytes, type, ModuleType)
"""Of these, nobody asks for parts."""

_OPERATIONS = {bytes([code]) for code in pickle._Unpickler.dispatch}  # type: ignore[attr-defined, unused-ignore]  # noqa: SLF001


class Parts:
    """What names hold, without buffers, and the parts of that; ``known`` is each one's place among the names, and what it is."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Hold nothing."""
        self.known: list[tuple[int, Any]] = []
        self._doubtful: set[int] = set()
        self._packer: Packer | None = None
        self._found: dict[frozenset[int], dict[int, tuple[int, Any]]] = {}  # by the values that they are parts of
        self._last: tuple[set[int], dict[int, tuple[int, Any]]] = (set(), {})  # the values that were met last, and their parts

    def add(self, place: int, value: Any, packer: Packer, *, doubtful: bool) -> None:
        """Know what a name holds, which ``packer`` has packed. It is ``doubtful`` whether it has buffers: those of a name before."""
        self._packer = packer
        if all(value is not each for _, each in self.known):
            self.known.append((place, value))
            self._doubtful.update([id(value)] if doubtful and not isinstance(value, _WHOLE) else ())

    def may_be_in(self, what: Iterable[Any], packer: Packer) -> bool:
        """Tell whether these, which a packer has just packed, may hold such a value; for most that do not, False."""
        numbers = [number for number, (_, value) in enumerate(self.known) if not isinstance(value, _WHOLE)]
        pickled = packer.stream.getvalue() if numbers else b""
        return any(_takes(pickled, number) for number in numbers) and not all(type(each) in _WHOLE for each in what)

    def within(self, what: Any) -> Known | None:
        """Return which of these values and their parts are in something: each one's number in the names' pickle, and what it is.

        None where no value is. One that is, and proves to have buffers, is not known from then on.
        """
        values, parts = self._last
        if values:  # most items hold what those before them held: one look is enough then
            known = self._values().keys()
            met = _met(what, known | parts.keys())
            if met & known == values:
                return [parts[each] for each in met]
        return self._looked_for(what)

    def _looked_for(self, what: Any) -> Known | None:
        met = self._met_by(what)
        if not met:
            return None
        while having := {id(value) for value in met if id(value) in self._doubtful and has_buffers(value)}:
            self.known = [each for each in self.known if id(each[1]) not in having]
            met = self._met_by(what)  # with what is within those, too
        self._doubtful -= set(map(id, met))
        parts = self._parts_of(met)
        found = _met(what, parts)
        self._last = found & self._values().keys(), parts
        return [parts[each] for each in found]

    def _met_by(self, what: Any) -> list[Any]:
        """Return which values of names something holds, but for what is within one of them."""
        values = self._values()
        return [values[each] for each in _met(what, values)]

    def _values(self) -> dict[int, Any]:
        return {id(value): value for _, value in self.known if not isinstance(value, _WHOLE)}

    def _parts_of(self, met: list[Any]) -> dict[int, tuple[int, Any]]:
        """Return what some of these values hold, themselves among it, by its id; and the values of other names that are whole."""
        key = frozenset(map(id, met))
        if key not in self._found and self._packer is not None:
            numbers = self._packer.memory()
            whole = {id(value) for _, value in self.known if isinstance(value, _WHOLE)} & numbers.keys()
            inside = {each for each in _met(met, numbers, inside=True) if not isinstance(numbers[each][1], _WHOLE)}
            self._found[key] = {each: numbers[each] for each in whole | inside}
        return self._found[key]


def _takes(pickled: bytes, number: int) -> bool:
    """Tell whether a pickle seems to take this number out of its memory; text and numbers may look so."""
    get = pickle.BINGET + bytes([number]) if number < 256 else pickle.LONG_BINGET + struct.pack("<I", number)  # noqa: PLR2004
    return any(pickled[match.end() : match.end() + 1] in _OPERATIONS for match in re.finditer(re.escape(get), pickled))


def _met(what: Any, ids: Collection[int], *, inside: bool = False) -> set[int]:
    """Return which of some living objects, by their ids, something holds; what is within one that is met only with ``inside``."""
    popen, met = Popen(), set[int]()
    walk = _Walk(popen, lambda data: (0, len(data)), ())
    walk.look_for(ids, met, inside=inside)
    try:
        walk.pack(what)
    finally:
        popen.close()
    return met


class _Walker(Shipping):
    """Packs nothing, and notes what it passes by."""

    ids: Collection[int]
    met: set[int]
    inside: bool

    def persistent_id(self, obj: Any) -> int | None:
        if id(obj) not in self.ids:
            return None
        self.met.add(id(obj))
        return None if self.inside else 0


class _Walk(Packer):
    kind = _Walker
    _pickler: _Walker

    def look_for(self, ids: Collection[int], met: set[int], *, inside: bool) -> None:
        self._pickler.ids, self._pickler.met, self._pickler.inside = ids, met, inside
