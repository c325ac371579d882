"""The trace viewer's server: only this machine, only with the token, only what it is meant to show."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import parmagic
from parmagic.render import http as ours
from parmagic.render import serve
from parmagic.workers.processes.forkable import user_threads

TRACE = json.dumps({"traceEvents": [{"ph": "X", "name": "slice", "pid": 1, "tid": 1, "ts": 0, "dur": 5}]}).encode()


@pytest.fixture
def url():
    """The address of a trace's page."""
    yield serve.open_trace(TRACE, "a title")
    serve.close()


def ask(url, path=None, method="GET", **headers):
    """Send one request as it stands, without tidying its path; return status, headers and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection._encode_request = lambda request: request.encode("latin-1")  # also what no client would send
    connection.request(method, parts.path if path is None else path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def base(url):
    """Return the first path segment: the token's."""
    return "/" + urlsplit(url).path.split("/")[1]


def test_page_data_and_ui_are_served(url):
    """The right address gives the page, the trace as it was given, and Perfetto; none may be read by other origins."""
    for path, part in ((None, b"PONG"), (f"{base(url)}/data/1", TRACE), (f"{base(url)}/ui/index.html", b"Perfetto")):
        status, headers, body = ask(url, path)
        assert status == 200
        assert part in body
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert "default-src" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("token", ["", "/", "/wrong", "/%2e%2e", "/%c3%a9"])
def test_a_wrong_token_finds_nothing(url, token):
    """Whoever does not know the token learns only that there is nothing."""
    for rest in ("/trace/1", "/data/1", "/ui/index.html"):
        assert ask(url, token + rest if token else rest)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", ""])
def test_a_wrong_host_is_refused(url, host):
    """A name that someone points at 127.0.0.1 does not get in, even with the token."""
    assert ask(url, Host=host)[0] == 403


def test_localhost_is_a_right_host(url):
    """The other name of this machine works."""
    assert ask(url, Host=f"localhost:{urlsplit(url).port}")[0] == 200


@pytest.mark.parametrize("name", ["../__init__.py", "%2e%2e/__init__.py", "..%2f__init__.py", "/etc/passwd", "%2fetc%2fpasswd", "a%00b", ".", "none"])
def test_traversal_finds_nothing(url, name):
    """Only files below the UI's folder are there, however the path is written."""
    assert ask(url, f"{base(url)}/ui/{name}")[0] == 404


def test_a_link_out_of_the_folder_finds_nothing(tmp_path, monkeypatch):
    """A symbolic link does not lead out of the UI's folder."""
    (tmp_path / "secret").write_text("s")
    folder = tmp_path / "ui"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    monkeypatch.setattr(serve, "ui_folder", lambda: folder)
    serve.close()
    url = serve.open_trace(TRACE, "t")
    try:
        assert ask(url, f"{base(url)}/ui/link")[0] == 404
    finally:
        serve.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_only_get(url, method):
    """Nothing but GET is answered."""
    status, headers, _ = ask(url, method=method)
    assert (status, headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("number", ["0", "2", "-1", "1/x", "x", "", "9" * 5000])
def test_numbers_that_there_are_not(url, number):
    """A number without a trace is a 404, not an error of the server."""
    assert ask(url, f"{base(url)}/data/{number}")[0] == 404


def connect(url):
    """Open a connection, and say nothing."""
    return socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=10)


