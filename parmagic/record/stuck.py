"""Why nobody can wake those who wait: what each of Python's locks and queues waits for, and what helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parmagic.model.classes import attributes_of
from parmagic.model.things import THING_OF
from parmagic.record.waiting import Called, Waiter

MOST = 10
"""Threads that are named."""

_ENDS = frozenset({"thread", "future"})
"""What others are to do first."""

_ADVICE = {
    "condition": "Wait for a state, not for a signal: while not ready: cond.wait()",
    "event": "Set it on every way out of who sets it, also when that fails (try … finally).",
    "barrier": "Make the barrier as wide as the workers that come to it, or give each wait a timeout.",
    "semaphore": "Release it on every way out: `with` does.",
    "lock": "Release it on every way out: `with` does.",
    "get": "Put an end into the queue for each who gets from it: None, say.",
    "put": "Have a worker that gets from the queue while others put, or a queue that is long enough.",
    "join": "Call task_done() once for each that was got, also where its work fails (try … finally).",
}


def called(waiter: Waiter, name: str | None) -> str:
    """Say what is waited for: the thing by its name, or by its sort where it has none; or what it is to do."""
    kind = _kind(waiter)
    if kind == "thread":
        own = attributes_of(waiter.thing) or {}
        return f"the end of the thread {own['_name']}" if type(own.get("_name")) is str else "the end of a thread"
    if kind == "future":
        return "the result of a future"
    return f"`{name}`" if name else "an event" if kind == "event" else f"a {kind}"


def words(
    still: Sequence[Waiter],
    now: float,
    things: Mapping[int, str],
    who: Callable[[Waiter], str],
    holders: Mapping[int, str],
    whys: Mapping[int, str],
    calls: Sequence[tuple[str, Called]] = (),
) -> str:
    """Say who waits for what, why it does not come, and what to do.

    ``things`` are what things are called and ``whys`` what is to be said of them, by the handles of those who wait for them,
    ``holders`` who has which lock, and since where, ``calls`` who called whom in vain.
    """
    still = sorted(still, key=lambda each: _kind(each) in _ENDS)  # the others wait for what these wait for
    lost = {call.thing: (name, call) for name, call in sorted(calls, key=lambda found: found[1].at)}
    reasons = [f"{_what(each, things)}{_why(each, lost, holders, whys)}" for each in still]
    found = f"(found after {now - max(each.since for each in still):.1f} s; ended)"
    if len(still) == 1:
        head, lines = f"{who(still[0])} waits for {reasons[0]} {found}.", []
    else:
        sort = "workers" if len({each.rank for each in still}) == len(still) else "threads"
        head = f"{len(still)} {sort} wait, and none is left to wake them {found}."
        lines = [f"  {who(each)} waits for {reason}" for each, reason in zip(still[:MOST], reasons, strict=False)]
        lines += [f"  and {len(still) - MOST} more"] if len(still) > MOST else []
    return "\n".join([head, *lines, *filter(None, [_advice(still[0])])])


def _advice(waiter: Waiter) -> str:
    kind = _kind(waiter)
    method = waiter.method
    return _ADVICE.get(method if kind == "queue" else kind, "")


def _kind(waiter: Waiter) -> str:
    return THING_OF.get(waiter.of or "lock", "lock")


def _what(waiter: Waiter, things: Mapping[int, str]) -> str:
    return f"{things[waiter.serial]} ({waiter.place})"


def _why(waiter: Waiter, lost: Mapping[int, tuple[str, Called]], holders: Mapping[int, str], whys: Mapping[int, str]) -> str:
    if waiter.wants in holders:
        return f", which {holders[waiter.wants]}"
    if id(waiter.thing) in lost and lost[id(waiter.thing)][1].at < waiter.since:
        name, call = lost[id(waiter.thing)]
        return f": {name} called notify() ({call.place}) {waiter.since - call.at:.1f} s earlier, when nobody waited: it was lost"
    return f", {whys[waiter.serial]}"


def why(waiter: Waiter) -> str:
    """Say what is to be said of the thing that somebody waits for; to be called in the process in which that is."""
    return _REASONS.get(_kind(waiter), _nobody)(waiter.method, attributes_of(waiter.thing) or {})


def _not_yet(_method: str, _own: Mapping[str, Any]) -> str:
    return "which does not come"


def _nobody(_method: str, _own: Mapping[str, Any]) -> str:
    return "and nobody is left who could let go of it"


def _set(_method: str, _own: Mapping[str, Any]) -> str:
    return "and nobody is left to set it"


def _notify(_method: str, _own: Mapping[str, Any]) -> str:
    return "and nobody is left to wake it"


def _come(_method: str, own: Mapping[str, Any]) -> str:
    shared = own.get("_array")  # multiprocessing's: its state, and the count
    count, parties = shared[1] if type(shared) is memoryview else own.get("_count"), own.get("_parties")
    return f"to which {count} of {parties} have come, and nobody is left to come"


def _release(_method: str, _own: Mapping[str, Any]) -> str:
    return "which is used up, and nobody is left to release it"


def _feed(method: str, own: Mapping[str, Any]) -> str:
    if method == "put":
        return f"which is full ({own.get('maxsize', own.get('_maxsize'))}), and nobody is left to get from it"
    if method == "join":
        return f"of which {own.get('unfinished_tasks', 'some')} are not told to be done (task_done)"
    return "which is empty, and nobody is left to put anything into it"


_REASONS: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = {
    "event": _set, "condition": _notify, "barrier": _come, "semaphore": _release, "queue": _feed, "thread": _not_yet, "future": _not_yet,
}  # fmt: skip
