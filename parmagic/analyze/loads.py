"""What a machine that others use does to a run's figures: rules about the loads that its arms and their baselines met."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import isfinite

from parmagic.model.finding import Finding
from parmagic.model.load import UNLIKE, Load
from parmagic.model.timeline import Baseline, Timeline

_NONE_LEFT = 0.9
"""The share of the CPUs from which on none was idle, as far as clocks that tick can tell."""

_WANTED = 0.25
"""Cores that were missing from which on it is said who had them."""

_HELD_BACK = 0.05
_WAITED = 0.1
_SWAPPED = 50.0
_SLOW = 0.6


def of_arm(timeline: Timeline) -> list[Finding]:
    """Return what kept an arm from the CPUs, from memory and from the speed that this machine has."""
    load = timeline.load
    if load is None:
        return []
    return [finding for rule in (_throttled, _crowded, _stolen, _short_of_memory, _slow) for finding in rule(timeline, load)]


_FIRST = {
    "throttled": "This container may use {quota:.1f} CPUs and was held back {share:.0%} of the time.",
    "unlike": (
        "Other programs took {serial_others_cores:.1f} of {cpus} cores during the serial run and {others_cores:.1f} during {arm}: "
        "its speedup is too {way}, try again when it is quiet."
    ),
    "crowded": "Other programs took {others_cores:.1f} of {cpus} cores: {whose} are too low, try again when it is quiet.",
    "stolen": "The hypervisor gave {steal_cores:.1f} of {cpus} cores to other machines: {whose} are too low.",
}
"""What a verdict begins with where such a rule holds, the most important first: it bends what the verdict says."""


def first(arm: str, findings: Iterable[Finding]) -> str:
    """Return what a verdict on an arm has to begin with, by what was found, of that arm before others; empty where nothing bends it."""
    found = [each for each in findings if each.rule in _FIRST and each.severity == "warning"]
    worst = min(found, key=lambda each: (each.arm != arm, *_weight(each)), default=None)
    if worst is None:
        return ""
    whose = "figures" if worst.arm == arm or not arm else f"figures of {worst.arm}"
    way = _way(worst.evidence.get("serial_others_cores", 0.0), worst.evidence.get("others_cores", 0.0))
    return _FIRST[worst.rule].format(arm=worst.arm, whose=whose, way=way, **worst.evidence)


def _weight(finding: Finding) -> tuple[int, float]:
    """Return where such a rule stands among the others, and of two that take cores, the one that took more before the other."""
    taken = finding.evidence.get("steal_cores", finding.evidence.get("others_cores", 0.0))
    return [*_FIRST].index("crowded" if finding.rule == "stolen" else finding.rule), -taken


def _way(serial: float, mine: float) -> str:
    """Say how a speedup is bent by what others took."""
    return "high" if serial > mine else "low"


def _throttled(timeline: Timeline, load: Load) -> Iterable[Finding]:
    """Yield for how much of the time a control group's quota held each worker back."""
    share = load.throttled_share(timeline.arm.count, timeline.wall_s)
    if share >= _HELD_BACK:
        label = timeline.arm.label
        text = f"{label}: this container may use {load.quota:.1f} CPUs, and held each worker back for about {share:.0%} of the time."
        yield _of(timeline, "throttled", text, {"quota": load.quota, "throttled_s": load.throttled_s, "share": share})


def _crowded(timeline: Timeline, load: Load) -> Iterable[Finding]:
    """Yield how many cores other programs took that the arm's workers could have used."""
    if load.others_cores > UNLIKE * load.cpus and _missed(timeline, load.others_cores, load.cpus):
        text = f"{timeline.arm.label}: other programs took {_cores(load.others_cores, load)} meanwhile, so its figures are too low."
        yield _of(timeline, "crowded", text, {"others_cores": load.others_cores, "cpus": load.cpus})


