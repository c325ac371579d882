"""Whether this process holds a GPU: its driver is set up for one process, and a fork of that cannot use it."""

from __future__ import annotations

import os
import re
import sys

_CONTEXT = re.compile(r"/dev/(nvidia-uvm|nvmap|kfd|dxg|dri/renderD|accel)(?!\w*-tools)")
"""What a driver opens when it is set up for computing, and keeps open: CUDA's on a PC, on a Jetson, in WSL; ROCm's; Intel's and others'.

Not /dev/nvidiactl and /dev/nvidia0, which are open as well where a GPU is only watched (NVML).
"""


def held() -> str:
    """Return by what this process holds a GPU; empty where it does not, as far as can be seen."""
    for name in ("torch.cuda", "torch.xpu"):
        if getattr(sys.modules.get(name), "_initialized", False) is True:
            return name
    try:
        descriptors = os.listdir("/proc/self/fd") if _is_there() else []  # noqa: PTH208  (at each run)
    except OSError:
        return ""
    for descriptor in descriptors:
        try:
            path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115  (as above)
        except OSError:
            continue
        if _CONTEXT.match(path):
            return path
    return ""


def _is_there() -> bool:
    """Tell whether this machine has such a device: most have none."""
    places = ("nvidia-uvm", "nvmap", "kfd", "dxg", "dri", "accel", "accel0")
    return any(os.access(f"/dev/{each}", os.F_OK) for each in places)
