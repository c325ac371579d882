"""How a worker process is asked to end before its items are done: by a SIGINT, which raises Ended in it, once.

So what its body has opened is closed on the way up, as in a thread. A SIGINT that nobody of ours has
sent does nothing, as before; nor does one in a process that the body has forked.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from parmagic.errors import Ended
from parmagic.system.real import set_handler

_asked = False


def heed(is_over: Callable[[], object]) -> None:
    """In a worker: end when asked to, where ``is_over()`` says that the run is over."""
    me = os.getpid()

    def strike(*_: object) -> None:
        global _asked  # noqa: PLW0603  (a signal's handler has nothing else to write to)
        if os.getpid() == me and is_over() and not _asked:
            _asked = True
            raise Ended

    set_handler(signal.SIGINT, strike)


def is_asked() -> bool:
    """Tell whether this worker was asked to end."""
    return _asked
