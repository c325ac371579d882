"""The hooks and the libraries that come and go: rebuilt ones, half-loaded ones, ones that others have changed.

Each case runs in a process of its own, so that a crash is an answer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from parmagic.record import hooks

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

pytestmark = [
    pytest.mark.skipif(bool(hooks.why_inferred()), reason=f"waits are inferred here: {hooks.why_inferred()}"),
    pytest.mark.skipif(COMPILER is None, reason="there is no C compiler"),
]

START = r"""
import _ctypes, ctypes, os, re, shutil, sys, threading
from pathlib import Path
from parmagic.record import hooks
assert not hooks.why_inferred(), hooks.why_inferred()
waits = hooks.extension()[0]

loader = ctypes.CDLL(os.path.abspath("loader.so"))
loader.load.restype = ctypes.c_void_p

class Library:
    "A library that is loaded now, not bound yet, and can be unloaded."
    def __init__(self, path):
        self.handle = loader.load(path.encode())
        self.library = ctypes.CDLL(path, handle=self.handle)
        self.ask = self.library["ask"]
        about = (ctypes.c_void_p * 4)()  # Dl_info: its file, its address …
        ctypes.CDLL(None).dladdr(self.ask, about)
        self.begin = about[1]
    def unload(self):
        _ctypes.dlclose(self.handle)

def mapped(path):
    "How the memory of a file is protected, in order."
    return [line.split()[1] for line in open("/proc/self/maps") if line.rstrip().endswith(str(path))]
"""


def build(path, source, *flags):
    """Build a shared library."""
    code = path.with_suffix(".c")
    code.write_text(source)
    assert COMPILER is not None
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-w", *flags, "-o", path, code], check=True, env={**os.environ, "LD_PRELOAD": ""})


LOADER = "#include <dlfcn.h>\nvoid *load(const char *path) { return dlopen(path, RTLD_LAZY); }"


def in_a_process(script, folder, preload="", seconds=60):
    """Run a script where the libraries are; it must end well, and in time."""
    build(folder / "loader.so", LOADER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {preload}".strip()}
    command = [sys.executable, "-X", "faulthandler", "-c", START + script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"


PLAIN = ("-Wl,-z,lazy", "-Wl,-z,norelro", "-Wl,--build-id=none")
CALLS = "int {0}(unsigned); int ask(void) {{ return {0}(0); }}"
AT = "-Wl,--section-start=.dynamic=0x8000,--section-start=.got.plt="
TABLE = """
static int one(void) { return 1; }
int (*table[64])(void) = { FILL };
int ask(void) { int sum = 0; for (int i = 0; i < 64; i++) sum += table[i](); return sum; }
""".replace("FILL", "one, " * 64)

REBUILT = {
    # the slot of usleep has become that of a function whose name is as long, and all else is as it was
    "other names": ((CALLS.format("usleep"), PLAIN), (CALLS.format("getpid"), PLAIN), "os.getpid()"),
    # where the slots were, there are pointers to functions, which look like slots that are not bound yet
    "a table of functions": (
        (CALLS.format("usleep"), (*PLAIN, AT + "0x9100")),
        (TABLE, (*PLAIN, AT + "0x9800", "-Wl,--section-start=.data=0x9000")),
        "64",
    ),
}

REPLACE = {
    "anew": "os.replace('new.so', path)",
    "in place": "Path(path).write_bytes(Path('new.so').read_bytes())",
    "in memory": "os.truncate(path, 0); Path(path).write_bytes(Path('new.so').read_bytes())",
}


@pytest.mark.parametrize("how", REPLACE)
@pytest.mark.parametrize("what", REBUILT)
def test_a_library_that_is_built_anew(tmp_path, what, how):
    """One that is loaded under the same name, in the same place, is another: its memory is not that of the first one."""
    (first, its_flags), (second, flags), value = REBUILT[what]
    build(tmp_path / "lib.so", first, *its_flags)
    build(tmp_path / "new.so", second, *flags)
    path = "os.path.abspath('lib.so')"
    if how == "in memory":
        path = "f'/proc/self/fd/{os.memfd_create(\"lib\")}'; Path(path).write_bytes(Path('lib.so').read_bytes())"
    in_a_process(f"""
