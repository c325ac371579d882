"""Models of workers, by their traits; the only room that knows them by name.

All others ask an arm's model what they have to know of it: ``arm.model.shares_memory``,
never ``arm.model.name == "threads"``. What makes a model's workers is registered beside them, see
:mod:`parmagic.workers.registry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from keyword import iskeyword

from parmagic.model.sent import sent


@sent
@dataclass(frozen=True, slots=True)
class Model:
    """A way to run items side by side, told by what its workers have in common.

    ``name`` stands in the magic line, in labels and tables; ``also`` are other words for it there, ``meant`` what
    people write who mean it: they get a hint. ``called`` is what sentences call its workers.
    """

    name: str
    called: str
    shares_memory: bool
    """Its workers read and change the notebook's own objects. Else names and items are shipped to them, and results back."""
    own_process: bool
    """Each of its workers is a process, with CPU time and memory that can be asked for."""
    shares_gil: bool
    """Its workers wait for one GIL, where their Python has one (which each worker tells: ``WorkerId.gil``)."""
    one_at_a_time: bool = False
    """It has one worker, takes no count, and runs ranks one after another: what speedups are measured against. Beside arms that
    change the notebook's objects it runs in a process that has them as they were before."""
    same_host: bool = True
    """Its workers run on the notebook's machine: they can be started, looked at and ended there."""
    also: tuple[str, ...] = ()
    meant: tuple[str, ...] = ()

    def with_count(self, count: object, word: str = "") -> str:
        """Return the name, or another word for it, and a number of workers, as the magic line has them; without one where it takes none."""
        return f"{word or self.name}={count}" if count and not self.one_at_a_time else word or self.name


SERIAL = Model("serial", "one thread", shares_memory=True, own_process=False, shares_gil=True, one_at_a_time=True)
THREADS = Model("threads", "threads", shares_memory=True, own_process=False, shares_gil=True, meant=("thread", "threading", "t"))
PROCS = Model(
    "procs", "processes", shares_memory=False, own_process=True, shares_gil=False,
    also=("processes",), meant=("process", "proc", "multiprocessing", "p"),
)  # fmt: skip

COMPARED = (SERIAL, THREADS, PROCS)
"""What a line without models compares."""

_known: dict[str, Model] = {model.name: model for model in COMPARED}


def known() -> tuple[Model, ...]:
    """Return all models that there are, our own first."""
    return tuple(_known.values())


def of(name: str) -> Model:
    """Return the model of that name. Raises KeyError where there is none."""
    if name not in _known:
        raise KeyError(f"there is no model {name!r}: there are {', '.join(_known)}")
    return _known[name]


def by_word() -> dict[str, Model]:
    """Return the models by the words that the magic line takes for them."""
    return {word: model for model in known() for word in (model.name, *model.also)}


def by_meaning() -> dict[str, Model]:
    """Return the models by the words that people write who mean them."""
    return {word: model for model in known() for word in model.meant}


def add(model: Model) -> None:
    """Make a model known. Raises ValueError where one of its words is no name, a keyword of Python's, or another model's."""
    for word in (model.name, *model.also):
        if not word.isidentifier() or iskeyword(word):
            raise ValueError(f"{word!r} cannot stand in a magic line: expected a name")
        if word in by_word():
            raise ValueError(f"{word!r} is the model {by_word()[word].name} already")
    _known[model.name] = model


def remove(model: Model) -> None:
    """Forget a model; runs that there are of it keep its traits."""
    del _known[model.name]
