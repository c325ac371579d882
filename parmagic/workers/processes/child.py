"""What a worker process does, from its first line to its last."""

from __future__ import annotations

import builtins
import mmap
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing import current_process, util
from time import perf_counter
from typing import Any

import cloudpickle

from parmagic.errors import Ended, LimitReached, NotShippable
from parmagic.model import traits, words
from parmagic.model.plan import Plan
from parmagic.model.recording import Batch, Readings, Recording, Span, WorkerId
from parmagic.record import holding, hooks, meter, tracing
from parmagic.record.board import Board, blank_board, board_size
from parmagic.record.children import Children
from parmagic.record.circles import Circles
from parmagic.record.ends import ends_of
from parmagic.record.helpers import of_process
from parmagic.record.items import Worker, current_worker, enter
from parmagic.record.notices import Row
from parmagic.system import limits
from parmagic.system.descriptors import Descriptor, Lost, adopted, base_of_ours, high, socketpair
from parmagic.system.files import anonymous_file
from parmagic.system.real import get_ident
from parmagic.workers.dispatch import Chain, Deck, OwnItem
from parmagic.workers.endings import LOST
from parmagic.workers.loop import InTurn, body_of, names_around, work
from parmagic.workers.processes import asked, covered, cwd, feeders, fresh, home, ipython, leaving, ship, surroundings
from parmagic.workers.processes.channel import Channel
from parmagic.workers.processes.claims import BoardDeck, FileLock
from parmagic.workers.processes.orders import Blob, Descriptors, Manifest, Orders, Unreadable
from parmagic.workers.processes.packer import unpicklers
from parmagic.workers.processes.reader import Reader
from parmagic.workers.settings.taken import Settled, after_fork, rehearse
from parmagic.workers.stack import Lookout

Cargo = tuple[Any, Callable[[range], Any]]
"""A body, and what loads the items of a claim."""

Unpack = Callable[[list[str]], Cargo]
"""What returns these, and adds notes on them."""


def prepare() -> Iterator[None]:
    """Do ahead what every worker does once, in steps: make a tracer and find out what it costs, then run an item of nothing.

    What a process does for the first time costs it several times as much: a fork copies the pages that it writes to.
    """
    tracing.warm("auto")
    yield
    _rehearse()
    yield


def _rehearse() -> None:
    """Be a worker with nothing to do, and with nobody to tell of it."""
    me = WorkerId(0, os.getpid(), 0)
    ours, theirs = socketpair()
    channel = Channel(theirs, 0)
    call, load = _cargo_of_nothing()
    with hooks.hooked() as measuring, Children() as children, open(anonymous_file(), "r+b") as box, ours, channel:  # noqa: PTH123
        os.ftruncate(box.fileno(), meter.box_size())
        children.know(body_of(call))
        Circles(frozenset({get_ident()}).copy, children, shared=False).begin(measuring=measuring)
        gauge = meter.meter(0, own_process=True, measuring=measuring, box=box.fileno())
        trace = tracing.prepare("auto")
        trace.start()
        trace.attach(0)
        channel.send(Recording(me, spans=(Span("startup", 0.0, 0.0),)))
        worker = Worker(0, 1, traits.PROCS.name, Plan(()))
        work(call, load, OwnItem(range(1)), worker, gauge, blank_board(1), channel.report, trace.refresh, trace.detach, keep_going=False)
        written = trace.finish(None)
        trace.end()
        rehearse()
        worker.notes()
        (synced,) = holding.named([gauge.synced()], children.function)
        mine = gauge.take(), gauge.usage(), gauge.close()
        channel.send(Recording(me, readings=mine[0], usage=mine[1], totals=mine[2], trace=written, moved=channel.moved(), synced=synced))
    surroundings.reseed()
    leaving.begin()
    leaving.end(lambda _: None)


def _cargo_of_nothing() -> Cargo:
    """Return a body that does nothing and what loads an item of nothing, read as those of a run are."""
    with open(anonymous_file(), "r+b") as file:  # noqa: PTH123
        pickler = cloudpickle.Pickler(file, protocol=5)
        pickler.dump({})
        pickler.dump(lambda _item, _worker: None)
        body = file.tell()
        size = body + file.write(pickle.dumps([None]))
        file.flush()
        manifest = Manifest(Blob((0, body), (), 2), (Blob((body, size - body), ()),), (0,), size, {})
        reader = Reader(file.fileno(), manifest, [])
    reader.settings()
    call = reader.body()
    unpicklers.clear()  # it has the file
    _settle_in(call, reader)
    fresh.take_over(dict(os.environ))
    return call, reader.load


