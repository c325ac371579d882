"""What a body logs in a process comes to the handlers that the notebook has set up, wherever these are."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

KEPT = """
import logging, logging.handlers, os, queue, sys
class Kept(logging.Handler):
    def __init__(self, level=0):
        super().__init__(level)
        self.seen = []
    def emit(self, record):
        self.seen.append(record)
kept, log = Kept(), logging.getLogger("own")
log.propagate = False
log.setLevel(logging.DEBUG)
log.addHandler(kept)
class Thing:
    def __init__(self, n): self.n = n
    def __str__(self): return f"thing {self.n}"
"""

METHODS = ["", "--start-method spawn", "--start-method fork"]


@pytest.fixture
def kept(ip):
    """A notebook with a handler that keeps what it gets, and propagates nothing."""
    ip(KEPT)
    yield ip
    logger = logging.getLogger("own")
    for handler in [*logger.handlers]:
        logger.removeHandler(handler)
        handler.close()
    logger.filters.clear()
    logger.setLevel(0)
    logger.propagate = True


@pytest.mark.parametrize("method", METHODS)
def test_a_handler_that_cannot_go_gets_the_records(kept, method):
    """Once each, with all that a record has: arguments, extras, the error and its traceback, the worker's process."""
    run = kept(
        f"%%parallel procs=2 -q --once {method} for n in range(4)\nlog.info('%s of %s', Thing(n), 'four', extra={{'place': [n]}})\n"
        "try: [][n]\nexcept IndexError: log.exception('failed')\nos.getpid()"
    )
    seen = kept.space["kept"].seen
    told = sorted((record for record in seen if record.levelname == "INFO"), key=lambda record: record.args[0].n)
    assert [record.getMessage() for record in told] == [f"thing {n} of four" for n in range(4)]
    assert [record.place for record in told] == [[n] for n in range(4)]
    assert [record.process for record in told] == run.results
    assert all(type(record.args[0]) is kept.space["Thing"] and record.processName.startswith("procs ") for record in told)
    failed = [record for record in seen if record.levelname == "ERROR"]
    assert len(failed) == 4
    assert all(record.exc_info[0] is IndexError and "[][n]" in logging.Formatter().format(record) for record in failed)
    assert not [note for note in run.notes if "cannot be sent" in note]


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_come_home_comes_as_text(kept, method):
    """An argument that cannot be pickled, and one that cannot be read again, are in the message as the worker would write it."""
    kept("import threading\nclass Bad(Thing):\n    def __reduce__(self): return len, ()\ndef make(): return threading.Lock()")
    kept(f"%%parallel procs=2 -q --once {method} for n in range(2)\nlog.warning('%s', Bad(n)); log.warning('lock %s', type(make()).__name__ and make())")
    texts = sorted(record.getMessage() for record in kept.space["kept"].seen)
    assert [text[:20] for text in texts[:2]] == ["lock <unlocked _thre"] * 2
    assert texts[2:] == ["thing 0", "thing 1"]


@pytest.mark.parametrize("method", METHODS)
def test_levels_filters_and_propagation_hold(kept, method):
    """What a level, a filter of the logger's or of the handler's keeps out of the notebook's logs stays out; what propagates does."""
    kept(
        "kept.setLevel(logging.INFO)\nkept.addFilter(lambda record: 'handler' not in record.msg)\n"
        "log.addFilter(lambda record: 'logger' not in record.msg)\nlogging.getLogger('own.quiet').setLevel(logging.ERROR)"
    )
    body = (
        "for level in (10, 20, 30):\n    log.log(level, 'yes')\nlog.error('logger'); log.error('handler')\n"
        "below = logging.getLogger('own.quiet'); below.warning('too low'); below.error('through')"
    )
    kept(f"%%parallel procs=2 -q --once {method}\n{body}")
    assert sorted((record.levelno, record.msg) for record in kept.space["kept"].seen) == sorted([(20, "yes"), (30, "yes"), (40, "through")] * 2)
    kept("logging.getLogger('own.quiet').setLevel(0)")