def ended(connection):
    """Return what still comes, and wait for the end; what was refused unread may end with a reset."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def head(url, *rows, path=None):
    """Return a right request with these rows more, or instead of the first one."""
    parts = urlsplit(url)
    return "\r\n".join([f"GET {path or parts.path} HTTP/1.1", f"Host: {parts.netloc}", *rows, "", ""]).encode("latin-1")


def test_idle_connections_are_no_threads_of_the_users(url):
    """With connections open, one of them in the middle of a request, the notebook is forked for a serial run of what cannot be shipped."""
    lock = threading.Lock()

    def work(number):
        with lock:
            return number

    with ExitStack() as stack:
        for number in range(20):
            connection = stack.enter_context(connect(url))
            connection.sendall(b"GET /" if number else b"")
        assert ask(url)[0] == 200  # all of them were accepted before this one
        assert user_threads() == []
        run = parmagic.run(work, range(4), "threads=2", trace="off")
        assert list(run.summary["baseline"]) == ["measured"]
        assert not [note for note in run.notes if "threads of yours" in note]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET http://[\r\n\r\n", b"GET http://[ HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"GET / HTTP/2\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", b"GET /\0 HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\n\n", b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"G" * 1_000_000, b"get / HTTP/1.1\r\n\r\n",
    ],
    ids=lambda request: repr(request[:20]),
)  # fmt: skip
def test_what_is_no_request_is_refused_at_once(url, request_, capfd):
    """It gets a 4xx, or the connection is closed, without waiting for more; nothing is printed, and the next one is served."""
    with connect(url) as connection:
        with suppress(ConnectionError):  # refused before all of it was sent
            connection.sendall(request_)
        assert ended(connection)[:10] in {b"HTTP/1.1 4", b""}
    assert ask(url)[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ("Host: evil.example", 403), ("Transfer-Encoding: chunked", 400), ("Content-Length: 5", 400), ("Content-Length: 0\r\nContent-Length: 5", 400),
        (" folded", 400), ("no colon", 400), ("A: \0", 400), ("A : b", 400), ("\r\nA: b", 200), ("Cookie: \xe9=\xe9", 200), ("X: y\r\n" * 100 + "X: y", 431), ("X: " + "y" * 70_000, 431),
    ],
)  # fmt: skip
def test_fields(url, row, status):
    """Two hosts, bodies, folded and unreadable fields, and too much of them are refused; what stands behind the request is not read."""
    with connect(url) as connection:
        connection.sendall(head(url, row))
        assert ended(connection).startswith(b"HTTP/1.1 %d " % status)


def test_a_request_in_pieces(url):
    """What arrives byte by byte is a request as well; one more behind it has no answer of its own."""
    with connect(url) as connection:
        for byte in head(url, path=f"{base(url)}/data/1"):
            connection.sendall(bytes([byte]))
        connection.sendall(head(url))
        assert ended(connection).count(b"HTTP/1.1 ") == 1


def test_who_is_slow_is_closed(url, monkeypatch):
    """A request that never ends is given up as a whole, however often a byte comes; so is an answer that nobody takes."""
    monkeypatch.setattr(ours, "HEAD_WITHIN", 0.3)
    monkeypatch.setattr(ours, "MOVES_WITHIN", 0.3)
    big = serve.open_trace(bytes(50_000_000), "big")
    with connect(url) as drips, connect(url) as stalls:
        stalls.sendall(head(url, path=f"{base(url)}/data/{big.rpartition('/')[2]}"))
        drips.settimeout(0.05)
        begin = time.monotonic()
        with pytest.raises(ConnectionError):  # noqa: PT012  (until it is closed)
            while time.monotonic() - begin < 10:
                drips.sendall(b"G")
                try:
                    if not drips.recv(1):
                        raise ConnectionError
                except TimeoutError:
                    continue
        until = time.monotonic() + 10
        while serve._pages.server._connections and time.monotonic() < until:
            time.sleep(0.02)
        assert not serve._pages.server._connections
        assert len(ended(stalls)) < 50_000_000


def test_a_thousand_connections(url):
    """They cost as many descriptors as are allowed, and whoever asks meanwhile is answered."""
    script = (
        "import resource, socket, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)\n"
        "kept = [socket.create_connection(('127.0.0.1', int(sys.argv[1]))) for _ in range(1000)]\n"
        "print('there', flush=True)\nsys.stdin.read()"
    )
    before = len(os.listdir("/proc/self/fd"))
    with subprocess.Popen([sys.executable, "-c", script, str(urlsplit(url).port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "there\n"
        assert len(os.listdir("/proc/self/fd")) <= before + ours.MOST_CONNECTIONS + 4
        assert ask(url, f"{base(url)}/data/1")[2] == TRACE
        other.stdin.close()


def test_no_descriptor_for_a_connection():
    """Where accepting fails, it is tried again now and then, not all the time; when there are descriptors again, all is well."""
    script = (
        "import os, resource, time\nfrom parmagic.render import serve\n"
        "address = serve.open_trace(b'{}', 't')\n"
        "limits = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir('/proc/self/fd'))), limits[1]))\n"
        "try:\n    while True:\n        os.open(os.devnull, os.O_RDONLY)\nexcept OSError:\n    print(address, flush=True)\n"
        "input()\nprint(time.process_time(), flush=True)\ninput()\nprint(time.process_time(), flush=True)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, limits)\ninput()\nserve.close()"
    )
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1) as server:
        url = server.stdout.readline().strip()
        with connect(url) as one, connect(url) as two:
            one.sendall(head(url))
            two.sendall(head(url))
            server.stdin.write("\n")
            begin = float(server.stdout.readline())
            two.settimeout(1)
            with pytest.raises(TimeoutError):
                two.recv(1) or one.recv(1)
            server.stdin.write("\n")
            assert float(server.stdout.readline()) - begin < 0.3
            two.settimeout(10)
            assert ended(one).startswith(b"HTTP/1.1 200 ")
            assert ended(two).startswith(b"HTTP/1.1 200 ")
        server.stdin.write("\n")
        assert server.stderr.read() == ""


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_waits_for_a_page_that_is_being_made(url, monkeypatch):
    """What the thread holds while it works is never held forever in a fork; and a page that takes too long does not hold the fork."""
    begun, go_on, made = threading.Event(), threading.Event(), []

    def slow(_number, _title):
        begun.set()
        go_on.wait(10)
        made.append(True)
        return ours.Answer(HTTPStatus.OK, b"")

    monkeypatch.setattr(serve, "_trace_page", slow)
    for within, finished in ((10, True), (0.1, False)):
        monkeypatch.setattr(serve, "_STILL_WITHIN", within)
        begun.clear()
        go_on.clear()
        made.clear()
        with connect(url) as connection:
            connection.sendall(head(url))
            assert begun.wait(10)
            release = threading.Timer(0.2 if finished else 5, go_on.set)
            release.start()
            pid = os.fork()
            if not pid:
                os._exit(bool(made))
            release.cancel()
            go_on.set()
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == finished


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_lets_go(url):
    """A process that is forked from the notebook, and outlives it, keeps neither the port nor a connection; nor does it close what the notebook has."""
    numbers = [serve._pages.server._listener.sock.fileno()]
    pid = os.fork()
    if not pid:
        os._exit(any(os.path.exists(f"/proc/self/fd/{number}") for number in numbers) or serve._pages is not None)  # noqa: PTH110
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert ask(url)[0] == 200


def test_a_lost_socket(url, tmp_path):
    """A body may close all that is open: a file of its own under the same number is left alone, and the next link works."""
    number = serve._pages.server._listener.sock.fileno()
    os.close(number)
    path = tmp_path / "file"
    with path.open("w") as file:
        assert file.fileno() == number
        fresh = serve.open_trace(TRACE, "t")
        assert fresh != url
        assert ask(fresh, f"{base(fresh)}/data/1")[2] == TRACE
        file.write("mine")
    assert path.read_text() == "mine"


def test_an_error_of_a_page_is_said_in_it(url, monkeypatch, capfd):
    """It is a 500 with the error's name, and nothing under the cell."""
    monkeypatch.setattr(serve, "_trace_page", lambda *_: 1 / 0)
    status, _, body = ask(url)
    assert (status, body) == (500, b"This page could not be made (ZeroDivisionError).\n")
    assert capfd.readouterr() == ("", "")


