"""A real kernel with its own debugger attached, spoken to as JupyterLab does."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.manager import KernelManager

Event = dict[str, Any]


@dataclass
class Shown:
    """What a cell showed until it ended, or until a debugger's event, in which case ``event`` is that one."""

    text: str = ""
    error: str = ""
    results: list[str] = field(default_factory=list)
    event: Event | None = None
    ended: bool = False


class Debugged:
    """A kernel, its client, and its debugger; :meth:`close` it."""

    def __init__(self) -> None:
        self._manager = KernelManager()
        self._manager.start_kernel()
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        self._sequence = 0

    def attach(self) -> None:
        """Attach its debugger."""
        asked = {"clientID": "jupyter", "adapterID": "python", "pathFormat": "path", "linesStartAt1": True, "columnsStartAt1": True}
        assert self.ask("initialize", **asked)["success"]
        assert self.ask("attach")["success"]

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a request to the debugger; return its answer."""
        self._sequence += 1
        content = {"type": "request", "seq": self._sequence, "command": command, "arguments": arguments}
        message = self._client.session.msg("debug_request", content)
        self._client.control_channel.send(message)
        while True:
            reply = self._client.get_control_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                answer: dict[str, Any] = reply["content"]
                return answer

    def stop_at(self, cell: str, *lines: int) -> None:
        """Set breakpoints on lines of a cell, as the margin counts them, and forget those that it had before."""
        path = self.ask("dumpCell", code=cell)["body"]["sourcePath"]
        asked = self.ask("setBreakpoints", source={"path": path}, breakpoints=[{"line": line} for line in lines], sourceModified=False)
        assert [each["verified"] for each in asked["body"]["breakpoints"]] == [True] * len(lines)
        assert self.ask("configurationDone")["success"]

    def send(self, cell: str, *, asks: bool = False) -> str:
        """Begin to run a cell; return the number of that request."""
        number: str = self._client.execute(cell, allow_stdin=asks)
        return number

    def answer(self, text: str) -> None:
        """Answer what the cell asks next."""
        self._client.get_stdin_msg(timeout=20)
        self._client.input(text)

    def watch(self, number: str, until: str = "", text: str = "\0", seconds: float = 30) -> Shown:
        """Return what a cell shows until it ends, an event of that name comes, or it has printed that text."""
        shown, deadline = Shown(), time.monotonic() + seconds
        while True:
            message = self._client.get_iopub_msg(timeout=max(0.0, deadline - time.monotonic()))
            kind, content = message["msg_type"], message["content"]
            if kind == "debug_event" and content["event"] == until:
                shown.event = content["body"]
                return shown
            if message["parent_header"].get("msg_id") != number:
                continue  # of an earlier cell
            if kind == "stream":
                shown.text += content["text"]
                if text in shown.text:
                    return shown
            elif kind == "error":
                shown.error += re.sub("\x1b\\[[0-9;]*m", "", "\n".join(content["traceback"]))
            elif kind in {"execute_result", "display_data"}:
                shown.results.append(content["data"].get("text/plain", ""))
            elif kind == "status" and content["execution_state"] == "idle":
                shown.ended = True
                return shown

    def run(self, cell: str) -> Shown:
        """Run a cell to its end."""
        return self.watch(self.send(cell))

    def value(self, expression: str) -> str:
        """Return what an expression prints, with the newest run as ``run``."""
        return self.run(f"import parmagic; run = parmagic.last(); print({expression})").text.strip()

    def interrupt(self) -> None:
        """Press the stop button."""
        self._manager.interrupt_kernel()

    def close(self) -> None:
        """End the kernel."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
