"""What workers did with locks, and who made them wait, from the hooks' rows: with what locks are part of, and in which of its methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from struct import unpack
from types import ModuleType
from typing import Any, TypeVar

from parmagic.model.taken import Handoff, Level, Order, Synced, Taken
from parmagic.model.things import THING_OF
from parmagic.record import objects

Kind = TypeVar("Kind", Taken, Handoff)


def synced(extension: ModuleType) -> Synced:
    """Return what the hooks tell of the calling thread."""
    rows = extension.synced(), extension.handoffs(), extension.orders()
    return Synced(tuple(map(_taken, rows[0])), tuple(map(_handoff, rows[1])), tuple(map(_order, rows[2])))


def _taken(row: Sequence[Any]) -> Taken:
    known, (waits, level) = row[:10], row[10:]
    counts = unpack(f"{len(waits) // 4}I", waits)
    return replace(Taken(*known), waits=counts, thing=THING_OF.get(row[1] or "lock", ""), level=level and Level(*level))


def _handoff(row: Sequence[Any]) -> Handoff:
    thing, of, _, rank, waited, waited_line, blocked, blocked_line, n, total_s, max_s = row
    kind = THING_OF.get(of or "lock", "")
    return Handoff(thing, of, rank, (waited or "", waited_line), (blocked or "", blocked_line), n, total_s, max_s, thing=kind)


def _order(row: Sequence[Any]) -> Order:
    first, second, one, other, of_one, of_other, file_one, line_one, file_other, line_other, gates, *rest = row
    places = (file_one or "", line_one), (file_other or "", line_other)
    return Order(first, second, (one, other), (of_one, of_other), places, frozenset(gates), *rest)


def named(found: Sequence[Synced], function: Any) -> list[Synced]:
    """Give the things the names that they have on the ways from what a body reads; to be called where they are, once for all."""
    taken = [row for each in found for row in each.taken]
    wanted = {row.object for row in taken} | {row.object for each in found for row in each.handoffs}
    wanted |= {thing for each in found for row in each.orders for thing in row.objects}
    known = objects.names(function, wanted, sum(row.wait_s for row in taken)) if wanted else {}
    return [_named(each, known) for each in found] if known else [*found]


def _named(found: Synced, known: Mapping[int, objects.Known]) -> Synced:
    return Synced(
        tuple(_with_name(row, known.get(row.object)) for row in found.taken),
        tuple(_with_name(row, known.get(row.object)) for row in found.handoffs),
        tuple(_with_names(row, known) for row in found.orders),
    )


def _with_name(each: Kind, known: objects.Known | None) -> Kind:
    return each if known is None else replace(each, name=known.name, thing=each.thing or known.itself)


def _with_names(order: Order, known: Mapping[int, objects.Known]) -> Order:
    first, second = (known[thing].name if thing in known else "" for thing in order.objects)
    return replace(order, names=(first, second))
