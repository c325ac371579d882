"""What a worker reads of what was shipped: names and the body at once, items as they are claimed."""

from __future__ import annotations

import mmap
import pickle
from bisect import bisect_right
from typing import Any

from parmagic.system.descriptors import Descriptor
from parmagic.workers.processes import home, salvage
from parmagic.workers.processes.buffers import mapped
from parmagic.workers.processes.orders import LARGE, Blob, Manifest, Place
from parmagic.workers.processes.packer import arrived, names, unpicklers


class Reader:
    """A worker's view of a cargo; ``size`` is how many bytes of it were unpacked so far."""

    def __init__(self, file: int, manifest: Manifest, descriptors: list[int]) -> None:
        self._manifest = manifest
        arrived[:] = descriptors
        self._shared = mmap.mmap(file, manifest.size, access=mmap.ACCESS_READ)
        self._own = memoryview(mmap.mmap(file, manifest.size, access=mmap.ACCESS_COPY))
        self._file = Descriptor(file)
        self._segment = -1
        self._items: list[Any] = []
        self._lost = False
        self.size = 0

    def settings(self) -> dict[str, Any]:
        """Return what the notebook has set; it is read first."""
        blob = self._manifest.body
        view = memoryview(self._shared)
        parts = [view[offset : offset + size] for offset, size in blob.buffers]
        buffers: list[Any] = [part if len(part) >= LARGE else bytearray(part) for part in parts]
        for number in blob.writable:
            offset, size = blob.buffers[number]
            buffers[number] = self._own[offset : offset + size]
        self._shared.seek(blob.pickle[0])
        self._unpickler = pickle.Unpickler(self._shared, buffers=buffers)
        settings: dict[str, Any] = self._unpickler.load()
        return settings

    def body(self) -> Any:
        """Return the shipped callable; the names that it reads came before it."""
        blob = self._manifest.body
        found = [self._unpickler.load() for _ in range(blob.count - 1)]
        self.size += blob.weight
        names[:] = found[:-1]
        unpicklers[:] = [self._unpickler]
        return found[-1]

    def named(self) -> dict[str, Any]:
        """Return the names that came before the body."""
        return dict(zip(self._manifest.names, names, strict=True))

    def load(self, claim: range) -> list[Any]:
        """Return the items of a claim."""
        firsts = self._manifest.firsts
        items: list[Any] = []
        number = claim.start
        while number < claim.stop:
            segment = bisect_right(firsts, number) - 1
            if segment != self._segment:
                self._items, self._segment = self._unpack(self._manifest.segments[segment]), segment
            here = self._items[number - firsts[segment] : claim.stop - firsts[segment]]
            items += here
            number += len(here)
        return salvage.Items(items, claim.start) if self._lost else items

    def _unpack(self, blob: Blob) -> Any:
        self.size += blob.weight
        pieces = [(self._own[each.pickle[0] :][: each.pickle[1]], [*map(self._buffer, each.buffers)]) for each in (blob.base, blob) if each]
        with home.knowing_classes():
            try:
                return salvage.whole(*pieces)
            except BaseException:
                self._lost = True
                found = salvage.read(*pieces)
                if not isinstance(found, home.Values):
                    raise
                return found

    def _buffer(self, place: Place) -> Any:
        """Return a buffer of an item, which nothing else has that is read here."""
        offset, size = place
        if place not in self._manifest.common:
            return self._own[offset : offset + size]
        return mapped(self._file.fileno(), place) if size >= LARGE else bytearray(self._shared[offset : offset + size])
