"""What else a machine did while an arm ran: how much of it was left for the workers."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan

UNLIKE = 0.25
"""The share of the usable CPUs by which two loads differ whose runs are not compared in silence."""


@dataclass(frozen=True, slots=True)
class Load:
    """Of the CPUs that this process may use: what was taken from it, per second, while an arm ran.

    NaN is what is not known: all of it where the arm was too short to tell.
    """

    cpus: int
    """How many the scheduler may give to this process."""
    quota: float = nan
    """How many the control groups grant at a time; infinity without a limit."""
    others_cores: float = nan
    """What processes that are neither this one nor below it used of them, in cores."""
    steal_cores: float = nan
    """What the hypervisor gave to other machines, in cores."""
    throttled_s: float = nan
    """Seconds for which the control groups held threads of ours back, added up over CPUs, as the kernel does; 0 without a limit."""
    memory_share: float = nan
    """The share of the time in which some process waited for memory."""
    swapped_mb: float = nan
    """Megabytes that were written to swap, and read from there, by whomever."""
    clock_ghz: float = nan
    """What the fastest of them ran at when the arm ended."""
    top_ghz: float = nan
    """What they can run at."""

    @property
    def usable(self) -> float:
        """How many CPUs this process can use at a time."""
        return min(float(self.cpus), self.quota) if self.quota == self.quota else float(self.cpus)

    @property
    def lost_cores(self) -> float:
        """What others had of the CPUs, other machines too."""
        return self.others_cores + (self.steal_cores if isfinite(self.steal_cores) else 0.0)

    def unlike(self, other: Load) -> bool:
        """Tell whether others had so much more, or less, of the CPUs meanwhile that two runs are not comparable; False where not known."""
        return abs(self.lost_cores - other.lost_cores) > UNLIKE * min(self.cpus, other.cpus)

    def throttled_share(self, workers: int, seconds: float) -> float:
        """Return the share of ``seconds`` for which each of so many workers was held back, as far as they could run at once; 0 to 1."""
        at_once = max(1, min(workers, self.cpus))
        return min(self.throttled_s / (seconds * at_once), 1.0) if seconds > 0 else nan  # in this order NaN stays NaN
