"""What travels home from a worker: results, errors, recordings.

Large buffers of results (arrays, frames) lie in an anonymous file, whose descriptor
is sent beside the pickle: the notebook maps it, and nobody copies them.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import BuiltinFunctionType
from typing import Any, NamedTuple

from cloudpickle import cloudpickle as cloud

from parmagic.model import recording
from parmagic.model.classes import module_of, space_of
from parmagic.system.files import anonymous_file, keep_size, keeps_size, write_all
from parmagic.system.real import close_descriptor
from parmagic.workers.processes.frames import Bytes, Frame, Inbox, Outbox
from parmagic.workers.processes.orders import LARGE
from parmagic.workers.processes.pickler import Pickler
from parmagic.workers.processes.wire import Garbled


class Parcel(NamedTuple):
    """A packed object: its pickle, and large buffers that lie beside it."""

    pickle: Bytes
    buffers: list[memoryview]

    @property
    def size(self) -> int:
        """Return how many bytes it is."""
        return len(self.pickle) + sum(len(buffer) for buffer in self.buffers)


class Values(list[Any]):
    """A list between two processes: where one of its members cannot be read, the others can."""

    __slots__ = ()


class Errors(dict[int, BaseException]):
    """The same for errors, by item."""

    __slots__ = ()


_PLAIN = frozenset({Values, Errors, *(value for value in vars(recording).values() if type(value) is type), array("d").__reduce_ex__(5)[0]})
"""What recordings are made of, and made by: what every process has, and cloudpickle need not look up."""


class _ResultPickler(Pickler):
    """Ships results home: a class that came from the notebook goes back as that class."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        # not asking a class of the user's for its hash, nor whether it is equal to one
        if ((kind is type or kind is BuiltinFunctionType) and obj in _PLAIN) or (type(kind) is type and kind in _PLAIN):
            return NotImplemented
        if issubclass(kind, type):
            tracked = cloud._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(obj)  # noqa: SLF001
            if tracked is not None and tracked in _known_classes:
                return _class_by_id, (tracked,)
        return super().reducer_override(obj)


_known_classes: set[str] = set()


def track_classes(space: Mapping[str, Any]) -> None:
    """Before a fork: give the notebook's classes the marks by which they come back as themselves; none of them is asked anything."""
    for value in list(space.values()):
        kind = type(value)
        if not issubclass(kind, type) or module_of(value) != "__main__" or (kind.__hash__, kind.__eq__) != _PLAIN_WAYS:
            continue
        if value not in cloud._DYNAMIC_CLASS_TRACKER_BY_CLASS:  # noqa: SLF001
            cloud._get_or_create_tracker_id(value)  # noqa: SLF001
            track_classes(space_of(value))


_PLAIN_WAYS = type.__hash__, type.__eq__


def know_classes() -> None:
    """In a worker, after unpickling: the classes that are known now came from the notebook."""
    _known_classes.update(_tracked())


@contextmanager
def knowing_classes() -> Iterator[None]:
    """In a worker that may have sent classes of its own: those that come to be known meanwhile came from the notebook."""
    before = _tracked()
    yield
    _known_classes.update(_tracked() - before)


def _tracked() -> set[str]:
    return set(cloud._DYNAMIC_CLASS_TRACKER_BY_ID.keys())  # noqa: SLF001


def _class_by_id(tracked: str) -> type:
    found: type = cloud._DYNAMIC_CLASS_TRACKER_BY_ID[tracked]  # noqa: SLF001
    return found


def pack(value: Any, *, beside: bool = True) -> Parcel:
    """Pickle what a worker sends home; ``beside`` it lie large buffers, which need a descriptor at each end."""
    stream = io.BytesIO()
    large: list[memoryview] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        with suppress(BufferError):  # not contiguous: it goes into the pickle
            raw = buffer.raw()
            if beside and len(raw) >= LARGE:
                large.append(raw)
                return False
        return True

    _ResultPickler(stream, protocol=5, buffer_callback=is_small).dump(value)
    return Parcel(stream.getvalue(), large)


def unpack(parcel: Parcel) -> Any:
    """Unpickle a packed object, as the notebook will."""
    return pickle.loads(parcel.pickle, buffers=parcel.buffers)


def send(outbox: Outbox, parcel: Parcel) -> None:
    """Send a parcel; its buffers by a file."""
    sizes = [len(buffer) for buffer in parcel.buffers]
    head = struct.pack(f"!{len(sizes)}Q", *sizes)
    if not sizes:
        outbox.send(head, parcel.pickle)
        return
    file = anonymous_file()
    try:
        end = 0
        for buffer in parcel.buffers:
            end += write_all(file, buffer, end)
        keep_size(file)
        outbox.send(head, parcel.pickle, file)
    finally:
        close_descriptor(file)


def receive(inbox: Inbox) -> Parcel | None:
    """Return the next parcel, None where it has not arrived yet.

    Raises EOFError or OSError where the other end has gone, Garbled where what it sent cannot be right.
    """
    frame = inbox.take()
    if frame is None:
        return None
    try:
        return Parcel(frame.body, _buffers(frame))
    finally:
        if frame.file >= 0:
            close_descriptor(frame.file)


def _buffers(frame: Frame) -> list[memoryview]:
    if len(frame.head) % 8 or bool(frame.head) != (frame.file >= 0):
        raise Garbled("a result's large parts are not where they should be")
    if frame.file < 0:
        return []
    sizes = struct.unpack(f"!{len(frame.head) // 8}Q", frame.head)
    whole = memoryview(_memory(frame.file, sum(sizes)))
    buffers, end = [], 0
    for size in sizes:
        buffers.append(whole[end : end + size])
        end += size
    return buffers


def _memory(file: int, size: int) -> mmap.mmap:
    """Return a file's memory, to be written to as well: results are the notebook's own."""
    if os.fstat(file).st_size < size:
        raise Garbled(f"{size} bytes of results were sent by a file that has {os.fstat(file).st_size}")
    try:
        # mapped only where the worker cannot cut it short, which would kill who reads it here
        if sys.version_info >= (3, 13) and keeps_size(file):
            return mmap.mmap(file, size, access=mmap.ACCESS_COPY, trackfd=False)
        whole = mmap.mmap(-1, size)  # up to 3.12, a mapped file would hold a descriptor for as long as the result lives
    except (OSError, OverflowError, ValueError) as error:
        raise Garbled(f"there is no room here for {size} bytes of results ({error})") from None
    view, done = memoryview(whole), 0
    while done < size:
        here = os.preadv(file, [view[done : done + (1 << 30)]], done)
        if not here:
            raise Garbled(f"{size} bytes of results were sent by a file that was cut short")
        done += here
    return whole
