"""What travels to the workers.

The names that the body reads, the body, and the items are pickled once a run
into one anonymous memory file that every worker maps. Items are pickled in
segments, so that a worker unpickles only those that it claims. Large buffers
(arrays, frames) lie beside the pickles, and nobody copies them: those of names
are read-only, for all workers and items see the same; those of items, and of
tensors, are mapped copy-on-write, for an item is its body's own.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable, Sequence
from time import perf_counter
from types import ModuleType
from typing import Any, NamedTuple

from parmagic.errors import NotShippable
from parmagic.model.classes import long_type_name
from parmagic.model.words import message
from parmagic.system.descriptors import Descriptor, high
from parmagic.system.files import anonymous_file, keep_size, write_all
from parmagic.system.interrupts import held_back, is_interrupt
from parmagic.workers.loop import names_around
from parmagic.workers.processes import home
from parmagic.workers.processes.bases import HEAVY, Base, Bases
from parmagic.workers.processes.buffers import Buffers, libc
from parmagic.workers.processes.forkable import obstacle
from parmagic.workers.processes.orders import LARGE, Blob, ForkOnly, Manifest, Place
from parmagic.workers.processes.packer import NotingPacker, Packer, Popen, in_one, part_of_names
from parmagic.workers.processes.parts import Parts
from parmagic.workers.settings.taken import taken

_SEGMENT = 1 << 16
"""Bytes that a segment of items aims at."""

_ALIGN = 64


class Weight(NamedTuple):
    """What it took to pack a name, or the items: bytes and seconds."""

    name: str
    size: int
    seconds: float


class Cargo:
    """A shipped body with its items: a file, its manifest, descriptors that travel with it.

    ``seconds`` is how long packing took, ``size`` how many bytes it is, ``weights`` what
    each name that the body reads took of these, ``items`` what the items did, ``emptied`` the functions whose caches stay here,
    ``generators`` those of random numbers, each with the name that it was reached by (of the body's own, none),
    ``apart`` the names of tensors that are in shared memory here, and in each worker's own there,
    ``unset`` the settings that cannot be sent, and why, ``modules`` those that the body reads.
    """

    def __init__(self, call: Any, items: Sequence[Any], wanted: Iterable[str] = ()) -> None:
        begin = perf_counter()
        self._file: Descriptor | None = None
        self.weights: list[Weight] = []
        self.emptied: list[str] = []
        self.generators: list[tuple[Any, str]] = []
        self.apart: list[str] = []
        self.unset: list[str] = []
        self.modules: list[ModuleType] = []
        self._popen = Popen()
        self._end = 0
        self._shared = 0
        self._bases = Bases()
        self._parts = Parts()
        buffers = self._buffers = Buffers(self._put)
        try:
            with held_back():
                self._file = Descriptor(high(anonymous_file()))
            settings, variables = taken()
            body = self._pack_body(call, wanted, settings)
            packed, before = perf_counter(), self._end
            segments, firsts = self._pack_items(items)
            self.items = Weight("", self._end - before, perf_counter() - packed)
            held = self._pack_variables(variables)
            keep_size(self.file)
            self._share()
        except BaseException:
            self.close()
            raise
        finally:
            self._bases.clear()
            self._parts.clear()
            buffers.forget()
            del self._buffers  # which have this one
        shared = tuple(weight.name for weight in self.weights if weight.size >= LARGE)
        names = tuple(weight.name for weight in self.weights)
        self.manifest = Manifest(body, tuple(segments), tuple(firsts), self._end, held, shared, names, frozenset(buffers.common))
        self.size = self._end
        self.seconds = perf_counter() - begin

    @property
    def file(self) -> int:
        """The file's descriptor; raises :class:`parmagic.system.descriptors.Lost` where somebody else has closed it."""
        assert self._file is not None
        return self._file.fileno()

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that travel with it; raises ``Lost`` as well."""
        return [kept.fileno() for kept in self._popen.kept]

    def close(self) -> None:
        """Give the memory back (workers that have it mapped keep it)."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        if self._shared:
            libc().munmap(ctypes.c_void_p(self._shared), ctypes.c_size_t(self._end))
            self._shared = 0
        self._popen.close()

    def __del__(self) -> None:
        """Where an interrupt kept everybody from knowing of it."""
        self.close()

    def _share(self) -> None:
        """Map what is large here as well: a page that only one worker reads would count as that worker's own.

        Not by Python's mmap, which would have a low descriptor of its own, and close that number whatever file has it by then.
        """
        if self._end >= LARGE and hasattr(mmap, "MAP_POPULATE"):
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            found = libc().mmap(None, ctypes.c_size_t(self._end), mmap.PROT_READ, flags, self.file, ctypes.c_long(0))
            self._shared = 0 if found == ctypes.c_void_p(-1).value else found or 0

    def _pack_settings(self, settings: dict[str, Any]) -> NotingPacker:
        """Begin with what the notebook has set: handlers of the user's share names with the body."""
        packer = NotingPacker(self._popen, self._buffers.put)
        try:
            packer.pack(settings)
        except BaseException as error:  # noqa: BLE001  (it is looked for, and reported)
            _not_an_interrupt(error)
            packer = NotingPacker(self._popen, self._buffers.put)
            packer.pack({name: value for name, value in settings.items() if self._fits(name, value)})
        return packer

    def _pack_variables(self, variables: dict[tuple[str, str], Any]) -> dict[tuple[str, str], bytes]:
        """Pack what ContextVars of modules hold, each for itself: a worker that cannot read one does without."""
        fitting = {place: value for place, value in variables.items() if self._fits(f"The ContextVar {'.'.join(place)}", value)}
        return {place: in_one(value, self._parts.within(value) or ()) for place, value in fitting.items()}

    def _fits(self, name: str, value: Any) -> bool:
        try:
            in_one(value)
        except BaseException as error:  # noqa: BLE001  (it is reported)
            _not_an_interrupt(error)
            why = "it is of the fork context" if isinstance(error, ForkOnly) else message(error)
            self.unset.append(f"{name} cannot be sent to processes, which begin with the default: {why}")
            return False
        return True

    def _pack_body(self, call: Any, wanted: Iterable[str], settings: dict[str, Any]) -> Blob:
        """Pack the names one by one, then the body, with one memory of what is packed already."""
        packer = self._pack_settings(settings)
        space = names_around(call)
        shipped = [name for name in sorted(wanted) if name in space]
        for place, name in enumerate(shipped):
            begin, buffers, value, generators = perf_counter(), len(packer.places), space[name], len(packer.generators)
            shared = packer.shared
            try:
                size = packer.pack(value)
            except (ForkOnly, NotShippable):
                raise
            except BaseException as error:
                _not_an_interrupt(error)
                raise _cannot_send(name, value, error) from error
            self.weights.append(Weight(name, size, perf_counter() - begin))
            self.generators += [(each, name) for each in packer.generators[generators:]]
            self.apart += [name] * (packer.shared > shared)
            if len(packer.places) == buffers:  # else it is the names', read-only, and each item's own
                self._parts.add(place, value, packer, doubtful=buffers > 0)
        try:
            packer.pack(call)
        except ForkOnly:
            raise
        except BaseException as error:
            _not_an_interrupt(error)
            raise NotShippable(f"The body cannot be sent to processes: {message(error)}") from error
        self.emptied += packer.emptied
        self.modules += packer.modules
        self.generators += [(each, "") for each in packer.generators[len(self.generators) :]]
        return self._store(packer, len(shipped) + 2)

    def _pack_items(self, items: Sequence[Any]) -> tuple[list[Blob], list[int]]:
        segments: list[Blob] = []
        firsts: list[int] = []
        first, size = 0, 1
        while first < len(items):
            part = home.Values(items[first : first + size])
            try:
                segments.append(self._pack(part))
            except BaseException as error:
                _not_an_interrupt(error)
                raise self._which_item(part, first, error) from error
            firsts.append(first)
            first += len(part)
            blob = segments[-1]
            size = max(1, min(4 * size, int(len(part) * _SEGMENT / blob.weight)))
        return segments, firsts

    def _which_item(self, part: Sequence[Any], first: int, error: BaseException) -> NotShippable:
        for number, item in enumerate(part, first):
            try:
                self._pack([item])
            except BaseException as own:  # noqa: BLE001  (it is reported)
                _not_an_interrupt(own)
                return NotShippable(
                    f"Item {number} (a {long_type_name(item)}) cannot be sent to a process: {message(own)}. "
                    "Loop over something that can be pickled (a path, a number) and open it in the body, or use threads."
                )
        return NotShippable(f"The items cannot be sent to processes: {message(error)}")

    def _pack(self, part: Sequence[Any]) -> Blob:
        """Pack items; one that holds much which others hold as well upon that."""
        common = self._bases.common(part)
        base = self._bases.base(common)
        packer = self._packed(part, base)
        if common and packer.stream.tell() >= HEAVY and (base is None or len(base.ids) < len(common)):
            larger = self._base_of(common)
            packer, base = (self._packed(part, larger), larger) if larger else (packer, base)
        self._bases.learn(part, packer.stream.tell())
        if self._parts.may_be_in(part, packer) and (parts := self._parts.within(part)) is not None:
            packer, base = Packer(self._popen, self._buffers.put, parts, by=part_of_names), None
            packer.pack(part)
        return self._store(packer, 1, base)

    def _base_of(self, common: Sequence[Any]) -> Base | None:
        """Pack what items share by itself; None where that cannot be done, or takes little."""
        try:
            packer = self._packed(common, None)
        except BaseException as error:  # noqa: BLE001  (it may be part of what can be packed as a whole)
            _not_an_interrupt(error)
            self._bases.forgo(common)
            return None
        if self._parts.may_be_in(common, packer):  # then each item is looked at for itself
            self._bases.forgo(common)
            return None
        return self._bases.add(common, packer, self._store(packer, 1))

    def _packed(self, what: Sequence[Any], base: Base | None) -> Packer:
        packer = Packer(self._popen, self._buffers.put, self._parts.known, base and base.packer)
        packer.pack(what)
        return packer

    def _store(self, packer: Packer, count: int, base: Base | None = None) -> Blob:
        # no getbuffer(): up to Python 3.12, one that is left in a circle of references crashes the garbage collection
        place, below = self._put(memoryview(packer.stream.getvalue())), base and base.blob
        return Blob(place, tuple(packer.places), count, tuple(packer.writable), below)

    def _put(self, data: memoryview) -> Place:
        offset = -(-self._end // _ALIGN) * _ALIGN
        try:
            self._end = offset + write_all(self.file, data, offset)
        except OSError as error:
            raise NotShippable(f"There is no room for what the body reads ({len(data) / 1e6:.0f} MB more): {error}") from error
        return offset, len(data)


def _not_an_interrupt(error: BaseException) -> None:
    """Let a Ctrl-C through; anything else comes from the user's own ``__reduce__``, were it SystemExit."""
    if is_interrupt(error):
        raise error


def _cannot_send(name: str, value: Any, error: BaseException) -> NotShippable:
    or_else = "or use threads" if obstacle() else "or use threads, or --start-method fork, which needs no pickling of names"
    return NotShippable(
        f"The body reads {name!r} (a {long_type_name(value)}), which cannot be sent to a process: {message(error)}. "
        f"Make it in the body, {or_else}."
    )
