"""Interrupt %%parallel at random moments, in a real kernel and a real terminal, and look at what is left.

    python tests/interrupts.py [--count 100] [--seed N] [--model procs=4|threads=4|both] [--where kernel|terminal|both]

Prints a line per mode, and for every failure how to see it again; exits 1 if
there was one. With PARMAGIC_WAITS=off in the environment, waits are inferred
and a sampler runs as well. Linux only: leftovers are looked up in /proc.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import re
import signal
import subprocess
import sys
import tempfile
import termios
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import kin
import psutil
from jupyter_client.manager import KernelManager

LIMIT = 2.0
"""Seconds in which an interrupted cell must have ended, and its processes after it."""

LONGEST_DELAY = 0.6
START_LIMIT = 60.0
MARKER = "PARMAGIC_STORM"

GROWTH = {"descriptors": 6, "threads": 2}
"""What a session may keep from a whole storm: a history thread, a tracker's pipe, a library's open file."""

BELOW = {"parmagic server", "parmagic spare", "parmagic sample"}
"""The names of what may live below a server between runs; spares are called after the server when they are born."""

NOT_OURS = "zombie sleep"
"""In threads, an exception that hits subprocess.run early leaves the ended child to the next one, in plain Python as well."""

CHECK = "%parallel procs=2 --once -q -o check n*n for n in range(20)"
RIGHT = "check.results == [n * n for n in range(20)]"

WARM_UP = ["%parallel procs=2 n for n in range(9)", "%parallel threads=2 n for n in range(9)", "print('x' * 200_000)"]
"""What loads once is loaded with these: pandas for the report, a thread of ZeroMQ's for large messages."""

LOOP = "for n in range(8)\ntotal = 0\nfor k in range(1_000_000):\n    total += k * n\ntotal"
SLEEP = "for n in range(12)\nimport time\ntime.sleep(0.2)\nn"
TRIVIAL = "for n in range(100_000)\nn + 1"
NUMPY = "for n in range(8)\nimport numpy as np\na = np.random.default_rng(n).random((250, 250))\nfor _ in range(20):\n    a = a @ a / np.abs(a).sum()\na"
LARGE = "for n in range(6)\nb'x' * 10_000_000"
PRINTS = "for n in range(2_000)\nprint('line', n, 'x' * 200)\nn"
CHILDREN = "for n in range(8)\nimport subprocess\nsubprocess.run(['sleep', '0.3'])\nn"
SPMD = "\nimport time\nfor _ in range(10):\n    time.sleep(0.05)\nworker.rank"
NESTED = "for n in range(12)\nimport time\ntry:\n    time.sleep(0.2)\nfinally:\n    print('out', n)\nn"
STUBBORN = (
    "for n in range(8)\nimport time\nend = time.monotonic() + 5\nwhile time.monotonic() < end:\n"
    "    try:\n        time.sleep(1)\n    except BaseException:\n        pass"
)
DEAF = "for n in range(8)\nimport signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\ntime.sleep(5)"
ORPHANS = "for n in range(4)\nimport os, time\nif not os.fork():\n    os.setsid()\n    os.fork()\n    time.sleep(60)\n    os._exit(0)\ntime.sleep(0.3)"

BODIES = {
    "procs": [LOOP, SLEEP, TRIVIAL, NUMPY, LARGE, PRINTS, CHILDREN, SPMD, NESTED, STUBBORN, DEAF, ORPHANS],
    "threads": [LOOP, SLEEP, TRIVIAL, NUMPY, LARGE, PRINTS, CHILDREN, SPMD, NESTED],  # nothing that blocks in C for long
}
OPTIONS = {
    "procs": ["", "-q", "--once", "--once --trace full", "--trace off", "--once --start-method fork", "--once --start-method spawn"],
    "threads": ["", "-q", "--once", "--once --trace full", "--trace off"],
}


def any_cell(rng: random.Random, model: str) -> str:
    """Return a cell of a random kind for the model, say ``procs=4``."""
    kind = model.partition("=")[0]
    return f"%%parallel {model} {rng.choice(OPTIONS[kind])} {rng.choice(BODIES[kind])}"


# ---------------------------------------------------------------------------------------------------------------------------------
# the two front ends: begin a cell, interrupt it, wait until it has ended, ask for a value


