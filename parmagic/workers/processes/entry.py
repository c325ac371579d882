"""What a new process does, however it was made: it calls ``module:function``, and ends."""

from __future__ import annotations

import errno
import importlib
import os
import pickle
from typing import Any

from parmagic.workers.processes.handle import name_after, restore_limit


def be(entry: str, arguments: bytes, descriptors: list[int], inherited: Any, files: tuple[int, int] | None) -> None:
    """Do a process's whole work, with the limit on open files that the notebook had: only now that all descriptors are there."""
    if -1 in descriptors:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    restore_limit(files)
    name_after(entry)
    call(entry, pickle.loads(arguments), descriptors, inherited)


def call(entry: str, *arguments: Any) -> Any:
    """Call ``module:function``."""
    module, name = entry.split(":")
    return getattr(importlib.import_module(module), name)(*arguments)
