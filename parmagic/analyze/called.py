"""What locks, and what is made of them, are called that have no name: by where they were made."""

from __future__ import annotations

from parmagic.model.private import joined, say
from parmagic.model.sources import short
from parmagic.model.taken import NOWHERE, Handoff, Handover, Taken
from parmagic.model.things import THING
from parmagic.model.timeline import Lane, Timeline


def called(each: Taken | Handoff | Handover) -> str:
    """Return a thing's name; without one, its sort and where it was made, or, of a lock that was made before the run, its address."""
    if each.name:
        return each.name
    if not each.object:
        return "others"  # of so many that they are not told apart
    if each.made != NOWHERE:
        return say("{sort} made at {place}", sort=each.thing or "lock", place=at(each.made))
    return f"a {each.thing}" if each.thing not in {"", "lock"} else f"0x{each.object:x}"


def called_as_asked(each: Taken) -> str:
    """Return a thing's name; of what is asked and answers, with the method that it was asked by."""
    asked = each.thing in THING and THING[each.thing].use == "asked"
    return joined(called(each), f".{each.method}") if asked else called(each)


def who(lane: Lane) -> str:
    """Return a worker, or what its body started: behind its worker."""
    worker = f"worker {lane.worker.rank}"
    return worker if lane.child is None else say("{worker} › {name}", worker=worker, name=lane.child.name)


def at(place: tuple[str, int]) -> str:
    """Return a place as tables have it: ``In[3]:2``."""
    return say("{file}:{line}", file=short(place[0]), line=place[1])


def place_of(place: tuple[str, int]) -> str | None:
    """Return a place as tables have it; None where it is not known."""
    return at(place) if place[0] else None


def accounts(timeline: Timeline) -> dict[tuple[str, int, int], Lane]:
    """Return whose lane each thread's account is, by host, process and number."""
    lanes = *timeline.lanes, *timeline.children
    return {(lane.worker.host, lane.worker.pid, serial): lane for lane in lanes for serial in lane.synced.serials}
