"""What a worker process does, from its first line to its last."""

from __future__ import annotations

import builtins
import logging
import mmap
import os
import random
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import current_process, resource_tracker, util
from time import perf_counter
from typing import Any, Self

import cloudpickle
import tblib.pickling_support

from parmagic.errors import LimitReached, NotShippable
from parmagic.model import words
from parmagic.model.progress import Displayed
from parmagic.model.recording import Batch, Moved, Readings, Recording, Span, WorkerId
from parmagic.model.traits import PROCS
from parmagic.record import hooks, meter, tracing
from parmagic.record.items import Board, Worker, blank_board, enter, is_worker
from parmagic.system import limits
from parmagic.system.descriptors import Descriptor, Lost, OwnSocket, base_of_ours, high
from parmagic.system.files import anonymous_file
from parmagic.workers.dispatch import Chain, Deck, OwnItem
from parmagic.workers.endings import LOST
from parmagic.workers.loop import InTurn, work
from parmagic.workers.processes import cwd, home, ipython, ship
from parmagic.workers.processes.claims import BoardDeck, FileLock
from parmagic.workers.processes.frames import Outbox
from parmagic.workers.processes.orders import (
    BOARD,
    BOX,
    CONNECTION,
    ERR,
    FILE,
    FIRST_OF_CARGO,
    FOLDER,
    OUT,
    STACK,
    TRACKER,
    Orders,
    Unreadable,
)
from parmagic.workers.stack import Lookout


def prepare() -> Iterator[None]:
    """Do ahead what every worker does once, in steps: make a tracer and find out what it costs, then run an item of nothing.

    What a process does for the first time costs it several times as much: a fork copies the pages that it writes to.
    """
    is_worker()
    tracing.warm("auto")
    yield
    _rehearse()
    yield


def _rehearse() -> None:
    """Be a worker with nothing to do, and with nobody to tell of it."""
    me = WorkerId(0, os.getpid(), 0)
    ours, theirs = socket.socketpair()
    channel = _Channel(theirs, 0)
    call = cloudpickle.loads(cloudpickle.dumps(lambda _item, _worker: None))
    with hooks.hooked() as measuring, os.fdopen(anonymous_file(), "r+b") as box, ours, channel:
        os.ftruncate(box.fileno(), meter.box_size())
        gauge = meter.meter(0, own_process=True, measuring=measuring, box=box.fileno())
        trace = tracing.prepare("auto")
        trace.start()
        trace.attach(0)
        channel.send(Recording(me, spans=(Span("startup", 0.0, 0.0),)))
        worker = Worker(0, 1, PROCS.name)
        work(call, list, OwnItem(range(1)), worker, gauge, blank_board(1), channel.report, trace.refresh, keep_going=False)
        trace.detach()
        written = trace.finish(None)
        trace.end()
        channel.send(Recording(me, readings=gauge.take(), usage=gauge.usage(), totals=gauge.close(), trace=written, moved=channel.moved()))
    _reseed()


def main(orders: Orders, descriptors: list[int], inherited: Any) -> None:
    """Be a worker: run items until there are none, report, and return."""
    is_worker()
    base = base_of_ours()
    descriptors = [high(each, base) if place in _KEPT else each for place, each in enumerate(descriptors)]
    needed = [Descriptor(descriptors[BOARD])] if orders.sharing.share == "common" else []
    channel = _Channel(socket.socket(fileno=descriptors[CONNECTION]), orders.worker[0], needed)
    try:
        with hooks.hooked(wanted=orders.measure) as measuring:
            _work(orders, channel, descriptors, inherited, measuring=measuring)
    except Lost:
        os._exit(LOST)
    except Exception as error:
        why = limits.why(error)
        if why is None:
            raise
        channel.send(LimitReached(f"Worker {orders.worker[0]} (process {os.getpid()}) cannot go on. {why}"))


_KEPT = frozenset({CONNECTION, BOARD, BOX, STACK, TRACKER, FILE})
"""The places of descriptors that stay open beside the body's own."""


