"""Fuzzing: what strangers and slips of the finger send, for as long as you like.

    python tests/fuzz.py line [--count 10000] [--seed N]     magic lines
    python tests/fuzz.py server [--count 1000] [--seed N]    requests to the page server
    python tests/fuzz.py cells [--count 1000] [--seed N]     bodies of cells, against plain execution

Case K of a seed is always the same; what failed is printed with its number, and ``--only K``
runs it again. ``tests/test_fuzz.py`` runs a short part of each.
"""

from __future__ import annotations

import argparse
import random
import re
import socket
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from urllib.parse import urlsplit

from programs import Programs, difference

from parmagic.errors import CellError, LineError
from parmagic.model.plan import Plan
from parmagic.parse.body import read_body, read_expression
from parmagic.parse.line import parse

CURIOUS = ["\0", "\ud800", "é", "\u202e", "٣", "²", "𝟙", "ª", "\x0c", "\r", "\n", "\t", "\u2028", "\\", "'", '"', '"""', "#", ";", "\x7f", "﹛"]
HUGE = ["9" * 9, "1" * 20, "9" * 5000, "1e999", "-1", "0", "1-999999999999", "1-10000", "0x10", "1_0", "00"]


EXPRESSIONS = [
    "f(«e»)", "[«e» for y in ys]", "{«e»: 1}", "lambda a: «e»", "(y := «e»)", "«e» if x else «e»", "«e», «e»", "«(»«e»«)»", "«[»«e»", "«-»«e»", "«e»«.a»", "x«[0]»", "«e»« + 1»",
    "(yield «e»)", "await «e»", "«e» async for z in zs", "*«e»",
]  # fmt: skip


# --- the magic line -----------------------------------------------------------------------


class Lines:
    """Draws magic lines: some right, most of them wrong in some way."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def line(self) -> str:
        """Return a line as somebody could have meant it, often with something done to it."""
        words = [self.word() for _ in range(self.rng.randrange(5))]
        text = " ".join([*words, self.clause()])
        for _ in range(self.rng.choice([0, 0, 1, 1, 2, 5])):
            text = self.spoilt(text)
        return text

    def word(self) -> str:
        """Return a model, an option, or what somebody may take for one."""
        pick = self.rng.choice
        count = pick(["1", "2", "4", "auto", "1,2,4", "1-8", "{n}", "$n", "{missing}", "{n!r:>{n}}", *HUGE])
        return pick(
            [f"{name}={count}" for name in ("threads", "procs", "processes", "thread", "serial", "dask", "n_jobs")]
            + ["serial", "threads", "procs", "-q", "--once", "--keep-going", "--", "-", "=", "threads =4", f"-j{count}", f"-n {count}"]
            + [f"--timeout {count}", f"--chunk={count}", f"-o {self.name()}", f"-o{self.name()}", "--trace off", "--trace", "--start-method=fork"]
            + [count, self.name(), "async", "for", "{", "}", "{{}}", "$", "$$n", "{n"]
        )

    def clause(self) -> str:
        """Return an expression, a ``for``, an iterable; not always all of them."""
        parts = [self.expression(2), f"for {self.target()} in {self.expression(3)}", f"if {self.expression(1)}", f"for {self.name()} in {self.name()}"]
        kept = [part for part, odds in zip(parts, (0.5, 0.9, 0.2, 0.1), strict=True) if self.rng.random() < odds]
        return " ".join(kept)

    def target(self) -> str:
        """Return what an item is bound to, or what it can't be."""
        return self.rng.choice(["x", "i, x", "(a, (b, *c))", "a.b", "a[0]", "1", "", "in", "*x", "()", "x: int", "x, x", "None", self.name()])

    def name(self) -> str:
        """Return a word."""
        return self.rng.choice(["x", "xs", "result", "range", "async", "for", "in", "if", "lambda", "é", "await", "1x", "_", "x.y", "print"])

    def expression(self, depth: int) -> str:
        """Return an expression; brackets may be very deep."""
        if not depth or self.rng.random() < 0.3:
            return self.rng.choice([self.name(), *HUGE, "'a b'", "f'{x!r:{n}}'", "b'\\d'", '"""', "[]", "...", "f'{'", "'for x in y'"])
        deep = self.rng.choice([1, 1, 1, 1, 3, 150, 1000])
        text = re.sub("«e»", lambda _: self.expression(depth - 1), self.rng.choice(EXPRESSIONS))
        return re.sub("«(.*?)»", lambda part: part[1] * deep, text)

    def spoilt(self, text: str) -> str:
        """Do to a text what fingers, editors and programs do."""
        at, to = sorted(self.rng.randrange(len(text) + 1) for _ in range(2))
        curious = self.rng.choice(CURIOUS)
        return self.rng.choice(
            [
                text[:at] + text[to:], text[:at] + curious + text[at:], text[:at] + curious + text[to:], text[:at] + text[at:to] * 3 + text[to:],
                text[at:to], text[::-1], text.replace(" ", curious), text.replace("=", " = "), text + curious, text.upper(), text[:at] + chr(self.rng.randrange(0x110000)) + text[at:],
            ]
        )  # fmt: skip


