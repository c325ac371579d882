"""What workers did with locks, and who made them wait, from the hooks' rows: with what locks are part of, and in which of its methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from struct import unpack
from typing import Any, TypeVar

from parmagic.model.taken import Handoff, Taken
from parmagic.model.things import THING_OF
from parmagic.record import objects

Kind = TypeVar("Kind", Taken, Handoff)


def taken(rows: Iterable[Sequence[Any]]) -> tuple[Taken, ...]:
    """Return what the hooks tell of a thread."""
    return tuple(_taken(row) for row in rows)


def _taken(row: Sequence[Any]) -> Taken:
    known, waits = row[:10], row[11]
    return replace(Taken(*known), waits=unpack(f"{len(waits) // 4}I", waits), thing=THING_OF.get(row[1] or "lock", ""))


def handoffs(rows: Iterable[Sequence[Any]]) -> tuple[Handoff, ...]:
    """Return what the hooks tell of a thread."""
    return tuple(_handoff(row) for row in rows)


def _handoff(row: Sequence[Any]) -> Handoff:
    thing, of, _, rank, waited, waited_line, blocked, blocked_line, n, total_s, max_s = row
    kind = THING_OF.get(of or "lock", "")
    return Handoff(thing, of, rank, (waited or "", waited_line), (blocked or "", blocked_line), n, total_s, max_s, thing=kind)


def named(found: tuple[Kind, ...], function: Any) -> tuple[Kind, ...]:
    """Give the things the names that they have on the ways from what a body reads; to be called where they are."""
    if not found:
        return found
    waited = sum(each.wait_s if isinstance(each, Taken) else each.total_s for each in found)
    known = objects.names(function, {each.object for each in found}, waited)
    return tuple(_with_name(each, known.get(each.object)) for each in found)


def _with_name(each: Kind, known: objects.Known | None) -> Kind:
    return each if known is None else replace(each, name=known.name, thing=each.thing or known.itself)
