"""Which machine this is."""

from __future__ import annotations

import os
import socket

HOST = os.uname().nodename if hasattr(os, "uname") else socket.gethostname()
"""This machine's name, as its network knows it; asked once, and the same in all processes that are forked."""
