"""Worker's messages, cut, flipped, swapped, forged: what the notebook takes from them is what was sent, or an error.

    python tests/fuzz_messages.py --seconds 600 --seed 1

Every case is a seed of its own; the suite goes through a few hundred (``test_messages.py``).
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import struct
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import NamedTuple

from parmagic.system.files import anonymous_file
from parmagic.workers.processes import home
from parmagic.workers.processes.frames import _CHECK, _HEADER, Inbox, Outbox
from parmagic.workers.processes.wire import Garbled

RANK = 3
SIZES = (0, 1, 100, 3000, 70_000, 300_000)
HUGE = (1 << 31, 1 << 40, (1 << 64) - 1)


class Sent(NamedTuple):
    """A message on the wire: its bytes, and what lies in the files that come along."""

    data: bytes
    files: tuple[bytes, ...] = ()


def parcels(rng: random.Random) -> list[home.Parcel]:
    """Return what a worker may send: small and large pickles, some with buffers beside them."""
    found = []
    for _ in range(rng.randint(1, 6)):
        buffers = [memoryview(rng.randbytes(rng.choice((1, 5000)))) for _ in range(rng.choice((0, 0, 1, 3)))]
        found.append(home.Parcel(rng.randbytes(rng.choice(SIZES)), buffers))
    return found


def record(sending: list[home.Parcel]) -> list[Sent]:
    """Send these, and return what came out of the socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    found = []
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        outbox = Outbox(theirs, RANK)
        for parcel in sending:
            home.send(outbox, parcel)
            data, files = b"", []
            while True:
                try:
                    part, descriptors, _, _ = socket.recv_fds(ours, 1 << 20, 4)
                except BlockingIOError:
                    break
                data += part
                for descriptor in descriptors:
                    files.append(os.pread(descriptor, 1 << 20, 0))
                    os.close(descriptor)
            found.append(Sent(data, tuple(files)))
    return found


def _flip(rng: random.Random, wire: list[Sent]) -> None:
    """Turn some bits over."""
    at = rng.randrange(len(wire))
    data = bytearray(wire[at].data)
    near = rng.choice((_HEADER.size + _CHECK.size, len(data)))
    for _ in range(rng.choice((1, 1, 2, 20))):
        data[rng.randrange(min(near, len(data)))] ^= 1 << rng.randrange(8)
    wire[at] = wire[at]._replace(data=bytes(data))


def _cut(rng: random.Random, wire: list[Sent]) -> None:
    """Take some bytes out."""
    at = rng.randrange(len(wire))
    data = wire[at].data
    begin = rng.randrange(len(data))
    end = rng.choice((begin + 1, begin + 8, rng.randint(begin, len(data)), len(data)))
    wire[at] = wire[at]._replace(data=data[:begin] + data[end:])


def _insert(rng: random.Random, wire: list[Sent]) -> None:
    """Put bytes in, as a body that writes to a descriptor that is not its own."""
    at = rng.randrange(len(wire))
    data = wire[at].data
    begin = rng.choice((0, rng.randrange(len(data)), len(data)))
    foreign = rng.choice((b"\n", b"hello\n", bytes(100), rng.randbytes(1000), wire[0].data[:20]))
    wire[at] = wire[at]._replace(data=data[:begin] + foreign + data[begin:])


def _twice(rng: random.Random, wire: list[Sent]) -> None:
    """Send a message once more, at once or later."""
    wire.insert(rng.randint(0, len(wire)), rng.choice(wire))


def _swap(rng: random.Random, wire: list[Sent]) -> None:
    """Send two messages in the other order."""
    one, two = rng.randrange(len(wire)), rng.randrange(len(wire))
    wire[one], wire[two] = wire[two], wire[one]


def _drop(rng: random.Random, wire: list[Sent]) -> None:
    """Leave a message out."""
    del wire[rng.randrange(len(wire))]


def _break_off(rng: random.Random, wire: list[Sent]) -> None:
    """End in the middle."""
    at = rng.randrange(len(wire))
    wire[at:] = [wire[at]._replace(data=wire[at].data[: rng.randrange(len(wire[at].data))])]


def _forge(rng: random.Random, wire: list[Sent]) -> None:
    """Say something else in a header, under a checksum that is right."""
    at = rng.randrange(len(wire))
    data = wire[at].data
    fields = list(_HEADER.unpack_from(data))
    place = rng.randrange(1, len(fields))
    fields[place] = rng.choice((0, 1, rng.randrange(1 << 32), *HUGE)) % (1 << (64 if place == 4 else 1 if place == 5 else 32))
    header = _HEADER.pack(*fields)
    wire[at] = wire[at]._replace(data=header + _CHECK.pack(zlib.crc32(header)) + data[_HEADER.size + _CHECK.size :])


