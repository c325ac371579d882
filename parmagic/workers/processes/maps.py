"""Arrays on a file's memory (``numpy.memmap``, ``numpy.load`` with ``mmap_mode``), and views of them: a worker opens the file again.

It does so in the mode that the file is open in here: what it writes goes to the file in ``r+``, and to nobody in ``c``.
"""

from __future__ import annotations

import mmap
import os
import sys
from array import array
from typing import Any
from weakref import WeakKeyDictionary

from parmagic.errors import NotShippable

_files: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""The inode of the file that a memory is of, as it was when that was looked up."""


def reduced(value: Any) -> Any:
    """Return how to take apart an array on a file's memory; NotImplemented for all else, which is copied.

    Raises FileNotFoundError where the file is gone.
    """
    owner = _owner(value)
    if owner is None or not value.size:
        return NotImplemented
    numpy = sys.modules["numpy"]
    try:
        begin = numpy.frombuffer(owner._mmap, numpy.uint8).__array_interface__["data"][0]  # noqa: SLF001  (where it is)
    except ValueError:
        return NotImplemented  # closed
    low, high = _bounds(value)
    if low < begin or high > begin + len(owner._mmap) or (owner.mode == "c" and _is_changed(low, high)):  # noqa: SLF001
        return NotImplemented
    path = os.fspath(owner.filename)
    _must_be_there(owner._mmap, path, begin)  # noqa: SLF001
    place = owner.offset - owner.offset % mmap.ALLOCATIONGRANULARITY + low - begin
    first = value.__array_interface__["data"][0] - low
    return opened, (type(value), path, owner.mode, place, high - low, first, value.shape, value.dtype, value.strides, value.flags.writeable)


def _owner(value: Any) -> Any:
    """Return the array that an array has its memory of, where that is a file's; else None."""
    numpy: Any = sys.modules["numpy"]
    if type(value) is not numpy.ndarray and type(value) is not numpy.memmap:
        return None
    while type(value) is numpy.ndarray:
        value = value.base
    known = type(value) is numpy.memmap and isinstance(value._mmap, mmap.mmap) and value.filename is not None  # noqa: SLF001
    return value if known else None


def _bounds(value: Any) -> tuple[int, int]:
    """Return where the memory of an array begins and ends."""
    low = high = value.__array_interface__["data"][0]
    for count, stride in zip(value.shape, value.strides, strict=True):
        low += min(0, (count - 1) * stride)
        high += max(0, (count - 1) * stride)
    return low, high + value.itemsize


def _must_be_there(memory: Any, path: str, begin: int) -> None:
    """Raise FileNotFoundError where no file is at ``path`` any more, or another one than is mapped from ``begin`` on."""
    try:
        inode = os.stat(path).st_ino  # noqa: PTH116  (text)
    except OSError:
        inode = -1
    if inode < 0 or (_files.get(memory) != inode and _is_deleted(begin)):
        raise FileNotFoundError(f"the file {path}, which it maps, is not there any more (numpy.array(…) makes a copy that needs no file)")
    _files[memory] = inode


def _is_deleted(begin: int) -> bool:
    """Tell whether the file that is mapped there has no name any more; False where the system does not tell."""
    try:
        with open("/proc/self/maps", "rb") as maps:  # noqa: PTH123
            for line in maps:
                first, _, last = line.partition(b" ")[0].partition(b"-")
                if int(first, 16) <= begin < int(last, 16):
                    return line.rstrip().endswith(b" (deleted)")
    except OSError:
        pass
    return False


def _is_changed(low: int, high: int) -> bool:
    """Tell whether a page of a private mapping was written to, and is no page of the file any more; True where the system does not tell."""
    first, last = low // mmap.PAGESIZE, -(-high // mmap.PAGESIZE)
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as pages:  # noqa: PTH123
            while first < last:
                data = os.pread(pages.fileno(), 8 * min(last - first, 1 << 17), 8 * first)
                if not data or any(entry >> 61 in _OWN for entry in array("Q", data)):
                    return True
                first += len(data) // 8
    except OSError:
        return True
    return False


_OWN = frozenset({0b100, 0b010, 0b110, 0b011, 0b111})
"""The upper bits of an entry of ``pagemap`` (present, swapped, of a file) where the page is not the file's."""


def opened(kind: Any, path: str, mode: str, place: int, size: int, first: int, shape: Any, dtype: Any, strides: Any, writable: bool) -> Any:
    """In a worker: map ``size`` bytes of a file from ``place`` on, and return the array on them; raises NotShippable."""
    import numpy as np  # noqa: PLC0415  (where there is an array)

    access = {"r": mmap.ACCESS_READ, "c": mmap.ACCESS_COPY}.get(mode, mmap.ACCESS_WRITE)
    inside = place % mmap.ALLOCATIONGRANULARITY
    try:
        with open(path, "r+b" if access == mmap.ACCESS_WRITE else "rb") as file:  # noqa: PTH123
            memory = mmap.mmap(file.fileno(), inside + size, access=access, offset=place - inside)
    except (OSError, ValueError) as error:
        raise NotShippable(f"A numpy.memmap of {path} cannot be opened in a worker: {error}") from error
    found: Any = np.ndarray.__new__(np.memmap, shape, dtype=dtype, buffer=memory, offset=inside + first, strides=strides)
    found._mmap, found.filename, found.offset, found.mode = memory, path, place, "r+" if mode == "w+" else mode  # noqa: SLF001
    found = found if kind is np.memmap else np.asarray(found)
    if not writable:
        found.flags.writeable = False
    return found
