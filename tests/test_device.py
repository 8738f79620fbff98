"""What a process is set up with."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from bench import device

torch.set_num_threads(1)
if {kept}:
    device.set_up(torch.device("cpu"), deterministic=False)
for step in range(20):
    if step == 15:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    images = torch.ones(16, 2**20)
    images = (images + 1) * 2
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told so")
def test_memory_that_was_freed_is_used_again_without_asking_the_system() -> None:
    faults = {
        kept: int(
            subprocess.run([sys.executable, "-c", FAULTS.format(kept=kept)], capture_output=True, check=True).stdout
        )
        for kept in (True, False)
    }
    assert faults[True] < 100 < faults[False]