def _forge_sizes(rng: random.Random, wire: list[Sent]) -> None:
    """Say other sizes of buffers, under checksums that are right."""
    at = rng.randrange(len(wire))
    start = _HEADER.size + _CHECK.size
    mark, stream, number, head, body, with_file, _ = _HEADER.unpack_from(wire[at].data)
    sizes = struct.pack("!Q", rng.choice(HUGE)) * max(1, head // 8)
    rest = wire[at].data[start + head :]
    outbox_header = _HEADER.pack(mark, stream, number, len(sizes), body, with_file, zlib.crc32(rest, zlib.crc32(sizes)))
    wire[at] = wire[at]._replace(data=outbox_header + _CHECK.pack(zlib.crc32(outbox_header)) + sizes + rest)


def _other_files(rng: random.Random, wire: list[Sent]) -> None:
    """Let other files come along: none, shorter ones, one too many."""
    at = rng.randrange(len(wire))
    files = wire[at].files
    wire[at] = wire[at]._replace(files=rng.choice(((), tuple(file[: len(file) // 2] for file in files), (*files, b"more"), (b"",) * 3)))


WAYS: tuple[Callable[[random.Random, list[Sent]], None], ...] = (
    _flip, _cut, _insert, _twice, _swap, _drop, _break_off, _forge, _forge_sizes, _other_files,
)  # fmt: skip


def feed(wire: list[Sent], rng: random.Random) -> tuple[list[home.Parcel], Exception]:
    """Let the notebook's end take all that is on the wire, in pieces of any size; return what it took, and how that ended."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    inbox = Inbox(ours, RANK)
    taken: list[home.Parcel] = []
    files: list[int] = []
    try:
        for sent in wire:
            files = [_file(content) for content in sent.files]
            left = sent.data
            while left:
                piece = left[: rng.choice((1, 7, 40, len(left), len(left)))]
                try:
                    done = socket.send_fds(theirs, [piece], files)
                except BlockingIOError:
                    done = 0
                if done:
                    while files:
                        os.close(files.pop())
                left = left[done:]
                while (parcel := home.receive(inbox)) is not None:
                    taken.append(parcel)
            while files:
                os.close(files.pop())
        theirs.close()
        while (parcel := home.receive(inbox)) is not None:
            taken.append(parcel)
    except (EOFError, Garbled) as error:
        return taken, error
    finally:
        while files:
            os.close(files.pop())
        theirs.close()
        inbox.close()
    raise AssertionError("it waits for more, though there is an end")


def _file(content: bytes) -> int:
    file = anonymous_file()
    os.pwrite(file, content, 0)
    return file


def case(seed: int) -> str:
    """Go through one case; return how it ended. Raises AssertionError where something was taken that had not been sent."""
    rng = random.Random(seed)
    sending = parcels(rng)
    wire = record(sending)
    way = rng.choice((None, *WAYS))
    if way is not None:
        way(rng, wire)
    arriving = sum(len(sent.data) + sum(map(len, sent.files)) for sent in wire)
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    tracemalloc.start()
    try:
        taken, error = feed(wire, rng)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for sent, got in zip(sending, taken, strict=False):
        assert bytes(got.pickle) == sent.pickle, (seed, way)
        assert [bytes(buffer) for buffer in got.buffers] == [bytes(buffer) for buffer in sent.buffers], (seed, way)
    assert len(taken) <= len(sending), (seed, way)
    assert peak < 4 * arriving + (1 << 20), (seed, way, peak)
    if way is None:
        assert len(taken) == len(sending), seed
        assert isinstance(error, EOFError), seed
    del taken
    if before:
        assert len(os.listdir("/proc/self/fd")) == before, (seed, way)
    return f"{way.__name__ if way else 'nothing'}: {type(error).__name__}"


def main() -> None:
    """Go through cases for a time, and tell how they ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    until, seed, ends = time.monotonic() + given.seconds, given.seed << 32, {}
    while time.monotonic() < until:
        end = case(seed)
        ends[end] = ends.get(end, 0) + 1
        seed += 1
    for end, count in sorted(ends.items()):
        print(f"{count:8} {end}")


if __name__ == "__main__":
    main()
