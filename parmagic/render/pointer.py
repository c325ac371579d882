"""A private file that leads a browser to a secret address.

Every user of a machine can read the command lines of all its processes, so a browser's gets
this file's name, which is of no use to others.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
import webbrowser
from html import escape
from pathlib import Path

_PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>parmagic</title>
<p><a href="{url}">The timeline</a></p>
"""


class Pointer:
    """The file, of mode 0600 in a folder of mode 0700; removed by :meth:`remove`, at the latest when this process ends."""

    def __init__(self, url: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="parmagic-")
        self.remove = weakref.finalize(self, _remove, self._folder, os.getpid())
        self.path = Path(self._folder) / "timeline.html"
        with open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(_PAGE.format(url=escape(url)))

    def open(self) -> bool:
        """Send the browser to it; return whether there is one."""
        return webbrowser.open(self.path.as_uri())


def _remove(folder: str, owner: int) -> None:
    """Remove the folder, but not from a fork, which ends earlier."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
