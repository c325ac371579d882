"""One pickle after another of what the notebook has, for its workers; large buffers, and descriptors, lie beside it."""

from __future__ import annotations

import ctypes
import functools
import io
import os
import pickle
import random
import struct
import types
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import context, reduction
from typing import Any

from parmagic.errors import NotShippable
from parmagic.model.classes import module_of, type_name
from parmagic.system.descriptors import Descriptor, high
from parmagic.system.interrupts import undo
from parmagic.workers.processes import by_value, classes, ipython, maps, tensors
from parmagic.workers.processes.orders import ForkOnly, Place
from parmagic.workers.processes.pickler import Pickler

Known = Sequence[tuple[int, Any]]
"""What a worker has already: the number of each thing, and what it is."""


class Shipping(Pickler):
    """Ships what the notebook has: multiprocessing's primitives as to a child."""

    def reducer_override(self, obj: Any) -> Any:
        """Take an object apart; NotImplemented leaves it to pickle."""
        if type(obj).__module__ == "multiprocessing.synchronize" and getattr(obj, "_is_fork_ctx", False):
            raise ForkOnly
        if type(obj) is types.MethodType and obj.__name__ == "get_ipython" and type(obj.__self__).__module__ != "__main__":
            return _no_ipython, ()
        if type(obj) is types.FunctionType and obj.__module__ == "IPython.core.display_functions" and obj.__name__ == "display":
            return _display, ()
        reducer = reduction.ForkingPickler._extra_reducers.get(type(obj))  # type: ignore[attr-defined]  # noqa: SLF001
        if reducer is not None and type(obj) not in _CALLABLES and str(getattr(reducer, "__module__", "")).startswith("multiprocessing."):
            return reducer(obj)  # not others', as torch's
        if type(obj).__module__ == "numpy" and (mapped := maps.reduced(obj)) is not NotImplemented:
            return mapped
        found = super().reducer_override(obj)
        return (classes.made_quietly, *found[1:]) if type(found) is tuple and found[0] is classes.made else found


_CALLABLES = {types.MethodType, type(list.append), type(int.__add__), functools.partial}
"""Multiprocessing looks methods up by their names, and forgets what else a partial function has."""


class _NotingPickler(Shipping):
    """Notes what it takes apart, see :class:`NotingPacker`; not for items, of which there are many."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.generators: list[Any] = []
        self.emptied: list[str] = []
        self.n_shared = 0
        self.modules: list[types.ModuleType] = []

    def reducer_override(self, obj: Any) -> Any:
        self._note(obj)
        return super().reducer_override(obj)

    def _note(self, what: Any) -> None:
        if draws(what) and self.place(what) is None:
            self.generators.append(what)
        elif by_value.remembers(what) and by_value.reduced(what) is not NotImplemented:
            self.emptied.append(what.__qualname__)
        elif type(what) is types.ModuleType:
            self.modules.append(what)
        elif self.tensors and tensors.is_shared(what):
            self.n_shared += 1


class _Beside:
    """Puts buffers beside a pickle: ``places`` are theirs, ``writable`` which of these are no worker's to read only.

    The pickler has it. As a method of the packer it would hold that, and with it all that was packed, in a circle of references.
    """

    def __init__(self, put: Callable[[memoryview], Place]) -> None:
        self._put = put
        self.places: list[Place] = []
        self.writable: list[int] = []

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Put a buffer beside the pickle; one that is not contiguous goes into it (True)."""
        try:
            raw = buffer.raw()
        except BufferError:
            return True
        if isinstance(raw.obj, ctypes.Array):
            self.writable.append(len(self.places))
        self.places.append(self._put(raw))
        return False


class _Within(_Beside):
    """Leaves buffers in the pickle."""

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:  # noqa: ARG002  (as the one above)
        return True


class Packer:
    """Pickles one thing after another, with one memory: what two of them share is shared in the worker as well.

    ``known`` is what the worker has already, each with the number by which it finds that: by :func:`named`, or ``by`` another
    function. With ``base``, what was packed with that is as good as packed: it is read before.
    """

    kind: type[Shipping] = Shipping
    buffers: type[_Beside] = _Beside

    def __init__(
        self, popen: Popen, put: Callable[[memoryview], Place], known: Known, base: Packer | None = None, *,
        by: Callable[[int], Any] | None = None,
    ) -> None:  # fmt: skip
        self.stream = io.BytesIO(b"" if base else _recalled((number for number, _ in known), by or named))
        self.stream.seek(0, io.SEEK_END)
        self._popen = popen
        beside = self.buffers(put)
        self.places, self.writable = beside.places, beside.writable
        self._pickler = self.kind(self.stream, protocol=5, buffer_callback=beside)
        if base is None:
            self._pickler.memo = {id(value): (number, value) for number, (_, value) in enumerate(known)}
        else:
            self._pickler.memo = base._pickler.memo  # noqa: SLF001  (one of its own kind's)
            self._pickler.globals_ref = dict(base._pickler.globals_ref)  # noqa: SLF001

    def pack(self, what: Any) -> int:
        """Add one thing; return how many bytes that took."""
        stream, places = self.stream.tell(), len(self.places)
        before = context.get_spawning_popen()
        context.set_spawning_popen(self._popen)  # type: ignore[arg-type]  # it has what is asked of one
        try:
            self._pickler.dump(what)
        finally:
            try:
                undo(lambda: context.set_spawning_popen(before))
            finally:
                undo(lambda: context.set_spawning_popen(before))
        return self.stream.tell() - stream + sum(size for _, size in self.places[places:])

    def memory(self) -> dict[int, tuple[int, Any]]:
        """Return what was packed, by its id: its number in the memory of who unpickles that, and what it is."""
        memory: dict[int, tuple[int, Any]] = self._pickler.memo.copy()
        return memory

    def release(self) -> None:
        """Give back what was packed, which has been stored; its memory stays."""
        self.stream.seek(0)
        self.stream.truncate()


