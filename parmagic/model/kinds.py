"""What a worker's time can go to, and what it can wait for."""

from __future__ import annotations

MEASURED = ("running", "native", "gil_wait", "lock_wait", "io_wait", "sleep", "cpu_wait")
"""The states that hooks measure, in the order of a tally's rows."""

WAIT_KINDS = ("gil", "lock", "sleep", "socket", "poll", "file", "pipe", "child", "not named", "queue")
"""What a worker can be seen waiting for. ``not named``: blocked in the kernel below the hooks."""

WAIT_STATES = ("gil_wait", "lock_wait", "sleep", "io_wait", "io_wait", "io_wait", "io_wait", "io_wait", "io_wait", "lock_wait")
"""The state of each kind."""

STATES = ("running", "gil", "lock", "sleep", "io")

# A worker's time, as the columns of ``Run.workers`` name it (each with ``_s``).
WORKER_STATES = (
    "startup",
    "running",
    "native",
    "gil_wait",
    "lock_wait",
    "io_wait",
    "sleep",
    "cpu_wait",
    "transfer",
    "idle",
    "unknown",
)
