"""The notebook's working directory, and how workers enter it: by a descriptor, as its path may be gone, or another folder's by now."""

from __future__ import annotations

import os
import tempfile

from parmagic.system.real import close_descriptor


def descriptor() -> int:
    """Return a descriptor of the working directory; OSError where that may not be looked up."""
    return os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)


def enter(folder: int) -> list[str]:
    """Be where the notebook is, also where that folder is gone; where this cannot be, be nowhere, and return a note."""
    try:
        os.fchdir(folder)
    except OSError as error:
        nowhere = tempfile.mkdtemp(prefix="parmagic-")
        os.chdir(nowhere)
        os.rmdir(nowhere)  # noqa: PTH106  (text, as it is made)
        return [f"Worker processes cannot enter the working directory ({error.strerror}): relative paths lead nowhere in them."]
    finally:
        close_descriptor(folder)
    return []
