"""Python's one place for profilers, since 3.12 (``sys.monitoring``): who has it; it is taken where it is free, and left where it is ours.

VizTracer takes it from whoever has it, and frees it whoever has it then. So neither is asked of it before the place is known to be ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_TOOL = 2
_monitoring: Any = getattr(sys, "monitoring", None)


class Place:
    """The place, as our tracer knows it: that it is ours is told by the very object that its name is, which no other VizTracer has."""

    def __init__(self) -> None:
        self._name = ""
        self._events = 0

    def is_ours(self) -> bool:
        """Tell whether our tracer has it."""
        return _monitoring.get_tool(_TOOL) is self._name

    def other(self) -> str | None:
        """Return the name of another tool that has it; None where it is free or ours."""
        name: str | None = _monitoring.get_tool(_TOOL)
        return None if name is self._name else name

    def shared(self) -> bool:
        """Tell whether another tool asks for events in our place, as line_profiler does: it fails where the place is freed meanwhile."""
        return self.is_ours() and bool(_monitoring.get_events(_TOOL) & ~self._events)

    def enter(self, start: Callable[[], Any]) -> str | None:
        """Take the place, and call VizTracer's ``start``; where another tool has it, only return that one's name."""
        if not self._take():
            return self.other() or "another profiler"
        start()  # frees what is ours, and takes it under a name of its own
        self._name, self._events = _monitoring.get_tool(_TOOL), _monitoring.get_events(_TOOL)
        return None

    def leave(self, stop: Callable[[], Any]) -> bool:
        """Call VizTracer's ``stop``, and free the place; where another tool has it, only return False."""
        if not self._take():
            return False
        stop()
        if self.is_ours():  # it was stopped already
            self.silence()
            _monitoring.free_tool_id(_TOOL)
        return True

    def silence(self) -> None:
        """Ask for no event any more, if it is ours."""
        if self.is_ours():
            _monitoring.set_events(_TOOL, 0)

    def _take(self) -> bool:
        if self.is_ours():
            return True
        name = f"viztracer of parmagic {id(self)}"  # an object that nobody else has
        try:
            _monitoring.use_tool_id(_TOOL, name)
        except ValueError:
            return False
        self._name = name
        return True
