"""Who else was there: what the kernel says of this machine's CPUs and memory, and how much of it was not ours.

A look costs 0.2 ms: one is taken where an arm begins, a second one where it ends and was long enough. Of a process
that was ended and reaped, its parent has the seconds; of a daemon that has left its parent they count as others'.

Source of the formats: proc(5), and the kernel's ``admin-guide/cgroup-v2``, ``cgroup-v1`` and ``accounting/psi``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from math import isfinite, nan
from pathlib import Path
from time import perf_counter

from parmagic.model.load import Load
from parmagic.system import cgroups
from parmagic.system.cpus import affinity, quota
from parmagic.system.interrupts import held_back
from parmagic.system.real import close_descriptor, open_descriptor, read_descriptor

SHORTEST = 0.2
"""Seconds of an arm from which on its load is told: the kernel's clocks tick in 10 ms."""

apart: set[int] = set()
"""Processes of ours that are nobody's children: those that start workers."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=apart.clear)  # they are its parent's

_MOST = 1 << 16
_BUSY = (1, 2, 3)
"""Of a CPU's line: user, nice and system; interrupts are nobody's."""
_STEAL = 8


@dataclass(frozen=True, slots=True)
class Look:
    """What had been used until ``at`` (seconds on our clock): CPU seconds of all, stolen ones, and ours; NaN where it is not told."""

    at: float
    busy: float = nan
    steal: float = nan
    own: float = nan
    throttled: float = nan
    memory: float = nan
    swapped: float = nan


def look() -> Look:
    """Look at the machine, unless ``PARMAGIC_LOAD=off`` says not to."""
    if not _looks():
        return Look(perf_counter())
    try:
        with held_back():
            busy, steal = _cpus()
            return Look(perf_counter(), busy, steal, _own(), _throttled(), _waited_for_memory(), _swapped())
    except (OSError, ValueError, IndexError):  # some containers have files of their own make in place of the kernel's
        return Look(perf_counter())


def since(begin: Look) -> Load:
    """Return what was taken from us since a look; nothing but the number of CPUs where that was too short a time ago."""
    cpus = affinity()
    if perf_counter() - begin.at < SHORTEST or not _looks():
        return Load(cpus)
    end = look()
    seconds = end.at - begin.at
    granted = quota(Path("/"))
    others = max(0.0, end.busy - begin.busy - max(0.0, end.own - begin.own)) / seconds if isfinite(end.busy - end.own) else nan
    throttled = 0.0 if granted > cpus and not isfinite(end.throttled) else end.throttled - begin.throttled
    clock, top = _clocks()
    return Load(
        cpus, granted, others, (end.steal - begin.steal) / seconds, throttled, (end.memory - begin.memory) / seconds,
        end.swapped - begin.swapped, clock, top,
    )  # fmt: skip


def _looks() -> bool:
    return sys.platform.startswith("linux") and os.environ.get("PARMAGIC_LOAD", "").lower() not in {"off", "0", "no"}


def _read(path: str) -> bytes:
    """Return the begin of a file of the kernel's; empty where there is none, or it may not be read."""
    try:
        descriptor = open_descriptor(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return read_descriptor(descriptor, _MOST)
    except OSError:  # its process is gone
        return b""
    finally:
        close_descriptor(descriptor)


def _cpus() -> tuple[float, float]:
    """Return the seconds for which the CPUs that we may use have run programs, and for which the hypervisor had them."""
    return used(_read("/proc/stat"), _usable())


def _usable() -> set[int]:
    """Return the numbers of the CPUs that we may use; none where a container refuses to tell."""
    try:
        return os.sched_getaffinity(0)
    except OSError:
        return set()


def used(stat: bytes, cpus: set[int]) -> tuple[float, float]:
    """Return the busy and the stolen seconds of these CPUs, by what ``/proc/stat`` says of each."""
    tick, busy, steal, seen = _tick(), 0, 0, 0
    names = {b"cpu%d" % cpu for cpu in cpus}
    for line in stat[: stat.find(b"\nintr")].splitlines():
        fields = line.split()
        if fields and fields[0] in names:
            seen += 1
            busy += sum(int(fields[place]) for place in _BUSY)
            steal += int(fields[_STEAL]) if len(fields) > _STEAL else 0
    return (busy / tick, steal / tick) if seen == len(cpus) > 0 else (nan, nan)


@cache
def _tick() -> int:
    """Return how often a second the kernel's clock of these files ticks."""
    return os.sysconf("SC_CLK_TCK")


def _own() -> float:
    """Return the CPU seconds of this process, of those apart, and of all below them, those that were ended and reaped too."""
    import resource  # noqa: PLC0415  (POSIX only)

    mine = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))  # to the microsecond
    total = sum(each.ru_utime + each.ru_stime for each in mine)
    try:
        seen, found = {os.getpid()}, [*apart, *_children(os.getpid())]
        while found:
            pid = found.pop()
            if pid not in seen:
                seen.add(pid)
                stat = _read(f"/proc/{pid}/stat")
                total += seconds_of(stat) if stat else 0.0
                found += _children(pid)
    except _NotTold:
        return nan
    return total


