"""Settings of the notebook's that workers have as well, and that no socket, lock or file of ours follows."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import socket, sys, time, urllib.request
socket.setdefaulttimeout({timeout})
import parmagic
def body(n):
    time.sleep(0.3)
    return socket.getdefaulttimeout(), socket.socket().gettimeout(), "x" * 3_000_000
for line in ("procs=2 threads=2", "procs=2 --start-method spawn", "procs=2 --start-method fork", "serial"):
    models, *options = line.split(" --start-method ")
    run = parmagic.run(body, range(4), models, **({{"start_method": options[0]}} if options else {{}}))
    assert {{each[:2] for each in run.results}} == {{({timeout}, {timeout})}}, [each[:2] for each in run.results]
    assert not [note for note in run.notes if "ended" in note or "died" in note], run.notes
socket.setdefaulttimeout(None)
run = parmagic.run(body, range(2), "procs=2", once=True)
assert {{each[:2] for each in run.results}} == {{(None, None)}}
from parmagic.render.sockets import accepted, listener
socket.setdefaulttimeout({timeout})
with listener() as ours:
    assert ours.gettimeout() is None
    with socket.create_connection(ours.getsockname()) as theirs, accepted(ours) as mine:
        assert mine.gettimeout() is None and mine.getblocking()
print("fine")
"""


@pytest.mark.parametrize("timeout", [5, 0.1, 0])
def test_the_default_timeout_of_sockets(timeout, tmp_path):
    """The body has it, in every model; our own sockets wait as long as it takes, however short it is."""
    script = SCRIPT.format(timeout=float(timeout))
    if not timeout:
        script = script.replace("socket.create_connection(ours.getsockname())", "socket.create_connection(ours.getsockname(), 5)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.stdout == "fine\n", done.stderr[-3000:]
