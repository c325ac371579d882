"""What a worker sends home arrives as it was sent, or an error names that worker; the notebook neither crashes nor hangs."""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress

import fuzz_messages
import pytest

import parmagic
from parmagic.errors import WorkerDied
from parmagic.workers.processes import frames, home, hub
from parmagic.workers.processes.frames import ENDS, Inbox, Outbox
from parmagic.workers.processes.wire import Garbled

pytestmark = pytest.mark.skipif(not hub.supported(), reason="no processes here")


def test_fuzzed():
    """In a few hundred seeded cases all that is taken was sent, in order; it ends at an end or by an error, with no memory for what never came."""
    ends = {fuzz_messages.case(seed) for seed in range(300)}
    assert {end.partition(":")[0] for end in ends} == {"nothing", *(way.__name__ for way in fuzz_messages.WAYS)}
    assert {"nothing: EOFError", "_flip: Garbled", "_twice: Garbled", "_forge_sizes: Garbled", "_break_off: EOFError"} <= ends


def test_the_fuzzer_sees_what_gets_through(monkeypatch):
    """Without checksums, wrong bytes are taken, and the fuzzer says so."""
    monkeypatch.setattr(frames, "_checksum", lambda *_: 0)
    with pytest.raises(AssertionError, match=r"_(flip|cut|insert)"):
        [fuzz_messages.case(seed) for seed in range(300)]


@pytest.fixture
def ends():
    """Return both ends of a worker's way home."""
    ours, theirs = socket.socketpair()
    inbox = Inbox(ours, 1)
    yield inbox, theirs
    inbox.close()
    theirs.close()


def test_nothing_waits_for_the_rest(ends):
    """A message of which half has come is not there yet; when the rest comes, it is."""
    inbox, theirs = ends
    assert inbox.take() is None
    (sent,) = fuzz_messages.record([home.Parcel(b"whole", [])])
    data = sent.data
    inbox._stream = fuzz_messages.RANK
    for byte in data[:-1]:
        theirs.send(bytes([byte]))
        assert inbox.take() is None
    assert not inbox.waits()
    theirs.send(data[-1:])
    assert inbox.waits()
    assert bytes(inbox.take().body) == b"whole"


def test_a_large_message(ends):
    """A message of many megabytes arrives piece by piece; of its middle no checksum is made, but what is lost there shows."""
    inbox, theirs = ends
    body = os.urandom(1 << 16) * 80
    theirs.setblocking(False)
    (first,) = _wire(b"head", body)
    assert _pump(theirs, first, inbox) == (b"head", body)
    short = bytearray(first)
    del short[ENDS + 1000 : ENDS + 1001]
    inbox._number = 0
    with pytest.raises(Garbled, match="checksum of message 0"):
        _pump(theirs, bytes(short) + b"x", inbox)


def test_a_default_timeout_is_not_for_us(ip):
    """Where the notebook or a body sets a default for sockets, messages larger than their buffers arrive all the same."""
    before = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(1e-6)
        run = ip("%%parallel procs=2 --once -q --trace off --start-method fork for n in range(4)\nbytes([n]) * 3_000_000")
    finally:
        socket.setdefaulttimeout(before)
    assert [(result[0], len(result)) for result in run.results] == [(n, 3_000_000) for n in range(4)]


def _wire(head, body):
    """Return what a message looks like on the wire."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        thread = threading.Thread(target=lambda: (Outbox(theirs, 1).send(head, body), theirs.shutdown(socket.SHUT_WR)))
        thread.start()
        data = bytearray()
        while part := ours.recv(1 << 20):
            data += part
        thread.join()
    return [bytes(data)]


def _pump(theirs, data, inbox):
    view, taken = memoryview(data), None
    while taken is None:
        with suppress(BlockingIOError):
            view = view[theirs.send(view[: 1 << 20]) :] if view else view
        taken = inbox.take()
    return bytes(taken.head), bytes(taken.body)


def test_results_whose_file_is_cut_short(ends, monkeypatch):
    """Where a file of results gets shorter after it was looked at, that is an error as well: nothing is mapped that can go away."""
    inbox, theirs = ends
    large = memoryview(bytes(1 << 20))
    looked_at = os.fstat

    def cut(file):
        found = looked_at(file)
        os.ftruncate(file, 1000)
        return found

    monkeypatch.setattr(home, "keep_size", lambda _: False)
    home.send(Outbox(theirs, 1), home.Parcel(b"", [large]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", cut)
        with pytest.raises(Garbled, match="1048576 bytes of results were sent by a file that was cut short"):
            home.receive(inbox)


def test_results_are_sealed(ends):
    """The file of a result cannot be cut short by the worker any more once it is on its way."""
    inbox, theirs = ends
    home.send(Outbox(theirs, 1), home.Parcel(b"", [memoryview(bytes(1 << 20))]))
    frame = inbox.take()
    with pytest.raises(PermissionError):
        os.ftruncate(frame.file, 0)
    assert not os.get_inheritable(frame.file)
    os.close(frame.file)


MISCHIEF = """
import os, threading
from parmagic.model.progress import Displayed
from parmagic.workers.processes import frames, ipython
import zlib

