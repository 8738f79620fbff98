"""The device a run uses, what it can compute in, and what it has used up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import sys
from functools import cache
from pathlib import Path

import torch

from bench import clock
from bench.errors import UsageError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""As malloc.h has them."""
RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")

NO_MEMORY = (
    "DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED", "MPS backend out of memory",
)  # fmt: skip
"""What torch and the libraries under it say of it, where they do not raise torch.OutOfMemoryError."""


def pick(name: str) -> torch.device:
    """ "auto" is the GPU where there is one. Raises UsageError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices. Use --device cpu or auto."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"--device {name}: torch sees no Metal device. Use --device cpu or auto.")
    return device


def precisions(device: torch.device) -> list[str]:
    """ "bf16" and "fp32", what the device is made for at first; where bf16 is only emulated, "fp32" alone."""
    if device.type == "cuda":
        return ["bf16", "fp32"] if torch.cuda.is_bf16_supported(including_emulation=False) else ["fp32"]
    told = getattr(torch.cpu, "get_capabilities", dict)  # which torch 2.6 does not have
    abilities: dict[str, object] = told() if device.type == "cpu" else {}
    if abilities.get("amx_bf16"):
        return ["bf16", "fp32"]
    return ["fp32", "bf16"] if abilities.get("avx512_bf16") else ["fp32"]


def set_up(device: torch.device, deterministic: bool) -> None:
    """Make this process ready for training. To be called before a GPU is first used."""
    clock.watch(device)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream(device))  # see own_stream
    if deterministic:
        make_deterministic(device)


def own_stream(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Within it a GPU takes work in a stream that is not the default one, on which nothing can be recorded
    (bench.replay)."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else contextlib.nullcontext()


def make_deterministic(device: torch.device) -> None:
    """A GPU computes the same bits again, and an operation that cannot raises RuntimeError. To be called before it is
    first used: cuBLAS asks once. A CPU does so anyway, with the same number of threads; Metal has no such mode."""
    if device.type == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True


def keep_freed_memory(keep: bool = True) -> None:
    """Whether this process keeps the memory that it frees. glibc gives every tensor above 32 MB back to the system and
    takes it anew for the next one, page by page: a fifth of a small network's training at 160 px. Where there is no
    glibc nothing changes."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return
    # By default the thresholds grow as large blocks are freed, up to these.
    mallopt(M_MMAP_MAX, 0 if keep else 65_536)
    mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
    mallopt(M_TRIM_THRESHOLD, -1 if keep else 64 * 2**20)


_lost: set[torch.device] = set()


def lose(device: torch.device) -> None:
    """From now on this process cannot use the device: torch is left in the middle of something."""
    _lost.add(device)


def out_of_memory(error: BaseException) -> bool:
    """Whether torch could not get memory, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY)


def works(device: torch.device) -> bool:
    """Whether this process can still use the device. An error on a GPU other than a lack of memory (an index out of
    range, say) is the answer to all that is asked of it from then on; only a new process gets rid of it."""
    if device in _lost:
        return False
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError as error:
            return out_of_memory(error)
    return True


def release(device: torch.device) -> None:
    """Give memory that torch keeps on a GPU for later back, for other processes or larger blocks."""
    if device.type == "cuda" and works(device):
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@cache
def describe(device: torch.device) -> str:
    """The device's name for a table. Asked for once: a GPU in an error does not even tell its name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"CPU {_cpu_name()}"
    return f"{device.type} {platform.machine()}"


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory held since the last reset on a GPU; the process's peak so far on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def double(values: torch.Tensor) -> torch.Tensor:
    """float64, on the CPU where the device has none (Metal)."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def energy_joules(device: torch.device) -> float | None:
    """A counter of energy used, where the device has one that this user may read; differences of it mean something."""
    if device.type == "cuda":
        try:
            import pynvml
        except ImportError:
            return None  # the optional part "energy" is not installed
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
        except pynvml.NVMLError:
            return None  # this card has no counter
    try:
        return int(RAPL.read_text()) / 1e6
    except (OSError, ValueError):  # not an Intel or AMD CPU with a readable counter
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux: the platform module's word has to do
    return platform.processor() or platform.machine()