path = {path}
old = Library(path)
waits.start(), waits.stop()
old.ask(), old.unload()
{REPLACE[how]}
new = Library(path)
assert new.begin == old.begin, "it is not in the same place"
waits.start()
assert new.ask() == {value}, new.ask()
waits.stop()
assert new.ask() == {value}, new.ask()
assert waits.state()["patched"] == 0
""", tmp_path)


@pytest.mark.parametrize("what", REBUILT)
def test_libraries_that_take_turns_within_a_run(tmp_path, what):
    """While the hooks are on, what is loaded where another library was is hooked as it is itself, and only that."""
    (first, its_flags), (second, flags), value = REBUILT[what]
    build(tmp_path / "lib.so", first, *its_flags)
    build(tmp_path / "new.so", second, *flags)
    in_a_process(f"""
path = os.path.abspath("lib.so")
waits.start()
before, begins = waits.state()["patched"], set()
for _ in range(2):
    old = Library(path)
    assert waits.state()["patched"] == before + 1
    old.ask(), old.unload(), os.rename("lib.so", "old.so"), os.rename("new.so", "lib.so")
    new = Library(path)
    assert waits.state()["patched"] == before
    assert new.ask() == {value}, new.ask()
    new.unload(), os.rename("lib.so", "new.so"), os.rename("old.so", "lib.so")
    begins |= {{old.begin, new.begin}}
assert len(begins) == 1, "they are not in the same place"
waits.stop()
assert waits.state()["patched"] == 0
""", tmp_path)


SANITIZED = any(name in os.environ.get("LD_PRELOAD", "") for name in ("libasan", "libtsan"))

OWN = "int usleep(unsigned t) { return 42; } int ask(void) { return usleep(0); }"


@pytest.mark.skipif(SANITIZED, reason="the sanitizer allows of no library that looks for names in itself first")
def test_a_library_that_has_a_function_of_its_own(tmp_path):
    """One that is called as one of ours is not replaced, bound or not."""
    build(tmp_path / "lib.so", OWN, "-Wl,-z,lazy")
    in_a_process("""
handle = ctypes.CDLL(os.path.abspath("lib.so"), mode=os.RTLD_LAZY | os.RTLD_DEEPBIND)
waits.start()
assert handle.ask() == 42
waits.stop(), waits.start()
assert handle.ask() == 42
waits.stop()
""", tmp_path)


def test_a_library_that_is_preloaded(tmp_path):
    """What stands between a program and the C library is called as ever, from slots that are not bound yet as well."""
    build(tmp_path / "own.so", OWN)
    build(tmp_path / "lib.so", CALLS.format("usleep"), "-Wl,-z,lazy")
    in_a_process("""
library = Library(os.path.abspath("lib.so"))
waits.start()
assert library.ask() == 42
waits.stop()
assert library.ask() == 42
""", tmp_path, preload=tmp_path / "own.so")


def test_a_library_that_is_being_loaded(tmp_path):
    """Hooks that come on while the loader is at a library leave it alone, and come into it when they look again."""
    half = """
int usleep(unsigned), getpid(void), getppid(void), (*nap)(unsigned) = usleep;
extern void (*now)(void);
static int one(void) { return 1; }
static void *chosen(void) { now(); return one; }
int some(void) __attribute__((ifunc("chosen")));
int (*other)(void) = some;
int ask(void) { int (*volatile known)(unsigned) = usleep; return known(0) + getpid() - getppid(); }
"""
    build(tmp_path / "now.so", "void (*now)(void);")
    build(tmp_path / "lib.so", half, "-Wl,-z,now", "-Wl,-z,relro")
    in_a_process("""
now = ctypes.CDLL(os.path.abspath("now.so"), mode=ctypes.RTLD_GLOBAL)
counts = []
@ctypes.CFUNCTYPE(None)
def come_on():
    waits.start()
    counts.append(waits.state()["patched"])
ctypes.c_void_p.in_dll(now, "now").value = ctypes.cast(come_on, ctypes.c_void_p).value
library = Library(os.path.abspath("lib.so"))
assert library.ask() == os.getpid() - os.getppid()
again = Library(os.path.abspath("lib.so"))
counts.append(waits.state()["patched"])
assert counts == [counts[0], counts[0] + 1], counts
waits.stop()
assert waits.state()["patched"] == 0
assert library.ask() == os.getpid() - os.getppid()
""", tmp_path)


@pytest.mark.parametrize("opened", [False, True])
def test_pages_are_left_as_they_were(tmp_path, opened):
    """What the loader protected is protected again; what another tool has made writable stays so."""
    build(tmp_path / "lib.so", CALLS.format("usleep"), "-Wl,-z,now", "-Wl,-z,relro")
    in_a_process(f"""
