"""How much memory there is left to use: of a GPU, of which a worker may have a part only, and of the machine, of which
a container or a job may."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

CONTEXT = 600 * 2**20
"""Bytes of a GPU that CUDA itself takes in a process, for its context and its libraries; torch does not count them."""
CGROUP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")

_limits: dict[torch.device, float] = {}
"""Bytes of a GPU that torch may take in this process, where it may not take all."""


def limit(device: torch.device, share: float) -> None:
    """From now on this process takes a share of a GPU's memory at most (`cuda:0`, ..), CUDA's own part included."""
    total = torch.cuda.get_device_properties(device).total_memory
    own = max(share - CONTEXT / total, share / 2)  # a tiny GPU: there is less for CUDA than it would like
    torch.cuda.set_per_process_memory_fraction(own, device)
    _limits[device] = own * total


def free_bytes(device: torch.device) -> float:
    """Bytes that this process may still take."""
    if device.type != "cuda":
        return max(0.0, min(float(psutil.virtual_memory().available), *_left_to_groups()))
    left = _limits.get(device, math.inf) - torch.cuda.memory_allocated(device)
    return max(0.0, min(float(torch.cuda.mem_get_info(device)[0]), left))


def _left_to_groups() -> Iterator[float]:
    """Bytes that are left to each control group that this process is in and that has a limit, and infinity. A file that
    was read and can be dropped again does not count as used."""
    yield math.inf
    for folder, most, used, dropped in _groups():
        try:
            limit, now = (folder / most).read_text().strip(), int((folder / used).read_text())
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # none of this name here, or none with a limit
            continue
        if limit != "max":
            yield float(int(limit) - now + int(counts.get(dropped, 0)))


def _groups() -> Iterator[tuple[Path, str, str, str]]:
    """Folder of each control group that limits this process's memory, and the names in it: version 2, then 1. Within a
    container the path may be that of the host, of which there is only the root here."""
    try:
        lines = CGROUP.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = CGROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = root / path.strip("/")
        for folder in (own, *own.parents):
            if folder == root or root in folder.parents:
                yield folder, *names
