"""Buffers of what is shipped (arrays, frames): each lies in the file once, however many items share it; who reads one has it alone."""

from __future__ import annotations

import ctypes
import functools
import mmap
import weakref
from bisect import bisect_right, insort
from collections.abc import Callable

from parmagic.workers.processes.orders import Place

_WORTH = 1 << 12
"""Bytes from which on it is looked whether a buffer lies in the file already."""

_ALIGN = 16


@functools.cache
def libc() -> ctypes.CDLL:
    """Return the C library, whose mmap takes no descriptor of its own, as Python's does."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    return library


class _Buffer(ctypes.Structure):
    """``Py_buffer``."""

    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


def _address(data: memoryview) -> int:
    found = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(found), 0)
    try:
        return found.buf or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(found))


class Buffers:
    """What was put into the file, by its address here; ``common`` are the places that more than one thing has."""

    def __init__(self, put: Callable[[memoryview], Place]) -> None:
        self._put = put
        self._begins: list[int] = []
        self._known: dict[int, tuple[Place, memoryview]] = {}  # which holds it, so that nothing else comes to be there
        self.common: set[Place] = set()

    def put(self, data: memoryview) -> Place:
        """Put a buffer into the file, where it does not lie there yet; return its place."""
        if len(data) < _WORTH:
            return self._put(data)
        begin = _address(data)
        around = self._begins[bisect_right(self._begins, begin) - 1] if self._begins else begin
        if around in self._known:
            (offset, size), _ = self._known[around]
            inside = begin - around
            if 0 <= inside <= size - len(data) and inside % _ALIGN == 0:
                place = offset + inside, len(data)
                self.common |= {place, (offset, size)}
                return place
        place = self._put(data)
        if begin not in self._known:
            insort(self._begins, begin)
        self._known[begin] = place, data
        return place

    def forget(self) -> None:
        """Hold nothing any more."""
        self._known.clear()
        self._begins.clear()


def mapped(file: int, place: Place) -> memoryview:
    """Map a part of a file, to be written to by who has it alone, for as long as somebody has it; raises OSError."""
    offset, size = place
    inside = offset % mmap.ALLOCATIONGRANULARITY
    length = ctypes.c_size_t(inside + size)
    access = mmap.PROT_READ | mmap.PROT_WRITE
    found = libc().mmap(None, length, access, mmap.MAP_PRIVATE, file, ctypes.c_longlong(offset - inside))
    if found is None or found == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), f"{size} bytes of an item cannot be mapped")
    memory = (ctypes.c_char * (inside + size)).from_address(found)
    weakref.finalize(memory, libc().munmap, ctypes.c_void_p(found), length).atexit = False
    return memoryview(memory).cast("B")[inside:]