class _NotTold(Exception):
    """This kernel does not say which children a thread has."""


def _children(pid: int) -> Iterator[int]:
    with suppress(OSError):  # it is gone, or another user's by now
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  (Path takes three times as long)
            text = _read(f"/proc/{pid}/task/{thread}/children")
            if not text and not _tells_children():
                raise _NotTold
            yield from map(int, text.split())


@cache
def _tells_children() -> bool:
    return Path(f"/proc/self/task/{os.getpid()}/children").exists()


def seconds_of(stat: bytes) -> float:
    """Return the CPU seconds of a process and of the children that it has reaped, by its ``/proc/PID/stat``."""
    fields = stat[stat.rindex(b")") + 2 :].split()  # its name may hold anything
    return sum(map(int, fields[11:15])) / _tick()


def _throttled() -> float:
    """Return the seconds for which control groups have held threads back, by that which did most; NaN where none can."""
    files = _throttles(_read("/proc/self/cgroup"))
    return max((held_back_s(_read(file)) for file in files), default=nan)


@cache
def _throttles(_: bytes) -> tuple[str, ...]:
    """Return the files of the groups, known by what ``/proc/self/cgroup`` says, that could hold us back."""
    files = [str(folder / "cpu.stat") for folder in cgroups.folders("cpu")]
    return tuple(file for file in files if isfinite(held_back_s(_read(file))))


def held_back_s(stat: bytes) -> float:
    """Return the seconds that a group's ``cpu.stat`` has; NaN where it has none (of a root, or not of the CPU)."""
    figures = dict(line.split() for line in stat.splitlines() if len(line.split()) == 2)  # noqa: PLR2004  (a name and its figure)
    if b"throttled_usec" in figures:
        return int(figures[b"throttled_usec"]) / 1e6
    return int(figures[b"throttled_time"]) / 1e9 if b"throttled_time" in figures else nan


def _waited_for_memory() -> float:
    """Return the seconds in which some process has waited for memory."""
    first = _read("/proc/pressure/memory").partition(b"\n")[0]
    total = first.rpartition(b"total=")[2]
    return int(total) / 1e6 if total.isdigit() else nan


def _swapped() -> float:
    """Return the megabytes that went to swap, and came from there."""
    text, pages = _read("/proc/vmstat"), 0
    for name in (b"\npswpin ", b"\npswpout "):
        figure = text.partition(name)[2].partition(b"\n")[0]
        if not figure.isdigit():
            return nan
        pages += int(figure)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _clocks() -> tuple[float, float]:
    """Return at how many GHz the fastest CPU that we may use runs now, and could run; NaN where it is not told."""
    files = [f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/" for cpu in _usable()] if _tells_clocks() else []
    now, top = ([_read(file + name).strip() for file in files] for name in ("scaling_cur_freq", "cpuinfo_max_freq"))
    fastest = [max((int(each) for each in found if each.isdigit()), default=0) / 1e6 for found in (now, top)]
    return fastest[0] or nan, fastest[1] or nan


@cache
def _tells_clocks() -> bool:
    return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").exists()
