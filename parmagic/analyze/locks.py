"""Which lock, queue or other thing an arm's workers waited for most, in words, and what helps against that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from parmagic.analyze.measured import events
from parmagic.model.kinds import LOCKS, WAIT_KINDS
from parmagic.model.things import THING
from parmagic.model.timeline import Timeline

NEVER = 0.05
"""A worker that waits for others less than this share of its time does not wait for them."""

MUCH = 0.25
"""A worker that waits for others more than this share of its time does wait for them."""

_SHARED = {"interpreter": "", "object": "Give each worker one of its own."}


class Locks(NamedTuple):
    """What was waited for most: ``words`` for it, and the ``advice`` that it deserves, or nothing; its ``name``, and that of a ``lock``."""

    words: str
    advice: str = ""
    lock: str = ""
    name: str = ""


def most_waited_for(waits: pd.DataFrame, things: Mapping[str, str]) -> Locks:
    """Say which lock, queue or object that was, where one that has a name was most of it, or of which sort most of them were.

    ``waits`` are an arm's rows of the table, ``things`` what its objects are where that is known.
    """
    waits = waits[waits["kind"].isin(LOCKS)]
    if waits["object"].isna().all():
        return Locks("locks or queues")
    objects = waits["object"].fillna("")
    waits = waits.assign(object=objects, thing=[_thing(*pair, things) for pair in zip(waits["kind"], objects, strict=True)])
    named = _most(waits, ["kind", "object", "thing"], ~objects.str.startswith("0x") & (objects != ""))
    if named is not None:
        (kind, name, thing), lines = named
        words = name if name.startswith(("a ", "an ")) or kind == "helpers" else f"the {_called(kind, thing)} `{name}`"
        lock = name if (kind, thing) == ("lock", "lock") else ""
        return Locks(words + _on(lines), _SHARED[kind] if kind in _SHARED else _advice(_lent(name, thing)), lock, name)
    alike = _most(waits, ["thing"], waits["thing"] != "")
    if alike is None:
        return Locks("locks or queues", "run.waits tells which, and where.")
    (thing,), lines = alike
    return Locks(THING[thing].many + _on(lines), _advice(thing))


def held_s(timeline: Timeline, lock: str) -> float:
    """Return for how many seconds a lock of this name was held, at the least: some worker has it for as long as another one waits for it.

    NaN where not every single wait is known, or where each worker has a process, and so a number of its own for the lock.
    """
    if not timeline.arm.model.shares_memory or any(lane.tally is None or lane.waits.lost for lane in timeline.lanes):
        return float("nan")
    known = [total.object for lane in timeline.lanes for total in lane.totals if total.name == lock]
    if not known:
        return float("nan")
    waits = np.concatenate([events(lane) for lane in timeline.lanes])
    waits = np.sort(waits[np.isin(waits["object"], known) & (waits["kind"] == WAIT_KINDS.index("lock"))], order="begin")
    if not len(waits):
        return float("nan")
    until = np.maximum.accumulate(waits["end"])
    free = np.maximum(waits["begin"][1:] - until[:-1], 0).sum()
    return float(until[-1] - waits["begin"][0] - free) * 1e-9


def pace(workers: pd.DataFrame) -> str:
    """Say which of an arm's workers sets the pace: the only one that never waits for the others, where each has one item to do."""
    if (workers["n_items"] > 1).any() or len(workers) < 2:  # noqa: PLR2004  (of one, there is nobody to wait for)
        return ""
    shares = (workers["lock_wait_s"] / workers["wall_s"]).to_numpy()
    never = shares < NEVER
    if never.sum() != 1 or not (shares[~never] > MUCH).all():
        return ""
    return f"; worker {workers.index.get_level_values(-1)[int(never.argmax())]} never waits: it sets the pace"


def _thing(kind: str, name: str, things: Mapping[str, str]) -> str:
    """Say what an object of the table is: where nobody knows, what has a name is of the sort that its kind says."""
    return things.get(name, "" if not name or name.startswith("0x") or kind not in THING else kind)


def _most(waits: pd.DataFrame, keys: list[str], among: Any) -> tuple[tuple[str, ...], Any] | None:
    """Return what had more than half of all seconds, among these rows, and its seconds by lines; None where nothing had."""
    some = waits[among]
    seconds = some.groupby(keys)["total_s"].sum()
    if seconds.empty or not seconds.max() > 0.5 * waits["total_s"].sum():
        return None
    first = seconds.idxmax()
    found = first if isinstance(first, tuple) else (first,)
    mine = some[(some[keys] == list(found)).all(axis=1)]
    return found, mine.groupby("line")["total_s"].sum()


def _on(lines: Any) -> str:
    return f" (line {lines.idxmax():.0f})" if len(lines) else ""


def _called(kind: str, thing: str) -> str:
    """Return what one is called: by its sort where that is one of its own, not only whose it is."""
    return thing if thing in THING and THING[thing].classes else kind


def _lent(name: str, thing: str) -> str:
    """Take a queue that is called after a pool for one: who takes from it puts back what it took."""
    return "pool" if thing == "queue" and "pool" in name.lower() else thing


def _advice(thing: str) -> str:
    return THING[thing].advice if thing in THING else ""