class Kernel:
    """A Jupyter kernel."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.marker = f"{MARKER}={uuid.uuid4()}"
        self._said = ""
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(cwd=folder, env=_environment(self.marker), stderr=subprocess.DEVNULL)
        self._client = self._manager.client()
        self._asked = ""
        self._open()

    def _open(self) -> None:
        self.pid = self._manager.provisioner.pid
        self._client.start_channels()
        self._client.wait_for_ready(timeout=START_LIMIT)
        self.ask("0", SETUP)

    def begin(self, cell: str) -> None:
        """Send a cell; return when its code starts to run: before that, Jupyter takes no interrupt."""
        self._asked = self._client.execute(cell, stop_on_error=False)
        self._listen("execute_input", START_LIMIT)

    def interrupt(self) -> None:
        """Interrupt the cell, as the stop button does."""
        self._manager.interrupt_kernel()

    def wait(self, limit: float) -> str:
        """Wait until the cell has ended; return the name of its exception, or nothing. TimeoutError after ``limit`` seconds."""
        return self._listen("idle", limit)

    def ask(self, expression: str, cell: str = "") -> str:
        """Run a cell, and return what an expression is then."""
        asked = self._client.execute(cell, user_expressions={"it": expression})
        until = time.monotonic() + START_LIMIT
        while True:
            reply = self._client.get_shell_msg(timeout=max(0.0, until - time.monotonic()))
            if reply["parent_header"].get("msg_id") == asked:
                content = reply["content"]
                it = content.get("user_expressions", {}).get("it", content)
                return it["data"]["text/plain"] if "data" in it else f"{it.get('ename')}: {it.get('evalue')}"

    def restart(self, *, now: bool) -> None:
        """Restart it, at once or with a friendly word first; the new one has another marker."""
        self.marker = f"{MARKER}={uuid.uuid4()}"
        self._client.stop_channels()
        self._manager.restart_kernel(now=now, env=_environment(self.marker))
        self._client = self._manager.client()
        self._open()

    def kill(self) -> None:
        """Let it die on the spot."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it, whatever state it is in."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def last_words(self) -> str:
        """Return the end of what it printed."""
        return self._said[-1500:]

    def _listen(self, kind: str, limit: float) -> str:
        """Read what the cell publishes until the message comes; return the name of the error on the way."""
        until, error = time.monotonic() + limit, ""
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(kind) from None
            if message["msg_type"] == "stream" and message["content"]["name"] == "stderr":
                self._said = (self._said + message["content"]["text"])[-100_000:]
            if message["parent_header"].get("msg_id") == self._asked:
                error = message["content"]["ename"] if message["msg_type"] == "error" else error
                if kind in (message["msg_type"], message["content"].get("execution_state")):
                    return error


SETUP = """
%load_ext parmagic
import faulthandler, os, signal, sys, parmagic
faulthandler.register(signal.SIGUSR1, open("stacks", "w"))
"""

SETUP_OF_TERMINAL = SETUP + """
from multiprocessing.connection import Connection
os.set_inheritable({fd}, False)
mouth = Connection({fd}, readable=False)
def begun(info):
    if info.raw_cell.startswith("%%parallel"):
        sys.last_type = None
        mouth.send("begun")
get_ipython().events.register("pre_run_cell", begun)
mouth.send("ready")
"""


