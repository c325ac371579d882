"""Which machine this is."""

from __future__ import annotations

import os

if hasattr(os, "uname"):
    HOST = os.uname().nodename
else:
    import platform

    HOST = platform.node()
"""This machine's name, as its network knows it; asked once, and the same in all processes that are forked."""
