"""Reads what pickle has given up on: where one of many things cannot be made, that one is lost, and not all of them.

Python's own unpickler does the reading, operation by operation. In the place of what cannot be made stands a :class:`Lost`, as it
does in the place of all that would hold it, up to the members of :class:`Values` and :class:`Errors`, where it ends. Slow, and only
used where something has failed.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from io import BytesIO
from itertools import pairwise
from types import FunctionType
from typing import Any

from parmagic.errors import NotShippable
from parmagic.model.classes import long_type_name
from parmagic.model.recording import Batch
from parmagic.model.words import describe
from parmagic.system.interrupts import is_interrupt
from parmagic.workers.processes.home import Errors, Values


class Lost:
    """Stands for what could not be made: why, and the name of its type."""

    def __init__(self, error: BaseException, kind: str) -> None:
        self.error = error
        self.kind = kind


Piece = tuple[Any, Iterable[Any]]
"""A pickle, and the buffers that lie beside it."""


def whole(*pieces: Piece) -> Any:
    """Unpickle the last of some pieces, each of which may refer to what is in those before; raises what reading raises."""
    if len(pieces) == 1:
        ((data, buffers),) = pieces
        return pickle.loads(data, buffers=buffers)
    return _last([pickle.Unpickler(BytesIO(data), buffers=buffers) for data, buffers in pieces])


def read(*pieces: Piece) -> Any:
    """Unpickle all that can be made of them; a Lost where that is nothing."""
    try:
        return _last([_Reader(BytesIO(data), buffers=buffers) for data, buffers in pieces])
    except Exception as error:  # noqa: BLE001  (it is no pickle)
        return Lost(error, "message")


def _last(readers: list[Any]) -> Any:
    """Read one after another, with one memory."""
    found = readers[0].load()
    for before, reader in pairwise(readers):
        reader.memo = before.memo
        found = reader.load()
    return found


class Items(list[Any]):
    """Items that begin with number ``first``, of which some could not be read: to ask for one of these fails."""

    def __init__(self, items: list[Any], first: int) -> None:
        super().__init__(items)
        self._first = first

    def __getitem__(self, place: Any) -> Any:
        """Return the item at a place; raises NotShippable where it was lost."""
        item = super().__getitem__(place)
        if type(item) is not Lost:
            return item
        raise NotShippable(
            f"Item {self._first + place} (a {item.kind}) cannot be read in a process: {describe(item.error, 500)}. "
            "Loop over something that can be read there (a path, a number) and make it in the body, or use threads."
        ) from item.error


def settle(batch: Batch) -> None:
    """Replace what was lost of a worker's results, and of the errors of its items, by an error that names the item."""
    errors: dict[int, Any] = batch.errors
    for item, error in errors.items():
        if type(error) is Lost:
            errors[item] = _unreadable(f"The body raised a {error.kind} in item {item}, which", error, "Raise one that Python has")
    for item, value in enumerate(batch.values, batch.first):
        if type(value) is Lost:
            batch.values[item - batch.first] = None
            instead = "Return what is in it (a list, an array, a number)"
            errors[item] = _unreadable(f"The result of item {item} (a {value.kind})", value, instead)


def _unreadable(what: str, lost: Lost, instead: str) -> NotShippable:
    error = NotShippable(f"{what} cannot be read here: {describe(lost.error, 500)}. {instead}, or use threads.")
    error.__cause__ = lost.error
    return error


_Operation = Callable[["_Reader"], None]


_Python: Any = pickle._Unpickler  # type: ignore[attr-defined, unused-ignore]  # noqa: SLF001  (its operations can be done one by one)


class _Reader(_Python):  # type: ignore[misc]
    """Python's unpickler, with a Lost in the place of what cannot be made."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.used: set[int] = set()  # what was taken out of the memory, by id
        self.undone: Lost | None = None  # what the last operation has lost

    def attempt(self, operation: _Operation, takes: int, *, fills: bool) -> None:
        """Do an operation that takes so many things from the stack (0: all since the mark), and puts one there."""
        below = self.stack if takes else self.metastack[-1]
        taken = self.stack[-takes:] if takes else [*(below[-1:] if fills else ()), *self.stack]
        height = len(below) - (takes or fills)
        lost, self.undone = next((each for each in taken if type(each) is Lost), None), None
        if lost is None or (fills and type(taken[0]) in _BULKHEADS):
            try:
                operation(self)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                lost = Lost(error, "")
            else:
                return
        if self.stack is not below:
            self.pop_mark()
        del below[height:]
        self.undone = Lost(lost.error, _kind(operation, taken))
        self.append(self.undone)
        if fills:
            self._forget(taken[0])

    def _forget(self, what: Any) -> None:
        """Lose what was made and could not be filled, and what may hold it by now."""
        since = min((place for place, each in self.memo.items() if each is what), default=None)
        if since is None:
            return
        held = id(what) in self.used
        for place, each in self.memo.items():
            if each is what or (held and place > since and not isinstance(each, (type, FunctionType, str))):
                self.memo[place] = self.undone

    def take(self, operation: _Operation) -> None:
        """Take something out of the memory."""
        operation(self)
        self.used.add(id(self.stack[-1]))

    def drop(self, operation: _Operation) -> None:
        """Drop what a call has returned that was to fill what lies below it: where that could not be done, this is lost."""
        dropped = self.stack[-1] if self.stack else None
        operation(self)
        if type(dropped) is Lost and dropped is self.undone and self.stack:
            what = self.stack[-1]
            self.undone = self.stack[-1] = Lost(dropped.error, what.kind if type(what) is Lost else long_type_name(what))
            self._forget(what)


_BULKHEADS = {Values, Errors}


def _kind(operation: _Operation, taken: list[Any]) -> str:
    """Name the type of what an operation would have made."""
    name, first = operation.__name__, taken[0] if taken else None
    if name in _MADE:
        return _MADE[name]
    if type(first) is Lost:
        return first.kind
    if name == "load_stack_global":
        return ".".join(map(str, taken))
    if name in _FILLS:
        return long_type_name(first)
    arguments = taken[1] if type(taken[1]) is tuple else ()
    maker = next((each for each in (first, *arguments[:1]) if isinstance(each, type)), None)
    return f"result of {getattr(first, '__qualname__', 'a call')}" if maker is None else long_type_name(None, maker)


_MADE = {f"load_{name}": name.rstrip("123") for name in ("tuple", "tuple1", "tuple2", "tuple3", "list", "dict", "frozenset")}


def _way(operation: _Operation) -> _Operation:
    """Return how an operation is to be done."""
    name = operation.__name__
    if name in _TAKES:
        return lambda reader: reader.attempt(operation, _TAKES[name], fills=name in _FILLS)
    if name.endswith("get"):
        return lambda reader: reader.take(operation)
    return (lambda reader: reader.drop(operation)) if name == "load_pop" else operation


_FILLS = {"load_build", "load_append", "load_appends", "load_setitem", "load_setitems", "load_additems"}
_TAKES = {
    "load_reduce": 2, "load_newobj": 2, "load_newobj_ex": 3, "load_build": 2, "load_stack_global": 2, "load_append": 2, "load_setitem": 3,
    "load_tuple1": 1, "load_tuple2": 2, "load_tuple3": 3, "load_tuple": 0, "load_list": 0, "load_dict": 0, "load_frozenset": 0,
    "load_appends": 0, "load_setitems": 0, "load_additems": 0,
}  # fmt: skip

_Reader.dispatch = {code: _way(operation) for code, operation in _Python.dispatch.items()}
