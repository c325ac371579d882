"""Settings of the notebook's: workers of every kind have them, none of them outlives its time, and nothing of ours follows them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from parmagic.workers.settings.taken import TABLE

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


def test_a_filters_pattern_in_a_process(ip):
    """It is as good as the notebook's, also where nothing has been compared with it yet."""
    ip("import copy, pickle, re, warnings\nwarnings.filterwarnings('error', 'odd.y', UserWarning)")
    run = ip("""
%%parallel procs=1 --once -q
pattern = next(message for _, message, *_ in warnings.filters if getattr(message, "pattern", "") == "odd.y")
same = re.compile("odd.y", re.I)
try:
    warnings.warn("Oddly")
    raised = False
except UserWarning:
    raised = True
warnings.filterwarnings("error", "odd.y", UserWarning)
pattern == same == pattern, hash(pattern) == hash(same), copy.copy(pattern), copy.deepcopy(pattern), pickle.loads(pickle.dumps(pattern)), raised, sum(
    getattr(message, "pattern", "") == "odd.y" for _, message, *_ in warnings.filters)
""".lstrip())
    ip("warnings.filters[:] = [each for each in warnings.filters if getattr(each[1], 'pattern', '') != 'odd.y']")
    same = re.compile("odd.y", re.IGNORECASE)
    assert run.results == [(True, True, same, same, same, True, 1)]


@pytest.mark.parametrize("timeout", [5, 0.1, 0])
def test_the_default_timeout_of_sockets(timeout, tmp_path):
    """The body has it, in every model; our own sockets wait as long as it takes, however short it is."""
    script = SCRIPT.format(timeout=float(timeout))
    if not timeout:
        script = script.replace("socket.create_connection(ours.getsockname())", "socket.create_connection(ours.getsockname(), 5)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.stdout == "fine\n", done.stderr[-3000:]


BESIDE = """
import faulthandler, json, os, resource, signal, socket, sys, time
import parmagic
{set}
def body(n):
    time.sleep(0.02)
    return {look}
for line in ("threads=2", "procs=2", "procs=2 --start-method spawn", "procs=2 --start-method fork", "serial", "threads=2 procs=2"):
    models, *options = line.split(" --start-method ")
    run = parmagic.run(body, range(4), models, **({{"start_method": options[0]}} if options else {{}}))
    assert set(run.results) == {{body(0)}}, (line, run.results)
    assert not [note for note in run.notes if "ended" in note or "died" in note or "disagree" in note], run.notes
print("fine")
"""


@pytest.mark.parametrize(
    ("set", "look"),
    [
        ("socket.setdefaulttimeout(1e-6)", "socket.getdefaulttimeout(), socket.socket().gettimeout()"),
        ("signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)", "1"),
        ("signal.signal(signal.SIGALRM, lambda *_: None); signal.siginterrupt(signal.SIGALRM, True); signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)", "1"),
        ("ours, _ = socket.socketpair(); ours.setblocking(False); _ = signal.set_wakeup_fd(ours.fileno())", "1"),
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))", "resource.getrlimit(resource.RLIMIT_NOFILE)[0]"),
        ("_ = os.nice(1); faulthandler.enable(); os.umask(0o777)", "os.nice(0), faulthandler.is_enabled()"),
        ("json.dumps, json.loads = (lambda o, **_: '{}'), (lambda s, **_: 5)", "1"),
        ("socket.socketpair = socket.create_connection = socket.create_server = time.sleep = lambda *_: None", "1"),
        (
            "class Mine(socket.socket):\n    def __init__(self, *given, **named): super().__init__(*given, **named); self.settimeout(0.001)\nsocket.socket = Mine",
            "1",
        ),
    ],
    ids=["timeout", "alarms", "interrupting alarms", "wakeup", "few files", "nice", "json", "connections", "sockets"],
)
def test_what_else_could_strike_our_own(set, look, tmp_path):  # noqa: A002
    """Timeouts, alarms, limits, and what a cell has put into the standard library strike the body's work alone: every run is as ever."""
    script = BESIDE.format(set=set, look=look)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.stdout == "fine\n", done.stderr[-3000:]


