"""What was found about a run: notes and the verdict are findings in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["info", "warning", "error"]

NOTHING_TOLD = frozenset({"no_items", "not_waited_for", "too_short", "too_small"})
"""Verdicts that say only why there is none."""

BENDS = 0.05
"""The share of an arm's wall time from which tracing bends its times and its speedup."""


LEFT_OUT = "left_out"
"""The rule by which an arm that the line asked for did not run: a finding has its label, and says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that holds: of one arm, by its label, or of all that was run.

    ``info`` says what was done, a ``warning`` that figures or results are not what one might take them for, or that time
    was lost, an ``error`` that something failed. ``evidence`` are the figures that the rule looked at, by name, in the
    units that the names say: Python numbers, int or float (no bool, nor NumPy's integers); ``text`` tells all of it in words.
    """

    rule: str
    text: str
    arm: str = ""
    severity: Severity = "info"
    evidence: Mapping[str, float] = field(default_factory=dict)


def told(texts: Iterable[str], rule: str, arm: str = "", severity: Severity = "info") -> list[Finding]:
    """Return findings that were put in words where they were made: by a worker, say, whose message this is."""
    return [Finding(rule, text, arm, severity) for text in texts]


def notes_of(findings: Iterable[Finding]) -> list[str]:
    """Return what findings say, in their order, each text once."""
    return list(dict.fromkeys(finding.text for finding in findings))


def bends(overhead: float) -> bool:
    """Tell whether tracing that took this share of an arm's wall time bends its figures."""
    return overhead > BENDS


_ROUGH = frozenset({"broke", "slowed", "unlike", "beyond"})
"""What makes a speedup rough: its loop broke (other items may have run serially), tracing bent it, loads were unlike, it cannot be."""


def rough(baselines: Mapping[str, str], findings: Iterable[Finding]) -> frozenset[str]:
    """Return the arms, by label, whose speedups are rough (and shown with ``~``).

    They are against a baseline that was not ``measured`` (``baselines`` tell how each is known), or something was found that makes them so.
    """
    found = {finding.arm for finding in findings if finding.rule in _ROUGH}
    return frozenset(label for label, how in baselines.items() if how != "measured" or label in found)
