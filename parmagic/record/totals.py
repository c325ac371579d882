"""What a worker waited for in all, from the hooks' rows: what it is, and what it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from parmagic.model.helpers import called
from parmagic.model.kinds import KIND, WAIT_KINDS
from parmagic.model.things import THING_OF
from parmagic.model.waits import Total
from parmagic.record import objects
from parmagic.record.hooks import STOPPED, Told
from parmagic.system import natives

_ADDRESSES = frozenset(kind for kind in WAIT_KINDS if KIND[kind].object == "address")
"""What hooks know by an address, for which there may be a name."""


def told(rows: Iterable[Sequence[Any]], library_at: Callable[[int], str | None]) -> tuple[Total, ...]:
    """Return what the hooks tell, places as :class:`Total` has them in a worker; ``library_at`` tells whose file begins at an address."""
    return tuple(_total(Told._make(row), library_at) for row in rows)


def _total(row: Told, library_at: Callable[[int], str | None]) -> Total:
    kind, name, thing = WAIT_KINDS[row.kind], "", THING_OF.get(row.of, "")
    path = library_at(row.object) if kind in _ADDRESSES and row.object != STOPPED else None
    if row.object == STOPPED:
        kind, name = "interpreter", "stop of all threads"
    elif path is not None:  # within it, for something to happen there: that is for its own threads, though it may have none
        kind, name, thing = "helpers", called(natives.library_name(path)), "helpers"
    elif row.inside and kind in _ADDRESSES and not natives.is_pythons(row.inside):
        name, thing = f"a {kind} inside {natives.library_name(row.inside)}", "native"
    place = f"{row.file}:{row.at}:{row.begin}:{row.end}" if row.file else ""
    return Total(kind, row.object, row.line, row.n, row.total_s, row.max_s, row.with_gil_s, name, place, thing)


def named(totals: tuple[Total, ...], function: Any) -> tuple[Total, ...]:
    """Give names to what is found on the ways from what a body reads; to be called where its objects are, when it has ended."""
    nameless = [total for total in totals if total.kind in _ADDRESSES and not total.name]
    if not nameless:
        return totals
    known = objects.names(function, {total.object for total in nameless}, sum(total.total_s for total in nameless))
    return tuple(with_name(total, known.get(total.object)) for total in totals)


def with_name(total: Total, known: objects.Known | None) -> Total:
    """Give a name to what lies at its address; not to a thing of another sort that was there before."""
    if known is None or total.kind not in _ADDRESSES or (total.thing and known.itself and total.thing != known.itself):
        return total
    return replace(total, name=known.name, kind=known.kind or total.kind, thing=known.thing)