class Terminal:
    """IPython in a pseudo-terminal; what it has to tell us comes through a pipe of its own."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.marker = f"{MARKER}={uuid.uuid4()}"
        self._ear, mouth = Pipe(duplex=False)
        self._keyboard, screen = os.openpty()
        modes = termios.tcgetattr(screen)
        modes[0] &= ~termios.ICRNL  # Enter stays Enter, also where it is pressed before the prompt is there
        termios.tcsetattr(screen, termios.TCSANOW, modes)
        environment = _environment(self.marker) | {
            "IPYTHONDIR": folder, "TERM": "xterm", "COLUMNS": "120", "LINES": "40", "PROMPT_TOOLKIT_NO_CPR": "1",
        }  # fmt: skip
        command = [sys.executable, "-c", _IN_TERMINAL, "--no-banner", "--no-confirm-exit"]
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=screen, stdout=screen, stderr=screen, pass_fds=[mouth.fileno()],
            start_new_session=True,
        )  # fmt: skip
        os.close(screen)
        self.pid = self._process.pid
        self._shown = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._type(SETUP_OF_TERMINAL.format(fd=mouth.fileno()))
        self._hear(START_LIMIT)
        mouth.close()

    def begin(self, cell: str) -> None:
        """Type a cell; return when it starts to run."""
        self._type(cell)
        self._hear(START_LIMIT)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self._keyboard, b"\x03")

    def wait(self, limit: float) -> str:
        """Wait until what is typed next runs; return the name of the exception that ended the cell, or nothing."""
        self._type("mouth.send(sys.last_type.__name__ if sys.last_type else '')")
        return self._hear(limit)

    def ask(self, expression: str, cell: str = "") -> str:
        """Run a cell, and return what an expression is then."""
        if cell:
            self._type(cell)
        self._type(f"mouth.send(repr({expression}))")
        return self._hear(START_LIMIT)

    def kill(self) -> None:
        """Let it die on the spot."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close the window."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        os.close(self._keyboard)
        self._ear.close()

    def last_words(self) -> str:
        """Return the end of what it showed."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._shown.decode(errors="replace"))[-4000:]

    def _type(self, text: str) -> None:
        """Paste text, then press Alt-Enter, which runs it however many lines it has."""
        os.write(self._keyboard, b"\x1b[200~" + text.encode() + b"\x1b[201~\x1b\r")

    def _hear(self, limit: float) -> str:
        if not self._ear.poll(limit):
            raise TimeoutError("nothing heard")
        return str(self._ear.recv())

    def _read(self) -> None:
        with suppress(OSError):  # EIO: nobody has the other end open any more
            while data := os.read(self._keyboard, 1 << 16):
                self._shown = (self._shown + data)[-100_000:]


_IN_TERMINAL = (
    # a session leader without a terminal gets the first one that it opens: then Ctrl-C is a signal for it;
    # and what a shell starts in the background is born with that signal ignored
    "import os, signal, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from IPython import start_ipython; sys.exit(start_ipython())"
)

Session = Kernel | Terminal


def _environment(marker: str) -> dict[str, str]:
    name, _, value = marker.partition("=")
    return {**os.environ, name: value, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


# ---------------------------------------------------------------------------------------------------------------------------------
# what is left


def family(marker: str) -> dict[int, str]:
    """Return the processes that have the marker in their environment, also those that have left their parents."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if marker.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def strangers(session: Session) -> dict[int, str]:
    """Return all processes of a session but itself, one server (and one that is to take its place), its sampler and spares, trackers."""
    found, main = family(session.marker), psutil.Process(session.pid)
    with suppress(psutil.NoSuchProcess):
        found |= {child.pid: f"{child.status()} {child.name()}" for child in main.children(recursive=True) if child.pid not in found}
    found.pop(session.pid, None)
    titled = {pid: parent for pid, parent, _ in kin.titled(session.pid)}
    servers = set(sorted(pid for pid, parent in titled.items() if parent not in titled)[:2])
    ours = {pid for pid in found if _parent(pid) in servers and _name(pid) in BELOW}
    known = servers | ours | {pid for pid, command in found.items() if "resource_tracker" in command or command == NOT_OURS}
    return {pid: command for pid, command in found.items() if pid not in known}


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return ""


def _parent(pid: int) -> int:
    try:
        return psutil.Process(pid).ppid()
    except psutil.NoSuchProcess:
        return 0


