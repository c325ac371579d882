"""The processes that start workers: beside what notebooks, users and small machines do to them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import kin
import psutil
import pytest

import parmagic
from parmagic import RunTimeout
from parmagic.errors import ParmagicError
from parmagic.workers.processes import below, capacity, hub, launched, wire

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

ROOT = os.geteuid() == 0


def script(text: str, *arguments: str, env: dict[str, str] | None = None, limit: float = 60, **popen: object) -> str:
    """Run a script of its own, as a user would; return what it prints. It must end well, in time."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *arguments],
        capture_output=True, text=True, timeout=limit, check=False, env={**os.environ, **(env or {})}, **popen,  # type: ignore[call-overload]
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


class TestSecrets:
    """What others can read of a run."""

    LOOK = """
        import os, sys
        if sys.argv[1] == "nobody":
            os.setuid(65534)
        for each in os.listdir("/proc"):
            if each.isdecimal() and int(each) != os.getpid():
                try:
                    print(each, open(f"/proc/{each}/cmdline", "rb").read())
                except OSError:
                    pass
    """

    @pytest.mark.parametrize("method", ["", "--start-method spawn", "--start-method fork"])
    def test_no_command_line_has_any(self, ip, method, monkeypatch):
        """Another user (nobody, where we are root) finds neither a variable nor the key of multiprocessing in any process of a run."""
        monkeypatch.setenv("PARMAGIC_TEST", "a" + "very-secret-word")
        key = bytes(__import__("multiprocessing").current_process().authkey)
        hub.close()  # so that the server is started beside the secret as well
        ip.space["look"] = [sys.executable, "-c", textwrap.dedent(self.LOOK), "nobody" if ROOT else ""]
        run = ip(f"%%parallel procs=2 --once -q {method}\nimport os, subprocess\nassert 'secret' in os.environ['PARMAGIC_TEST']\n"
                 "os.getpid(), os.getppid(), subprocess.run(look, capture_output=True, text=True, check=True).stdout")  # fmt: skip
        for pid, parent, seen in run.results:
            assert str(pid) in seen.split()  # it has looked, and at us
            assert str(parent) in seen.split()
            assert "very-secret-word" not in seen
            assert str(key)[2:-1] not in seen

    @pytest.mark.parametrize("method", ["", "--start-method spawn"])
    def test_a_large_environment(self, ip, method, monkeypatch):
        """A variable that exec would refuse reaches the workers all the same."""
        monkeypatch.setenv("PARMAGIC_TEST", "x" * 300_000)
        hub.close()
        run = ip(f"%%parallel procs=2 --once -q {method}\n__import__('os').environ['PARMAGIC_TEST'] == 'x' * 300_000")
        assert run.results == [True, True]

    def test_what_a_run_leaves_is_private(self, ip):
        """Folders are for this user alone, and so are the files in them."""
        ip("def f(n):\n    return [g() for _ in range(n)]\ndef g():\n    return 1")
        before = os.umask(0)
        try:
            ip("%parallel procs=2 threads=2 --once -q --trace full len(f(5000)) for n in range(4)")
        finally:
            os.umask(before)
        found = [Path(".parmagic"), *Path(".parmagic").rglob("*")]
        assert any(path.suffix == ".json" for path in found)
        for path in found:
            if path.name != ".gitignore":
                assert path.stat().st_mode & 0o077 == 0, path