def _work(orders: Orders, channel: _Channel, descriptors: list[int], inherited: Any, *, measuring: bool) -> None:
    worker = Worker(*orders.worker)
    gauge = meter.meter(worker.rank, own_process=True, measuring=measuring, box=descriptors[BOX])
    me = channel.me = meter.who(worker.rank, gauge)
    _redirect(descriptors[OUT], descriptors[ERR])
    current_process().name = f"{worker.model} {worker.rank}"
    vars(builtins).update(display=ipython.display, get_ipython=ipython.no_ipython)  # where IPython puts its own
    board = memoryview(mmap.mmap(descriptors[BOARD], 0)).cast("q")
    notes = cwd.enter(descriptors[FOLDER]) if orders.environment is not None else []
    lookout = Lookout(Descriptor(descriptors[STACK]), forked=orders.manifest is None)
    trace = tracing.prepare(orders.plan.trace)
    trace.start()

    def between() -> None:
        trace.refresh()
        lookout.arm()

    try:
        enter(worker)
        call, load = _cargo(orders, descriptors, inherited, channel)
        _reseed()
        if orders.sharing.in_turn:
            call = InTurn(call, orders.n_items)
        trace.attach(worker.rank)
        channel.send(Recording(me, spans=(Span("startup", orders.begin, perf_counter()),)))
        if orders.sharing.together:
            channel.wait()
        deck = _deck(orders, worker, descriptors[BOARD], board)
        work(call, load, deck, worker, gauge, board, channel.report, between, keep_going=orders.plan.keep_going)
    except Unreadable as error:
        channel.send(error)
    finally:
        trace.detach()
    usage = gauge.usage()  # before the trace is written, which is none of the body's work
    notes += _figures_left_open()
    util._run_finalizers()  # type: ignore[attr-defined]  # noqa: SLF001  (queues' feeder threads finish)
    written = trace.finish(orders.trace_file)
    readings = gauge.take()
    channel.send(
        Recording(
            me, spans=channel.take_spans(), readings=readings, usage=usage, totals=gauge.close(), trace=written, notes=tuple(notes),
            moved=channel.moved(),
        )
    )  # fmt: skip
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the body may have closed it, or put one of its own there
            stream.flush()
    channel.send(None)


def _reseed() -> None:
    """Let every worker draw random numbers of its own: forks of one server would all draw the same."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _redirect(out: int, err: int) -> None:
    """Let everything that is printed here, also by C and by children, go to the notebook."""
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, place in ((null, 0), (out, 1), (err, 2)):
        os.dup2(descriptor, place)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]


def _cargo(orders: Orders, descriptors: list[int], inherited: Any, channel: _Channel) -> tuple[Any, Any]:
    """Return the body and a function that loads the items of a claim."""
    if orders.environment is not None:
        _take_over(orders.environment, descriptors[TRACKER])
    current_process()._config["semprefix"] = orders.semaphores  # type: ignore[attr-defined]  # noqa: SLF001
    if orders.manifest is None:
        call, items = inherited
        home.know_classes()
        return call, lambda claim: items[claim.start : claim.stop]
    reader = channel.reader = ship.Reader(descriptors[FILE], orders.manifest, descriptors[FIRST_OF_CARGO:])
    begin = perf_counter()
    try:
        call = reader.body()
    except Exception as error:
        raise Unreadable(words.describe(error, 2000)) from error
    channel.unpack_s += perf_counter() - begin
    channel.shared = orders.manifest.shared
    home.know_classes()

    def load(claim: range) -> Any:
        begin = perf_counter()
        items = reader.load(claim)
        end = perf_counter()
        channel.spans.append(Span("transfer", begin, end))
        channel.unpack_s += end - begin
        return items

    return call, load


def _take_over(environment: dict[str, Any], tracker: int) -> None:
    """Make this process like the notebook's: variables, search path, key, resource tracker."""
    os.environ.clear()
    os.environ.update(environment["variables"])
    sys.path[:] = environment["path"]
    current_process().authkey = environment["key"]
    if environment["tracked"]:
        resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined]  # noqa: SLF001
    if environment["logging"] is not None:
        level, style = environment["logging"]
        logging.basicConfig(level=level, format=style, force=True)


def _deck(orders: Orders, worker: Worker, file: int, board: Board) -> Deck:
    claims = orders.sharing.claims_of(worker.rank)
    if claims is not None:
        return OwnItem(*claims)
    deck: Deck = BoardDeck(FileLock(file), orders.n_items, worker.count, orders.plan.chunk, board, worker.rank)
    return Chain(OwnItem(*orders.left), deck) if orders.left else deck


_READ_ONLY = (
    "All worker processes share the memory of {names} without a copy, so it is read-only in the body: "
    "write to a copy (mine = name.copy()), or use threads."
)


