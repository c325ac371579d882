"""What the notebook and a worker process tell each other besides recordings."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from multiprocessing import current_process, resource_tracker
from typing import Any, NamedTuple

from parmagic.model.plan import Plan
from parmagic.system.descriptors import Descriptor, high
from parmagic.system.files import RunFile
from parmagic.workers.dispatch import Sharing
from parmagic.workers.processes import leftovers

Place = tuple[int, int]

LARGE = 1 << 20
"""Bytes from which on a buffer is mapped, not copied."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Where some pickles, one behind another, and their buffers lie in the file: (offset, size) each."""

    pickle: Place
    buffers: tuple[Place, ...]
    count: int = 1
    writable: tuple[int, ...] = ()  # those of the buffers that are each worker's own
    base: Blob | None = None  # what has to be read before

    @property
    def weight(self) -> int:
        """Return how many bytes they are."""
        return self.pickle[1] + sum(size for _, size in self.buffers) + (self.base.weight if self.base else 0)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a worker needs to know to read a cargo."""

    body: Blob
    segments: tuple[Blob, ...]
    firsts: tuple[int, ...]  # the first item of each segment
    size: int
    variables: dict[tuple[str, str], bytes]  # what ContextVars of modules hold, pickled
    shared: tuple[str, ...] = ()  # names whose buffers are mapped, read-only
    names: tuple[str, ...] = ()  # what stands before the body, by its name
    common: frozenset[Place] = frozenset()  # buffers that more than one item has, or an item and a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the notebook tells a worker at its start."""

    rank: int
    count: int  # workers of the arm
    model: str
    plan: Plan
    n_items: int
    begin: float  # of the arm, on the clock that spans are in
    sharing: Sharing
    left: tuple[range, ...]  # what a dead worker of this rank left undone,
    tried: dict[int, int]  # and how often it has tried what it died in
    trace_file: RunFile
    manifest: Manifest | None  # None: the body and the items are in our memory already
    environment: dict[str, Any] | None
    measure: bool  # by hooks, as the notebook does
    semaphores: str = field(default_factory=leftovers.prefix)  # what the names of its semaphores begin with


class Descriptors(NamedTuple):
    """What comes with the orders, and may be closed behind them; those of the cargo follow. Where there is none, it is the board's."""

    connection: int
    board: int
    out: int
    err: int
    box: int
    stack: int
    tracker: int  # of resources
    folder: int  # the working directory
    file: int  # the cargo's


class ForkOnly(Exception):
    """A multiprocessing primitive of the fork context: only forked workers can have it."""


class Unreadable(Exception):
    """A worker cannot unpickle the body, most often because an import fails there."""


def environment() -> dict[str, Any]:
    """Return what workers take over from this process besides its settings: variables, search path, key."""
    return {"variables": dict(os.environ), "path": list(sys.path), "key": bytes(current_process().authkey)}


def tracker_descriptor() -> int | None:
    """Return the pipe of this process's resource tracker: a worker without it would destroy segments that it attaches to.

    None where there is none: nothing of the notebook's is tracked, and what workers make is the server's tracker's business.
    To start one here would give the notebook a child that the user's own ``wait()`` waits for.

    multiprocessing writes to that number whatever file has it: it is moved out of the way of bodies
    that close what they did not open, and forgotten where one has closed it all the same.
    """
    global _tracker  # noqa: PLW0603  (as the tracker itself)
    theirs = vars(resource_tracker._resource_tracker)  # type: ignore[attr-defined, unused-ignore]  # noqa: SLF001
    if _tracker is not None and theirs["_fd"] == _tracker.number and not _tracker.is_ours():
        theirs["_fd"] = None
    if theirs["_fd"] is None:
        return None
    if _tracker is None or _tracker.number != theirs["_fd"]:
        theirs["_fd"] = high(theirs["_fd"])
        _tracker = Descriptor(theirs["_fd"])
    return _tracker.number


_tracker: Descriptor | None = None
