"""Threads of this process that are none of Python's: whose they are, and which of them a fork cannot do without.

A fork has none of them. What waits for one there waits for ever, unless the library takes care of that. Which library
a thread runs is read off its stack: most pools give their threads no name of their own. Linux only; elsewhere nothing
is known of them.
"""

from __future__ import annotations

import os
import re
import struct
import sys
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from parmagic.system.interrupts import held_back
from parmagic.system.real import close_descriptor, open_descriptor, sleep

_TASKS = "/proc/self/task"

_STILL = ("ZMQbg/", "jemalloc_bg_thd", "polars-ooc-clea")
"""What threads are called that nothing waits for: of Jupyter's sockets, of memory that is given back, of polars' files."""

_SAFE = re.compile(r"lib(scipy_)?openblas|lib(i?omp5?|zmq)\b|libarrow")
"""Pools that a fork makes anew: OpenBLAS, the OpenMP of LLVM and of Intel (so MKL), ZeroMQ, Arrow from version 12 on."""

_ANY = re.compile(r"lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+|c\+\+|c\+\+abi|[atlu]b?san)[-.]|ld-|\[v|_waits\.")
"""What lies on the stacks of many threads, whoever began them: the system's libraries, sanitizers, our hooks."""

_PYTHON = re.compile(r"libpython|python[\d.]*$")

_NAMES = (
    (r"/torch/lib/|/torch\.libs/|libtorch|libc10", "torch"),  # with a libgomp of its own
    (r"openblas", "OpenBLAS"),
    (r"libmkl", "MKL"),
    (r"lib[gi]?omp\b", "OpenMP"),
    (r"/_?polars", "polars"),
    (r"/numexpr/", "numexpr"),
    (r"libarrow|/pyarrow/", "Arrow"),
    (r"libtbb", "TBB"),
    (r"tensorflow", "TensorFlow"),
    (r"libcuda", "CUDA"),
)
"""What libraries are called, by what is found in the path of their file: the first that fits."""

_PATIENCE = 0.25
"""Seconds in which a pool comes to rest: OpenMP's threads spin that long behind the last loop."""

_DEEP = 1 << 14, 1 << 18
"""Bytes of a stack that are looked at, first and last."""

_SYSTEM, _SANITIZER = "the system", "a sanitizer"

_ABOUT = 1 << 12
"""Bytes in which the system keeps what it knows of a thread, at most."""

_WORD = struct.calcsize("N")

_known: dict[int, str] = {}  # what each thread's pool is called, by the thread; empty where a fork can do without it


def left_out() -> dict[str, int]:
    """Return what a fork of this process would wait for in vain: how many threads, by what they are called after."""
    try:
        there = {int(name) for name in os.listdir(_TASKS)}  # noqa: PTH208  (at each run)
    except OSError:
        return {}
    if len(there) == 1:
        return {}
    for gone in [thread for thread in list(_known) if thread not in there]:
        _known.pop(gone, None)
    others = there - {os.getpid()} - {getattr(thread, "native_id", 0) for thread in threading.enumerate()}  # those of greenlets have none
    new = others - _known.keys()
    busy = _look(new) if new else {}
    return dict(Counter(name for name in [*(_known.get(each, "") for each in others), *busy.values()] if name))


def _look(threads: Iterable[int]) -> dict[int, str]:
    """Find whose these threads are; return those that did not come to rest."""
    until, left = time.monotonic() + _PATIENCE, list(threads)
    while True:
        found = _libraries(left)
        _known.update({thread: _pool(thread, libraries) for thread, libraries in found.items() if libraries is not None})
        left = [thread for thread, libraries in found.items() if libraries is None]
        if not left or time.monotonic() > until:
            return {thread: _comm(thread) or "a busy one" for thread in left}
        sleep(0.002)


def _pool(thread: int, library: str) -> str:
    """Return what a thread is called after, empty where it may be left out of a fork: by its name, and by whose code it began with."""
    name, file = _comm(thread), _file(library)
    if name.startswith(_STILL) or _SAFE.match(file) or _PYTHON.match(file) or library == _SANITIZER:
        return ""
    if not library:
        return "" if name == _comm(os.getpid()) else name  # stacks are not shown here: only a name of its own tells
    if library == _SYSTEM:
        return name
    return library_name(library) or name


def library_name(path: str) -> str:
    """Return what a library is called, by the path of its file; where it is not known, by the file's name."""
    known = next((called for pattern, called in _NAMES if re.search(pattern, path)), "")
    return known or re.split(r"[.-]", _file(path))[0]


def is_pythons(path: str) -> bool:
    """Tell whether a library, or a program, is one that Python itself is made of."""
    return path.rpartition("/")[0].endswith("/lib-dynload") or bool(_PYTHON.match(_file(path)))


PYTHON = "Python"
"""In place of a library: a thread that the interpreter began."""


