"""Where messages between processes are counted while a run is on: connections, what queues pickle, and proxies of managers."""

from __future__ import annotations

import sys
from multiprocessing.reduction import ForkingPickler
from typing import Any

from parmagic.record.hooks import extension
from parmagic.record.standins import StandIn

_CALL, _DUMPS, _LOADS, _PROXY, _GET, _RECEIVE = range(6)
"""What counts them does (``_waits.exchange``)."""

_ROLES = {
    **dict.fromkeys(("send", "recv", "send_bytes", "recv_bytes", "recv_bytes_into"), _CALL),
    "dumps": _DUMPS,
    "loads": _LOADS,
    "_callmethod": _PROXY,
    "get": _GET,
    "_recv": _RECEIVE,
}

_CLASSES = (
    ("multiprocessing.connection", "_ConnectionBase"),
    ("multiprocessing.connection", "Connection"),
    ("multiprocessing.managers", "BaseProxy"),
    ("multiprocessing.queues", "Queue"),
)
"""Modules that are looked at where they are loaded: what is made of them has loaded them."""


class Exchange(StandIn):
    """Stands in a class in the place of a method, as an object of C: no frame of ours is in the way of who calls it."""

    def __init__(self, module: type, name: str) -> None:
        super().__init__(module, name)
        waits, _ = extension()
        assert waits is not None
        self.stands = waits.exchange(self.original, _ROLES[name])


def n_loaded() -> int:
    """Return how many of the modules are loaded by now that are looked at."""
    return sum(module in sys.modules for module, _ in _CLASSES)


_places: tuple[list[Any], list[tuple[type[StandIn], Any, str]]] = [], []


def places() -> list[tuple[type[StandIn], Any, str]]:
    """Return where to stand in, and as what; nowhere where nothing is measured."""
    global _places  # noqa: PLW0603  (of the classes that were there the last time, and mostly are now)
    if extension()[0] is None:
        return []
    classes = [ForkingPickler, *(getattr(sys.modules.get(module), name, None) for module, name in _CLASSES)]
    if _places[0] != classes:
        _places = classes, [(Exchange, kind, name) for kind in classes if kind is not None for name in _ROLES if name in vars(kind)]
    return _places[1]