class TestManyWorkers:
    """More workers than a message buffer, or a limit, takes."""

    def test_two_hundred(self, ip):
        """A start of 200 workers comes to its end, and each has run."""
        begin = time.monotonic()
        run = ip("%%parallel procs=200 --once -q --trace off\nworker.rank")
        assert run.results == list(range(200))
        assert time.monotonic() - begin < 60

    def test_neither_end_waits_for_the_other(self):
        """Two ends that send without reading both get through: what does not fit is kept, in order, with its descriptors."""
        a, b = map(wire.Wire, socket.socketpair())
        read, write = os.pipe()
        for end in (a, b):
            for number in range(50):
                end.post((number, b"x" * 100_000), [write] if number == 49 else [])
            assert not end.flush()
        got: dict[wire.Wire, list[tuple[int, list[int]]]] = {a: [], b: []}
        while len(got[a]) < 50 or len(got[b]) < 50:
            for end in (a, b):
                got[end] += [(message[0], descriptors) for message, descriptors in end.take()]
                end.flush()
        for found in got.values():
            assert [number for number, _ in found] == list(range(50))
            (last,) = found[-1][1]
            os.write(last, b"!")
            os.close(last)
        assert os.read(read, 10) == b"!!"
        for end in (a, b):
            end.close()
        os.close(read)
        os.close(write)

    @pytest.mark.parametrize("harm", ["cut", "flipped", "longer"])
    def test_what_is_no_message_is_none(self, harm):
        """A message that was damaged on its way is told, and not unpickled."""
        speaking, heard = socket.socketpair()
        made, listening = wire.Wire(speaking), wire.Wire(heard)
        made.post(("hello",))
        data = bytearray(made._out.popleft().data)
        if harm == "flipped":
            data[-3] ^= 1
        elif harm == "longer":
            data[0] = 255
        os.write(made.fileno(), data[:-1] if harm == "cut" else data)
        made.close()
        with pytest.raises(EOFError if harm == "cut" else wire.Garbled):
            list(listening.take())
        listening.close()

    def test_no_room_for_descriptors(self):
        """Where so many files may not be open, that is said before anything has run, with the limit."""
        out = script(
            """
            import resource, parmagic
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))
            ran = []
            try:
                parmagic.run(ran.append, range(1000), "threads=1 procs=300", once=True)
            except parmagic.errors.ParmagicError as error:
                print(error, ran)
            print(resource.getrlimit(resource.RLIMIT_NOFILE))
            print(sum(parmagic.run(abs, range(100), "procs=60", once=True).results))
            print(resource.getrlimit(resource.RLIMIT_NOFILE))
            """
        ).splitlines()
        assert out[0].startswith("procs=300 needs ")
        assert "512 are allowed (ulimit -Hn)" in out[0]
        assert out[0].endswith("[]")
        assert out[1:] == ["(256, 512)", "4950", "(256, 512)"]

    def test_no_room_for_memory_or_processes(self, monkeypatch):
        """The limits of memory and of processes are named as well."""
        monkeypatch.setattr(capacity, "_process_limits", lambda: iter([(100.0, 40.0, "pids.max of a container"), (1e9, 0.0, "")]))
        with pytest.raises(ParmagicError, match=r"procs=61 .* room for 60 \(pids.max"), capacity.made(61, "procs=61"):
            pass
        with capacity.made(60, "procs=60"):
            pass
        monkeypatch.setattr(capacity, "MEGABYTES", 10_000_000)
        with pytest.raises(ParmagicError, match=r"toy=60 needs about .* of memory"), capacity.made(60, "toy=60"):
            pass

    @pytest.mark.skipif(not ROOT, reason="needs another user")
    def test_no_process_can_be_had(self):
        """Where the system allows no further process, the run says which limit that is, and later ones work."""
        out = script(
            """
            import os, resource, parmagic, psutil  # which removes old runs, and which that user may not read
            print(parmagic.run(abs, [-1, -2], "procs=2", once=True, start_method="fork").results)  # all is imported
            os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(12345, 12345, 12345)
            hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
            resource.setrlimit(resource.RLIMIT_NPROC, (4, hard))
            try:
                parmagic.run(abs, range(8), "procs=8", once=True, start_method="fork")
            except parmagic.WorkerDied as error:
                print(error)
            resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
            print(parmagic.run(abs, range(8), "procs=8", once=True, start_method="fork").results)
            """,
            cwd="/tmp",
        ).splitlines()
        assert out[0] == "[1, 2]"
        assert "could not be started" in out[1]
        assert "ulimit -u" in out[1]
        assert out[2] == "[0, 1, 2, 3, 4, 5, 6, 7]"


SIGNALS = {
    "ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "reaped by a handler": """
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, reap)""",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGINT, signal.SIGTERM})",
}


FORKING = """
import os, time, parmagic
parmagic.run(abs, range(4), 'procs=2', once=True)
if not os.fork():
    time.sleep(60)