SET = {  # what is set, how it is looked at, and how it is set back
    "decimal": ("decimal.getcontext().prec = 7", "(decimal.getcontext().prec, str(decimal.Decimal(1) / 3))", "decimal.getcontext().prec = 28"),
    "decimal traps": (
        "decimal.getcontext().traps[decimal.Subnormal] = True", "decimal.getcontext().traps[decimal.Subnormal]",
        "decimal.getcontext().traps[decimal.Subnormal] = False",
    ),
    "np.seterr": ("np.seterr(divide='raise')", "np.geterr()['divide']", "np.seterr(divide='warn')"),
    "np.seterrcall": ("np.seterrcall(handler)", "getattr(np.geterrcall(), '__name__', None)", "np.seterrcall(None)"),
    "np.set_printoptions": (
        "np.set_printoptions(precision=2, formatter={'int': lambda n: f'<{n}>'})", "str(np.array([1])) + str(np.array([1 / 3]))",
        "np.set_printoptions(precision=8, formatter=None)",
    ),
    "pandas": ("pd.set_option('display.max_rows', 7)", "pd.get_option('display.max_rows')", "pd.reset_option('display.max_rows')"),
    "pandas, a function": (
        "pd.set_option('display.float_format', lambda x: f'{x:.1f}!')", "str(pd.Series([1 / 3]))", "pd.reset_option('display.float_format')",
    ),
    "rcParams": ("matplotlib.rcParams['lines.linewidth'] = 9.0", "matplotlib.rcParams['lines.linewidth']", "matplotlib.rcdefaults()"),
    "rcParams, a cycle": (
        "matplotlib.rcParams['axes.prop_cycle'] = matplotlib.cycler(color=['red'])", "str(matplotlib.rcParams['axes.prop_cycle'])",
        "matplotlib.rcdefaults()",
    ),
    "warning filters": (
        "warnings.filterwarnings('error', 'told so', Mine)", "raised(lambda: warnings.warn('told so', Mine))",
        "warnings.filters[:] = filters; warnings._filters_mutated() if hasattr(warnings, '_filters_mutated') else None",
    ),
    "warnings.formatwarning": (
        "warnings.formatwarning = lambda message, *_, **__: f'mine: {message}'", "warnings.formatwarning('a', UserWarning, 'f', 1)",
        "warnings.formatwarning = warnings._formatwarning_orig",
    ),
    "recursion limit": ("sys.setrecursionlimit(2345)", "sys.getrecursionlimit()", "sys.setrecursionlimit(1000)"),
    "digits": ("sys.set_int_max_str_digits(0)", "sys.get_int_max_str_digits()", "sys.set_int_max_str_digits(4300)"),
    "switch interval": ("sys.setswitchinterval(0.007)", "round(sys.getswitchinterval(), 4)", "sys.setswitchinterval(0.005)"),
    "traceback limit": ("sys.tracebacklimit = 3", "getattr(sys, 'tracebacklimit', None)", "del sys.tracebacklimit"),
    "gc": ("gc.set_threshold(123, 4, 5); gc.disable()", "(gc.get_threshold()[:2], gc.isenabled())", "gc.set_threshold(700, 10); gc.enable()"),
    "locale": ("locale.setlocale(locale.LC_ALL, other)", "locale.setlocale(locale.LC_ALL)", "locale.setlocale(locale.LC_ALL, was)"),
    "time zone": ("os.environ['TZ'] = 'XYZ-5'; time.tzset()", "(time.tzname, time.localtime(0).tm_hour)", "del os.environ['TZ']; time.tzset()"),
    "umask": ("os.umask(0o027)", "umask()", "os.umask(0o022)"),
    "csv": ("csv.field_size_limit(77)", "csv.field_size_limit()", "csv.field_size_limit(131072)"),
    "csv dialects": (
        "csv.register_dialect('mine', delimiter=';')", "'mine' in csv.list_dialects() and list(csv.reader(['a;b'], 'mine'))",
        "csv.unregister_dialect('mine')",
    ),
    "tracemalloc": ("tracemalloc.start(3)", "tracemalloc.is_tracing() and tracemalloc.get_traceback_limit()", "tracemalloc.stop()"),
    "threads' stacks": ("threading.stack_size(1 << 20)", "stack_size()", "threading.stack_size(0)"),
    "start method": (
        "multiprocessing.set_start_method('spawn', force=True)", "multiprocessing.get_start_method(allow_none=True)",
        "multiprocessing.set_start_method(None, force=True)",
    ),
    "signals": ("signal.signal(signal.SIGUSR1, handle)", "callable(signal.getsignal(signal.SIGUSR1))", "signal.signal(signal.SIGUSR1, signal.SIG_DFL)"),
    "logging levels": ("logging.getLogger('mine.own').setLevel(5)", "logging.getLogger('mine.own.x').getEffectiveLevel()", "logging.getLogger('mine.own').setLevel(0)"),
    "logging.disable": ("logging.disable(logging.INFO)", "logging.root.manager.disable", "logging.disable(0)"),
    "level names": ("logging.addLevelName(7, 'SEVEN')", "logging.getLevelName(7)", "logging.addLevelName(7, 'Level 7')"),
    "captured warnings": ("logging.captureWarnings(True)", "logging._warnings_showwarning is not None", "logging.captureWarnings(False)"),
    "record factory": ("logging.setLogRecordFactory(Record)", "logging.getLogRecordFactory().__name__", "logging.setLogRecordFactory(logging.LogRecord)"),
    "logging filters": ("logging.getLogger('sieved').addFilter(lambda record: 'not' not in record.msg)", "sieved()", "logging.getLogger('sieved').filters.clear()"),
    "ContextVars": ("variable.set('mine')", "variable.get()", "variable.set('default')"),
    "ContextVars without default": ("bare.set([1])", "bare.get(None)", "bare.set(None)"),
    "a module's ContextVar": ("module.variable.set('mine')", "module.value()", "module.variable.set('default')"),
    "environment": ("os.environ['OF_MINE'] = 'é'", "os.environ.get('OF_MINE')", "del os.environ['OF_MINE']"),
    "search path": ("sys.path.append('/of/mine')", "'/of/mine' in sys.path", "sys.path.remove('/of/mine')"),
    "working directory": ("os.mkdir('there'); os.chdir('there')", "os.path.basename(os.getcwd())", "os.chdir('..'); os.rmdir('there')"),
}
if find_spec("matplotlib") is None:
    SET = {name: how for name, how in SET.items() if "matplotlib" not in how[0]}