class NotingPacker(Packer):
    """Notes what it packs for the user to be told.

    ``generators`` of random numbers; ``emptied`` functions, whose caches stay here; how many memories of tensors are ``shared`` here;
    ``modules``, of which each worker has its own.
    """

    kind = _NotingPickler
    _pickler: _NotingPickler

    def __init__(self, popen: Popen, put: Callable[[memoryview], Place]) -> None:
        super().__init__(popen, put, ())
        noted = self._pickler
        self.generators, self.emptied, self.modules = noted.generators, noted.emptied, noted.modules

    @property
    def shared(self) -> int:
        """How many memories of tensors are shared here."""
        return self._pickler.n_shared


def has_buffers(value: Any) -> bool:
    """Tell whether a value that can be packed has buffers, which would lie beside its pickle."""
    popen = Popen()
    packer = Packer(popen, lambda data: (0, len(data)), ())
    try:
        packer.pack(value)
    finally:
        popen.close()
    return bool(packer.places)


class _InOne(Packer):
    """Leaves buffers in the pickle."""

    buffers = _Within


def in_one(value: Any, known: Known = ()) -> bytes:
    """Return a value as one pickle, with nothing beside it; ``known`` are parts that the worker has.

    Raises NotShippable where it has a descriptor, which cannot be in it.
    """
    popen = Popen()
    packer = _InOne(popen, lambda _: (0, 0), known, by=part_of_names)
    try:
        packer.pack(value)
        if popen.kept:
            raise NotShippable("it holds an open file or socket")
    finally:
        popen.close()
    return packer.stream.getvalue()


def _recalled(numbers: Iterable[int], by: Callable[[int], Any]) -> bytes:
    """Return how a pickle begins that takes these for what it has met already: it looks them up, and notes each in its memory."""
    look = pickle.GLOBAL + f"{by.__module__}\n{by.__name__}\n".encode()
    call = pickle.TUPLE1 + pickle.REDUCE + pickle.MEMOIZE + pickle.POP
    return b"".join(look + pickle.BININT + struct.pack("<i", number) + call for number in numbers)


def draws(value: Any) -> bool:
    """Tell whether a value draws random numbers from a state of its own."""
    kind = type(value)
    if issubclass(kind, random.Random):
        return not issubclass(kind, random.SystemRandom)
    return type_name(value) in {"Generator", "RandomState"} and module_of(kind).startswith(("numpy.random", "torch."))


class Popen:
    """Stands where multiprocessing expects the process that is being started."""

    def __init__(self) -> None:
        self.kept: list[Descriptor] = []

    def duplicate_for_child(self, descriptor: int) -> int:
        """Keep a copy of a descriptor; return its number among those that travel."""
        self.kept.append(Descriptor(high(os.dup(descriptor))))
        return len(self.kept) - 1

    def close(self) -> None:
        """Close what was kept."""
        while self.kept:
            self.kept.pop().close()

    class DupFd:
        """A descriptor that travels beside the pickle, by its number there."""

        def __init__(self, index: int) -> None:
            self.index = index

        def detach(self) -> int:
            """Return what has arrived there."""
            return arrived[self.index]


arrived: list[int] = []
"""In a worker, the descriptors that came beside what is being unpacked."""


names: list[Any] = []
"""In a worker, the values of the names that the body reads, as they came."""


def named(place: int) -> Any:
    """Return the value of such a name: what is, or holds, the same object is, or holds, it here, too."""
    return names[place]


unpicklers: list[pickle.Unpickler] = []
"""In a worker, the one that has read the names."""


def part_of_names(number: int) -> Any:
    """Return what one of the names holds, by its number in the memory of who has read them."""
    return _memory_of(unpicklers[0])[number]


@functools.lru_cache(maxsize=1)
def _memory_of(unpickler: pickle.Unpickler) -> dict[int, Any]:
    memory: dict[int, Any] = unpickler.memo.copy()
    return memory


def _no_ipython() -> Callable[[], Any]:
    return ipython.no_ipython


def _display() -> Callable[..., None]:
    return ipython.display