def main(orders: Orders, descriptors: list[int], inherited: Any) -> None:
    """Be a worker: run items until there are none, report, and return."""
    base, beside = base_of_ours(), len(Descriptors._fields)
    at = Descriptors(*(high(each, base) if name in _KEPT else each for name, each in zip(Descriptors._fields, descriptors, strict=False)))
    needed = [Descriptor(at.board)] if orders.sharing.share == "common" else []
    channel = Channel(adopted(at.connection), orders.rank, needed)
    try:
        with hooks.hooked(wanted=orders.measure) as measuring, Children() as children:
            children.adopt(orders.rank, measuring=measuring)
            circles = Circles(frozenset({get_ident()}).copy, children, shared=False)
            circles.begin(measuring=measuring)
            unpack = partial(_cargo, orders, at, descriptors[beside:], inherited, channel)
            _work(orders, channel, at, unpack, children, circles)
    except Ended:
        _leave()
    except Lost:
        os._exit(LOST)
    except Exception as error:
        why = limits.why(error)
        if why is None:
            raise
        channel.send(LimitReached(f"Worker {orders.rank} (process {os.getpid()}) cannot go on. {why}"))


_KEPT = frozenset({"connection", "board", "box", "stack", "tracker", "file"})
"""The descriptors that stay open beside the body's own."""


def _work(orders: Orders, channel: Channel, at: Descriptors, unpack: Unpack, children: Children, circles: Circles) -> None:
    born, worker = meter.birth(orders.begin, measuring=circles.measures), Worker(orders.rank, orders.count, orders.model, orders.plan)
    gauge = meter.meter(worker.rank, own_process=True, measuring=circles.measures, box=at.box)
    channel.me = meter.who(worker.rank, gauge)
    notes, board = _move_in(orders, worker, at), _heeded(orders, worker, at.board, circles)
    lookout, trace = Lookout(Descriptor(at.stack)), tracing.prepare(orders.plan.trace)

    def before() -> None:
        trace.refresh()
        lookout.arm()

    def report(batch: Batch, readings: Readings) -> None:
        if asked.is_asked():
            raise Ended
        if batch.errors:
            trace.explain(batch)
        channel.report(batch, readings)

    try:
        enter(worker)
        call, load = unpack(notes)
        children.know(body_of(call))
        surroundings.reseed()
        call = InTurn(call, orders.n_items) if orders.sharing.in_turn else call
        trace.start()  # not before: what we do until then would use up what tracing may cost (3.12: all threads are recorded)
        trace.attach(worker.rank)
        channel.send(Recording(channel.me, spans=(Span("startup", orders.begin, perf_counter()),), readings=born))
        if orders.sharing.together:
            channel.wait()
        deck = _deck(orders, worker, at.board, board)
        work(call, load, deck, worker, gauge, board, report, before, trace.detach, keep_going=orders.plan.keep_going)
    except Unreadable as error:
        channel.send(error)
    except BaseException:
        worker.leave()
        raise
    finally:
        lookout.end()
        trace.detach()
    _part(orders, channel, gauge, trace, worker, notes, children)


def _heeded(orders: Orders, worker: Worker, file: int, circles: Circles) -> Board:
    """Return the board; end when it says so, and try no item for longer, nor more often, than it may be tried; tell there who waits."""
    whole = memoryview(mmap.mmap(file, 0))
    size = 8 * board_size(orders.count)
    board = whole[:size].cast("q")
    circles.tell(Row(whole[size:], worker.rank, orders.count))
    alarm = asked.heed(board, worker.rank, _leave)
    if orders.plan.item_timeout:
        worker.guard = alarm
    worker.tried.update(orders.tried)
    return board


def _leave() -> None:
    """Leave what was made once, and clean up, in a process that is about to end."""
    with suppress(RuntimeError):  # it was no worker yet
        current_worker().leave()  # unless it has: it may have been asked to end on its way there
    leaving.end_at_once()


def _move_in(orders: Orders, worker: Worker, at: Descriptors) -> list[str]:
    """Make this process a worker's: its streams, its names, where it is; return notes."""
    surroundings.redirect(at.out, at.err)
    current_process().name = f"{worker.model} {worker.rank}"
    vars(builtins).update(display=ipython.display, get_ipython=ipython.no_ipython)  # where IPython puts its own
    sys.breakpointhook = ipython.no_breakpoint
    return cwd.enter(at.folder) if orders.environment is not None else []


