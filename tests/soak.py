"""A soak: random cells for as long as you like, each one checked against an oracle.

    python tests/soak.py [--seconds 600] [--seed N] [--only K] [--verbose] [--undisturbed]

A cell is drawn from (seed, number) alone: models, counts, options, and a body that is put
together from a *value* (what each item returns, and what it should), *noise* (prints,
threads, subprocesses, locks) and perhaps a *fault* (some items raise, exit or die). Of many
cells, noise or fault is *hostile* (``hostile_bodies.py``): they turn on the process that they
run in. A cell may be interrupted at a random moment. Then its results, its errors, its tables
and all that it left behind are looked at. ``--only K`` runs cell K again and again, to chase
what is rare.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import hostile_bodies
import kin
import numpy as np
import psutil
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import parmagic
from parmagic.model.kinds import WORKER_STATES
from parmagic.record import hooks
from parmagic.workers.lines import MOST
from parmagic.workers.processes import hub, watch

STUCK = 100.0
"""Seconds after which a cell is taken to hang; the longest of them are meant to take ten."""

SLOW_TO_END = 15.0
"""Seconds within which Ctrl-C has to end a cell, on a machine that others use as well."""

SETTLING = 5.0
"""Seconds that what was left running gets to go away."""

LONG = 120.0
"""Seconds from which on a soak judges memory with all that fills up filled."""

GROWTH = 60.0
"""MB that this process may grow by after the warm-up."""

ENOUGH = 20
"""Failures after which the soak gives up."""

IMPORTS = (
    "import atexit, collections, contextlib, hashlib, multiprocessing, os, queue, resource, signal, subprocess, sys, threading, time\n"
    "import numpy as np"
)

HOSTILE = 0.4
"""The share of cells that are hostile, where they can be."""


# --- what cells are made of ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """What is settled about a cell before its body is drawn."""

    arms: tuple[tuple[str, int], ...]  # (kind, count)
    spmd: bool
    start_method: str = ""

    @property
    def kinds(self) -> set[str]:
        """Return the models."""
        return {kind for kind, _ in self.arms}

    @property
    def isolated(self) -> bool:
        """Whether the body never runs in this process, so that it may do to its process what it likes."""
        return self.kinds == {"procs"}

    def context(self, rng: random.Random) -> str:
        """Draw a context for multiprocessing's primitives; those of fork need a fork."""
        return "forkserver" if self.start_method in {"forkserver", "spawn"} else rng.choice(["fork", "forkserver"])

    def labels(self) -> list[str]:
        """Return the arms as tables name them."""
        return [kind if kind == "serial" else f"{kind}={n}" for kind, n in self.arms]


@dataclass(frozen=True, slots=True)
class Value:
    """What an item returns: an expression of ``i``, and what it should be.

    ``cost`` are seconds, ``size`` bytes per item; ``clause`` is the ``for`` clause where it matters.
    """

    text: str
    expect: Callable[[int], Any]
    cost: float = 2e-6
    size: int = 8
    setup: str = ""
    clause: str = ""
    most: int = 20_000


@dataclass(frozen=True, slots=True)
class Noise:
    """What a body does besides. ``calm``: who is stopped in there may never let the others go on."""

    text: str
    cost: float = 1e-5
    setup: str = ""
    calm: bool = False
    marks: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """How bad items fail: what the error may be called here and in a process; ``late``: some time after the item."""

    text: str
    here: str
    abroad: str
    setup: str = ""
    wraps: bool = False  # the text is an expression around the value
    late: bool = False
    stops: bool = False  # only --timeout ends the run