class _Channel:
    """The way home: recordings, results, what is displayed."""

    def __init__(self, sock: socket.socket, rank: int, needed: Sequence[Descriptor] = ()) -> None:
        self._sock = OwnSocket(sock)
        self._outbox = Outbox(self._sock, rank)
        self.me = WorkerId(rank, os.getpid(), 0)
        self._needed = needed
        self._lock = threading.Lock()
        self.spans: list[Span] = []
        self.reader: ship.Reader | None = None
        self.shared: tuple[str, ...] = ()
        self.unpack_s = self._return_s = 0.0
        self._returned = 0
        ipython.shows(self.display)

    def __enter__(self) -> Self:
        """Be closed at the end of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self._sock.close()

    def send(self, what: Any) -> None:
        """Send anything that pickles."""
        self._send(home.pack(what))

    def _send(self, parcel: home.Parcel) -> None:
        with self._lock:
            self._sock.must_be_ours()
            home.send(self._outbox, parcel)

    def display(self, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Send what is to be shown under the notebook's cell."""
        self.send(Displayed(self.me.rank, data, metadata))

    def moved(self) -> Moved:
        """Return what went each way so far."""
        return Moved(self.reader.size if self.reader else 0, self.unpack_s, self._returned, self._return_s)

    def wait(self) -> None:
        """Wait for the gate to open."""
        self._sock.must_be_ours()
        if not self._sock.recv(1):
            raise EOFError

    def take_spans(self) -> tuple[Span, ...]:
        """Return the spans so far and forget them."""
        spans, self.spans = tuple(self.spans), []
        return spans

    def report(self, batch: Batch, readings: Readings) -> None:
        """Send a batch with its results, and note how long that took."""
        begin = perf_counter()
        for item, error in batch.errors.items():
            if self.shared and issubclass(type(error), ValueError) and "read-only" in words.message(error):
                words.add_note(error, _READ_ONLY.format(names=", ".join(map(repr, self.shared))))
            batch.errors[item] = _portable(error)
        spans = self.take_spans()
        try:
            parcel = home.pack(Recording(self.me, spans=spans, batches=(batch,), readings=readings))
        except BaseException:  # noqa: BLE001  (found and reported item by item)
            _give_up_on_values(batch)
            parcel = home.pack(Recording(self.me, spans=spans, batches=(batch,), readings=readings))
        try:
            self._send(parcel)
        except OSError as error:
            if limits.why(error) is None:
                raise
            self._send(home.pack(Recording(self.me, spans=spans, batches=(batch,), readings=readings), beside=False))  # without a file
        for descriptor in self._needed:  # by what comes next
            descriptor.fileno()
        end = perf_counter()
        self.spans.append(Span("transfer", begin, end))
        self._returned += parcel.size
        self._return_s += end - begin


hooks.why_inferred()  # the fork server imports this module: what is looked up here is known to all that it forks


def _give_up_on_values(batch: Batch) -> None:
    """Replace each value that cannot be pickled by an error that names its item."""
    for place, value in enumerate(batch.values):
        try:
            home.pack(value)
        except BaseException as error:  # noqa: BLE001  (it is reported)
            batch.values[place] = None
            item = batch.first + place
            batch.errors[item] = NotShippable(
                f"The result of item {item} (a {words.long_type_name(value)}) cannot be sent back from a process: {words.message(error)}. "
                "Return what is in it (a list, an array, a number), or use threads."
            )


def _portable(error: BaseException) -> BaseException:
    """Return an exception that survives the way home, its traceback included."""
    _shorten(error)
    try:
        tblib.pickling_support.install(error)
        home.unpack(home.pack(error))
    except BaseException as why:  # noqa: BLE001  (it is reported)
        said = f"{words.type_name(error)}: {words.message(error)}"
        stand_in = NotShippable(
            f"The body raised {said} (that exception itself cannot be sent back from a process: {words.message(why)})"
        ).with_traceback(words.traceback_of(error))
        tblib.pickling_support.install(stand_in)
        return stand_in
    return error


def _shorten(error: BaseException, keep: int = 100) -> None:
    """Cut the middle out of very long tracebacks: pickle does not go that deep."""
    chain, seen = error, set[int]()
    while chain is not None and id(chain) not in seen:  # a chain may bite its tail
        seen.add(id(chain))
        trace, links = words.traceback_of(chain), []
        while trace is not None:
            links.append(trace)
            trace = trace.tb_next
        if len(links) > 2 * keep:
            links[keep - 1].tb_next = links[-keep]
        cause = words.cause_of(chain)
        chain = words.context_of(chain) if cause is None else cause


def _figures_left_open() -> list[str]:
    """Return a note where matplotlib figures were left open: they stay in the process."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not pyplot.get_fignums():
        return []
    return ["Figures were left open in a process and are not shown: return the figure, or save it in the body."]