def _missed(timeline: Timeline, taken: float, cpus: int) -> bool:
    """Tell whether an arm missed the cores that others had: what it used and waited for, and what they had, is more than there is.

    Who waits for the GIL is not seen waiting for a core: where there is one, no core was left and nearly one was not used.
    """
    used = timeline.cpu_s / timeline.wall_s
    in_line = sum(lane.in_line_s for lane in timeline.lanes) / timeline.wall_s
    if used + in_line + taken > cpus + _WANTED:
        return True
    one_gil = timeline.gil and timeline.arm.model.shares_gil and timeline.arm.count > 1
    return one_gil and used < _NONE_LEFT and used + in_line > 1 - _NONE_LEFT and used + taken > _NONE_LEFT * cpus


def _stolen(timeline: Timeline, load: Load) -> Iterable[Finding]:
    """Yield how many cores the hypervisor gave away, where the workers were on theirs for long enough to be held up by that."""
    used = timeline.cpu_s / timeline.wall_s
    on_core = used / min(timeline.arm.count, load.cpus)
    if load.steal_cores > _WAITED * load.cpus and on_core * load.steal_cores > _HELD_BACK * (load.steal_cores + used):
        taken, label = _cores(load.steal_cores, load), timeline.arm.label
        text = f"{label}: the hypervisor gave {taken} to other machines meanwhile, so its figures are too low."
        yield _of(timeline, "stolen", text, {"steal_cores": load.steal_cores, "cpus": load.cpus})


def _short_of_memory(timeline: Timeline, load: Load) -> Iterable[Finding]:
    waited = load.memory_share if isfinite(load.memory_share) else 0.0
    swapped = load.swapped_mb if isfinite(load.swapped_mb) else 0.0
    if waited > _WAITED or swapped > _SWAPPED:
        moved = f", and {swapped:,.0f} MB went to swap or came from there" if swapped >= 1 else ""
        text = f"{timeline.arm.label}: this machine was short of memory; programs waited for it {waited:.0%} of the time{moved}."
        yield _of(timeline, "short_of_memory", text, {"memory_share": waited, "swapped_mb": swapped})


def _slow(timeline: Timeline, load: Load) -> Iterable[Finding]:
    if load.clock_ghz < _SLOW * load.top_ghz and timeline.cpu_s > 0.5 * timeline.wall_s:  # who waits lets them be slow
        text = (
            f"{timeline.arm.label}: the CPUs ran at {load.clock_ghz:.1f} of {load.top_ghz:.1f} GHz at its end. "
            "They save power, or are too hot, and all times are longer than they could be."
        )
        yield _of(timeline, "slow_clock", text, {"clock_ghz": load.clock_ghz, "top_ghz": load.top_ghz})


def unlike(timeline: Timeline, baseline: Baseline) -> Iterable[Finding]:
    """Yield how unlike the loads were that an arm and its serial run met, where that is too much to compare them in silence.

    Of an arm that had no use for what others took more of, it is not known that its speedup is bent.
    """
    mine, serial = timeline.load, baseline.load
    if mine is None or serial is None or not mine.unlike(serial):
        return
    label, way = timeline.arm.label, _way(serial.lost_cores, mine.lost_cores)
    bent = way == "high" or _missed(timeline, mine.lost_cores, mine.cpus)
    text = (
        f"{label}: other programs took {_cores(serial.lost_cores, serial)} during the serial run "
        f"and {mine.lost_cores:.1f} during this arm, so its speedup {'is' if bent else 'may be'} too {way}."
    )
    finding = _of(timeline, "unlike", text, {"serial_others_cores": serial.lost_cores, "others_cores": mine.lost_cores, "cpus": mine.cpus})
    yield finding if bent else replace(finding, severity="info")


def _cores(taken: float, load: Load) -> str:
    return f"{taken:.1f} of {load.cpus} core{'s' if load.cpus > 1 else ''}"


def _of(timeline: Timeline, rule: str, text: str, evidence: dict[str, float]) -> Finding:
    return Finding(rule, text, timeline.arm.label, "warning", evidence)
