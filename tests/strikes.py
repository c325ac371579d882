"""Ctrl-C at the begin of every function that a run calls, one after another, and a look at what each of them left.

    python tests/strikes.py [MODEL …] [--most 5] [--baseline]

MODEL is as in a magic line: ``threads=2``, or ``toy=2`` of ``toy_model.py``.

That is where Python looks for signals, besides loops: also at the begin of an ``__exit__`` or of what a ``finally`` calls.
Each function is struck at its first ``--most`` calls, in this package and in what it uses of the standard library.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from toy_model import registered

import parmagic
from parmagic.model import traits
from parmagic.record import hooks, profiler

HOUSE = str(Path(parmagic.__file__).parent)
LIBRARY = ("contextlib.py", "threading.py", "subprocess.py", "queue.py", "socket.py")

SETTLING = 5.0
"""Seconds that threads of a run get to end."""


def name(frame: FrameType) -> str | None:
    """Return the file and the name of a function that is struck; None for others."""
    file = frame.f_code.co_filename
    if not file.startswith(HOUSE) and not file.endswith(LIBRARY):
        return None
    return f"{os.path.relpath(file, HOUSE) if file.startswith(HOUSE) else Path(file).name}:{frame.f_code.co_qualname}"


def _apart(call: Callable[[], Any]) -> Any:
    """Call, within a generator: what a strike there leaves as the exception being handled goes with it.

    Python 3.11 forgets none that an ``except`` block has caught if a tracer raises in that block: every later one would be told to have come
    "during the handling" of that.
    """
    return next(call() for _ in "1")


def traced(call: Callable[[], Any], at_begin: Callable[[str], None]) -> BaseException | None:
    """Call, and tell of every function's begin; return what was raised."""

    def tracer(frame: FrameType, event: str, _: Any) -> None:
        found = name(frame) if event == "call" else None
        if found is not None:
            at_begin(found)

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        _apart(call)
    except BaseException as error:  # noqa: BLE001  (it is looked at)
        return error
    finally:
        sys.settrace(before)
    return None


def at_line(line: int, within: Callable[[FrameType], bool], strike: Callable[[], Any], call: Callable[[], Any]) -> None:
    """Call, and strike behind so many lines of the functions that are ``within``; what that raises comes out."""
    remaining = line

    def tracer(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal remaining
        if not within(frame):
            return None
        remaining -= event == "line"
        if remaining < 0:
            sys.settrace(None)
            strike()
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        _apart(call)
    finally:
        sys.settrace(before)


def left() -> Iterator[str]:
    """Yield what a run left: threads, hooks, a tracer that nobody else can have."""
    until = time.monotonic() + SETTLING
    ours = tuple(f"parmagic {model.name}" for model in traits.known())
    while threads := [each.name for each in threading.enumerate() if each.name.startswith(ours)]:
        if time.monotonic() > until:
            yield f"threads: {threads}"
            break
        time.sleep(0.002)
    if not hooks.why_inferred() and (patched := hooks.extension()[0].state()["patched"]):
        yield f"{patched} hooks"
    if profiler.get().owner is not None:
        yield "the tracer is taken"
        profiler.get().owner = None


def strikes(call: Callable[[], Any], most: int = 1) -> Iterator[tuple[str, int, list[str]]]:
    """Strike each function at its first calls; yield its name, which call it was, and what was wrong then."""
    calls: Counter[str] = Counter()
    for _ in range(2):  # what is done once per process, and by the first run alone, is not what is looked at
        call()
    assert traced(call, lambda found: calls.update([found])) is None
    handler, streams = signal.getsignal(signal.SIGINT), (sys.stdout, sys.stderr)
    for target, times in sorted(calls.items()):
        for number in range(1, min(times, most) + 1):
            seen = 0

            def strike(found: str, target: str = target, number: int = number) -> None:
                nonlocal seen
                seen += found == target
                if found == target and seen == number:
                    sys.settrace(None)
                    signal.raise_signal(signal.SIGINT)

            error = traced(call, strike)
            if seen < number:
                continue  # how often some are called differs
            wrong = [] if isinstance(error, KeyboardInterrupt) or not error else [f"{type(error).__name__}: {error}"]
            if (sys.stdout, sys.stderr) != streams:
                wrong.append(f"streams: {sys.stdout} {sys.stderr}")
                sys.stdout, sys.stderr = streams
            if signal.getsignal(signal.SIGINT) is not handler:
                wrong.append(f"handler: {signal.getsignal(signal.SIGINT)}")
                signal.signal(signal.SIGINT, handler)
            if error is None and "__del__" not in target and "close" not in target:  # Python drops it within a finalizer
                wrong.append("the Ctrl-C is lost")
            yield target, number, [*wrong, *left()]
            del error


def main() -> int:
    """Strike everywhere; tell what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("models", nargs="*", default=["threads=2", "procs=2"])
    parser.add_argument("--most", type=int, default=5)
    parser.add_argument("--baseline", action="store_true")
    options = parser.parse_args()
    sys.unraisablehook = lambda _: None
    failed = 0
    for model in options.models:
        with registered():
            done = list(strikes(lambda model=model: parmagic.run(abs, [1, 2], model, once=not options.baseline, timeout=10), options.most))
        bad = [each for each in done if each[2]]
        failed += len(bad)
        print(f"{model}: {len(done)} strikes, {len(bad)} left something", *(f"  {target} ({number}): {wrong}" for target, number, wrong in bad), sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
