"""A function of tensors that a GPU records once and then replays.

A training step is many hundred operations, and unless images are large, asking a GPU for them one by one takes several
times as long as computing them. A recording (a CUDA graph) asks for all of them at once. It computes the very same, but
knows nothing of Python: what the function reads besides its inputs must be in tensors that stay where they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench import clock, device
from bench.errors import brief
from bench.memory import free_bytes

WAITS = "called a synchronizing CUDA operation"
"""What torch says of an operation that waits for the GPU, which no recording can hold."""
CANNOT = "A GPU cannot record such a step: take `steady = True` out of the strategy."
NO_ROOM = "There was no memory to record it in: give a smaller batch_size, or fewer --jobs."
PROTOTYPE = "Synchronization debug mode is a prototype"
"""What it says of telling that."""


@dataclass(frozen=True, eq=False)
class Recording:
    """For inputs of one shape."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    found: Tensor


class Replay:
    """Computes what `compute` does (tensors on the device -> a tensor): on a GPU from the third time on (for further
    shapes of its inputs the second) by a recording; on other devices, and where `compute` waits for the GPU, always by
    calling it, as without `recordable`. The tensor that it gives is overwritten the next time. `draws` are the
    generators that it draws from besides the device's own; random numbers are those that calling it would have
    drawn."""

    def __init__(
        self,
        compute: Callable[..., Tensor],
        where: torch.device,
        draws: Sequence[torch.Generator] = (),
        recordable: bool = True,
    ) -> None:
        self.compute, self.device, self.draws = compute, where, draws
        self.recordings: dict[tuple[torch.Size, ...], Recording] = {}
        self.seen: dict[tuple[torch.Size, ...], int] = {}
        self.recordable = None if recordable and _on_a_stream(where) else False
        """None: not known yet."""
        self.pool: Any = None
        """Of memory: recordings are replayed one after the other, and may all use the same."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        if self.recordable is False:
            return self.compute(*inputs)
        shapes = tuple(one.shape for one in inputs)
        times = self.seen[shapes] = self.seen.get(shapes, 0) + 1
        if times == 1:  # libraries set themselves up, the optimizer makes its moments, what is kept is computed
            return self.compute(*inputs)
        if self.recordable is None:
            return self._watched(*inputs)
        if shapes not in self.recordings:
            self.recordings[shapes] = self._recorded(*inputs)
        recording = self.recordings[shapes]
        with clock.network():
            for place, one in zip(recording.inputs, inputs, strict=True):
                place.copy_(one)
            recording.graph.replay()
        return recording.found

    def forget(self) -> bool:
        """From now on nothing is replayed, so that the memory of recordings is there for others. Gives whether there
        were any."""
        if not self.recordings:
            return False
        self.recordings.clear()
        self.recordable, self.pool = False, None
        warnings.warn("no longer replayed, since memory is short: slower than it could be", stacklevel=2)
        return True

    def _watched(self, *inputs: Tensor) -> Tensor:
        """Called as it is, to see whether it waits for the GPU."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                found = self.compute(*inputs)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        self.recordable = not any(WAITS in str(one.message) for one in caught)
        for one in caught:
            if not any(text in str(one.message) for text in (WAITS, PROTOTYPE)):
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        if not self.recordable:
            warnings.warn("not replayed, since it waits for the GPU: slower than it could be", stacklevel=3)
        return found

    def _recorded(self, *inputs: Tensor) -> Recording:
        """Nothing is computed meanwhile. A recording cannot use the memory that torch keeps for later: where little
        else is left, that is given back first."""
        if free_bytes(self.device) < torch.cuda.memory_reserved(self.device):
            torch.cuda.empty_cache()
        places = tuple(one.clone() for one in inputs)
        graph = torch.cuda.CUDAGraph()
        for generator in self.draws:
            graph.register_generator_state(generator)
        try:
            # Not `with torch.cuda.graph`, which collects garbage and empties torch's cache each time.
            graph.capture_begin(self.pool, capture_error_mode="thread_local")
            try:
                found = self.compute(*places)
            finally:
                graph.capture_end()
        except RuntimeError as error:  # torch goes on as if it were still recording
            device.lose(self.device)
            raise RuntimeError(f"{brief(error)}. {NO_ROOM if device.out_of_memory(error) else CANNOT}") from error
        self.pool = graph.pool()
        return Recording(graph, places, found)


def _on_a_stream(where: torch.device) -> bool:
    """Whether it is a GPU that takes work in a stream of its own, as `device.set_up` has it."""
    return where.type == "cuda" and torch.cuda.current_stream(where) != torch.cuda.default_stream(where)
