"""Threads of which each wants what the next one has, and the last what the first has: which these are, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from parmagic.record.waiting import Waiter

MOST = 20
"""Threads that are named."""


def certain(threads: Sequence[Waiter], *, all_wait: bool, outsiders: bool) -> list[Waiter]:
    """Return a circle that nobody opens: threads of which each wants what the next one has, and the last what the first has; or none.

    Of a lock that was taken without ``with`` others may let go: they all have to wait as well, and where one thread waits for itself,
    which may be for its turn, there is to be no outsider.
    """
    while circle := _circle(threads):
        wanted = {each.wants for each in circle}
        own = all(held.own for each in circle for held in each.held if held.lock in wanted)
        if own or (all_wait and (len(circle) > 1 or not outsiders)):
            return circle
        threads = [each for each in threads if each not in circle]
    return []


def _circle(threads: Sequence[Waiter]) -> list[Waiter]:
    holders = {held.lock: each for each in threads for held in each.held}
    for start in threads:
        path, at = list[Waiter](), start
        while at.wants and at.patient and at not in path and at.wants in holders:
            path.append(at)
            at = holders[at.wants]
        if at in path:
            return path[path.index(at) :]
    return []


def words(circle: Sequence[Waiter], now: float, called: Mapping[int, str], who: Callable[[Waiter], str]) -> str:
    """Say who has what, and wants what; ``called`` is what things are called that are wanted, by the handles of those who want them."""
    after = now - max(each.since for each in circle)
    sort = "workers" if len({each.rank for each in circle}) == len(circle) else "threads"
    head = f"{len(circle)} {sort} wait in a circle" if len(circle) > 1 else f"{who(circle[0])} waits for what it has"
    lines = [f"{head} (found after {after:.1f} s; ended; all locks are free again)."]
    around = zip([circle[-1], *circle], circle, [*circle[1:], circle[0]], strict=False)
    for before, each, then in [*around][:MOST]:
        has = next(held for held in each.held if held.lock == before.wants)
        wants = f"wants {called[each.serial]}{' again' if each is then else ''} ({each.place})"
        whose = "" if each is then else f", which {who(then)} holds"
        lines.append(f"  {who(each)} holds {called[before.serial]} ({has.place}, for {now - has.since:.1f} s), {wants}{whose}")
    lines += [f"  and {len(circle) - MOST} more"] if len(circle) > MOST else []
    return "\n".join([*lines, _in_order([called[each.serial] for each in circle])])


def _in_order(called: list[str]) -> str:
    if len(called) == 1:  # it waits for itself
        return "Let go of it first (`with` does), or use an RLock, which may be taken again by who has it."
    parts = {each.partition("[")[0] for each in called}
    by_index = len(parts) == 1 and all(each.endswith("]`") for each in called)
    return "Take them in one order everywhere" + (": first, second = sorted((i, j))." if by_index else ".")
