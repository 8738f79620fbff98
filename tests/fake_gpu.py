"""A GPU that is not there: what torch.cuda says of it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from bench import clock, memory

GPU = torch.device("cuda", 0)


@dataclass
class Gpu:
    """What it has, in bytes, and what has been done with it."""

    total: int = 8 * 2**30
    free: int = 8 * 2**30
    allocated: int = 0
    broken: bool = False
    """Whether every call gives the same error, as after a device-side assert."""
    emptied: int = 0
    fraction: float = 1.0

    def synchronize(self, device: torch.device | None = None) -> None:
        if self.broken:
            raise RuntimeError("CUDA error: device-side assert triggered")

    def empty_cache(self) -> None:
        self.synchronize()
        self.emptied += 1

    def set_fraction(self, fraction: float, device: torch.device | int) -> None:
        assert torch.cuda._utils._get_device_index(device) == 0  # raises ValueError where the device has no index
        assert 0 < fraction <= 1
        self.fraction = fraction


def installed(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()
    stands_in = {
        "synchronize": gpu.synchronize,
        "empty_cache": gpu.empty_cache,
        "get_device_name": lambda device: "a GPU",
        "get_device_properties": lambda device: SimpleNamespace(total_memory=gpu.total),
        "mem_get_info": lambda device: (gpu.free, gpu.total),
        "memory_allocated": lambda device: gpu.allocated,
        "set_per_process_memory_fraction": gpu.set_fraction,
        "Stream": lambda device: None,
        "set_stream": lambda stream: None,
        "is_current_stream_capturing": lambda: False,
        "Event": lambda enable_timing: SimpleNamespace(record=lambda: None),
    }
    for name, instead in stands_in.items():
        monkeypatch.setattr(torch.cuda, name, instead)
    monkeypatch.setattr(memory, "_limits", {})
    monkeypatch.setattr(clock, "_clock", clock._Clock())
    return gpu