def test_the_browsers_command_line_holds_no_secret(tmp_path):
    """A browser gets the name of a private file, and that file leads to the address."""
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\nprintf "%s" "$*" > words; cat "${1#file://}" > page\n')
    browser.chmod(0o700)
    code = "from parmagic.render import serve; url = serve.open_trace(b'{}', 't'); print(url, serve.show(url)); serve.close()"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "BROWSER": f"{browser} %s"}, capture_output=True, text=True, check=True, timeout=60)
    url, opened = done.stdout.split()
    assert (opened, done.stderr) == ("True", "")
    words = Path("words").read_text()
    assert words.startswith("file:///")
    assert url.split("/")[3] not in words
    assert f"url={url}" in Path("page").read_text()
    assert not Path(words.removeprefix("file://")).exists()


def test_bound_to_this_machine_only(url):
    """The socket listens on 127.0.0.1, so no other machine reaches it; the address says the same."""
    assert serve._pages.server._listener.sock.getsockname()[0] == "127.0.0.1"
    assert urlsplit(url).hostname == "127.0.0.1"


def test_the_server_is_reused_and_keeps_five(url):
    """All traces have one server and token; the sixth pushes out the first."""
    others = [serve.open_trace(b"%d" % number, "t") for number in range(2, 7)]
    assert {urlsplit(other).netloc + base(other) for other in others} == {urlsplit(url).netloc + base(url)}
    assert ask(url)[0] == 404
    assert [ask(url, f"{base(url)}/data/{number}")[2] for number in range(2, 7)] == [b"2", b"3", b"4", b"5", b"6"]


def test_close_ends_it(url):
    """After close nobody listens; closing twice is fine; the next trace gets a new token."""
    serve.close()
    serve.close()
    with pytest.raises(ConnectionRefusedError):
        ask(url)
    assert base(serve.open_trace(TRACE, "t")) != base(url)


def test_a_hostile_title_is_text(url):
    """A title can't become markup in the page."""
    body = ask(serve.open_trace(TRACE, '</title><script>alert(1)</script>"'))[2]
    assert b"<script>" not in body
    assert b"&lt;script&gt;" in body


@pytest.mark.skipif(not Path("/usr/bin/chromium").exists(), reason="needs Chromium")
def test_perfetto_loads_the_trace(url):
    """The bundled UI, in its frame, opens what was handed over: its title and its process are shown."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(url)
        frame = tab.frame_locator("#ui")
        frame.get_by_text("a title").first.wait_for(timeout=60000)
        frame.get_by_text("Process 1").first.wait_for(timeout=60000)
        browser.close()