def begun_by(threads: Iterable[int]) -> dict[int, str]:
    """Return by what each of these threads of this process was begun: a library's name, ``PYTHON``; empty where that is not known.

    A thread that has ended is not among them.
    """
    names = {}
    for thread, library in _libraries(threads).items():
        if library and library not in {_SYSTEM, _SANITIZER}:
            names[thread] = PYTHON if _PYTHON.match(_file(library)) else library_name(library)
        else:  # a pool may call its threads polars-0, polars-1 …
            own = _comm(thread)
            names[thread] = "" if own == _comm(os.getpid()) else re.sub(r"\W*\d*$", "", own)
    return names


def _comm(thread: int) -> str:
    try:
        return Path(f"{_TASKS}/{thread}/comm").read_text(errors="replace").strip()
    except OSError:
        return ""


class _Map(NamedTuple):
    begin: int
    end: int
    file: str  # of code: its path; empty of anything else
    is_stack: bool  # or may be one


def _libraries(threads: Iterable[int]) -> dict[int, str | None]:
    """Return the file whose code each thread began with, as far as that is seen: None for one that runs now, none for one that ended."""
    maps = _maps()
    found: dict[int, str | None] = {}
    with held_back():  # a Ctrl-C would leave the file open
        try:
            memory = open_descriptor("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return dict.fromkeys(threads, "")
        try:
            for thread in threads:
                with suppress(ProcessLookupError, FileNotFoundError):  # it has ended
                    found[thread] = _seen(memory, maps, thread)
        finally:
            close_descriptor(memory)
    return found


def _seen(memory: int, maps: list[_Map], thread: int) -> str | None:
    """Return with whose code a thread began; raises FileNotFoundError or ProcessLookupError where it has ended."""
    folder = f"{_TASKS}/{thread}"
    try:
        words = Path(f"{folder}/syscall").read_text().split()
    except OSError:
        os.stat(folder)  # noqa: PTH116  (raises where it has ended; else this system does not tell)
        return ""
    top = int(words[-2], 16) if len(words) > 1 else _end_of_stack(memory, maps, thread)
    return None if top is None else _owner(memory, maps, top)


def _end_of_stack(memory: int, maps: list[_Map], thread: int) -> int | None:
    """Return a place near the end of a running thread's stack, below what the system knows of it: that has the thread's number in it."""
    for each in maps:
        words = _words(memory, each.end - _ABOUT, _ABOUT) if each.is_stack and each.end - each.begin > _ABOUT else ()
        place = _about(words, each.end - _ABOUT)
        if place is not None and any(thread in {word & 0xFFFFFFFF, word >> 32} for word in words[place:]):
            return each.end - _ABOUT
    return None


def _about(words: tuple[int, ...], begin: int) -> int | None:
    """Return where, in these words of a stack, what the system knows of its thread begins; None where it does not."""
    return next((at for at, word in enumerate(words[:-2]) if word == begin + at * _WORD == words[at + 2]), None)


def _owner(memory: int, maps: list[_Map], top: int) -> str:
    """Return whose code a thread began with, whose stack has its top there; this reads memory by a file, for the stack may be gone by now.

    At the stack's other end lies what the system knows of the thread, with the function that it began with. On x86 glibc
    that begins with its own address, and has it again two words further. Where that is not found, it is the code that the thread is in.
    """
    begins = [each.begin for each in maps]

    def file_of(word: int) -> str:
        where = maps[bisect_right(begins, word) - 1]
        return where.file if where.begin <= word < where.end else ""

    words: tuple[int, ...] = ()
    place = None
    for deep in _DEEP:
        words = _words(memory, top, deep)
        place = _about(words, top)
        if place is not None or len(words) < deep // _WORD:
            break
    near = words[: _DEEP[0] // _WORD] if place is None else (*words[place : place + _ABOUT // _WORD], *words[place - 1 :: -1])
    files = [file for word in near if (file := file_of(word))]
    own = next((file for file in files if not _ANY.match(_file(file))), "")
    return own or (_SANITIZER if any("san." in file for file in files) else _SYSTEM if files else "")


def _words(memory: int, begin: int, size: int) -> tuple[int, ...]:
    try:
        data = os.pread(memory, size, begin)
    except OSError:
        return ()
    return struct.unpack(f"{len(data) // _WORD}N", data[: len(data) // _WORD * _WORD])


def _maps() -> list[_Map]:
    """Return this process's memory, in the order of its addresses."""
    found = []
    with suppress(OSError), open("/proc/self/maps") as lines:  # noqa: PTH123
        for line in lines:
            addresses, flags, _, _, _, *named = line.split(None, 5)
            begin, end = (int(each, 16) for each in addresses.split("-"))
            file = named[0].strip() if named else ""
            code = file or "code made while it runs"
            found.append(_Map(begin, end, code if "x" in flags else "", flags.startswith("rw") and file[:5] in {"", "[anon"}))
    return found


@cache
def _file(path: str) -> str:
    """Return the name of a file of code; that of the interpreter, which may be called anything, is always the same."""
    return "python" if path == os.path.realpath(sys.executable) else os.path.basename(path)  # noqa: PTH119  (text)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_known.clear)
