"""What a file may hold. Text from items, results, errors and the environment is the user's: on screen, and in no file unless allowed.

A text that has such parts is a :class:`Private`, made where it is written, and says
what stands in a file instead; :func:`say` builds a sentence of both. What becomes of
a run in a file is made here, too (:func:`public_timeline`): whatever is drawn or
written from that cannot tell more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Self

from parmagic.model.classes import type_name
from parmagic.model.finding import Finding
from parmagic.model.recording import Batch
from parmagic.model.taken import Synced
from parmagic.model.timeline import Lane, Timeline
from parmagic.model.words import describe


class Private(str):
    """A text for the user's eyes; ``public`` is what a file says instead."""

    __slots__ = ("public",)
    public: str

    def __new__(cls, text: str, public: str) -> Self:
        """Make one of both texts."""
        made = super().__new__(cls, text)
        made.public = public
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        """Cross a process's border with both."""
        return str(self), self.public


def public(text: str) -> str:
    """Return what a file may hold of a text: all of one that is not private."""
    return text.public if isinstance(text, Private) else text


def say(template: str, **parts: Any) -> str:
    """Fill a sentence's ``{parts}`` in, twice where one of them is private."""
    text = template.format(**parts)
    if not any(isinstance(part, Private) for part in parts.values()):
        return text
    return Private(text, template.format(**{name: public(part) for name, part in parts.items()}))


def joined(name: str, rest: str) -> str:
    """Return ``name`` with ``rest`` behind it, which is not private."""
    return Private(name + rest, name.public + rest) if isinstance(name, Private) else name + rest


def described(error: BaseException) -> Private:
    """Return an error's type and message, of which a file has the type."""
    return Private(describe(error), type_name(error))


def public_hosts(timelines: Iterable[Timeline]) -> dict[str, str]:
    """Return what a file calls each machine of a run: they are numbered, in all arms alike."""
    hosts = dict.fromkeys(lane.worker.host for timeline in timelines for lane in (*timeline.lanes, *timeline.children))
    return {host: f"host {number}" for number, host in enumerate(hosts)}


def public_timeline(timeline: Timeline, hosts: Mapping[str, str]) -> Timeline:
    """Return an arm without results, and with errors, names and ``hosts`` as a file may have them."""
    lanes = tuple(_public_lane(lane, hosts[lane.worker.host]) for lane in timeline.lanes)
    children = tuple(_public_lane(lane, hosts[lane.worker.host]) for lane in timeline.children)
    traces = tuple(replace(trace, notes=tuple(map(public, trace.notes))) for trace in timeline.traces)
    error = public_error(timeline.error)
    failure = replace(timeline.failure, error=error) if timeline.failure and error else None
    return replace(timeline, lanes=lanes, traces=traces, error=error, failure=failure, children=children, ends={})


def bare(timeline: Timeline) -> Timeline:
    """Return an arm's account alone: it has nothing of the user's, no results, and no errors, whose frames hold much."""
    return replace(public_timeline(timeline, public_hosts([timeline])), traces=())


def public_finding(finding: Finding) -> Finding:
    """Return a finding in words that a file may hold; its evidence is figures."""
    return replace(finding, text=public(finding.text))


def public_error(error: BaseException | None) -> BaseException | None:
    """Return an error that has this one's type's name, and nothing to say."""
    return None if error is None else stand_in(type_name(error))()


@lru_cache(maxsize=1000)
def stand_in(name: str) -> type[BaseException]:
    """Return a type of errors that has this name, and nothing else of any other's; of one run, the same for the same name."""
    return type(name, (Exception,), {})


def _public_lane(lane: Lane, host: str) -> Lane:
    totals = tuple(replace(total, name=public(total.name), place=public(total.place)) for total in lane.totals)
    child = lane.child and replace(lane.child, name=public(lane.child.name), worker=replace(lane.child.worker, host=host))
    batches = tuple(map(_public_batch, lane.batches))
    worker, synced = replace(lane.worker, host=host), _public_synced(lane.synced)
    return replace(lane, worker=worker, batches=batches, totals=totals, child=child, synced=synced)


def _public_synced(synced: Synced) -> Synced:
    return Synced(
        tuple(replace(each, name=public(each.name)) for each in synced.taken),
        tuple(replace(each, name=public(each.name)) for each in synced.handoffs),
        tuple(replace(each, names=(public(each.names[0]), public(each.names[1]))) for each in synced.orders),
        synced.serials,
        tuple(replace(each, name=public(each.name)) for each in synced.handovers),
        synced.n_shorter,
    )


def _public_batch(batch: Batch) -> Batch:
    errors = {item: error for item, each in batch.errors.items() if (error := public_error(each))}
    return replace(batch, values=[None] * len(batch.values), errors=errors)