def test_files_are_written_by_the_notebook(kept, tmp_path):
    """Each line once and whole, from threads and processes, in a file that is begun anew where it is full."""
    kept(
        f"rotates = logging.handlers.RotatingFileHandler({str(tmp_path / 'log')!r}, maxBytes=3000, backupCount=99)\n"
        "rotates.setFormatter(logging.Formatter('%(processName)s|%(message)s'))\nlog.addHandler(rotates)"
    )
    kept("%parallel threads=2 procs=2 -q --chunk 1 log.info('line %d', n) for n in range(200)")  # and a baseline, whose records are not shown
    kept("rotates.flush()")
    lines = [line for file in tmp_path.glob("log*") for line in file.read_text().splitlines()]
    assert sorted(line.partition("|")[2] for line in lines if line.startswith("procs ")) == sorted(f"line {n}" for n in range(200))
    assert sorted(line.partition("|")[2] for line in lines if line.startswith("MainProcess")) == sorted(f"line {n}" for n in range(200))
    assert len(lines) == 400


def test_threads_finalizers_and_children_of_a_worker(kept, capfd):
    """What they log arrives once and harms nothing; a process that the body starts prints it."""
    kept(
        "import gc, multiprocessing, threading, time\nfork = multiprocessing.get_context('fork')\nclass Ends:\n"
        "    def __init__(self, n): self.n, self.me = n, self\n    def __del__(self): log.info('ended %d', self.n)"
    )
    body = (
        "_ = [Ends(k) for k in range(5)]; del _; gc.collect()\n"
        "many = [threading.Thread(target=lambda: [log.info('from a thread') for _ in range(50)]) for _ in range(4)]\n"
        "for each in many: each.start()\n"
        "for each in many: each.join()\nchild = fork.Process(target=log.warning, args=('from a child',)); child.start(); child.join()\n"
        "[child.exitcode, bytes(2_000_000)][0]"
    )
    run = kept(f"%%parallel procs=2 -q --once for n in range(4)\n{body}")
    seen = [record.getMessage() for record in kept.space["kept"].seen]
    assert run.results == [0] * 4
    assert seen.count("from a thread") == 800
    assert sum(text.startswith("ended") for text in seen) == 20
    assert "from a child" not in seen
    assert capfd.readouterr().err.count("from a child") == 4 * len(logging.getLogger("own").handlers)  # pytest's own are there as well


def test_a_handler_that_fails_ends_no_run(kept, capfd):
    """Its error is shown as logging shows any, and the run has its results; of an unset-up root, the last resort prints."""
    kept("class Fails(logging.Handler):\n    def emit(self, record): raise OSError('no room')\nfails = Fails()\nlog.addHandler(fails)")
    run = kept("%%parallel procs=2 -q --once for n in range(2)\nlog.info('x')\nn")
    assert run.results == [0, 1]
    assert capfd.readouterr().err.count("OSError: no room") == 2


def test_what_is_logged_before_a_crash_arrives(kept):
    """The last words of a worker that is killed are what one looks for."""
    kept.fails("%%parallel procs=2 -q --once for n in range(2)\nlog.info('before')\nos.kill(os.getpid(), 9)")
    assert "before" in [record.msg for record in kept.space["kept"].seen]


def test_runs_within_a_body(kept):
    """What a run that a body starts logs comes home by two steps."""
    kept("import parmagic\ndef inner(n): log.info('inner'); return n\ndef outer(n): return parmagic.run(inner, [n], 'procs=1', once=True).results")
    run = kept("%parallel procs=2 -q --once outer(n) for n in range(2)")
    assert run.results == [[0], [1]]
    assert [record.msg for record in kept.space["kept"].seen] == ["inner"] * 2


PRINTS = """
import logging, sys, time
import parmagic
logging.basicConfig(level="INFO", format="{levelname}/{message}", style="{")
out = logging.StreamHandler(sys.stdout)
logging.getLogger("out").addHandler(out)
logging.getLogger("out").propagate = False
def body(n):
    logging.info("to err"), logging.getLogger("out").warning("to out"), logging.debug("not")
for method in ({}, {"start_method": "spawn"}, {"start_method": "fork"}):
    run = parmagic.run(body, range(4), "procs=2", **method)
    assert not [note for note in run.notes if "cannot" in note], run.notes
"""


def test_plain_handlers_print_as_workers_do(tmp_path):
    """Marked with their worker, in the notebook's format, on the stream that they had; the baseline prints nothing."""
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(line.partition("] ")[2] for line in done.stdout.splitlines()) == ["to out"] * 12
    assert sorted(line.partition("] ")[2] for line in done.stderr.splitlines() if line.startswith("[procs ")) == ["INFO/to err"] * 12