print('up', flush=True)
time.sleep(60)
"""


class TestSignalsOfChildren:
    """What a notebook does about the ends of its own children is not our business, nor ours its."""

    @pytest.mark.parametrize("way", SIGNALS)
    def test_results_are_kept_and_deaths_noticed(self, way):
        """With SIGCHLD ignored, taken by a handler, or blocked, all arms give their results, and a dead worker is told at once."""
        out = script(
            f"""
import os, signal, time, parmagic
{SIGNALS[way]}
run = parmagic.run(abs, range(20), "threads=2 procs=2")
print([run.arm(arm).results == list(range(20)) for arm in ("threads=2", "procs=2")], set(run.summary["baseline"]))
begin = time.monotonic()
try:
    parmagic.run(lambda n: os._exit(7) if n == 3 else n, range(5), "procs=2", once=True, chunk=1)
except parmagic.WorkerDied as error:
    print("exit code 7" in str(error), time.monotonic() - begin < 20)
print(parmagic.run(lambda n: len(signal.pthread_sigmask(signal.SIG_BLOCK, [])), range(2), "procs=2", once=True).results)
"""
        ).splitlines()
        assert out == ["[True, True] {'measured'}", "True True", "[0, 0]"]

    def test_waiting_for_all_children_meets_none_of_ours(self):
        """After runs of every kind, ``os.wait()`` has nobody to wait for; nor within a body that waits for its own children."""
        out = script(
            """
            import os, parmagic
            def children(n):
                if not os.fork():
                    os._exit(n)
                return os.waitstatus_to_exitcode(os.wait()[1])
            print(parmagic.run(abs, range(4), "procs=2").results)
            print(parmagic.run(children, range(4), "procs=2", once=True).results)
            print(parmagic.run(children, range(4), "threads=1", once=True).results)
            try:
                os.wait()
            except ChildProcessError:
                print("none")
            """
        ).splitlines()
        assert out == ["[0, 1, 2, 3]", "[0, 1, 2, 3]", "[0, 1, 2, 3]", "none"]

    def test_a_killed_notebook_leaves_nothing(self):
        """Also where a process that the user has forked holds on to all descriptors."""
        child = subprocess.Popen([sys.executable, "-c", FORKING], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        forked = psutil.Process(child.pid).children()
        assert list(kin.titled(child.pid))
        child.kill()
        child.wait()
        child.stdout.close()
        until = time.monotonic() + 10
        while list(kin.titled(child.pid)) and time.monotonic() < until:
            time.sleep(0.01)
        for process in forked:
            process.kill()
        assert not list(kin.titled(child.pid))


class TestStopped:
    """SIGSTOP, as a debugger or a careless user sends it."""

    @pytest.mark.parametrize("who", ["worker", "server"])
    def test_a_timeout_ends_the_run_and_names_who_was_stopped(self, ip, who):
        """--timeout ends a run whose server or worker stands still; the notes say who did."""
        pid = "os.getpid()" if who == "worker" else "os.getppid()"
        ip("import os, signal, time")
        begin = time.monotonic()
        error = ip.fails(f"%%parallel procs=2 --once -q --timeout 1 for n in range(2)\nif n == 0:\n    os.kill({pid}, signal.SIGSTOP)\ntime.sleep(30)")
        assert isinstance(error, RunTimeout)
        assert time.monotonic() - begin < 15
        name = r"Worker \d" if who == "worker" else "The process that starts workers"
        assert any(re.match(name + r" \(process \d+\) was stopped \(SIGSTOP", note) for note in parmagic.last().notes)
        assert ip("%parallel procs=2 --once -q n for n in range(4)").results == [0, 1, 2, 3]

    def test_a_server_that_is_stopped_between_runs(self, ip):
        """A run whose server takes no orders is ended by its timeout, and the next one works."""
        ip("%parallel procs=2 --once -q n for n in range(4)")
        os.kill(hub.get().pid, signal.SIGSTOP)
        error = ip.fails("%parallel procs=2 --once -q --timeout 1 n for n in range(4)")
        assert isinstance(error, RunTimeout)
        assert ip("%parallel procs=2 --once -q n for n in range(4)").results == [0, 1, 2, 3]


class TestAnothersChild:
    """A process below a worker that belongs to another user by now, so that nobody here may kill it."""

    @pytest.mark.skipif(not ROOT or not shutil.which("cc"), reason="needs a program that becomes another user")
    def test_it_is_named_and_the_next_run_works(self, tmp_path):
        """A body that starts what becomes root (as sudo does) ends, the run says what was left, and later ones work."""
        program = tmp_path / "becomes_root"
        source = '#include <unistd.h>\nint main(void) { if (setuid(0)) return 1; write(1, "!", 1); pause(); return 0; }'
        subprocess.run(["cc", "-x", "c", "-", "-o", program], input=source, text=True, check=True)
        program.chmod(0o4755)
        for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            folder.chmod(0o755)
        out = script(
            """
            import os, resource, subprocess, sys, parmagic
            options = {"once": True, "start_method": "fork", "chunk": 1}
            parmagic.run(abs, [-1, -2], "procs=2", **options)  # all is imported
            os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(12345, 12345, 12345)
            def body(n):
                if n == 0:
                    child = subprocess.Popen([sys.argv[1]], stdout=subprocess.PIPE)
                    assert child.stdout.read(1) == b"!"
                    print(child.pid)
                    os.kill(os.getpid(), 9)
                __import__("time").sleep(0.2)
                return n
            try:
                parmagic.run(body, range(9), "procs=2", **options)
            except parmagic.WorkerDied as error:
                print(error)
            print(parmagic.last().notes)
            print(parmagic.run(abs, range(4), "procs=2", **options).results)
            """,
            str(program), cwd="/tmp",
        ).splitlines()  # fmt: skip
        os.kill(int(out[0].rpartition(" ")[2]), signal.SIGKILL)
        assert "killed by SIGKILL in item 0" in out[1]
        assert "becomes_root (process" in out[2]
        assert out[3] == "[0, 1, 2, 3]"

    def test_a_server_that_cannot_end_all_goes_all_the_same(self, monkeypatch):
        """What may not be killed is not waited for."""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        others = below.children() - {child.pid}
        try:
            monkeypatch.setattr(below, "killed", lambda pid: pid != child.pid)
            monkeypatch.setattr(below, "children", lambda: {child.pid})
            begin = time.monotonic()
            below.end_all(others)
            assert time.monotonic() - begin < below.MERCY / 2
        finally:
            child.kill()
            child.wait()


def site(folder: Path, text: str) -> dict[str, str]:
    """Return variables with which every Python that starts runs this text first."""
    (folder / "sitecustomize.py").write_text(textwrap.dedent(text))
    return {"PYTHONPATH": str(folder)}


RUN = "import parmagic\nfor _ in range(2):\n    run = parmagic.run(abs, [-1, -2], 'procs=2', once=True)\n    print(run.results, *run.notes[1:], sep='\\n')"


class TestSlowStarts:
    """A server that does not come up as it should."""

    def test_an_interpreter_that_starts_slowly_is_waited_for(self, tmp_path):
        """Also where its start takes longer than imports may: once, with a note."""
        out = script(RUN, env=site(tmp_path, "import sys, time\nif 'parmagic.workers.processes.server' in ' '.join(sys.orig_argv):\n    time.sleep(2.5)")).splitlines()
        assert out[0] == "[1, 2]"
        assert "took" in out[1]
        assert "sitecustomize" in out[1]
        assert out[2:] == ["[1, 2]"]

    def test_one_that_hangs_is_started_again(self, tmp_path):
        """The first try does not come up: a second one does."""
        text = f"""
            import os, sys, time
            if 'parmagic.workers.processes.server' in ' '.join(sys.orig_argv):
                try:
                    os.mkdir({str(tmp_path / "been")!r})
                except FileExistsError:
                    pass
                else:
                    time.sleep(600)
        """
        out = script("from parmagic.workers.processes import hub\nhub.BEGIN = 1.0\n" + RUN, env=site(tmp_path, text)).splitlines()
        assert (out[0], out[-1]) == ("[1, 2]", "[1, 2]")

    def test_its_timeout_ends_the_wait(self, tmp_path):
        """--timeout holds while the server is waited for, too, and so does Ctrl-C."""
        text = "import sys, time\nif 'parmagic.workers.processes.server' in ' '.join(sys.orig_argv):\n    time.sleep(600)"
        out = script(
            """
            import os, signal, threading, time, parmagic
            begin = time.monotonic()
            try:
                parmagic.run(abs, [-1], "procs=2", once=True, timeout=0.5)
            except parmagic.RunTimeout as error:
                print(error, time.monotonic() - begin < 10)
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                parmagic.run(abs, [-1], "procs=2", once=True)
            except KeyboardInterrupt:
                print("interrupted", time.monotonic() - begin < 20)
            """,
            env=site(tmp_path, text),
        ).splitlines()
        assert "starts workers was waited for" in out[0]
        assert out[0].endswith("True")
        assert out[1] == "interrupted True"

    def test_a_second_thread_makes_workers_new_interpreters(self, tmp_path):
        """Beside a thread that somebody starts in every interpreter nothing is forked: the run works, and says so."""
        text = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
        out = script(RUN, env=site(tmp_path, text)).splitlines()
        assert out[0] == out[2] == "[1, 2]"
        assert "not safe to fork" in out[1]

    def test_why_a_server_cannot_start_is_said(self, tmp_path):
        """What it prints before it ends is in the error."""
        text = "import sys\nif 'parmagic.workers.processes.server' in ' '.join(sys.orig_argv):\n    import os; os.write(2, b'no luck today'); os._exit(3)"
        out = script("import parmagic\ntry:\n    parmagic.run(abs, [-1], 'procs=2', once=True)\nexcept parmagic.WorkerDied as e:\n    print(e)", env=site(tmp_path, text))
        assert "no luck today" in out


class TestSlowImports:
    """Packages that take longer to import than a run waits."""

    def test_they_go_on_beside_and_the_rest_is_there(self, ip, tmp_path, monkeypatch):
        """A run does not wait for the slow one; later ones find it imported, and what else was imported is never lost."""
        folder = tmp_path / "site-packages"
        folder.mkdir()
        gate = tmp_path / "gate"
        (folder / "quick_one.py").write_text("import os\npid = os.getpid()\n")
        (folder / "slow_one.py").write_text(
            f"import os, time\nwhile 'server' in __import__('pathlib').Path('/proc/self/comm').read_text() and not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
            "pid = os.getpid()\n"
        )
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setattr(hub.preload, "_roots", lambda: (str(folder) + os.sep,))
        hub.preload._is_installed.cache_clear()
        found = launched._search_path
        monkeypatch.setattr(launched, "_search_path", lambda: [str(folder), *found()])
        monkeypatch.setattr(hub, "WAIT_FOR_IMPORTS", 0.5)
        hub.close()
        try:
            ip("import os, quick_one")
            first = ip("%%parallel procs=2 --once -q\nquick_one.pid == os.getpid()")
            ip("import slow_one")
            slow = ip("%%parallel procs=2 --once -q\nquick_one.pid == os.getpid(), slow_one.pid == os.getpid()")
            again = ip("%%parallel procs=2 --once -q\nslow_one.pid == os.getpid()")
            gate.touch()
            until = time.monotonic() + 20
            while hub._next is not None and time.monotonic() < until:
                time.sleep(0.02)
                ip("0")  # it takes over behind any cell
            ready = ip("%%parallel procs=2 --once -q\nquick_one.pid == os.getpid(), slow_one.pid == os.getpid()")
        finally:
            hub.close()
            hub.preload._is_installed.cache_clear()
            for name in ("quick_one", "slow_one"):
                sys.modules.pop(name, None)
        assert first.results == [False] * 2
        assert slow.results == [(False, True)] * 2
        assert any("import slow_one by themselves for now" in note for note in slow.notes)
        assert again.results == [True] * 2
        assert not any("slow_one" in note for note in again.notes)
        assert ready.results == [(False, False)] * 2


def test_a_script_in_place_of_the_interpreter(tmp_path):
    """A profiler may have put a script of its own into ``sys.executable``: our processes start by the interpreter, and only by that."""
    (tmp_path / "python").write_text(f"#!/bin/sh\ntouch {tmp_path}/was_called\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    printed = script(
        """
        import sys
        import parmagic
        sys.executable = sys.argv[1]
        for method in ("forkserver", "spawn"):
            print(parmagic.run(abs, [-1, -2], "procs=2", once=True, trace="off", start_method=method).results)
        """,
        str(tmp_path / "python"),
    )
    assert printed.splitlines() == ["[1, 2]", "[1, 2]"]
    assert not (tmp_path / "was_called").exists()
