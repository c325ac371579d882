"""Saving: a run's page or trace becomes a file, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from parmagic.render import chrome
from parmagic.system.interrupts import held_back, undo

if TYPE_CHECKING:
    from parmagic.render import View

SUFFIXES = (".html", ".json", ".json.gz")


def save(view: View, path: str | os.PathLike[str]) -> None:
    """Write the run to ``path``: a page (.html) or a trace (.json, .json.gz).

    The file is readable by its owner only, and is either whole or not there.
    Raises ValueError for any other suffix, OSError where it can't be written.
    """
    target = Path(path)
    name = target.name.lower()
    if name.endswith(".html"):
        from parmagic.render.page import page  # noqa: PLC0415  (the other suffixes do without)

        _write(target, (page(view).encode("utf-8"),))
    elif name.endswith(".json.gz"):
        with _whole(target) as file:
            chrome.pack(view, file)
    elif name.endswith(".json"):
        _write(target, chrome.written(view))
    else:
        raise ValueError(f"can't save to {target.name!r}: it must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def save_page(path: str | os.PathLike[str], text: str) -> None:
    """Write a page to ``path`` in the same way; ValueError where that does not end in .html."""
    target = Path(path)
    if not target.name.lower().endswith(".html"):
        raise ValueError(f"can't save to {target.name!r}: it must end in .html")
    _write(target, (text.encode("utf-8"),))


def _write(target: Path, parts: Iterable[bytes]) -> None:
    with _whole(target) as file:
        file.writelines(parts)


def _folder_of(target: Path) -> Path:
    """Return the folder of a file that is to be saved, whole: the working directory may be gone."""
    try:
        folder = target.parent.resolve(strict=True)
        if folder.is_dir():
            return folder
    except OSError:
        pass
    raise FileNotFoundError(f"there is no folder {str(target.parent)!r} to save {target.name!r} to")


@contextmanager
def _whole(target: Path) -> Iterator[IO[bytes]]:
    """Open a file beside the target (0600, as mkstemp makes it), and move it there at the end: no reader sees half of it.

    Nothing of it is left where this is interrupted or fails.
    """
    folder = _folder_of(target)
    opened = ExitStack()
    try:
        with held_back():
            handle, temporary = tempfile.mkstemp(prefix=".parmagic-", dir=folder)
            opened.callback(Path(temporary).unlink, missing_ok=True)
            file = opened.enter_context(open(handle, "wb"))  # noqa: PTH123, SIM115
        yield file
        file.close()
        os.replace(temporary, target)  # noqa: PTH105  (the pair of mkstemp, which gives a str)
    finally:
        try:
            undo(opened.close)
        finally:
            undo(opened.close)
