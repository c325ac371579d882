"""Where threads have left the notebook's names otherwise than a serial run would have: what was lost on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from parmagic.analyze.started import left
from parmagic.model.finding import Finding
from parmagic.model.private import Private, say
from parmagic.model.recording import End
from parmagic.model.timeline import Baseline, Timeline

RULE = "ends_differ"

_MOST_NAMED = 3
_LARGE = 10**15


def lost(timeline: Timeline, baseline: Baseline) -> Iterator[Finding]:
    """Yield what an arm's workers may have lost that ran all items in the same memory, beside a serial run that did as well.

    Items that fail change less, those that are tried again more, and what still runs has not yet changed all: none of it is a loss.
    """
    whole = timeline.error is None and timeline.broke is None and not timeline.errors and not timeline.tries
    threads_left = any(lane.child is not None and lane.child.kind == "thread" for lane in left(timeline))
    if timeline.arm.model.shares_memory and timeline.arm.count > 1 and whole and not threads_left:
        yield from differ(timeline.arm.label, timeline.ends, baseline.ends)


def differ(label: str, parallel: Mapping[str, End], serial: Mapping[str, End]) -> Iterator[Finding]:
    """Yield that names which both runs changed ended otherwise in an arm than serially, in a way that lost updates do."""
    names = [name for name in serial if name in parallel and _lost(parallel[name], serial[name])]
    if not names:
        return
    said = [_said(name, parallel[name], serial[name]) for name in names[:_MOST_NAMED]]
    left_out = len(names) - len(said)
    more = f", and so do{'es' if left_out == 1 else ''} {left_out} more name{'' if left_out == 1 else 's'}" if left_out else ""
    text = (
        "{label}: {said}{more}. Either updates were lost, as several threads change the same thing at once, or the body depends on the "
        "order of its items, on time, on chance or on files. Have a lock around what changes it, or let each item return its part and "
        "add these up behind the run."
    )
    which = Private("; ".join(said), "; ".join(each.public for each in said))
    yield Finding(RULE, say(text, label=label, said=which, more=more), label, "error", {"names": len(names)})


def first(arm: str, findings: Iterable[Finding]) -> str:
    """Return what a verdict on an arm begins with where that may be wrong, as no speedup is worth that; else nothing."""
    wrong = any((each.rule, each.arm) == (RULE, arm) for each in findings)
    return f"{arm} may lose updates (see the notes)." if wrong else ""


def _said(name: str, parallel: End, serial: End) -> Private:
    without = f"`{name}` ends otherwise than in the serial run"
    return Private(f"`{name}` ends as {_short(parallel)}, and as {_short(serial)} in the serial run", without)


def _short(end: End) -> str:
    """Return a number as it is, and how much there is of anything else."""
    number = end.number if end.total is None else end.total
    amount = f"{number:,}" if abs(number) < _LARGE else "a large number"
    if end.kind == "number":
        return amount
    return f"{amount} element{'' if number == 1 else 's'}" if end.total is None else f"{amount} in all"


def _lost(ours: End, theirs: End) -> bool:
    """Tell whether an end looks as if updates were lost: a number is another one, there are fewer elements, or less in as many of them."""
    if ours.kind != theirs.kind:
        return False
    if ours.kind == "number":
        return ours.number != theirs.number
    less = ours.total is not None and theirs.total is not None and ours.total < theirs.total
    return ours.number < theirs.number or less
