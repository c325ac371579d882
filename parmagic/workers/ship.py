"""What travels to a worker, and what travels back.

The body with the names that it reads, and the items, are pickled once a run
into one anonymous memory file that every worker maps. Items are pickled in
segments, so that a worker unpickles only those that it claims. Large buffers
(arrays, frames) lie beside the pickles and are mapped copy-on-write: nobody
copies them, and what a worker writes there stays with it.
"""

from __future__ import annotations

import io
import marshal
import mmap
import os
import pickle
import types
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import context, reduction
from time import perf_counter
from typing import Any

import cloudpickle
from cloudpickle import cloudpickle as cloud

from parmagic.errors import NoShell, NotShippable
from parmagic.workers.orders import Blob, ForkOnly, Manifest, Place, anonymous_file

_SEGMENT = 1 << 16
"""Bytes that a segment of items aims at."""

_ALIGN = 64

class Cargo:
    """A shipped body with its items: a file, its manifest, descriptors that travel with it.

    ``seconds`` is how long packing took, ``size`` how many bytes it is.
    """

    def __init__(self, call: Any, items: Sequence[Any], names: Iterable[str] = ()) -> None:
        begin = perf_counter()
        self.file = anonymous_file()
        self.descriptors: list[int] = []
        self._popen = _Popen(self.descriptors)
        self._end = 0
        try:
            body = self._pack_body(call, names)
            segments, firsts = self._pack_items(items)
        except BaseException:
            self.close()
            raise
        self.manifest = Manifest(body, tuple(segments), tuple(firsts), self._end)
        self.size = self._end
        self.seconds = perf_counter() - begin

    def close(self) -> None:
        """Give the memory back (workers that have it mapped keep it)."""
        os.close(self.file)
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()

    def _pack_body(self, call: Any, names: Iterable[str]) -> Blob:
        try:
            return self._pack(call)
        except Exception as error:
            raise _who_is_it(call, names, error, self._pack) from error

    def _pack_items(self, items: Sequence[Any]) -> tuple[list[Blob], list[int]]:
        segments: list[Blob] = []
        firsts: list[int] = []
        first, size = 0, 1
        while first < len(items):
            part = list(items[first : first + size])
            try:
                segments.append(self._pack(part))
            except Exception as error:
                raise self._which_item(part, first, error) from error
            firsts.append(first)
            first += len(part)
            blob = segments[-1]
            weight = blob.pickle[1] + sum(length for _, length in blob.buffers)
            size = max(1, min(4 * size, int(len(part) * _SEGMENT / weight)))
        return segments, firsts

    def _which_item(self, part: list[Any], first: int, error: Exception) -> NotShippable:
        for number, item in enumerate(part, first):
            try:
                self._pack(item)
            except Exception as own:  # noqa: BLE001  (it is reported)
                return NotShippable(
                    f"Item {number} (a {_type_name(item)}) cannot be sent to a process: {own}. "
                    "Loop over something that can be pickled (a path, a number) and open it in the body, or use threads."
                )
        return NotShippable(f"The items cannot be sent to processes: {error}")

    def _pack(self, what: Any) -> Blob:
        buffers: list[pickle.PickleBuffer] = []
        stream = io.BytesIO()
        before = context.get_spawning_popen()
        context.set_spawning_popen(self._popen)  # type: ignore[arg-type]  # it has what is asked of one
        try:
            _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(what)
        finally:
            context.set_spawning_popen(before)
        return Blob(self._put(stream.getbuffer()), tuple(self._put(buffer.raw()) for buffer in buffers))

    def _put(self, data: memoryview) -> Place:
        offset = -(-self._end // _ALIGN) * _ALIGN
        done = 0
        while done < len(data):
            done += os.pwrite(self.file, data[done : done + (1 << 30)], offset + done)
        self._end = offset + len(data)
        return offset, len(data)


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"


def _who_is_it(call: Any, names: Iterable[str], error: Exception, pack: Callable[[Any], Any]) -> NotShippable:
    """Find the name that cannot be shipped, by trying each."""
    spaces = getattr(getattr(call, "function", call), "__globals__", {})
    for name in sorted(names):
        if name not in spaces:
            continue
        try:
            pack(spaces[name])
        except ForkOnly:
            raise
        except Exception as own:  # noqa: BLE001  (it is reported)
            return NotShippable(
                f"The body reads {name!r} (a {_type_name(spaces[name])}), which cannot be sent to a process: {own}. "
                f"Make it in the body, or use threads, or --start-method fork, which needs no pickling of names."
            )
    if isinstance(error, ForkOnly):
        raise error
    return NotShippable(f"The body cannot be sent to processes: {error}")


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Ships what the notebook has: by value, and multiprocessing's primitives as to a child."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj).__module__ == "multiprocessing.synchronize" and getattr(obj, "_is_fork_ctx", False):
            raise ForkOnly
        if isinstance(obj, types.MethodType) and obj.__name__ == "get_ipython" and type(obj.__self__).__module__ != "__main__":
            return _no_ipython, ()
        if isinstance(obj, types.FunctionType) and obj.__module__ == "IPython.core.display_functions" and obj.__name__ == "display":
            return _display, ()
        if isinstance(obj, types.CodeType):
            return marshal.loads, (marshal.dumps(obj),)  # cloudpickle 3.1.3 forgets the file, which tracebacks need
        reducer = reduction.ForkingPickler._extra_reducers.get(type(obj))  # type: ignore[attr-defined]  # noqa: SLF001
        if reducer is not None:
            return reducer(obj)
        return super().reducer_override(obj)


class _Popen:
    """Stands where multiprocessing expects the process that is being started."""

    def __init__(self, descriptors: list[int]) -> None:
        self._descriptors = descriptors

    def duplicate_for_child(self, descriptor: int) -> int:
        self._descriptors.append(os.dup(descriptor))
        return len(self._descriptors) - 1

    class DupFd:
        """A descriptor that travels beside the pickle, by its number there."""

        def __init__(self, index: int) -> None:
            self.index = index

        def detach(self) -> int:
            return _arrived[self.index]


_arrived: list[int] = []


def no_ipython() -> Any:
    """Stand in for ``get_ipython`` in a process: always raises NoShell."""
    raise NoShell(
        "Shell escapes and line magics do not work in processes: there is no IPython there. "
        "Use subprocess.run(…) in the body, or threads."
    )


def _no_ipython() -> Callable[[], Any]:
    return no_ipython


def _display() -> Callable[..., None]:
    from parmagic.workers.child import display  # noqa: PLC0415  (the worker's, found where it is unpickled)

    return display


class Reader:
    """A worker's view of a cargo."""

    def __init__(self, file: int, manifest: Manifest, descriptors: list[int]) -> None:
        self._manifest = manifest
        _arrived[:] = descriptors
        self._view = memoryview(mmap.mmap(file, manifest.size, access=mmap.ACCESS_COPY))
        self._segment = -1
        self._items: list[Any] = []

    def body(self) -> Any:
        """Return the shipped callable."""
        return self._unpack(self._manifest.body)

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
        return items

    def _unpack(self, blob: Blob) -> Any:
        buffers = [self._view[offset : offset + size] for offset, size in blob.buffers]
        offset, size = blob.pickle
        return pickle.loads(self._view[offset : offset + size], buffers=buffers)


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


def loads_as_home(packed: bytes) -> Any:
    """Unpickle a packed result, as the notebook will."""
    return pickle.loads(packed)


def _class_by_id(tracked: str) -> type:
    found: type = cloud._DYNAMIC_CLASS_TRACKER_BY_ID[tracked]  # noqa: SLF001
    return found


def pack_result(value: Any) -> bytes:
    """Pickle what a worker sends home."""
    stream = io.BytesIO()
    _ResultPickler(stream, protocol=5).dump(value)
    return stream.getvalue()