def expand(word: str) -> str:
    """Stand in for the notebook, which knows ``n`` and a text with several words."""
    return {"$n": "3", "{n}": "3"}.get(word, word.replace("{n}", "2 -q"))


def wrong_with_line(text: str, *, cell: bool) -> str:
    """Read a line as the notebook does; return what is wrong with how that went, else nothing."""
    try:
        plan = parse(text, cell=cell, expand=expand, cpus=lambda: 4)
    except LineError as error:
        if not (error.line == text and 0 <= error.column <= len(text) and (not text or str(error).endswith("^"))):
            return f"points nowhere: {error.column} of {len(text)}"
        return ""
    except Exception as error:  # noqa: BLE001  (this is what is looked for)
        return f"{type(error).__name__}: {error}"
    return wrong_with_plan(plan, text)


def wrong_with_plan(plan: Plan, text: str) -> str:
    """Read on with what the line gave."""
    try:
        if plan.expression is not None:
            read_expression(plan.expression, line=text, target=plan.loop.target, namespace={}, filename="<cell>")
        else:
            read_body("1", line=text, target=plan.loop and plan.loop.target, namespace={}, filename="<cell>")
        if plan.loop:
            compile(plan.loop.iterable, "<cell>", "eval")
    except (SyntaxError, CellError):
        return ""
    except Exception as error:  # noqa: BLE001  (this is what is looked for)
        return f"later {type(error).__name__}: {error}"
    return ""


def fuzz_lines(numbers: Iterable[int], seed: int) -> list[str]:
    """Read lines; return what was wrong. The median takes at most a millisecond, none a second."""
    failures, times = [], []
    for number in numbers:
        rng = random.Random(f"{seed} line {number}")
        text = Lines(rng).line()
        begin = time.thread_time()
        wrong = wrong_with_line(text, cell=rng.random() < 0.5)
        times.append(time.thread_time() - begin)
        if times[-1] > 1:
            wrong = wrong or f"took {times[-1]:.1f} s"
        if wrong:
            failures.append(f"{number}: {wrong[:200]}\n    {text[:300]!r}")
    if (median := statistics.median(times)) > 0.001:
        failures.append(f"the median is {median * 1000:.2f} ms")
    return failures


# --- the page server ----------------------------------------------------------------------


