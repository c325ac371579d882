"""Streams of text, cut into whole lines: what a worker prints, and the processes that it has forked."""

from __future__ import annotations

from parmagic.model.progress import Printed


class Lines:
    r"""Cuts a stream of text into whole lines; of a rewritten line (``\\r``) the last state stays.

    A flood is cut: what has arrived counts, whether its line has ended or not, and
    ``lost`` are the bytes that were not let through. Every piece is looked at once.
    """

    def __init__(self) -> None:
        self._open: list[str] = []  # the line that has not ended, since it was begun anew
        self._size = 0  # of that, in bytes
        self._rewritten = False  # whether a carriage return came in it
        self._at_begin = False  # whether one came last: what follows overwrites it
        self._held = 0  # newlines
        self._room = MOST
        self.full = False
        self.lost = 0

    def feed(self, text: str) -> str:
        """Take text, and return the lines that are complete now."""
        if self.full:
            self.lost += _size(text)
            return ""
        whole = self._whole_lines(text)
        room, self._room = self._room, self._room - _size(whole) - _MARK * whole.count("\n")
        waiting = self._size + self._held * (1 + _MARK)
        return whole if waiting <= self._room else self._cut(whole, room)

    def _cut(self, whole: str, room: int) -> str:
        """Let as much through as there is room for, and nothing from then on."""
        held, self.full = self._held, True
        text = whole + self._take()
        shown = _fitting(text, room)
        self.lost += _size(text) - _size(shown) + held
        return shown + ("\n" if shown and not shown.endswith("\n") else "") + _CUT

    def _whole_lines(self, text: str) -> str:
        """Return what is complete with this text.

        Several progress bars of one worker move the cursor down with newlines before
        a bar, and up again behind it: bare newlines are held until it shows which they are.
        """
        if text and not text.strip("\n") and (self._rewritten or not self._open):
            self._held += len(text)
            return ""
        held, self._held = (0 if text.startswith("\r") else self._held), 0
        text = "\n" * held + text.replace(_UP, "")
        first, ended, more = text.partition("\n")
        self._write(first)
        if not ended:
            return ""
        whole = self._take() + "\n"
        more, ended, rest = more.rpartition("\n")
        if ended:
            whole += ("\n".join(map(_last_state, more.split("\n"))) if "\r" in more else more) + "\n"
        self._write(rest)
        return whole

    def _write(self, text: str) -> None:
        """Go on with the open line."""
        state = text.rstrip("\r")
        last = _last_state(state)
        if state and (self._at_begin or len(last) < len(state)):
            self._open, self._size = [], 0
        if last:
            self._open.append(last)
            self._size += _size(last)
        if text:
            self._rewritten = self._rewritten or "\r" in text
            self._at_begin = len(state) < len(text)

    def _take(self) -> str:
        """Return the last state of the open line, and begin the next one."""
        text = "".join(self._open)
        self._open, self._size, self._held, self._rewritten, self._at_begin = [], 0, 0, False, False
        return text

    def last(self, rank: int, stream: str) -> Printed | None:
        """Return what is left to be shown, or to be said of what is not, at the end of a worker's stream."""
        text = self.rest()
        return Printed(rank, stream, text, self.lost) if text or self.lost else None

    def rest(self) -> str:
        """Return the line that was never ended, as a line."""
        blank = "" if self._rewritten else "\n" * self._held
        text = self._take()
        return text + "\n" if text else blank


MOST = 1_000_000
"""Bytes of a worker's that are shown in an arm, of each stream, with the marks of its lines."""

_CUT = f"… cut here: this worker has printed {MOST / 1e6:.0f} MB, the rest is counted only\n"
_MARK = 16  # bytes: about what a line's mark takes
_UP = "\x1b[A"  # what moves the cursor up


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def _size(text: str) -> int:
    """Return how many bytes a text is, in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _fitting(text: str, room: int) -> str:
    """Return the begin of a text that takes ``room`` bytes with its marks; a line that is too long is cut."""
    kept = []
    for line in text[: max(room, 0)].split("\n"):
        room -= _MARK + _size(line) + 1
        if room < 0:
            begin = line.encode("utf-8", "surrogatepass")[: max(0, room + _size(line) + 1)]
            kept.append(begin.decode("utf-8", "ignore"))
            break
        kept.append(line)
    return "\n".join(kept)
