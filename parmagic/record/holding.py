"""What workers did with locks, and who made them wait, from the hooks' rows: with what locks are part of, and in which of its methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from struct import unpack
from types import ModuleType
from typing import Any, TypeVar

from parmagic.model.taken import NOWHERE, Handoff, Level, Order, Synced, Taken
from parmagic.model.things import THING, THING_OF
from parmagic.record import objects

Kind = TypeVar("Kind", Taken, Handoff)


def synced(extension: ModuleType, serial: int) -> Synced:
    """Return what the hooks tell of the calling thread, whose account has this number."""
    rows = extension.synced(), extension.handoffs(), extension.orders()
    return Synced(tuple(map(_taken, rows[0])), tuple(map(_handoff, rows[1])), tuple(map(_order, rows[2])), (serial,))


def _taken(row: Sequence[Any]) -> Taken:
    known, (waits, level, file, line) = row[:12], row[12:]
    counts, kind = unpack(f"{len(waits) // 4}I", waits), THING_OF.get(row[1] or "lock", "")
    return replace(Taken(*known), waits=counts, thing=kind, level=level and Level(*level), made=(file or "", line))


def _handoff(row: Sequence[Any]) -> Handoff:
    thing, of, serial, rank, waited, waited_line, blocked, blocked_line, n, total_s, max_s = row
    kind = THING_OF.get(of or "lock", "")
    return Handoff(thing, of, rank, serial, (waited or "", waited_line), (blocked or "", blocked_line), n, total_s, max_s, thing=kind)


def _order(row: Sequence[Any]) -> Order:
    first, second, one, other, of_one, of_other, file_one, line_one, file_other, line_other, gates, *rest = row
    places = (file_one or "", line_one), (file_other or "", line_other)
    return Order(first, second, (one, other), (of_one, of_other), places, frozenset(gates), *rest)


def named(found: Sequence[Synced], function: Any) -> list[Synced]:
    """Give the things the names that they have on the ways from what a body reads; to be called where they are, once for all."""
    taken = [row for each in found for row in each.taken]
    wanted = {row.object for row in taken} | {row.object for each in found for row in each.handoffs}
    wanted |= {thing for each in found for row in each.orders for thing in row.objects}
    known = _Known(objects.names(function, wanted, sum(row.wait_s for row in taken)) if wanted else {}, taken)
    return [known.told(each) for each in found] if wanted else [*found]


class _Known:
    """What is known of things: their names, and where they were made."""

    def __init__(self, names: Mapping[int, objects.Known], taken: Iterable[Taken]) -> None:
        self._names = names
        self._made = {row.object: row.made for row in taken if row.made != NOWHERE}

    def told(self, found: Synced) -> Synced:
        """Return what a thread did with these things, with all of that."""
        taken, handoffs = map(self._with_name, found.taken), map(self._with_name, found.handoffs)
        return Synced(tuple(taken), tuple(handoffs), tuple(map(self._with_names, found.orders)), found.serials)

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
