"""A short part of each kind of fuzzing; ``tests/fuzz.py`` runs for longer."""

from __future__ import annotations

import os
import threading

import fuzz
import pytest

from parmagic.render import serve


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_lines():
    """Of thousands of lines, each is a plan or an error that points into it; the median takes a millisecond, and none a second."""
    assert fuzz.fuzz_lines(range(10_000), seed=11) == []


def test_requests(capfd):
    """A thousand requests, most of them malformed: a 4xx or a closed connection, nothing printed, nothing left, and the next one is served."""
    url = serve.open_trace(b"{}", "title")
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    try:
        assert fuzz.fuzz_server(range(1000), 11, url) == []
        right = f"GET /{url.split('/', 3)[3]} HTTP/1.1\r\nHost: {url.split('/')[2]}\r\n\r\n"
        assert fuzz.answer_to(right.encode(), int(url.split(":")[2].split("/")[0])).startswith(b"HTTP/1.1 200 ")
        assert threading.active_count() == threads
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
    finally:
        serve.close()
    assert capfd.readouterr() == ("", "")
