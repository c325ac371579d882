"""What workers did with locks, and who made them wait, from the hooks' rows: with what locks are part of, and in which of its methods."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import nan
from struct import error as StructError  # noqa: N812  (a class, which struct calls as it does no other)
from struct import unpack
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from parmagic.model.code import code_of
from parmagic.model.taken import NONE, NOWHERE, Handoff, Handover, Level, Order, Synced, Taken
from parmagic.model.things import THING, THING_OF
from parmagic.record import objects

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

Kind = TypeVar("Kind", Taken, Handoff, Handover)
_Rows = Iterable[Sequence[Any]]


def synced(extension: ModuleType, serial: int) -> Synced:
    """Return what the hooks tell of the calling thread, whose account has this number."""
    return _synced(serial, *_rows(extension))


def told(extension: ModuleType, serial: int, process: BaseProcess) -> bytes:
    """Return the same of the calling thread as JSON, with the names that things have in its process, which was started with a function.

    What that reads has them by its own names, what was handed to it by those of its parameters.
    """
    rows = _rows(extension)
    found = _synced(serial, *rows)
    function, waited_s = process._target, sum(row.wait_s for row in found.taken)  # type: ignore[attr-defined]  # noqa: SLF001
    names = objects.names(function, _things([found]), waited_s, _given(process))
    return json.dumps([serial, *rows, list(names.items())], default=list).encode()


def _given(process: Any) -> dict[str, Any]:
    """Return what its function was called with, by the names of its parameters."""
    code = code_of(process._target)  # noqa: SLF001  (it has no other name for these)
    by_place = zip(code.co_varnames[: code.co_argcount], process._args, strict=False) if code is not None else ()  # noqa: SLF001
    return {**dict(by_place), **process._kwargs}  # noqa: SLF001


def as_told(text: bytes) -> Synced:
    """Return what a process told of itself so; nothing where it could not, or somebody has scribbled over it."""
    with suppress(ValueError, TypeError, StructError):
        *rows, names = json.loads(text)
        found = _synced(*rows)
        return _Known({address: objects.Known(*known) for address, known in names}, found.taken).told(found)
    return NONE


def _rows(extension: ModuleType) -> list[Any]:
    return [extension.synced(), extension.handoffs(), extension.orders(), extension.handovers()]


def _synced(serial: int, taken: _Rows, handoffs: _Rows, orders: _Rows, handovers: tuple[_Rows, int]) -> Synced:
    known = tuple(map(_taken, taken)), tuple(map(_handoff, handoffs)), tuple(map(_order, orders))
    return Synced(*known, (serial,), tuple(map(_handover, handovers[0])), handovers[1])


def _taken(row: Sequence[Any]) -> Taken:
    known, (waits, level, file, line) = row[:12], row[12:]
    counts, kind = unpack(f"{len(waits) // 4}I", bytes(waits)), THING_OF.get(row[1] or "lock", "")
    return replace(Taken(*known), waits=counts, thing=kind, level=level and Level(*level), made=(file or "", line))


def _handoff(row: Sequence[Any]) -> Handoff:
    thing, of, serial, rank, waited, waited_line, blocked, blocked_line, n, total_s, max_s = row
    kind = THING_OF.get(of or "lock", "")
    return Handoff(thing, of, rank, serial, (waited or "", waited_line), (blocked or "", blocked_line), n, total_s, max_s, thing=kind)


def _handover(row: Sequence[Any]) -> Handover:
    begin, end, got, thing, of, waited, waited_line, *cause, blocked, blocked_line, waker, waker_serial, woke, woke_line, woken = row
    places = (waited or "", waited_line), (blocked or "", blocked_line), (woke or "", woke_line)
    blocker, serial = cause
    causes = places[0], blocker, serial, places[1]
    return Handover(begin, end, got, thing, of, *causes, waker, waker_serial, places[2], woken or nan, "", THING_OF.get(of or "lock", ""))


def _order(row: Sequence[Any]) -> Order:
    first, second, one, other, of_one, of_other, file_one, line_one, file_other, line_other, gates, *rest = row
    places = (file_one or "", line_one), (file_other or "", line_other)
    return Order(first, second, (one, other), (of_one, of_other), places, frozenset(gates), *rest)


def named(found: Sequence[Synced], function: Any) -> list[Synced]:
    """Give the things the names that they have on the ways from what a body reads; to be called where they are, once for all."""
    taken, wanted = [row for each in found for row in each.taken], _things(found)
    known = _Known(objects.names(function, wanted, sum(row.wait_s for row in taken)) if wanted else {}, taken)
    return [known.told(each) for each in found] if wanted else [*found]


def _things(found: Iterable[Synced]) -> set[int]:
    """Return the addresses of all that is to have a name."""
    taken = {row.object for each in found for row in each.taken} | {row.object for each in found for row in each.handoffs}
    return taken | {thing for each in found for row in each.orders for thing in row.objects}


class _Known:
    """What is known of things: their names, and where they were made."""

    def __init__(self, names: Mapping[int, objects.Known], taken: Iterable[Taken]) -> None:
        self._names = names
        self._made = {row.object: row.made for row in taken if row.made != NOWHERE}

    def told(self, found: Synced) -> Synced:
        """Return what a thread did with these things, with all of that."""
        taken, handoffs = map(self._with_name, found.taken), map(self._with_name, found.handoffs)
        handovers, orders = map(self._with_name, found.handovers), map(self._with_names, found.orders)
        return replace(found, taken=tuple(taken), handoffs=tuple(handoffs), orders=tuple(orders), handovers=tuple(handovers))

    def _with_name(self, each: Kind) -> Kind:
        name, made = self._names.get(each.object), each.made
        if made == NOWHERE:
            made = self._made.get(each.object, NOWHERE)
        if name is None:
            return replace(each, made=made)
        part = name.thing if name.thing in THING and THING[name.thing].classes else ""
        return replace(each, name=name.name, thing=part or each.thing or name.itself, made=made)

    def _with_names(self, order: Order) -> Order:
        first, second = (self._names[thing].name if thing in self._names else "" for thing in order.objects)
        made, other = (self._made.get(thing, NOWHERE) for thing in order.objects)
        return replace(order, names=(first, second), made=(made, other))