def _arithmetic(rng: random.Random, _: Shape) -> Value:
    turns = rng.choice([1, 10, 1_000, 30_000])
    return Value(f"sum(k * i for k in range({turns}))", lambda i: i * turns * (turns - 1) // 2, 1e-6 + turns * 8e-8)


def _nap(rng: random.Random, _: Shape) -> Value:
    seconds = rng.choice([0.0, 0.001, 0.01, 0.1])
    return Value(f"time.sleep({seconds}) or -i", lambda i: -i, seconds + 1e-5)


def _nothing(_: random.Random, __: Shape) -> Value:
    return Value("None", lambda _: None)


def _pair(_: random.Random, __: Shape) -> Value:
    return Value("Pair(i, [i] * 3)", lambda i: (i, [i] * 3), 1e-5, 200, "Pair = collections.namedtuple('Pair', 'a b')")


def _text(rng: random.Random, _: Shape) -> Value:
    size, letter = int(10 ** rng.uniform(0, 6.3)), rng.choice("a€\0\n😀")
    return Value(f"{letter!r} * {size} + str(i)", lambda i: letter * size + str(i), 1e-6 + size * 2e-9, 4 * size)


def _blob(rng: random.Random, _: Shape) -> Value:
    size = int(10 ** rng.uniform(0, 6.6))
    return Value(f"bytes([i % 251]) * {size}", lambda i: bytes([i % 251]) * size, 1e-6 + size * 1e-9, size)


def _hash(rng: random.Random, _: Shape) -> Value:
    size = rng.choice([10, 100_000, 5_000_000])
    return Value(
        f"hashlib.sha256(bytes([i % 256]) * {size}).hexdigest()",
        lambda i: hashlib.sha256(bytes([i % 256]) * size).hexdigest(), 2e-6 + size * 3e-9, 100,
    )  # fmt: skip


def _small_array(_: random.Random, __: Shape) -> Value:
    return Value("np.arange(i % 7) * i", lambda i: np.array([k * i for k in range(i % 7)], dtype=int), 1e-5, 200)


def _big_array(_: random.Random, __: Shape) -> Value:
    return Value("np.full((600, 500), float(i))", lambda i: np.ones((600, 500)) * i, 1e-3, 2_400_000)


def _read_array(_: random.Random, __: Shape) -> Value:
    # big[i::1000] is i, i + 1000, …: 400 terms
    return Value(
        "int(big[i % 1000 :: 1000].sum())", lambda i: 400 * (i % 1000) + 1000 * 399 * 400 // 2, 1e-5, setup="big = np.arange(400_000)"
    )


def _array_items(_: random.Random, __: Shape) -> Value:
    return Value(
        "a + 1", lambda i: np.full(300_000, i + 1.0), 2e-3, 2_400_000,
        "arrays = [np.full(300_000, float(k)) for k in range(8)]", "for i, a in enumerate(arrays[:{n}])", 8,
    )  # fmt: skip


def _blas(_: random.Random, __: Shape) -> Value:
    return Value("int((ones @ ones)[0, i % 150])", lambda _: 150, 1e-3, setup="ones = np.ones((150, 150))")


VALUES = (_arithmetic, _nap, _nothing, _pair, _text, _blob, _hash, _small_array, _big_array, _read_array, _array_items, _blas)


FLOOD = "print('x' * 20_000)"


def _print(rng: random.Random, _: Shape) -> Noise:
    return Noise(
        rng.choice(
            [
                "print('part', i, end='')",
                "print(f'\\r{i} %', end='', file=sys.stderr)",
                "print('bar', i, end='\\r')",
                FLOOD,
                "print('to stderr', i, file=sys.stderr)",
                "sys.stdout.write('€\\n\\n' * (i % 5)); sys.stdout.flush()",
            ]
        ),
        5e-5,
    )


def _mark(_: random.Random, __: Shape) -> Noise:
    return Noise("print(f'<{i}>')", 3e-5, marks=True)


def _child(rng: random.Random, shape: Shape) -> Noise:
    if not shape.isolated or rng.random() < 0.5:
        return Noise("subprocess.run(['true'], check=True)", 5e-3)
    return Noise(f"subprocess.Popen(['sleep', '60'], start_new_session={rng.random() < 0.5})", 5e-3)


def _thread(rng: random.Random, shape: Shape) -> Noise:
    if rng.random() < 0.5:
        return Noise("t = threading.Thread(target=sorted, args=([2, 1],)); t.start(); t.join()", 1e-3)
    return Noise(f"threading.Thread(target=time.sleep, args=({60 if shape.isolated else 0.2},), daemon=True).start()", 1e-3)


def _pool(_: random.Random, shape: Shape) -> Noise | None:
    if not shape.isolated:
        return None
    return Noise("with multiprocessing.get_context('fork').Pool(2) as pool:\n    assert pool.map(abs, [-i, 2]) == [i, 2]", 0.05)


def _lock(rng: random.Random, shape: Shape) -> Noise:
    if "procs" in shape.kinds:
        made = f"lock = multiprocessing.get_context({shape.context(rng)!r}).Lock()"
        return Noise("with lock: sum(range(1000))", 3e-5, made, calm=not shape.isolated)
    return Noise("with lock: sum(range(1000))", 3e-5, "lock = threading.Lock()")


def _post(rng: random.Random, shape: Shape) -> Noise:
    """Everyone puts one thing and takes one: nobody waits forever."""
    if "procs" in shape.kinds:
        return Noise("post.put(i); post.get()", 1e-3, f"post = multiprocessing.get_context({shape.context(rng)!r}).Queue()", calm=True)
    return Noise("post.put(i); post.get()", 2e-5, "post = queue.Queue()", calm=True)


def _barrier(_: random.Random, shape: Shape) -> Noise | None:
    if not shape.spmd or len(shape.arms) > 1 or shape.kinds == {"serial"}:
        return None
    ((kind, workers),) = shape.arms
    home = "threading" if kind == "threads" else "multiprocessing.get_context('forkserver')"
    return Noise("barrier.wait()", 1e-3, f"barrier = {home}.Barrier({workers})", calm=True)


NOISES = (_print, _mark, _child, _thread, _pool, _lock, _post, _barrier)

RAISED = (
    Fault("raise ValueError(i)", "ValueError", "ValueError"),
    Fault("1 / 0", "ZeroDivisionError", "ZeroDivisionError"),
    Fault("raise Own(i)", "Own", "Own", "class Own(Exception): pass"),
    Fault("sys.exit(i)", "SystemExit", "SystemExit"),
    Fault("raise LookupError(threading.Lock())", "LookupError", "NotShippable"),
    Fault("raise Odd(i, 2)", "Odd", "Odd", "class Odd(Exception):\n    def __init__(self, a, b): super().__init__(a)"),
)
DEADLY = (
    *(Fault(f"os._exit({code})", "", "WorkerDied") for code in (0, 3)),
    *(Fault(f"os.kill(os.getpid(), signal.{name})", "", "WorkerDied") for name in ("SIGKILL", "SIGSEGV")),
    Fault("threading.Lock() if i in bad else ", "", "NotShippable", wraps=True),
    *(
        Fault(f"subprocess.Popen(['sh', '-c', f'sleep {seconds}; kill -9 {{os.getpid()}}'])", "", "WorkerDied", late=True)
        for seconds in (0, 0.01, 0.05)
    ),
)


# --- cells --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell and what it must do."""

    number: int
    shape: Shape
    setup: str
    text: str
    n: int  # items of the clause
    value: Value
    fault: Fault | None = None
    bad: frozenset[int] = frozenset()
    keep_going: bool = False
    timeout: bool = False
    marks: bool = False
    interrupts: tuple[float, ...] = ()

    def items(self, label: str) -> int:
        """Return how many items an arm has: in SPMD its ranks; the serial arm those of the first parallel one."""
        if not self.shape.spmd:
            return self.n
        counts = dict(zip(self.shape.labels(), self.shape.arms, strict=True))
        kind, workers = counts[label]
        return workers if kind != "serial" else next((n for other, n in self.shape.arms if other != "serial"), 1)

    def __str__(self) -> str:
        """Show all that there is to run again by hand."""
        struck = f"\n# Ctrl-C after {', then '.join(f'{s:.4f}' for s in self.interrupts)} s" if self.interrupts else ""
        return f"{self.setup}\n# ---\n{self.text}{struck}"


FAMILIES = (
    ("procs",), ("procs",), ("procs",), ("threads",), ("threads",), ("serial",), ("serial", "threads"), ("serial", "procs"),
    ("threads", "procs"), ("serial", "threads", "procs"),
)  # fmt: skip


def draw(seed: int, number: int) -> Cell:
    """Draw a cell; the same pair gives the same cell."""
    rng = random.Random(f"{seed}/{number}")
    shape = _shape(rng)
    value = rng.choice([v for v in VALUES if not (shape.spmd and v is _array_items)])(rng, shape)
    mood = ""
    if rng.random() < HOSTILE:
        mood, noises, fault = _hostile(rng, shape)
        calm = False
    else:
        noises = [found for make in rng.sample(NOISES, rng.choice([0, 0, 1, 1, 2])) if (found := make(rng, shape))]
        calm = any(noise.calm for noise in noises)
        fault = None if calm or rng.random() < 0.55 else rng.choice(RAISED + DEADLY * 2 if shape.isolated else RAISED)
    if fault is not None and fault not in RAISED and any("Lock()" in noise.setup for noise in noises):
        fault = None  # who is killed in there leaves the lock locked, for whoever comes
    n = _how_many(rng, value, noises)
    bad = _bad(rng, fault, min(n, 20_000) if not shape.spmd else max(workers for _, workers in shape.arms))
    options, keep_going, timeout = _options(rng, shape, calm=calm, n=n, stops=fault is not None and fault.stops)
    strike = () if calm or rng.random() > 0.18 else tuple(10 ** rng.uniform(-2.5, 0.2) for _ in range(rng.choice([1, 1, 2])))
    return Cell(
        number, shape, _setup(value, noises, fault, bad, mood), _cell_text(rng, shape, value, noises, fault, n, options), n, value, fault, bad,
        keep_going, timeout, any(noise.marks for noise in noises), strike,
    )  # fmt: skip


def _hostile(rng: random.Random, shape: Shape) -> tuple[str, list[Noise], Fault | None]:
    """Draw what the notebook does about signals, a deed that no result may suffer from, or a fault."""
    kind = rng.choice(["mood", "deed", "deed", "deed", "fault", "fault"])
    raised = RAISED + tuple(Fault("raise Own(i)", "Own", "Own NotShippable", setup) for setup in hostile_bodies.EXCEPTIONS)
    fault = rng.choice(raised) if rng.random() < 0.3 else None
    if kind == "mood":
        quiet = [found for make in rng.sample((_print, _mark, _child, _thread), 1) if (found := make(rng, shape))]
        return rng.choice(hostile_bodies.MOODS), quiet, fault
    if kind == "deed":
        deed = rng.choice(hostile_bodies.ANYWHERE + hostile_bodies.ISOLATED * 4 if shape.isolated else hostile_bodies.ANYWHERE)
        every = rng.choice([1, 1, 3, 7])
        text = deed.text if every == 1 else f"if i % {every} == 0:\n{textwrap.indent(deed.text, '    ')}"
        return "", [Noise(text, deed.cost, deed.setup)], fault
    deadly = [Fault(each.text, "", each.error, each.setup, late=each.late, stops=each.stops) for each in hostile_bodies.FATAL]
    faults = [*raised[len(RAISED) :], *(deadly * 3 if shape.isolated else [])]
    return "", [_print(rng, shape)] if rng.random() < 0.3 else [], rng.choice(faults)


def _shape(rng: random.Random) -> Shape:
    arms: list[tuple[str, int]] = []
    for kind in rng.choice(FAMILIES):
        many = 1 if kind == "serial" or rng.random() < 0.85 else 2
        arms += [(kind, n) for n in rng.sample((1,) if kind == "serial" else (1, 2, 2, 3, 4, 8)[1 if many > 1 else 0 :], many)]
    rng.shuffle(arms)
    workers = sum(n for kind, n in arms if kind == "procs")
    methods = ["fork", "fork", "forkserver", *(["spawn"] if workers <= 4 else [])]  # each spawned one starts Python anew
    return Shape(tuple(dict.fromkeys(arms)), rng.random() < 0.2, rng.choice(methods) if workers and rng.random() < 0.2 else "")


def _how_many(rng: random.Random, value: Value, noises: list[Noise]) -> int:
    """Draw the number of items, so that one serial run takes less than half a second and 32 MB."""
    cost = value.cost + sum(noise.cost for noise in noises)
    n = rng.choice([0, 1, 2, rng.randint(3, 12), rng.randint(10, 60), rng.randint(60, 400), rng.randint(400, 20_000)])
    return min(n, value.most, int(0.5 / cost), int(32e6 / value.size) + 1)


def _bad(rng: random.Random, fault: Fault | None, n: int) -> frozenset[int]:
    if fault is None or not n:
        return frozenset()
    most = n if fault in RAISED else 4
    return frozenset(rng.sample(range(n), min(n, most, rng.choice([1, 1, 2, 3, n, n // 3 + 1]))))


def _options(rng: random.Random, shape: Shape, *, calm: bool, n: int, stops: bool) -> tuple[str, bool, bool]:
    words = []
    trace = rng.choice(["", "", "auto", "off", "off", "full"] if n < 2000 else ["auto", "off"])
    words += [f"--trace {trace}"] * bool(trace)
    words += ["-q"] * (rng.random() < 0.5) + ["--once"] * (rng.random() < 0.5)
    words += [f"--chunk {rng.randint(1, 50)}"] * (rng.random() < 0.2)
    if keep_going := rng.random() < 0.5:
        words.append("--keep-going")
    if timeout := stops or (not calm and rng.random() < 0.1):
        words.append(f"--timeout {10 ** rng.uniform(-2, 0.5):.3f}")
    words += [f"--start-method {shape.start_method}"] * bool(shape.start_method)
    rng.shuffle(words)
    return " ".join(words), keep_going, timeout


def _setup(value: Value, noises: list[Noise], fault: Fault | None, bad: frozenset[int], mood: str) -> str:
    parts = [IMPORTS, mood, value.setup, *(noise.setup for noise in noises)]
    if fault is not None:
        parts += [fault.setup, f"bad = {set(bad) or 'set()'}"]
    return "\n".join(part for part in parts if part)


def _cell_text(
    rng: random.Random, shape: Shape, value: Value, noises: list[Noise], fault: Fault | None, n: int, options: str
) -> str:  # fmt: skip
    wraps = fault is not None and fault.wraps
    parts = [noise.text for noise in noises]
    if fault is not None and not wraps:
        parts.append(f"if i in bad:\n{textwrap.indent(fault.text, '    ')}")
    rng.shuffle(parts)
    parts.append(f"{fault.text if wraps and fault else ''}{value.text}")
    clause = value.clause or rng.choice(["for i in range({n})", "for i in (k for k in range({n}))", "for i in range(-5, {n}) if i >= 0"])
    if shape.spmd:
        parts.insert(0, "i = worker.rank")
        clause = ""
    return "\n".join([f"%%parallel {' '.join(shape.labels())} {options} {clause.format(n=n)}".rstrip(), *parts])


# --- the oracle ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cell did: its run (None where there is none), what it raised, what it printed, and when it was struck."""

    run: Any
    raised: BaseException | None
    printed: str
    struck: float  # the last Ctrl-C, on the monotonic clock; 0 without
    ended: float


def judge(cell: Cell, outcome: Outcome) -> Iterator[str]:
    """Yield all that is wrong with what a cell did."""
    run, raised = outcome.run, outcome.raised
    if outcome.struck and outcome.ended - outcome.struck > SLOW_TO_END:
        yield f"Ctrl-C took {outcome.ended - outcome.struck:.1f} s"
    if run is None:
        if not (outcome.struck and isinstance(raised, KeyboardInterrupt)):
            yield f"no run, but {raised!r}"
        return
    if raised is not run.error and not (outcome.struck and isinstance(raised, KeyboardInterrupt)):
        yield f"the cell raised {raised!r}, the run's error is {run.error!r}"
    yield from _judge_error(cell, outcome)
    done = run.error is None
    for timeline in run._study.timelines:
        yield from _judge_arm(cell, run, timeline.arm.label, complete=done)
    if done and len(run._study.timelines) != len(_expected_arms(cell, run)):
        yield f"arms {[t.arm.label for t in run._study.timelines]}"
    yield from _judge_tables(run)
    if done and cell.marks and not (cell.fault and cell.fault.abroad == "WorkerDied" and cell.bad):
        yield from _judge_prints(cell, outcome)


def _expected_arms(cell: Cell, run: Any) -> list[str]:
    left_out = cell.shape.spmd and any("serial arm was left out" in note for note in run.notes)
    return [label for label in cell.shape.labels() if not (left_out and label == "serial")]


def _judge_error(cell: Cell, outcome: Outcome) -> Iterator[str]:
    """A run may end early for a reason that the cell has, and must where it has one."""
    run, error = outcome.run, outcome.run.error
    name = type(error).__name__
    bad = any(k < timeline.n_items for timeline in run._study.timelines for k in cell.bad)
    if error is None:
        if bad and not (cell.fault and (cell.fault.late or (cell.keep_going and not cell.fault.stops))):
            yield "bad items, and no error"
        early = outcome.struck and outcome.struck < run._study.timelines[-1].end - 0.02
        # Python itself drops an exception in a finalizer, or in what it calls after a fork, and says so
        if early and not isinstance(outcome.raised, KeyboardInterrupt) and "Exception ignored in" not in outcome.printed:
            yield "Ctrl-C was swallowed"
    elif isinstance(error, KeyboardInterrupt):
        if not outcome.struck:
            yield "KeyboardInterrupt from nowhere"
    elif isinstance(error, parmagic.RunTimeout):
        if not cell.timeout:
            yield "RunTimeout from nowhere"
    elif not bad or (cell.keep_going and not (cell.fault and cell.fault.stops)):
        yield f"unexpected {error!r}"
    elif name not in _names(cell, run._study.timelines[-1].arm.model.name):
        yield f"the wrong error {error!r}"
    elif name == "WorkerDied" and not cell.fault.late and int(re.findall(r"in item (\d+)", str(error))[-1]) not in cell.bad:
        yield f"the wrong item in {error!r}"


def _names(cell: Cell, kind: str) -> set[str]:
    """Return what a bad item's error may be called; a serial arm beside threads is in a process."""
    if cell.fault is None:
        return set()
    here, abroad = set(cell.fault.here.split()), set(cell.fault.abroad.split())
    return {"threads": here, "procs": abroad}.get(kind, here | abroad)


def _judge_arm(cell: Cell, run: Any, label: str, *, complete: bool) -> Iterator[str]:
    """Each item has its value, or its error and no value; at most five that do not are shown."""
    results = run.arm(label).results
    errors = run.items.loc[label]["error"].tolist() if len(run.items) else []
    n = cell.items(label)
    if not len(results) == len(errors) == n:
        yield f"{label}: {n} items, {len(results)} results, {len(errors)} rows"
        return
    names = _names(cell, label.partition("=")[0])
    deaths = [item for item, error in enumerate(errors) if error is not None and error.startswith("WorkerDied")]
    late = cell.fault is not None and cell.fault.late
    # items that were done and not reported yet are run again, and send for their killer again
    if late and "--chunk 1 " in cell.text and len(deaths) > len(cell.bad):
        yield f"{label}: {len(cell.bad)} workers were killed, items {deaths} died"
    wrong = [
        f"{label}: item {item}: {why}"
        for item, (value, error) in enumerate(zip(results, errors, strict=True))
        if (why := _judge_item(cell, item, value, error, names, complete=complete, may_fail=late or item in cell.bad, must=not late))
    ]
    yield from wrong[:5]


def _judge_item(
    cell: Cell, item: int, value: Any, error: str | None, names: set[str], *, complete: bool, may_fail: bool, must: bool
) -> str:  # fmt: skip
    """Return what is wrong with an item; nothing where it is right."""
    if error is None:
        if must and item in cell.bad:
            return f"should have failed, and is {_short(value)}"
        return "" if same(value, cell.value.expect(item)) else f"is {_short(value)}, should be {_short(cell.value.expect(item))}"
    if value is not None:
        return f"has a value beside {error}"
    if may_fail and error.partition(":")[0] in names:
        return ""
    ended = error.startswith(("not started", "Ended"))
    return "" if ended and not complete else f"failed with {error}"


def same(got: Any, wanted: Any) -> bool:
    """Tell whether a result is what it should be, down to its type."""
    if isinstance(wanted, np.ndarray):
        return isinstance(got, np.ndarray) and got.dtype == wanted.dtype and np.array_equal(got, wanted)
    return isinstance(got, type(wanted)) and bool(got == wanted)


def _short(value: Any) -> str:
    text = repr(value[:60] if isinstance(value, (str, bytes)) else value)
    return text if len(text) < 100 else text[:100] + "…"


def _judge_tables(run: Any) -> Iterator[str]:
    """States tile the wall time; nothing is negative; nothing in an item is longer than the item."""
    states = [f"{state}_s" for state in WORKER_STATES]
    for key, row in run.workers.iterrows():
        if abs(np.nansum(row[states].astype(float)) - row["wall_s"]) > 1e-6 * row["wall_s"]:
            yield f"{key}: states add up to {np.nansum(row[states].astype(float))}, not to {row['wall_s']}: {dict(row[states])}"
        if not np.isfinite(row["unknown_s"]):
            yield f"{key}: unknown_s is {row['unknown_s']}"
    for name in ("workers", "items", "waits", "summary"):
        numbers = getattr(run, name).select_dtypes("number")
        low = numbers.min().min() if numbers.size else 0.0
        if low < -1e-9:
            yield f"{name} has {low} in {[c for c in numbers if numbers[c].min() < -1e-9]}"
    items = run.items
    inner = items[["running_s", "gil_wait_s", "lock_wait_s", "io_wait_s"]].sum(axis=1)
    if (inner > items["wall_s"] * (1 + 1e-6) + 1e-9).any():
        yield f"an item holds more than its time: {items[inner > items['wall_s'] * (1 + 1e-6) + 1e-9].head(2).to_dict('records')}"
    waits = run.waits
    if (waits["max_s"] > waits["total_s"] * (1 + 1e-9) + 1e-12).any():
        yield "a longest wait exceeds its sum"
    if not run.verdict or not repr(run):
        yield "an empty report"


def _judge_prints(cell: Cell, outcome: Outcome) -> Iterator[str]:
    """Each item's line appears once per arm, behind its worker, also of items that failed or not, as the mark comes first or last."""
    found = Counter((kind, int(item)) for kind, item in re.findall(r"^\[(\w+) \d+\] .*?<(\d+)>$", outcome.printed, re.MULTILINE))
    for label in _expected_arms(cell, outcome.run):
        kind = label.partition("=")[0]
        times = sum(1 for other in cell.shape.labels() if other.partition("=")[0] == kind)
        if FLOOD in cell.text and 20_000 * cell.items(label) > MOST and any("more than is shown" in note for note in outcome.run.notes):
            continue  # behind the first megabyte, lines are counted only
        for item in range(cell.items(label)):
            least = 0 if item in cell.bad else 1  # of several SPMD arms, the smaller ones have not all ranks
            allowed = set(range(least, times + 1)) if cell.shape.spmd else {times, times * least}
            if found[kind, item] not in allowed:
                yield f"{label}: <{item}> was printed {found[kind, item]} times, not {times}"
                return


# --- what is left behind ------------------------------------------------------------------


@dataclass(slots=True)
class Grounds:
    """This process as it was, to be compared with what cells leave."""

    known: set[int]  # processes
    base: Path
    descriptors: Counter[str] = field(default_factory=Counter)
    shm: set[str] = field(default_factory=set)
    threads: set[str] = field(default_factory=set)

    def learn(self) -> None:
        """Take what is there now as what may be there."""
        self.descriptors = _descriptors()
        self.shm, self.threads = _shm(), {thread.name for thread in threading.enumerate()}

    def leftovers(self, runs: int = 20) -> list[str]:
        """Return what does not belong here, once it had time to go; ``runs`` may have files."""
        deadline = time.monotonic() + SETTLING
        gc.collect()
        while (found := [*self._look(runs)]) and time.monotonic() < deadline:
            time.sleep(0.02)
            gc.collect()
        return found

    def _look(self, most: int) -> Iterator[str]:
        subprocess._cleanup()  # what threads of the body left unwaited, as any notebook would have it
        yield from self._processes()
        yield from (f"thread {t.name}" for t in threading.enumerate() if t.name not in self.threads)
        yield from (f"{n} descriptors of {name}" for name, n in (_descriptors() - self.descriptors).items())
        yield from (f"/dev/shm/{name}" for name in _shm() - self.shm if not _half_made(name) and not _of_others(name))
        yield from (f"temporary {name}" for name in os.listdir(self.base / "tmp"))
        runs = len(list((self.base / "work" / ".parmagic").glob("run-*")))
        if runs > most:
            yield f"{runs} runs in .parmagic"
        extension = sys.modules.get("parmagic.record._waits")
        if extension is not None and extension.state()["patched"]:
            yield f"hooks: {extension.state()}"
        if sys.getprofile() or threading.getprofile():
            yield "a profile function"

    def _processes(self) -> Iterator[str]:
        server = hub._server.pid if hub._server is not None and hub._server.alive() else -1
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                line, parent = " ".join(child.cmdline()), child.ppid()
                if child.pid in self.known or child.pid == server or "resource_tracker" in line:
                    continue
                if parent == server and child.name() in {"parmagic server", "parmagic spare", "parmagic sample"}:
                    continue  # spares are called after the server when they are born
                yield f"process {child.pid} ({child.status()}) of {parent}: {line[:100]}"
        yield from (f"process {pid} of a server that is not in use" for pid in kin.other_servers())
        yield from (f"process {pid}, a daemon that a body has started" for pid in hostile_bodies.daemons())


def _descriptors() -> Counter[str]:
    """Return how many descriptors of each sort are open; the heap of multiprocessing keeps its arenas for good."""
    found: Counter[str] = Counter()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[re.sub(r"\d+", "#", str(path.readlink()))] += 1
    return Counter({name: n for name, n in found.items() if "/pym-" not in name})


def _shm() -> set[str]:
    """Return the segments and semaphores of our user that multiprocessing, or parmagic, may have made."""
    found = set()
    for path in Path("/dev/shm").iterdir():
        with suppress(OSError):
            if path.name.startswith(("sem.", "psm_", "pym-", "parmagic")) and path.stat().st_uid == os.getuid():
                found.add(path.name)
    return found


def _half_made(name: str) -> bool:
    """Tell whether this is what the C library makes of a semaphore before it has its name: a worker that is killed in that moment leaves it.

    It is left there on purpose, as nobody can tell whose it is; it is no larger than that, and has that one name.
    """
    with suppress(OSError):
        about = Path("/dev/shm", name).stat()
        return re.fullmatch(r"sem\.[A-Za-z0-9]{6}", name) is not None and about.st_size <= 32 and about.st_nlink == 1
    return False


def _of_others(name: str) -> bool:
    """Tell whether a process that is none of ours has a segment mapped: this machine may run other tests as well."""
    ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    for pid in set(psutil.pids()) - ours:
        with suppress(OSError):
            if name in Path(f"/proc/{pid}/maps").read_text():
                return True
    return False


def _frugal() -> None:
    """Have glibc give large blocks back, and share one arena: each thread's own keeps tens of MB that nobody uses."""
    with suppress(AttributeError):
        for option, value in ((-3, 1 << 17), (-8, 1)):  # M_MMAP_THRESHOLD, M_ARENA_MAX
            ctypes.CDLL(None).mallopt(option, value)


def resident_mb(stage: Stage) -> float:
    """Return this process's memory, without the last run's results and what the allocator keeps for later."""
    stage.play(Cell(-1, Shape((("threads", 1),), spmd=False), "", "%%parallel threads=1 --once --trace off for i in range(1)\ni", 1, _INDEX))
    stage.let_go()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 1e6


# --- running ------------------------------------------------------------------------------

_STRIKER = """
import os, select, signal, sys, time
def line():
    text = b""
    while not text.endswith(b"\\n"):
        text += os.read(0, 1) or os._exit(0)
    return text.split()
while True:
    struck = 0.0
    for delay in line():
        if select.select([0], [], [], float(delay))[0]:
            break
        struck = time.monotonic()
        os.kill(int(sys.argv[1]), signal.SIGINT)
    line()
    os.write(1, b"%.6f\\n" % struck)
"""


class Striker:
    """A process that sends Ctrl-C: a thread of ours would be a user's thread, with which nothing is forked."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", _STRIKER, str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True)
        self.pid = self._process.pid

    def aim(self, delays: tuple[float, ...]) -> None:
        """Strike after each of these delays, from now."""
        assert self._process.stdin
        self._process.stdin.write((" ".join(map(str, delays)) + "\n").encode())

    def rest(self) -> float:
        """Strike no more; return when the last strike was, 0 where there was none."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"\n")
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        with self._process:
            self._process.kill()


class Stuck(BaseException):
    """Raised in a cell that hangs."""


def _stuck(*_: Any) -> None:
    faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
    raise Stuck(f"the cell hung for {STUCK:g} s")


@dataclass(slots=True)
class Summary:
    """What a soak has seen."""

    seed: int
    kinds: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    interrupts: int = 0
    timeouts: int = 0
    errors: int = 0
    leftovers: int = 0
    wrong: int = 0
    grown_mb: float = 0.0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Say it on one line."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.kinds.items()) if kind != "cells")
        return (
            f"seed {self.seed}: {self.kinds['cells']} cells ({kinds}), {self.deaths} deaths, {self.interrupts} interrupts, "
            f"{self.timeouts} timeouts, {self.errors} errors, {self.leftovers} leftovers, {self.wrong} wrong results, "
            f"RSS growth {self.grown_mb:.1f} MB"
        )

    def count(self, cell: Cell, outcome: Outcome) -> None:
        """Count what a cell was and how it ended."""
        self.kinds.update(["cells", *cell.shape.kinds, *(["spmd"] if cell.shape.spmd else [])])
        run = outcome.run
        self.interrupts += isinstance(outcome.raised, KeyboardInterrupt)
        self.timeouts += isinstance(outcome.raised, parmagic.RunTimeout)
        self.errors += outcome.raised is not None and not isinstance(outcome.raised, (KeyboardInterrupt, parmagic.RunTimeout))
        if run is not None and len(run.items):
            self.deaths += int(run.items["error"].astype(str).str.startswith("WorkerDied").sum())


class Stage:
    """A fresh shell in a folder of its own, and what runs cells in it."""

    def __init__(self, base: Path, striker: Striker) -> None:
        self._striker = striker
        InteractiveShell.clear_instance()
        # no history, neither the shell's nor that of outputs: they would keep all results
        # IPython's usual tracebacks keep the tokens of every cell that failed
        quiet = Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"cache_size": 0, "xmode": "Plain"}})
        self.shell = InteractiveShell.instance(config=quiet)
        self.shell.run_line_magic("load_ext", "parmagic")
        self.grounds = Grounds({striker.pid, *(child.pid for child in psutil.Process().children(recursive=True))}, base)

    def play(self, cell: Cell) -> Outcome:
        """Run a cell as a user would, and strike it where that is asked for."""
        self.shell.reset(new_session=False)
        before, printed = parmagic.last(), StringIO()
        raised: BaseException | None = None
        with redirect_stdout(printed), redirect_stderr(printed):
            signal.setitimer(signal.ITIMER_REAL, STUCK)
            try:
                self.shell.run_cell(cell.setup, silent=True).raise_error()
                if cell.interrupts:
                    self._striker.aim(cell.interrupts)
                result = self.shell.run_cell(cell.text)
                raised = result.error_before_exec or result.error_in_exec
            except KeyboardInterrupt as late:  # it struck the shell, not the run
                raised = late
            struck, ended = self._calm(cell), time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0)
            hostile_bodies.cheer_up()
            if sys.stdout is not printed or sys.stderr is not printed:
                raise AssertionError(f"streams are not restored: {sys.stdout} {sys.stderr}")
        run = parmagic.last()
        return Outcome(run if run is not before else None, raised, printed.getvalue(), struck, ended)

    def _calm(self, cell: Cell) -> float:
        """Take no more Ctrl-C; return when it last came."""
        while True:
            try:
                handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
                break
            except KeyboardInterrupt:
                continue
        struck = self._striker.rest() if cell.interrupts else 0.0
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if handler not in (signal.default_int_handler, signal.SIG_IGN):
            raise AssertionError(f"SIGINT is left to {handler}")
        return struck

    def problems(self, cell: Cell, summary: Summary) -> list[str]:
        """Run a cell; return all that is wrong with it and with what it left."""
        try:
            outcome = self.play(cell)
            wrong = [*judge(cell, outcome)]
            summary.count(cell, outcome)
            del outcome
        except Exception:  # noqa: BLE001  (whatever it is, it is the cell's problem)
            wrong = [traceback.format_exc()]
        self.let_go()
        cleaned = [f"left behind: {each}" for each in self.grounds.leftovers(20 + bool(cell.interrupts))]  # the next run cleans up
        summary.wrong += bool(wrong)
        summary.leftovers += bool(cleaned)
        if cleaned:
            self.grounds.learn()  # once is enough
            self._clean()
        return wrong + cleaned

    def let_go(self) -> None:
        """Drop what tracebacks keep: the last exception holds frames, and they hold items."""
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            vars(sys).pop(name, None)
        self.shell.InteractiveTB.tb = None
        self.shell.reset(new_session=False)
        gc.collect()

    def _clean(self) -> None:
        server = hub._server.pid if hub._server is not None else -1
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if child.pid not in self.grounds.known and child.pid != server and "resource_tracker" not in " ".join(child.cmdline()):
                    child.kill()
        for pid in (*kin.other_servers(), *hostile_bodies.daemons()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in (self.grounds.base / "tmp").iterdir():
            shutil.rmtree(path, ignore_errors=True)


_INDEX = Value("i", lambda i: i)
_WARM = (
    # VizTracer's ring is full once, and grows no more
    ("", "%%parallel threads=2 --trace full --once for i in range(20)\nfor _ in range(60_000): abs(i)\nsum(k * i for k in range(10))"),
    ("", "%%parallel serial threads=2 procs=2 for i in range(20)\nsum(k * i for k in range(10))"),
    ("", "%%parallel threads=2 --trace full for i in range(20)\nsum(k * i for k in range(10))"),
    ("", "%%parallel procs=2 --start-method fork for i in range(20)\nsum(k * i for k in range(10))"),
    ("", "%%parallel procs=2 --start-method spawn for i in range(20)\nsum(k * i for k in range(10))"),
    ("lock = multiprocessing.get_context('forkserver').Lock()", "%%parallel procs=2 for i in range(20)\nwith lock: pass\nsum(k * i for k in range(10))"),
    ("", "%%parallel procs=2 for i in range(20)\nif i in bad: 1 / 0\nsum(k * i for k in range(10))"),
)


def _warm(stage: Stage, summary: Summary) -> None:
    """Run a plain cell of every sort, so that all is loaded that ever will be, and learn what that leaves."""
    value = Value("", lambda i: 45 * i)
    shapes = {"serial": ("serial", 1), "threads=2": ("threads", 2), "procs=2": ("procs", 2)}
    for setup, text in _WARM:
        arms = tuple(arm for label, arm in shapes.items() if label in text.split("for")[0])
        fault = Fault("", "ZeroDivisionError", "ZeroDivisionError") if "bad" in text else None
        cell = Cell(-1, Shape(arms, spmd=False), f"{IMPORTS}\nbad = {{3}}\n{setup}", text, 20, value, fault, frozenset({3} if fault else ()))
        _note(summary, cell, [*judge(cell, stage.play(cell))])
        stage.let_go()
    stage.grounds.learn()


def _fill(stage: Stage, summary: Summary) -> None:
    """Fill VizTracer's ring, which takes 100 MB in this process for good: what grows beyond that grows without end."""
    text = "%%parallel threads=2 --trace full for i in range(20)\nsum(one(k) for k in range(60_000))"
    setup = f"{IMPORTS}\ndef one(k):\n    return 1"
    cell = Cell(-1, Shape((("threads", 2),), spmd=False), setup, text, 20, Value("", lambda _: 60_000), None, frozenset())
    _note(summary, cell, [*judge(cell, stage.play(cell))])
    stage.let_go()


@contextmanager
def _stage(seed: int) -> Iterator[Stage]:
    """Set everything up, and put it back as it was."""
    _frugal()
    base, before = Path(tempfile.mkdtemp(prefix=f"soak-{seed}-")), Path.cwd()
    (base / "tmp").mkdir()
    (base / "work").mkdir()
    old = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGINT)}
    temporary, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    os.chdir(base / "work")
    tempfile.tempdir = os.environ["TMPDIR"] = str(base / "tmp")
    os.environ[hostile_bodies.MARK] = str(os.getpid())
    striker = Striker()
    try:
        signal.signal(signal.SIGALRM, _stuck)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        hub.close()
        hub.get()
        if hooks.why_inferred():
            watch.watch.wait_until_ready()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the bodies', about what they leave running
            yield Stage(base, striker)
    finally:
        striker.close()
        hub.close()
        InteractiveShell.clear_instance()
        for number, handler in old.items():
            signal.signal(number, handler)
        tempfile.tempdir = temporary
        os.environ.pop("TMPDIR")
        os.environ.pop(hostile_bodies.MARK)
        os.environ.update({} if variable is None else {"TMPDIR": variable})
        os.chdir(before)
        shutil.rmtree(base, ignore_errors=True)


def soak(seconds: float, seed: int, only: int | None = None, *, verbose: bool = False, undisturbed: bool = False) -> Summary:
    """Run random cells for that long (``undisturbed``: without Ctrl-C); return what was seen. A quarter of the time, at most a minute, is warm-up for the memory."""
    summary = Summary(seed)
    begin = time.monotonic()
    resident = 0.0
    with _stage(seed) as stage:
        _warm(stage, summary)
        if seconds >= LONG:
            _fill(stage, summary)
        for number in count():
            passed = time.monotonic() - begin
            if passed > seconds or len(summary.failures) >= ENOUGH:
                break
            if not resident and passed > min(60.0, seconds / 4):
                resident = resident_mb(stage)
            cell = draw(seed, number if only is None else only)
            if undisturbed:
                cell = replace(cell, interrupts=())
            if verbose:
                print(f"{passed:6.1f} s  {cell.number}: {cell.text.splitlines()[0]}", file=sys.__stderr__, flush=True)
            _note(summary, cell, stage.problems(cell, summary))
        summary.grown_mb = resident_mb(stage) - resident
    if summary.grown_mb > GROWTH:
        summary.failures.append(f"memory grew by {summary.grown_mb:.1f} MB")
    return summary


def _note(summary: Summary, cell: Cell, problems: list[str]) -> None:
    if problems:
        lines = "\n".join(f"  * {problem}" for problem in problems)
        summary.failures.append(f"--seed {summary.seed} --only {cell.number}\n{lines}\n{cell}")
        print(f"FAILED {summary.failures[-1]}\n", file=sys.__stdout__, flush=True)


def main() -> int:
    """Read the command line, soak, and say how it went."""
    parser = argparse.ArgumentParser(description="Run random cells and check each against an oracle.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None, help="a random one by default")
    parser.add_argument("--only", type=int, default=None, metavar="K", help="run cell K again and again")
    parser.add_argument("--verbose", action="store_true", help="name each cell before it runs")
    parser.add_argument("--undisturbed", action="store_true", help="send no Ctrl-C")
    words = parser.parse_args()
    seed = words.seed if words.seed is not None else random.SystemRandom().randrange(1_000_000)
    summary = soak(words.seconds, seed, words.only, verbose=words.verbose, undisturbed=words.undisturbed)
    print(summary)
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
