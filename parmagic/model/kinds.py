"""What a worker's time can go to, and what it can wait for: one row for each, which all else that lists them follows from.

The hooks know the states that they measure and the kinds that they tell apart by
their places here; ``waits/waits.h`` has them in the same order, and
:mod:`parmagic.record.hooks` refuses an extension that does not.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class State(NamedTuple):
    """What a second of a worker can go to: a column of ``Run.workers`` (with ``_s``).

    ``words`` are what reports call it. They draw it in ``color``, in a terminal as ``glyph`` (or ``ascii``) on colour
    ``code`` of 256; in a stack of all states, ``layer`` says from below where. ``source`` is who tells of it. Hooks
    measure ``hooks`` and ``clocks``; where nothing is hooked, a worker's clocks tell the second, and the first is
    inferred from samples, or not known. A ``span`` is noted by the worker itself, ``rest`` is what is left.
    ``own`` says that a serial run would have to spend it as well, ``delays`` that it also delays a worker's start, and is no part of it.
    """

    name: str
    words: str
    color: str
    glyph: str
    ascii: str
    code: int
    layer: int
    source: Literal["clocks", "hooks", "span", "rest"]
    own: bool = False
    delays: bool = False


# In the order of the columns. The colours are Okabe and Ito's (2008), which most kinds of colour blindness can tell
# apart; neutral greys stand for what is nobody's wait. Idle is drawn beneath all others, and see-through on any background.
STATES = (
    State("startup", "start-up", "#8c8c8c", "s", "s", 245, 8, "span"),
    State("running", "running", "#009e73", "█", "#", 35, 0, "clocks", own=True),
    State("native", "native code", "#0072b2", "n", "n", 25, 1, "hooks", own=True),
    State("gil_wait", "GIL wait", "#d55e00", "G", "G", 166, 2, "hooks", delays=True),
    State("lock_wait", "lock wait", "#e69f00", "L", "L", 214, 3, "hooks"),
    State("io_wait", "I/O wait", "#56b4e9", "I", "I", 74, 4, "hooks", own=True),
    State("sleep", "sleep", "#cc79a7", "z", "z", 175, 5, "hooks", own=True),
    State("cpu_wait", "core wait", "#f0e442", "C", "C", 227, 6, "clocks", delays=True),
    State("transfer", "transfer", "#882255", "T", "T", 89, 7, "span"),
    State("idle", "idle", "#8080802e", "·", ".", 0, 10, "rest"),
    State("unknown", "unknown", "#555555", "?", "?", 240, 9, "rest"),
)


class Kind(NamedTuple):
    """What a worker can wait for: a ``kind`` of ``Run.waits``.

    ``state`` is what its seconds count as; ``doing`` says what a worker is doing meanwhile. ``object`` is what the
    object of a wait is: an ``address`` (a lock's, or that of what it belongs to), a ``descriptor``, or nothing that is
    told. ``lock`` says that it ends when somebody else lets go. ``hooked`` kinds are those that hooks tell apart,
    ``sampled`` ones those that samples do; the others are found when it is known what lies at an address.
    """

    name: str
    state: str
    doing: str = "is blocked"
    object: Literal["address", "descriptor", ""] = ""
    lock: bool = False
    hooked: bool = True
    sampled: bool = False


KINDS = (
    Kind("gil", "gil_wait", "waits for the GIL", sampled=True),
    Kind("lock", "lock_wait", "waits for a lock", "address", lock=True, sampled=True),
    Kind("sleep", "sleep", "sleeps", sampled=True),
    Kind("socket", "io_wait", "waits for a socket", "descriptor"),
    Kind("poll", "io_wait", "waits for a descriptor", "descriptor"),
    Kind("file", "io_wait", "waits for a file", "descriptor"),
    Kind("pipe", "io_wait", "waits for a pipe", "descriptor"),
    Kind("child", "io_wait", "waits for a child process"),
    Kind("not named", "io_wait"),  # blocked in the kernel below the hooks
    Kind("queue", "lock_wait", "waits for a queue", "address", lock=True),
    Kind("work", "idle", "waits for work"),  # in a pool's own loop: only what a body starts does
    # a lock that every object has where there is no GIL; and the stop of all threads by the interpreter
    Kind("object", "lock_wait", object="address", lock=True, hooked=False),
    Kind("interpreter", "lock_wait", object="address", lock=True, hooked=False),
    # a library's own threads, which compute for who called it
    Kind("helpers", "lock_wait", "waits for helper threads", "address", lock=True, hooked=False),
    # samples do not tell one system call from another
    Kind("io", "io_wait", hooked=False, sampled=True),
)

KIND = {kind.name: kind for kind in KINDS}
"""The kinds by their names."""

WORKER_STATES = tuple(state.name for state in STATES)
"""All states, as the columns of ``Run.workers`` name them (each with ``_s``)."""

MEASURED = (*(state.name for state in STATES if state.source in {"clocks", "hooks"}), "idle")
"""The states that hooks measure, in the order of a tally's rows; idle is who waits in a pool's own loop."""

INFERRED = frozenset(state.name for state in STATES if state.source == "hooks")
"""States that only hooks can measure; everything else is known without them."""

SPANS = tuple(state.name for state in STATES if state.source == "span")
"""The states that a worker notes itself."""

REST = tuple(state.name for state in STATES if state.source == "rest")
"""The states that are what is left beside all others."""

OWN = tuple(state.name for state in STATES if state.own)
"""The states of work that no other worker causes."""

DELAYS = frozenset(state.name for state in STATES if state.delays)
"""The states that others cause while a worker starts."""

WAIT_KINDS = tuple(kind.name for kind in KINDS if kind.hooked)
"""What hooks tell apart: an event's ``kind`` is a place in it."""

SAMPLED = {kind.name: kind.state for kind in KINDS if kind.sampled}
"""What samples tell apart, and the state of each."""

SEEN = ("running", *SAMPLED)
"""What a thread can be seen doing: a sample is a place in it."""

LOCKS = frozenset(kind.name for kind in KINDS if kind.lock)
"""What is waited for until somebody else lets go of it."""

EVENTS = ("waited", "took", "released")
"""What an event tells of its object: so far, always a wait for it. What tells of anything else is no wait: ``Waits`` has them apart."""

VERSION = 3
"""Of what hooks tell: another one where something comes to mean something else, though it may be called the same."""
