"""What travels home from a worker: results, errors, recordings.

Large buffers of results (arrays, frames) lie in an anonymous file, whose descriptor
is sent beside the pickle: the notebook maps it, and nobody copies them.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import cloudpickle
from cloudpickle import cloudpickle as cloud

from parmagic.files import anonymous_file, write_all
from parmagic.workers.orders import LARGE

_IN_BAND, _BESIDE = b"\0", b"\1"


class Parcel(NamedTuple):
    """A packed object: its pickle, and large buffers that lie beside it."""

    pickle: bytes
    buffers: list[memoryview]

    @property
    def size(self) -> int:
        """Return how many bytes it is."""
        return len(self.pickle) + sum(len(buffer) for buffer in self.buffers)


class _ResultPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Ships results home: a class that came from the notebook goes back as that class."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type):
            tracked = cloud._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(obj)  # noqa: SLF001
            if tracked is not None and tracked in _known_classes:
                return _class_by_id, (tracked,)
        return super().reducer_override(obj)


_known_classes: set[str] = set()


def track_classes(space: Mapping[str, Any]) -> None:
    """Before a fork: give the notebook's classes the marks by which they come back as themselves."""
    for value in list(space.values()):
        if isinstance(value, type) and value.__module__ == "__main__" and value not in cloud._DYNAMIC_CLASS_TRACKER_BY_CLASS:  # noqa: SLF001
            cloud._get_or_create_tracker_id(value)  # noqa: SLF001
            track_classes(vars(value))


def know_classes() -> None:
    """In a worker, after unpickling: the classes that are known now came from the notebook."""
    _known_classes.update(cloud._DYNAMIC_CLASS_TRACKER_BY_CLASS.values())  # noqa: SLF001


def _class_by_id(tracked: str) -> type:
    found: type = cloud._DYNAMIC_CLASS_TRACKER_BY_ID[tracked]  # noqa: SLF001
    return found


def pack(value: Any) -> Parcel:
    """Pickle what a worker sends home."""
    stream = io.BytesIO()
    large: list[memoryview] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        with suppress(BufferError):  # not contiguous: it goes into the pickle
            raw = buffer.raw()
            if len(raw) >= LARGE:
                large.append(raw)
                return False
        return True

    _ResultPickler(stream, protocol=5, buffer_callback=is_small).dump(value)
    return Parcel(stream.getvalue(), large)


def unpack(parcel: Parcel) -> Any:
    """Unpickle a packed object, as the notebook will."""
    return pickle.loads(parcel.pickle, buffers=parcel.buffers)


def send(connection: Connection, parcel: Parcel) -> None:
    """Send a parcel; its buffers by a file."""
    if not parcel.buffers:
        connection.send_bytes(_IN_BAND + parcel.pickle)
        return
    file = anonymous_file()
    try:
        end = 0
        for buffer in parcel.buffers:
            end += write_all(file, buffer, end)
        sizes = [len(buffer) for buffer in parcel.buffers]
        connection.send_bytes(_BESIDE + pickle.dumps(sizes))
        reduction.send_handle(connection, file, os.getpid())
    finally:
        os.close(file)
    connection.send_bytes(parcel.pickle)


def receive(connection: Connection) -> Parcel:
    """Receive a parcel; EOFError or OSError where the other end has gone."""
    first = connection.recv_bytes()
    if first[:1] == _IN_BAND:
        return Parcel(first[1:], [])
    sizes = pickle.loads(first[1:])
    file = reduction.recv_handle(connection)
    try:
        whole = memoryview(_mapped(file, sum(sizes)))
    finally:
        os.close(file)
    buffers, end = [], 0
    for size in sizes:
        buffers.append(whole[end : end + size])
        end += size
    return Parcel(connection.recv_bytes(), buffers)


def _mapped(file: int, size: int) -> mmap.mmap:
    """Return a file's memory, to be written to as well: results are the notebook's own."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(file, size, access=mmap.ACCESS_COPY, trackfd=False)
    whole = mmap.mmap(-1, size)  # a mapped file would hold a descriptor for as long as the result lives
    view, done = memoryview(whole), 0
    while done < size:
        done += os.preadv(file, [view[done : done + (1 << 30)]], done)
    return whole