def _part(
    orders: Orders, channel: Channel, gauge: meter.Meter, trace: tracing.Tracing, worker: Worker, notes: list[str], children: Children
) -> None:  # fmt: skip
    """Report what is known only at the end, and say the last word."""
    usage = gauge.usage()  # before the trace is written, which is none of the body's work
    trace.leave()
    account, (synced,) = None, holding.named([gauge.synced()], children.function)
    if worker.keeps:  # nor is leaving that
        account = Recording(channel.me, readings=gauge.take(), totals=gauge.close())
        channel.send(account)
        worker.leave()
        if asked.is_asked():
            raise Ended
    alone = orders.manifest is None and traits.of(orders.model).one_at_a_time
    ends = ends_of(names_around(children.function), orders.plan.changes) if alone else {}  # as they are behind an arm of threads
    notes += worker.notes()
    notes += surroundings.figures_left_open()
    notes += [*leaving.end(channel.tell), *children.notes()]
    written = trace.finish(orders.trace_file)
    readings, totals = (gauge.take(), gauge.close()) if account is None else (None, ())
    helpers = of_process(usage, account.totals if account else totals)
    channel.send(
        Recording(
            channel.me, spans=channel.take_spans(), readings=readings, usage=usage, totals=totals, trace=written, notes=tuple(notes),
            moved=channel.moved(), helpers=helpers, children=children.take(), ends=ends, synced=synced,
        )
    )  # fmt: skip
    covered.save()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the body may have closed it, or put one of its own there
            stream.flush()
    channel.send(None)


def _cargo(orders: Orders, at: Descriptors, beside: list[int], inherited: Any, channel: Channel, notes: list[str]) -> Cargo:
    """Return the body and a function that loads the items of a claim; ``beside`` are the descriptors that came with them."""
    if orders.environment is not None:
        surroundings.take_over(orders.environment, at.tracker)
    covered.begin()
    leaving.begin()
    current_process()._config["semprefix"] = orders.semaphores  # type: ignore[attr-defined]  # noqa: SLF001
    if orders.manifest is None:
        call, items, settings = inherited
        after_fork(settings)
        util._run_after_forkers()  # type: ignore[attr-defined]  # noqa: SLF001  (as in a Process: proxies connect anew, queues have no thread)
        home.know_classes()
        feeders.known_by(names_around(call))
        return call, lambda claim: items[claim.start : claim.stop]
    reader = channel.reader = Reader(at.file, orders.manifest, beside)
    begin = perf_counter()
    call = _body(reader, orders.manifest.variables, notes)
    channel.unpack_s += perf_counter() - begin
    channel.shared = orders.manifest.shared
    _settle_in(call, reader)

    def load(claim: range) -> Any:
        begin = perf_counter()
        items = reader.load(claim)
        end = perf_counter()
        channel.spans.append(Span("transfer", begin, end))
        channel.unpack_s += end - begin
        return items

    return call, load


def _settle_in(call: Any, reader: Reader) -> None:
    """Know what has come with the body: classes, names, what queues are called."""
    around = names_around(call)
    home.know_classes()
    surroundings.fill_main(around, reader.named())
    feeders.known_by(around)


def _body(reader: Reader, variables: dict[tuple[str, str], bytes], notes: list[str]) -> Any:
    """Return the body, where all is set as in the notebook: before, for its names may be of what is imported with them, and behind that."""
    try:
        settled = Settled(reader.settings(), notes)
        settled.have()
        call = reader.body()
        settled.have()
        settled.hold(variables)
    except NotShippable as error:
        raise Unreadable(words.message(error), "") from error
    except Exception as error:
        raise Unreadable(words.describe(error, 2000)) from error
    return call


def _deck(orders: Orders, worker: Worker, file: int, board: Board) -> Deck:
    claims = orders.sharing.claims_of(worker.rank)
    if claims is not None:
        return OwnItem(*claims)
    deck: Deck = BoardDeck(FileLock(file), orders.n_items, worker.count, orders.plan.claim, board, worker.rank)
    return Chain(OwnItem(*orders.left), deck) if orders.left else deck


hooks.why_inferred()  # the fork server imports this module: what is looked up here is known to all that it forks,
assert ship  # and what is imported, also for runs within bodies
