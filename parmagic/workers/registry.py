"""What makes the workers of each model; another model is registered here, with its traits.

The least that it has to do is one file in the tests' folder, ``toy_model.py``::

    register(Model("toy", …), lambda supply: ToyWorkers())      # %%parallel toy=2 for x in xs
"""

from __future__ import annotations

from collections.abc import Callable

from parmagic.model import traits
from parmagic.model.traits import PROCS, SERIAL, THREADS, Model
from parmagic.workers import Workers
from parmagic.workers.supply import Supply
from parmagic.workers.threads import SharedWorkers

Maker = Callable[[Supply], Workers]
"""Makes what runs one arm; ``supply`` has what is made once a run, say names and items as they are shipped."""


def _shared(_: Supply) -> Workers:
    return SharedWorkers()


_makers: dict[str, Maker] = {SERIAL.name: _shared, THREADS.name: _shared, PROCS.name: Supply.isolated}


def register(model: Model, make: Maker) -> None:
    """Let magic lines and ``parmagic.run`` have a model. Raises ValueError where one of its words is taken, or is no name."""
    traits.add(model)
    _makers[model.name] = make


def unregister(model: Model) -> None:
    """Take a model away again; runs that there are of it can still be looked at."""
    traits.remove(model)
    del _makers[model.name]


def workers(model: Model, supply: Supply) -> Workers:
    """Return what runs an arm of that model."""
    return _makers[model.name](supply)
