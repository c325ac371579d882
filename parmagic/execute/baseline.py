"""The serial run that a speedup is measured against.

It runs in one isolated worker that sees memory as it was before the first
arm: from the shipped names where a line has only processes, else in a fork of
the notebook, parked before the first arm and only where nothing makes that
unsafe: threads of the user's or of a library, a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from parmagic.analyze.merge import merge
from parmagic.errors import Deadlock, ItemTimeout, LimitReached, NotShippable, ParmagicError, WorkerDied
from parmagic.execute.conductor import listen
from parmagic.execute.task import Quiet
from parmagic.model.finding import Finding
from parmagic.model.plan import Arm
from parmagic.model.private import Private, bare, described, say
from parmagic.model.progress import Displayed, InLine, Logged, Printed
from parmagic.model.recording import End, Recording
from parmagic.model.timeline import Baseline, Timeline
from parmagic.model.traits import SERIAL
from parmagic.system.interrupts import held_back
from parmagic.system.limits import explained
from parmagic.workers import HEARTBEAT, Job, Report
from parmagic.workers.processes import hub
from parmagic.workers.processes.forkable import obstacle
from parmagic.workers.processes.isolated import IsolatedWorkers
from parmagic.workers.processes.orders import ForkOnly

if TYPE_CHECKING:
    from parmagic.execute.task import Screen, Task
    from parmagic.system.files import Folder
    from parmagic.workers.supply import Supply

AT_LEAST = 5.0
"""Seconds that a baseline may take in any case; else about as long as the arms took."""

PATIENCE = 1.0

TO_START = 30.0
"""Seconds that a clean process may take to import what the body needs; a fork has that, and gets none."""

TO_LEAVE = 30.0
"""Seconds without a sign of life that it may take to leave what ``worker.once`` made."""


class Parked:
    """A worker that waits for its turn, with memory as it was; or the reason why there is none."""

    def __init__(self, workers: IsolatedWorkers | None, own: hub.Hub | None, findings: list[Finding]) -> None:
        self.workers = workers
        self._own = own
        self.findings = findings
        self._measured: dict[int, Baseline] = {}
        self._serial: dict[int, Timeline] = {}

    def times(self) -> list[int]:
        """Return how many items each serial run finished."""
        return [serial.n_done for serial in self._serial.values()]

    def close(self) -> None:
        """End the fork, where there is one."""
        if self._own is not None:
            self._own.close()

    def measure(self, task: Task, arm: Timeline, arms: Sequence[Timeline], folder: Folder, screen: Screen) -> Baseline:
        """Return the baseline of an arm; one serial run serves all arms with the same items."""
        known = self._measured.get(arm.n_items)
        if known is None or known.how == "estimated":
            if arm.n_items in self._serial or known is not None:
                return scaled_to(arm, self._serial.get(arm.n_items))
            self._serial[arm.n_items] = serial = self._run(task, arm, arms, folder, screen)
            if serial.error is not None and not task.plan.keep_going:
                failed = "The serial baseline failed ({failure}); what it ran until then is used."
                self.findings.append(Finding("baseline_failed", say(failed, failure=described(serial.error)), arm.arm.label, "error"))
            known = self._measured[arm.n_items] = self.judge(arm, serial, task.plan.keep_going)
            return known
        if known.how == "sampled":
            return scaled_to(arm, self._serial[arm.n_items])
        return known

    def _run(self, task: Task, arm: Timeline, arms: Sequence[Timeline], folder: Folder, screen: Screen) -> Timeline:
        assert self.workers is not None
        limit = max(AT_LEAST, sum(t.wall_s for t in arms))
        items = task.items_for(arm.arm)
        broken = any(each.broke is not None for each in arms)  # a sample would not come by the item that breaks the loop
        claims = None if broken else sample(expected(arms, arm.n_items), limit)
        alone = Arm(SERIAL)
        job = Job(task.call, items, alone, task.plan, task.sharing(alone, claims), lambda _: folder.file(f"baseline-{len(items)}.json"))
        heard = listen(self.workers, job, self._listener(screen, len(claims or items), 1.5 * limit, arm))
        if heard.error is not None and not isinstance(heard.error, ParmagicError):
            raise heard.error
        return merge(job.arm, heard.begin, heard.end, len(items), heard.parts, {}, error=heard.error, load=heard.load)

    def _listener(self, screen: Screen, n_items: int, limit: float, arm: Timeline) -> _UntilEnough:
        return _UntilEnough(screen, n_items, limit, longest_item(arm), TO_START if self._own is None else 0.0)

    def judge(self, arm: Timeline, serial: Timeline, keep_going: bool) -> Baseline:
        """Return what the serial seconds of all items are, by what ran serially: all, or a sample that has to be scaled."""
        ended_well = serial.error is None or keep_going
        done = serial.n_done
        died = any(lane.lost_tries for lane in serial.lanes)
        died |= any(issubclass(type(error), (WorkerDied, ItemTimeout, Deadlock)) for error in serial.errors.values())
        whole = done == arm.n_items or (arm.broke is not None and serial.broke is not None)
        if whole and ended_well and not died:  # a replacement's start-up would count as work
            return Baseline(serial.items_s, "measured", True, serial.results_by_item, serial.load, _ends(serial), bare(serial))
        if arm.broke is not None or serial.broke is not None:
            self.findings.append(another_end("baseline", serial))
        done -= len(serial.errors)
        scaled = scaled_to(arm, serial)
        if scaled.how == "sampled":
            text = f"The serial baseline ran a sample of {done} of {arm.n_items} items and was scaled to all."
            self.findings.append(Finding("baseline_sampled", text, arm.arm.label, evidence={"items": done, "of": arm.n_items}))
        return scaled


def taken_from(serial: Timeline, arm: Timeline) -> Baseline:
    """Take a serial arm of the line as the baseline of an arm; estimated where only one of both broke the loop."""
    if (serial.broke is None) is not (arm.broke is None):
        return Baseline.estimated()
    return Baseline(serial.items_s, "measured", results=serial.results_by_item, load=serial.load, ends=_ends(serial), run=bare(serial))


def _ends(serial: Timeline) -> dict[str, End]:
    """Return what the names ended as, where all items ended well, and at once."""
    return serial.ends if not serial.errors and not serial.tries and serial.broke is None else {}


def estimated(why: str, **parts: Any) -> Finding:
    """Say why speedups are estimated; ``parts``, where there are some, are filled in as :func:`~parmagic.model.private.say` does."""
    text = f"The speedup is estimated: {why}"
    return Finding("estimated", say(text, **parts) if parts else text, severity="warning")


def another_end(what: str, serial: Timeline) -> Finding:
    """Say how a serial run ended that is not comparable with an arm of the same loop, as only one of them came to a break."""
    if serial.broke is not None:
        return estimated(f"the serial {what} broke the loop, at item {serial.broke}, and the arm did not.")
    if serial.n_done == serial.n_items:
        return estimated(f"the serial {what} did not break the loop, and the arm did.")
    return estimated(f"the serial {what} did not come to where the loop breaks: it ended behind {serial.n_done} of {serial.n_items} items.")


def park(task: Task, supply: Supply) -> Parked | None:
    """Prepare the serial run before the first arm, or find why there is none."""
    one_at_a_time = [arm.model.one_at_a_time for arm in task.plan.arms]
    serial_isolated = any(one_at_a_time) and supply.shares_memory
    if all(one_at_a_time):
        return None
    if not serial_isolated and (any(one_at_a_time) and task.items is not None):
        return None
    if not serial_isolated and (task.plan.once or not task.baseline):
        return Parked(None, None, [estimated("no serial baseline ran, as asked.")])
    if not hub.supported():
        return Parked(None, None, [estimated("this system cannot fork, so there is no isolated serial run.")])
    if task.items is None and task.blocking:
        names = ", ".join(sorted(task.blocking)[:3])
        why = f"the body uses {names}, so ranks in turn could wait for each other forever"
        return Parked(None, None, [estimated(f"{why}.")])
    if supply.shares_memory:
        return _park_fork(task, supply)
    try:
        return Parked(supply.isolated(), None, [])
    except (NotShippable, ForkOnly) as error:  # of workers that are no processes here, nothing has been packed before
        unshipped = Private(_said(error), f"The body cannot be shipped to a process ({type(error).__name__}).")
        return Parked(None, None, [estimated("there is no serial baseline. {error}", error=unshipped)])


def _park_fork(task: Task, supply: Supply) -> Parked:
    why_not = obstacle()
    items = task.items_for(max(task.plan.arms, key=lambda arm: arm.count))
    if why_not is None:
        try:
            with explained():
                own = supply.fork(task.call, items)
        except LimitReached as refused:
            return Parked(None, None, [estimated(f"there is no serial baseline. {refused}")])
        return Parked(IsolatedWorkers(own, None), own, [])
    try:
        supply.cargo()
        return Parked(supply.isolated(), None, [])
    except (ParmagicError, ForkOnly) as error:
        why = Private(why_not.why, why_not.plain)  # threads' names may be items
        unshipped = Private(_said(error), f"the body cannot be shipped to a process ({type(error).__name__}).")
        return Parked(None, None, [estimated("{obstacle}, so the notebook cannot be forked, and {error}", obstacle=why, error=unshipped)])


def _said(error: Exception) -> str:
    """Return why a body is not shipped; a ForkOnly has no text of its own."""
    only_forked = "The body reads a multiprocessing primitive of the fork context, which only forked workers can have."
    return only_forked if isinstance(error, ForkOnly) else str(error)


def expected(arms: Sequence[Timeline], n_items: int) -> list[float]:
    """Return how long each item may take serially: as in the arm whose items took least in all.

    Items of threads include their waits for each other, which a serial run has
    not: they are scaled by the part of the arm's time that was useful.
    """
    with held_back():  # NumPy and pandas cannot be imported again once they were interrupted
        from parmagic.analyze import tables  # noqa: PLC0415  (pandas loads when it is needed)

    guesses = []
    for arm in (arm for arm in arms if arm.n_items == n_items):
        busy = arm.seconds_by_item
        total = sum(seconds for seconds in busy if not math.isnan(seconds))
        useful = tables.useful_seconds(arm, tables.workers_table([arm]))
        scale = min(1.0, useful / total) if total > 0 and not math.isnan(useful) else 1.0
        guesses.append((total * scale, [seconds * scale for seconds in busy]))
    return min(guesses)[1]


def sample(busy: Sequence[float], limit: float) -> tuple[range, ...] | None:
    """Return an evenly spread part of the items that fits into ``limit`` seconds; None where all fit."""
    n = len(busy)
    known = [seconds for seconds in busy if not math.isnan(seconds)]
    total = sum(known)
    if total <= limit or n <= 1:
        return None
    count = max(1, int(n * limit / total))
    return tuple(range(number, number + 1) for number in sorted({(2 * i + 1) * n // (2 * count) for i in range(count)}))


class _UntilEnough:
    """Listens to a serial run, whose prints are dropped, until its time is up or it seems to hang.

    It hangs when no item finished and its process used no CPU for a while: a
    second and three times the longest item. Its time begins when it has started, which may take ``to_start`` more.
    """

    def __init__(self, screen: Screen, n_items: int, limit: float, longest: float, to_start: float = 0.0) -> None:
        self.screen: Screen = _OnlyProgress(screen, n_items)
        self._limit = limit
        self._patience = PATIENCE + 3 * longest
        self._to_start = to_start
        self._begin = self._heard = perf_counter() + to_start
        self._cpu = _Cpu()
        self._left, self._keeps = n_items, False

    def goes_on(self, report: Report) -> bool:
        """Look at both clocks."""
        now = perf_counter()
        if isinstance(report, InLine):
            self._begin = self._heard = now + self._to_start
        elif isinstance(report, Recording):  # the first one says that it has started
            self._cpu.of(report.worker.pid)
            self._begin, self._heard = min(self._begin, now), now
            self._left -= report.n_done
            self._keeps |= any(batch.made for batch in report.batches)
        elif self._cpu.moved():
            self._heard = now
        if self._keeps and self._left <= 0:  # it leaves that, which is none of its items' time
            return now - self._heard <= TO_LEAVE
        return now - self._begin <= self._limit and now - self._heard <= self._patience


class _OnlyProgress(Quiet):
    """Shows how many items of the serial baseline are done, and nothing that its worker prints."""

    def __init__(self, screen: Screen, n_items: int) -> None:
        self._screen = screen
        self._n_items = n_items

    def begin(self, arm: str, n_items: int) -> None:  # noqa: ARG002  (as all screens)
        """Announce it by its name, with the items of its sample."""
        self._screen.begin("serial baseline", self._n_items)

    def done(self, n_items: int) -> None:
        """Tell how many more items are done."""
        if n_items:
            self._screen.done(n_items)

    def printed(self, printed: Printed, model: str) -> None:
        """Show nothing."""

    def displayed(self, displayed: Displayed, model: str) -> None:
        """Show nothing."""

    def logged(self, logged: Logged) -> None:
        """Log nothing."""

    def end(self) -> None:
        """The baseline is over."""
        self._screen.end()


class _Cpu:
    """Tells whether a process has used CPU since last asked; a Ctrl-C waits until it is, for it would leave a file of psutil's open."""

    def __init__(self) -> None:
        self._process: Any = None
        self._last = 0.0

    def of(self, pid: int) -> None:
        import psutil  # noqa: PLC0415  (loads when a run needs it)

        if self._process is None:
            try:
                with held_back():
                    self._process = psutil.Process(pid)
            except psutil.Error:
                self._process = None

    def moved(self) -> bool:
        if self._process is None:
            return False
        import psutil  # noqa: PLC0415  (loads when a run needs it)

        try:
            with held_back():
                times = self._process.cpu_times()
        except psutil.Error:
            return False
        used = times.user + times.system
        moved, self._last = used > self._last + HEARTBEAT / 10, used
        return bool(moved)