class Requests:
    """Draws requests to the server at an address: most of them are none."""

    def __init__(self, rng: random.Random, url: str) -> None:
        self.rng = rng
        self.host, self.path = urlsplit(url).netloc, urlsplit(url).path

    def request(self) -> bytes:
        """Return a right request with something done to it."""
        pick = self.rng.choice
        method = pick(["GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "CONNECT", "get", "", "G\0T", "PRI", "GET" * 1000])
        rows = [f"{method} {self.target()} {pick(['HTTP/1.1', 'HTTP/1.1', 'HTTP/1.0', 'HTTP/0.9', 'HTTP/2', '', 'HTTP/9' * 99])}"]
        rows += [f"Host: {pick([self.host, self.host, self.host, 'evil.example', '[', '', self.host + ':1', self.host + chr(0)])}"]
        rows += [self.field() for _ in range(pick([0, 0, 1, 2, 5, 200]))]
        data = bytearray(pick(["\r\n", "\r\n", "\r\n", "\n", "\r", "\0"]).join([*rows, "", ""]).encode("utf-8", "surrogatepass"))
        for _ in range(pick([0, 0, 1, 3])):
            self.spoil(data)
        return bytes(data) * pick([1, 1, 1, 1, 2, 50])

    def target(self) -> str:
        """Return a path, an address, or worse."""
        folder = self.path.rpartition("/")[0]
        return self.rng.choice(
            [self.path, self.path, "http://[", "http://[::1", "*", "/", "//", f"http://{self.host}{self.path}", f"{self.path}/../../x", f"{folder}/{'9' * 5000}"]
            + [f"{self.path.partition('/trace')[0]}/ui/{name}" for name in ("%00", "..%2f..%2fsetup.py", "%2e%2e/", "%ff%fe", "\ud800", "a" * 5000, "%", "//etc/passwd")]
            + ["/" + "a" * 1_000_000, "/\u202e", "/%", f"{self.path}?{'q' * 9000}", f"{self.path}#x", "/ /", "\\\\server\\share", f"{folder}/٣", f"{folder}/-1"]
        )

    def field(self) -> str:
        """Return a field of the head."""
        return self.rng.choice(
            ["Transfer-Encoding: chunked", "Content-Length: 5", "Content-Length: -1", "Content-Length: " + "9" * 5000, "Expect: 100-continue", "X" * 70000 + ": y",
             "Upgrade: websocket", f"Host: {self.host}", " folded", ": none", "no colon", "Cookie: é", "A: \0", "Range: bytes=0-0,0-0", "Connection: keep-alive", "Ä: b"]
        )  # fmt: skip

    def spoil(self, data: bytearray) -> None:
        """Change, take away, or put in some bytes."""
        at = self.rng.randrange(len(data) + 1)
        kind = self.rng.randrange(4)
        if kind == 0:
            data[at : at + 1] = bytes([self.rng.randrange(256)])
        elif kind == 1:
            del data[at : at + self.rng.randrange(1, 50)]
        elif kind == 2:
            data[at:at] = self.rng.randbytes(self.rng.choice([1, 10, 1000]))
        else:
            del data[at:]


def answer_to(request: bytes, port: int) -> bytes:
    """Send something, say that this is all, and return everything that comes back; it comes within ten seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        answer = bytearray()
        with suppress(ConnectionError):  # refused before it was all sent: what was said until then may be there to read
            sock.sendall(request)
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := sock.recv(65536):
                answer += part
    return bytes(answer)


def fuzz_server(numbers: Iterable[int], seed: int, url: str) -> list[str]:
    """Send requests to the server; return what was wrong: an answer that is neither a 4xx nor what was asked for, or anything printed."""
    failures: list[str] = []
    before, threading.excepthook = threading.excepthook, lambda raised: failures.append(f"a thread raised {raised.exc_type.__name__}: {raised.exc_value}")
    parts = urlsplit(url)
    right = (f"GET {parts.path}".encode(), f"Host: {parts.netloc}".encode())
    try:
        for number in numbers:
            request = Requests(random.Random(f"{seed} server {number}"), url).request()
            try:
                answer = answer_to(request, parts.port)
            except TimeoutError:
                failures.append(f"{number}: no end\n    {request[:300]!r}")
                continue
            served = answer.startswith(b"HTTP/1.1 200 ") and all(part in request for part in right)
            if answer and not served and not answer.startswith(b"HTTP/1.1 4"):
                failures.append(f"{number}: {answer[:60]!r}\n    {request[:300]!r}")
    finally:
        threading.excepthook = before
    return failures


# --- cells --------------------------------------------------------------------------------


def program(number: int, seed: int) -> str:
    """Return a body."""
    return Programs(random.Random(f"{seed} cells {number}")).program()


def fuzz_cells(numbers: Iterable[int], seed: int) -> list[str]:
    """Run programs as cells and as bodies; return what differed."""
    failures = []
    for number in numbers:
        text = program(number, seed)
        try:
            wrong = difference(text)
        except Exception as error:  # noqa: BLE001  (this is what is looked for)
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            failures.append(f"{number}: {wrong[:2000]}\n" + "\n".join(f"{row:4} {line}" for row, line in enumerate(text.split("\n"), 2)))
    return failures


def _served(numbers: Iterable[int], seed: int) -> list[str]:
    from parmagic.render import serve

    try:
        return fuzz_server(numbers, seed, serve.open_trace(b"{}", "title"))
    finally:
        serve.close()


def main() -> int:
    """Read the command line, and fuzz."""
    kinds: dict[str, tuple[Callable[[Iterable[int], int], list[str]], int]] = {"line": (fuzz_lines, 10_000), "server": (_served, 1000), "cells": (fuzz_cells, 1000)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--only", type=int)
    given = parser.parse_args()
    fuzz, count = kinds[given.kind]
    numbers = range(given.count or count) if given.only is None else [given.only]
    warnings.simplefilter("ignore", SyntaxWarning)
    failures = fuzz(numbers, given.seed)
    print(*failures[:20], f"{given.kind}, seed {given.seed}: {len(failures)} of {len(numbers)} failed", sep="\n")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