ALL = """
import contextvars, csv, decimal, gc, json, locale, logging, multiprocessing, os, signal, sys, threading, time, tracemalloc, warnings
import numpy as np, pandas as pd
import parmagic
try: import matplotlib
except ImportError: pass
with open("module.py", "w") as file:
    file.write("import contextvars\\nvariable = contextvars.ContextVar('of a module', default='default')\\ndef value(): return variable.get()\\n")
sys.path.insert(0, os.getcwd())
import module
variable, bare = contextvars.ContextVar("mine", default="default"), contextvars.ContextVar("bare")
was, filters = locale.setlocale(locale.LC_ALL), warnings.filters[:]
other = "C" if was != "C" else "C.UTF-8"
os.umask(0o022)
class Mine(UserWarning): pass
class Record(logging.LogRecord): pass
def handler(*_): pass
def handle(*_): pass
def raised(call):
    try:
        with open(os.devnull, "w") as sys.stderr: call()
    except Warning as error: return type(error).__name__
    finally: sys.stderr = sys.__stderr__
def umask():
    os.umask(mask := os.umask(0o077))
    return mask
def stack_size():
    threading.stack_size(size := threading.stack_size())
    return size
def sieved():
    logger = logging.getLogger("sieved")
    return [bool(logger.filter(logging.makeLogRecord({{"msg": text}}))) for text in ("yes", "not")]
SET = {set!r}
def body(_):
    return {{{looks}}}
first = body(0)
LINES = ("threads=2", "procs=2", "procs=2 --start-method spawn", "procs=2 --start-method fork", "serial")
def runs():
    for line in LINES:
        models, *options = line.split(" --start-method ")
        run = parmagic.run(body, range(4), models, trace="off", **({{"start_method": options[0]}} if options else {{}}))
        yield line, run
def compared(wanted):
    found = {{}}
    for line, run in runs():
        found[line] = {{name: sorted({{each[name] for each in run.results}} - {{wanted[name]}}) for name in wanted}}
        found[line]["notes"] = [note for note in run.notes if "differ" in note or "could not" in note or "cannot" in note]
        found[line]["baseline"] = list(run.summary["baseline"])
    return found
for how, _, _ in SET.values():
    exec(how)
wanted = body(0)
there = compared(wanted)
for _, _, back in SET.values():
    exec(back)
again = body(0)
gone = compared(again)
print(json.dumps([first, wanted, there, again, gone]))
"""
LINES = ("threads=2", "procs=2", "procs=2 --start-method spawn", "procs=2 --start-method fork", "serial")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a notebook's workers have found that had set all of these, and had set them back."""
    script = ALL.format(set=SET, looks=", ".join(f"{name!r}: repr({look})" for name, (_, look, _) in SET.items()))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path_factory.mktemp("all"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("name", SET)
def test_a_setting_is_there(found, name, line):
    """Workers in threads, forked, spawned, and from a warm server have what the notebook has; set back, they have that."""
    first, wanted, there, again, gone = found
    assert wanted[name] != first[name]
    assert wanted[name] != again[name]
    assert (there[line][name], gone[line][name]) == ([], []), (wanted[name], again[name])


@pytest.mark.parametrize("line", LINES)
def test_the_baseline_has_them_too(found, line):
    """Its results are those of the arm, and no note tells of a setting that could not go."""
    for ran in (found[2][line], found[4][line]):
        assert ran["notes"] == []
        assert ran["baseline"] == ["measured"] or "spawn" in line  # which may take too long to begin


def test_the_page_names_all_of_them():
    """Which settings are carried is written once, and whole."""
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    assert [setting.name for setting in TABLE if f"`{setting.name}`" not in page] == []


@pytest.mark.parametrize("method", ["", "--start-method spawn", "--start-method fork"])
def test_a_handler_shares_names_with_the_body(ip, method):
    """An alarm that a cell has set up strikes in a process, raises there, and sets what the body reads."""
    ip(
        "import signal, time\nstruck = []\ndef alarm(*_):\n    struck.append(1)\n    raise TimeoutError('too long')\n"
        "before = signal.signal(signal.SIGALRM, alarm)"
    )
    body = "signal.setitimer(signal.ITIMER_REAL, 0.05)\ntry: time.sleep(20)\nexcept TimeoutError as error: found = str(error)\nfound, struck"
    try:
        run = ip(f"%%parallel procs=2 -q --once {method} for n in range(2)\n{body}")
    finally:
        ip("_ = signal.signal(signal.SIGALRM, before)")
    assert {text for text, _ in run.results} == {"too long"}
    assert [1] in [struck for _, struck in run.results]


def test_what_cannot_be_sent_is_named(ip, tmp_path, monkeypatch):
    """With the reason; all other settings arrive, and the body runs."""
    (tmp_path / "with_a_variable.py").write_text("import contextvars\nheld = contextvars.ContextVar('held', default=None)\n")
    monkeypatch.syspath_prepend(tmp_path)
    ip("import logging, threading, sys, with_a_variable\nlock = threading.Lock()\n_ = with_a_variable.held.set(lock)\nclass Sieve:\n    def __init__(self): self.lock = lock\n    def filter(self, record): return True")
    ip("sieve = Sieve(); logging.getLogger('of.mine').addFilter(sieve); limit = sys.getrecursionlimit(); sys.setrecursionlimit(4321)")
    try:
        run = ip("%parallel procs=2 -q --once (sys.getrecursionlimit(), len(logging.getLogger('of.mine').filters), with_a_variable.held.get()) for n in range(2)")
    finally:
        ip("logging.getLogger('of.mine').removeFilter(sieve); sys.setrecursionlimit(limit); with_a_variable.held.set(None)")
    assert run.results == [(4321, 0, None)] * 2
    notes = [note for note in run.notes if "cannot be sent to processes, which begin with the default" in note]
    assert sorted(note.partition(" cannot")[0] for note in notes) == ["The ContextVar with_a_variable.held", "logging filters"]
    assert all("lock" in note for note in notes)


def test_an_objects_identity_in_a_variable(ip, tmp_path, monkeypatch):
    """What a variable holds is the object that a name holds, there as here, be it a cell's variable or a module's."""
    (tmp_path / "with_another.py").write_text("import contextvars\nheld = contextvars.ContextVar('held')\n")
    monkeypatch.syspath_prepend(tmp_path)
    ip("import contextvars, with_another\nMISSING = object()\nmine = contextvars.ContextVar('mine')\nfor each in (mine, with_another.held): each.set(MISSING)")
    for method in ("", "--start-method spawn", "--start-method fork"):
        run = ip(f"%parallel procs=2 -q --once {method} (mine.get() is MISSING, with_another.held.get() is MISSING, mine.name) for n in range(2)")
        assert run.results == [(True, True, "mine")] * 2


def test_what_a_thread_sets_stays_there(ip):
    """Numbers and variables of a body's are neither the notebook's nor another worker's."""
    ip("import contextvars, decimal\nimport numpy as np\nmine = contextvars.ContextVar('mine', default=0)\n_ = decimal.getcontext()")
    body = "seen = decimal.getcontext().prec, np.geterr()['divide'], mine.get()\ndecimal.getcontext().prec = 5; np.seterr(divide='raise'); mine.set(1)\nseen"
    for model in ("threads", "serial", "procs"):
        line = model if model == "serial" else f"{model}=3"
        run = ip(f"%%parallel {line} -q --once\n{body}")
        assert run.results[0] == (28, "warn", 0)
        assert set(run.results) == {(28, "warn", 0)} or model == "serial"  # whose ranks take turns in one worker
        assert ip("decimal.getcontext().prec, np.geterr()['divide'], mine.get()") == (28, "warn", 0)
