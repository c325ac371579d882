"""What hostile bodies of the soak do: to the process that they run in, to what they inherited, and to the notebook.

A *deed* is done by good items, and no result may suffer from it, nor anything be left of it.
What is *fatal* ends its item, or its worker, or the run, with an error that is known.
A *mood* is what the notebook itself does about signals. All of it reads ``i``, and runs after
the soak's imports.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "PARMAGIC_SOAK"
"""The environment's variable by which daemons are known that belong to nobody any more."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something hostile that good items do; ``cost`` are seconds."""

    text: str
    cost: float = 1e-3
    setup: str = ""


@dataclass(frozen=True, slots=True)
class Fatal:
    """Something hostile that bad items do: the names that the error may have; ``late``: some time after the item."""

    text: str
    error: str
    setup: str = ""
    late: bool = False
    stops: bool = False  # only --timeout ends the run


_EVERYTHING = "resource.getrlimit(resource.RLIMIT_NOFILE)[0]"

_DESCRIPTORS = (
    "os.closerange(3, 256)",
    "null = os.open(os.devnull, os.O_RDWR)\nfor k in range(3, 64):\n    null == k or os.dup2(null, k)",
    "for k in range(3):\n    with contextlib.suppress(OSError):\n        os.close(k)",
    "sys.stdout and sys.stdout.close()",
    "sys.stdout = sys.stderr = None",
)

_SHARED = """
def shared():
    for entry in os.scandir('/proc/self/fd'):
        with contextlib.suppress(OSError):
            if 'memfd' in os.readlink(entry.path):
                yield int(entry.name)
"""

_SIZES = tuple(f"for k in shared():\n    with contextlib.suppress(OSError):\n        os.ftruncate(k, {size})" for size in (0, 1, 1 << 24))

REAP = """
def reap(*_):
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
"""

_SIGNALS = (
    "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nsubprocess.run(['true'])",
    f"{REAP.strip()}\nsignal.signal(signal.SIGCHLD, reap)\nsubprocess.run(['true'])",
    "signal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)",
    "signal.signal(signal.SIGPROF, lambda *_: None)\nsignal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)",
    "signal.signal(signal.SIGTERM, lambda *_: None)\nos.kill(os.getpid(), signal.SIGTERM)",
    "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "for k in ('INT', 'TERM', 'HUP', 'QUIT', 'CHLD', 'USR1'):\n    signal.signal(getattr(signal, 'SIG' + k), signal.SIG_IGN)",
    "signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
)

_LIMITS = (
    *(f"resource.setrlimit(resource.RLIMIT_NOFILE, ({k}, {k}))" for k in (0, 3, 10, 64)),
    "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))",
    "resource.setrlimit(resource.RLIMIT_AS, (4096 * int(open('/proc/self/statm').read().split()[0]) + (1 << 30), -1))",
)

_FORKS = (
    "if child := os.fork():\n    os.waitpid(child, 0)",  # it comes back, and goes on as if it were the worker
    "os.fork() or time.sleep(60)",
    "os.fork() or (os.setsid(), os.fork(), time.sleep(60))",
    "os.fork() or (os.setsid(), os.fork() and os._exit(0), os.execvp('sleep', ['sleep', '60']))",
    "os.fork() or (signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()), os.closerange(0, 1024), time.sleep(60))",
)

_CHATTER = """
def chatter():
    while True:
        print('still here')
        time.sleep(0.01)
"""

_THREADS = (
    "threading.Thread(target=time.sleep, args=(60,)).start()",
    "threading._start_new_thread(time.sleep, (60,))",
    "threading.Thread(target=chatter, daemon=i % 2 == 0).start()",
    "atexit.register(time.sleep, 60)",
    "threading._register_atexit(time.sleep, 60)",
)

_FLOODS = (
    ("print('.' * 3_000_000, end='')", 0.1),
    ("for k in range(3_000): print('.', end='')", 0.02),
    ("sys.stderr.write('\\r' * 100_000)", 0.01),
    ("print('\\n' * 100_000, end='')", 0.02),
)

ANYWHERE = (
    *(Deed(text, cost) for text, cost in _FLOODS),
    Deed("threading.Thread(target=time.sleep, args=(0.2,)).start()"),
)
"""Deeds that threads of the notebook may do as well."""

ISOLATED = (
    *(Deed(text) for text in _DESCRIPTORS),
    *(Deed(text, 1e-3, _SHARED) for text in _SIZES),
    *(Deed(text, 2e-3) for text in _SIGNALS),
    *(Deed(text) for text in _LIMITS),
    *(Deed(text, 0.01) for text in _FORKS),
    Deed("os.fork() or os._exit(0)", 5e-3),  # in a thread, a fork beside OpenBLAS at work never ends, in plain Python as well
    *(Deed(text, 5e-3, _CHATTER) for text in _THREADS),
    Deed("os.write(1, b'\\xff' * 100_000)", 0.01),
)
"""Deeds against a process."""

_BOOM = "def boom(*_):\n    raise ValueError('from a handler')"

FATAL = (
    Fatal(f"os.closerange(3, {_EVERYTHING})", "WorkerDied", late=True),
    Fatal("os.kill(os.getpid(), signal.SIGUSR2)", "WorkerDied"),
    Fatal("signal.signal(signal.SIGALRM, signal.SIG_DFL)\nsignal.setitimer(signal.ITIMER_REAL, 0.005)", "WorkerDied", late=True),
    Fatal("signal.signal(signal.SIGALRM, boom)\nsignal.setitimer(signal.ITIMER_REAL, 0.005)", "ValueError WorkerDied", _BOOM, late=True),
    Fatal("resource.setrlimit(resource.RLIMIT_AS, (1 << 33,) * 2)\nbytearray(1 << 34)", "MemoryError"),
    Fatal("resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\nopen('/dev/null')", "OSError"),
    Fatal("os.kill(os.getpid(), signal.SIGSTOP)", "", stops=True),
    Fatal("subprocess.Popen(['sh', '-c', f'sleep 0.01; kill -STOP {os.getpid()}'])", "", late=True, stops=True),
)
"""What ends an item of a process, or more."""

_LONG = "end = time.monotonic() + 0.3\n        while time.monotonic() < end:\n            pass"  # forever would be IPython's to end, or a child's

EXCEPTIONS = tuple(
    f"class Own(Exception):\n    def __str__(self):\n        {deed}\n    __repr__ = __str__"
    for deed in ("raise ValueError('never')", "sys.exit(3)", "return 5", _LONG, "time.sleep(0.3)", "return self.args[-1](self)")
)
"""Classes ``Own`` of exceptions that do not say what they are."""

MOODS = (
    "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    f"{REAP.strip()}\nsignal.signal(signal.SIGCHLD, reap)",
    "signal.signal(signal.SIGTERM, lambda *_: None)",
    "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1})",
    "signal.signal(signal.SIGVTALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_VIRTUAL, 0.002, 0.002)",
)
"""What a notebook may do about signals."""


def cheer_up() -> None:
    """Undo all moods."""
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1})
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGVTALRM):
        signal.signal(number, signal.SIG_DFL)


def daemons() -> Iterator[int]:
    """Yield the processes named sleep that bodies of this process have started, wherever they belong by now."""
    mark = f"{MARK}={os.getpid()}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "comm").read_text() == "sleep\n" and mark in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