def longest_item(timeline: Timeline) -> float:
    """Return the seconds of an arm's longest item; 0 where none was done."""
    return max((seconds for seconds in timeline.seconds_by_item if not math.isnan(seconds)), default=0.0)


def scaled_to(arm: Timeline, serial: Timeline | None) -> Baseline:
    """Scale the items that ran serially to all of an arm's, by their own ratio of serial to parallel seconds.

    Items in which a worker made what it kept for others are left out of that ratio, on either side.
    """
    if serial is None:
        return Baseline.estimated()
    parallel, alone = arm.seconds_by_item, serial.seconds_by_item
    makers, made = arm.made | serial.made, serial.made
    if len(arm.made) == arm.n_items and len(made) == serial.n_done:
        makers = made = set()  # each made its own, as ranks do: they are alike
    failed = serial.errors.keys() | makers
    both = [i for i in range(arm.n_items) if not math.isnan(alone[i]) and not math.isnan(parallel[i]) and i not in failed]
    total = sum(parallel[i] for i in both)
    if not both or total <= 0 or arm.broke is not None or serial.broke is not None:
        return Baseline.estimated()
    ratio = sum(alone[i] for i in both) / total
    plain = [seconds for i, seconds in enumerate(parallel) if not math.isnan(seconds) and i not in makers]
    like_others = sum(not math.isnan(parallel[i]) for i in makers - made) * sum(plain) / len(plain)  # a serial run makes nothing there
    whole = (sum(plain) + like_others) * ratio + sum(alone[i] for i in made if not math.isnan(alone[i]))
    results = serial.results_by_item
    return Baseline(whole, "sampled", True, {i: results[i] for i in both if i in results}, serial.load, run=bare(serial))