def channel():
    return ipython._show.__self__

def way_home():
    return channel()._sock.fileno()

def header(number, size):
    data = frames._HEADER.pack(b"pm\\r\\n", channel().me.rank, number, 0, size, False, 0)
    return data + frames._CHECK.pack(zlib.crc32(data))

def again():
    channel()._outbox._number -= 1
    channel().send(None)

def skip():
    channel()._outbox._number += 1
    channel().send(None)

def stay():
    threading.Event().wait(900)
"""

SENT = {
    "garbage": ("os.write(way_home(), b'x' * 1000)", "something else came where message 1 begins"),
    "a printed line": ("os.write(way_home(), b'hello, this is a line of a log file, which went astray\\n')", "something else came where message 1 begins"),
    "a message twice": ("again()", "message 0 came where message 1 was expected"),
    "a message that is missing": ("skip()", "message 2 came where message 1 was expected"),
    "a wrong checksum": ("os.write(way_home(), header(1, 4) + b'abcd')", "the checksum of message 1 is wrong"),
    "no message of ours": ("channel().send(42)", "it is no message of this worker's (a int)"),
    "a message of another one": ("channel().send(Displayed(7, {}, {}))", "it is no message of this worker's (a Displayed)"),
    "a file that is not there": ("channel()._outbox.send(b'12345678', b'')", "a result's large parts are not where they should be"),
    "a file that is too short": (
        "channel()._outbox.send((1 << 40).to_bytes(8), b'', os.memfd_create('short'))", "bytes of results were sent by a file that has 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("sent", SENT)
def test_what_a_worker_must_not_send(ip, sent):
    """Whatever a body writes into its worker's way home, the error names worker and item; with --keep-going all others are done."""
    deed, words = SENT[sent]
    ip(MISCHIEF)
    body = f"if n == 0:\n    {deed}\n    stay()\nn"
    error = ip.fails(f"%%parallel procs=2 --once -q --trace off --chunk 1 for n in range(6)\n{body}")
    assert isinstance(error, WorkerDied)
    assert "Worker " in str(error)
    assert "was ended in item 0, as what it sent cannot be read: " in str(error)
    assert words in str(error)
    run = ip(f"%%parallel procs=2 --once -q --trace off --keep-going --chunk 1 for n in range(6)\n{body}")
    assert run.results == [None, 1, 2, 3, 4, 5]
    assert "was ended in item 0, as what it sent" in run.items["error"].iloc[0]


def test_a_message_that_never_ends(ip):
    """A worker that announces more than it sends, and ends, has died; while it lives, the others are heard, and a timeout ends the run."""
    ip(MISCHIEF)
    huge = "os.write(way_home(), header(1, 1 << 60) + b'abcd')"
    body = f"if n == 0:\n    {huge}\n    os._exit(0)\nn"
    run = ip(f"%%parallel procs=2 --once -q --trace off --keep-going --chunk 1 for n in range(6)\n{body}")
    assert run.results == [None, 1, 2, 3, 4, 5]
    assert "ended with exit code 0 in item 0" in run.items["error"].iloc[0]
    stays = body.replace("os._exit(0)", "stay()")
    error = ip.fails(f"%%parallel procs=2 --once -q --trace off --timeout 1 --chunk 1 for n in range(6)\n{stays}")
    assert type(error).__name__ == "RunTimeout"
    assert parmagic.last().results == [None, 1, 2, 3, 4, 5]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="results are copied here")
def test_what_is_mapped_is_sealed(ends, monkeypatch):
    """A file of results is mapped only where it is sealed; else its bytes are copied. Both are the notebook's own to write to."""
    inbox, theirs = ends
    outbox = Outbox(theirs, 1)
    for sealed in (True, False):
        with monkeypatch.context() as patch:
            if not sealed:
                patch.setattr(home, "keep_size", lambda _: False)
            home.send(outbox, home.Parcel(b"", [memoryview(b"x" * (1 << 20))]))
        (buffer,) = home.receive(inbox).buffers
        buffer[0] = 65
        assert bytes(buffer[:2]) == b"Ax"
