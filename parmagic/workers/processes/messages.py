"""What a worker process sends, as the notebook takes it: a report, or an event where something is wrong with it."""

from __future__ import annotations

from parmagic.errors import LimitReached
from parmagic.model.progress import Displayed, Logged, Standing
from parmagic.model.recording import Recording
from parmagic.model.words import describe
from parmagic.system import limits
from parmagic.system.interrupts import is_interrupt
from parmagic.workers.processes import deaths, home
from parmagic.workers.processes.member import Member
from parmagic.workers.processes.orders import Unreadable
from parmagic.workers.processes.wire import Garbled


def take(member: Member) -> Recording | Displayed | Logged | Standing | deaths.Event | None:
    """Take a worker's next message; None where not all of it is there, or where it was its last word."""
    try:
        parcel = home.receive(member.inbox)
    except Garbled as error:
        return deaths.Distrusted(str(error))
    except (EOFError, OSError) as error:
        why = limits.why(error)  # the descriptor of a large result did not arrive: there was no number for it
        return deaths.Exhausted(why, error) if why else deaths.HungUp()
    return None if parcel is None else _read(member, parcel)


def _read(member: Member, parcel: home.Parcel) -> Recording | Displayed | Logged | Standing | deaths.Event | None:
    try:
        what = home.unpack(parcel)
    except BaseException as error:
        if is_interrupt(error):
            raise
        what = _salvaged(parcel)
        if what is None:
            return deaths.ResultUnreadable(describe(error, 500), error)
    if what is None:
        member.done = True
        return None
    if isinstance(what, Recording) and what.worker.rank == member.rank:
        return what
    if isinstance(what, (Displayed, Logged, Standing)) and what.rank == member.rank:
        return what
    if isinstance(what, LimitReached):
        return deaths.Exhausted(str(what))
    if isinstance(what, Unreadable):
        return deaths.BodyUnreadable(*what.args)
    return deaths.Distrusted(f"it is no message of this worker's (a {type(what).__name__})")


def _salvaged(parcel: home.Parcel) -> Recording | None:
    """Return what can be read of a recording, with errors in the place of what cannot; None where that is nothing."""
    from parmagic.workers.processes import salvage  # noqa: PLC0415  (loads where something has failed)

    what = salvage.read((parcel.pickle, parcel.buffers))
    if not isinstance(what, Recording):
        return None
    for batch in what.batches:
        salvage.settle(batch)
    return what