library = Library(os.path.abspath("lib.so"))
if {opened}:
    begin = [line.split("-") for line in open("/proc/self/maps") if line.endswith("lib.so\\n") and " r--p " in line][-1]
    size = int(begin[1].split()[0], 16) - int(begin[0], 16)
    assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(int(begin[0], 16)), ctypes.c_size_t(size), 3)
before = mapped("lib.so")
for _ in range(3):
    waits.start()
    library.ask()
    assert mapped("lib.so") == before
    waits.stop()
assert mapped("lib.so") == before
""", tmp_path)


@pytest.mark.skipif("libtsan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer of threads does not support such children")
def test_children_of_a_process_that_looks_at_what_is_loaded(tmp_path):
    """A child that is forked while other threads have their libraries hooked can have hooks of its own."""
    again = """
#include <dlfcn.h>
volatile int stop;
void again(const char *path) { while (!stop) { void *it = dlopen(path, RTLD_LAZY | RTLD_NOLOAD); if (it) dlclose(it); } }
"""
    build(tmp_path / "again.so", again)
    in_a_process("""
again = ctypes.CDLL(os.path.abspath("again.so"))
waits.start()
threads = [threading.Thread(target=again.again, args=(os.path.abspath("again.so").encode(),)) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(200):
    child = os.fork()
    if not child:
        ended = waits.start() and not waits.stop() and not waits.state()["patched"]
        os._exit(0 if ended else 1)
    assert os.waitpid(child, 0)[1] == 0
ctypes.c_int.in_dll(again, "stop").value = 1
for thread in threads:
    thread.join()
waits.stop()
""", tmp_path)


CHURN = """
#include <dlfcn.h>
volatile int stop;
long churn(const char *path)
{
    long n = 0;
    for (; !stop; n++) {
        void *it = dlopen(path, n & 1 ? RTLD_LAZY : RTLD_NOW);
        int (*ask)(void) = it ? (int (*)(void))dlsym(it, "ask") : 0;
        if (!ask || ask()) return -1;
        dlclose(it);
    }
    return n;
}
"""


def test_hooks_that_come_and_go_while_libraries_do(tmp_path):
    """In other threads: nothing breaks, all slots are as they were, and nothing grows.

    PARMAGIC_TOGGLES says how often they do (1,000). The paths are short: about the end of one of 8, 16, … bytes, which the
    loader guards by a lock that it does not see, the thread sanitizer makes a mistake.
    """
    toggles = int(os.environ.get("PARMAGIC_TOGGLES", "1000"))
    build(tmp_path / "churn.so", CHURN)
    for name, flags in {"lazy": ("-Wl,-z,lazy",), "eager": ("-Wl,-z,now", "-Wl,-z,relro"), "plain": PLAIN}.items():
        build(tmp_path / f"{name}.so", CALLS.format("usleep") + "int other(int f, void *b) { return read(f, b, 1) + poll(b, 0, 0) + write(f, b, 1); }", *flags)
    in_a_process(f"""
class Heap(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks used fordblks keepcost".split()]
heap = ctypes.CDLL(None).mallinfo2
heap.restype = Heap
library = ctypes.CDLL(os.path.abspath("churn.so"))
rounds = []
threads = [threading.Thread(target=lambda path=path: rounds.append(library.churn(path))) for path in [f"./{{name}}.so".encode() for name in ("lazy", "eager", "plain")]]
for thread in threads:
    thread.start()
def some(n):
    for _ in range(n):
        assert waits.start()
        assert waits.state()["patched"] > 20
        waits.stop()
        assert waits.state()["patched"] == 0
    return heap().used
before = some({toggles} // 4)
after = some({toggles} - {toggles} // 4)
ctypes.c_int.in_dll(library, "stop").value = 1
for thread in threads:
    thread.join()
assert min(rounds) > 0, rounds
assert after - before < 100_000, (before, after)
assert not mapped("lazy.so") + mapped("eager.so") + mapped("plain.so")
""", tmp_path, seconds=60 + toggles / 20)
