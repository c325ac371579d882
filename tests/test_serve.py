"""The trace viewer's server: only this machine, only with the token, only what it is meant to show."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from parmagic.render import serve

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


@pytest.mark.parametrize("token", ["", "/", "/wrong", "/%2e%2e", "/\u00e9"])
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
    assert ask(url, method=method)[0] == 501


@pytest.mark.parametrize("number", ["0", "2", "-1", "1/x", "x", "", "9" * 5000])
def test_numbers_that_there_are_not(url, number):
    """A number without a trace is a 404, not an error of the server."""
    assert ask(url, f"{base(url)}/data/{number}")[0] == 404


def test_bound_to_this_machine_only(url):
    """The socket listens on 127.0.0.1, so no other machine reaches it; the address says the same."""
    assert serve._server.socket.getsockname()[0] == "127.0.0.1"
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