def holdings(session: Session) -> dict[str, list[str]]:
    """Return what a session has open, and its threads."""
    process, opened, threads = Path(f"/proc/{session.pid}"), [], []
    for link in (process / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            opened.append(str(link.readlink()))
    for task in (process / "task").iterdir():
        with suppress(OSError):  # ended meanwhile
            threads.append((task / "comm").read_text().strip())
    return {"descriptors": opened, "threads": threads}


def wait_for_none(look: Any, limit: float = LIMIT) -> Any:
    """Look until nothing is left, or the time is over; return what is left."""
    until = time.monotonic() + limit
    while (left := look()) and time.monotonic() < until:
        time.sleep(0.02)
    return left


# ---------------------------------------------------------------------------------------------------------------------------------
# storms


@dataclass(slots=True)
class Score:
    """What a storm did: how many interrupts, what they hit, the worst time until the front end was idle again, what went wrong."""

    name: str
    n: int = 0
    hit: int = 0
    worst: float = 0.0
    leftovers: int = 0
    wrong: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Show it on a line."""
        return (
            f"{self.name}: {self.n} interrupts ({self.hit} while the cell ran), worst time to idle {self.worst:.2f} s, "
            f"leftovers {self.leftovers}, wrong results {self.wrong}, failures {len(self.failures)}"
        )


@contextmanager
def opened(where: str) -> Iterator[Session]:
    """Start a front end in a folder of its own, and end it with all that is left of it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        session = Kernel(folder) if where == "kernel" else Terminal(folder)
        try:
            yield session
        finally:
            session.close()
            for pid in family(session.marker):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def storm(where: str, model: str, count: int, seed: int) -> Score:
    """Interrupt ``count`` random cells; after a failure, go on in a fresh front end."""
    score, rng = Score(f"{where} {model}"), random.Random(f"{seed} {where} {model}")
    while score.n < count:
        with opened(where) as session:
            for cell in WARM_UP:
                session.ask("0", cell)
            before = holdings(session)
            failures = len(score.failures)
            while score.n < count and len(score.failures) == failures:
                score.n += 1
                _one(session, score, any_cell(rng, model), rng.uniform(0.0, LONGEST_DELAY), seed)
            if len(score.failures) == failures:
                _look_for_growth(session, score, before)
    return score


def _one(session: Session, score: Score, cell: str, delay: float, seed: int) -> None:
    """Run a cell, interrupt it after ``delay`` seconds, and see that nothing is left and all still works."""
    trouble = ""
    session.begin(cell)
    time.sleep(delay)
    begin = time.monotonic()
    session.interrupt()
    try:
        error = session.wait(LIMIT)
    except TimeoutError:
        trouble = f"not idle after {LIMIT:g} s, {_where_it_is(session)}"
    else:
        score.worst = max(score.worst, time.monotonic() - begin)
        score.hit += error == "KeyboardInterrupt"
        if error not in {"", "KeyboardInterrupt"}:
            trouble = f"ended with {error}"
        elif left := wait_for_none(lambda: strangers(session)):
            score.leftovers += len(left)
            trouble = f"left behind: {left}"
        elif (right := _checked(session)) != "True":
            score.wrong += 1
            trouble = f"the check said {right}"
    if trouble:
        score.failures.append(
            f"{score.name}, interrupt {score.n}, seed {seed}: {trouble}\nafter {delay:.4f} s in\n"
            f"{textwrap.indent(cell, '    ')}\n{session.last_words()}"
        )


def _where_it_is(session: Session) -> str:
    """Tell whether the cell ends after all, and where the main thread was: the innermost frames first."""
    os.kill(session.pid, signal.SIGUSR1)
    stacks = Path(session.folder) / "stacks"
    wait_for_none(lambda: "Current thread" not in stacks.read_text())
    frames = "\n".join(stacks.read_text().partition("Current thread")[2].splitlines()[1:12])
    try:
        after = f"later ended with {session.wait(10 * LIMIT)!r}"
    except TimeoutError:
        after = f"nor after {10 * LIMIT:g} s"
    return f"{after}; it was in\n{frames}"


def _checked(session: Session) -> str:
    try:
        return session.ask(RIGHT, CHECK)
    except (TimeoutError, queue.Empty):
        return "nothing"


def _look_for_growth(session: Session, score: Score, before: dict[str, list[str]]) -> None:
    for what, now in holdings(session).items():
        if len(now) > len(before[what]) + GROWTH[what]:
            more = list(now)
            for known in before[what]:
                if known in more:
                    more.remove(known)
            score.failures.append(f"{score.name}: {len(before[what])} {what} became {len(now)} in {score.n} interrupts: {sorted(more)}")


def deaths(where: str, model: str, count: int, seed: int) -> Score:
    """Kill (and restart) front ends in the middle of runs: no process of theirs may be alive soon after."""
    score, rng = Score(f"{where} {model}, killed" + (" or restarted" if where == "kernel" else "")), random.Random(f"{seed} deaths {where}")
    while score.n < count:
        with opened(where) as session:
            while score.n < count and _one_death(session, score, any_cell(rng, model), rng.uniform(0.0, LONGEST_DELAY)):
                pass
    return score


def _one_death(session: Session, score: Score, cell: str, delay: float) -> bool:
    """Kill, restart politely, restart at once, in turn; tell whether the session can be used again."""
    session.begin(cell)
    time.sleep(delay)
    marker, how = session.marker, score.n % 3 if isinstance(session, Kernel) else 0
    score.n += 1
    if how and isinstance(session, Kernel):
        session.restart(now=how == 1)
    else:
        session.kill()
    begin = time.monotonic()
    left = wait_for_none(lambda: family(marker))
    score.hit += 1
    score.worst = max(score.worst, time.monotonic() - begin)
    if left:
        score.leftovers += len(left)
        what = ("killed", "restarted at once", "restarted")[how]
        score.failures.append(f"{score.name}, number {score.n}: {what} after {delay:.4f} s, left behind: {left} of\n{textwrap.indent(cell, '    ')}")
    return bool(how) and not left


def main() -> None:
    """Run the storms that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--model", choices=["procs=4", "threads=4", "both"], default="both")
    parser.add_argument("--where", choices=["kernel", "terminal", "both"], default="both")
    parser.add_argument("--deaths", type=int, default=10, help="how often front ends are killed or restarted")
    asked = parser.parse_args()
    models = ["procs=4", "threads=4"] if asked.model == "both" else [asked.model]
    places = ["kernel", "terminal"] if asked.where == "both" else [asked.where]
    print(f"seed {asked.seed}", flush=True)
    failed = False
    for where in places:
        for model in models:
            for score in (storm(where, model, asked.count, asked.seed), deaths(where, model, asked.deaths, asked.seed)):
                print("\n\n".join([str(score), *score.failures]), flush=True)
                failed = failed or bool(score.failures)
    sys.exit(failed)


if __name__ == "__main__":
    main()
