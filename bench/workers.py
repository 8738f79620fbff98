"""Worker processes on this machine. They share nothing with each other, so that one can be killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

from bench.plan import Cell
from bench.supervise import Lost, Message, Progress, Ready
from bench.work import Setup, Workbench

Pipe = connection.Connection


@dataclass(frozen=True)
class Local:
    """A worker process and the pipe to it."""

    process: BaseProcess
    pipe: Pipe

    def give(self, cell: Cell, seeds: list[int]) -> None:
        with suppress(OSError):  # it is dead: the pipe's end says so to whoever listens next
            self.pipe.send((cell, seeds))

    def end(self) -> None:
        """With the processes that it started: they would hold memory, cores and what the command prints to."""
        assert self.process.pid  # 0 would be the command's own group
        self.process.kill()
        # Its group has its number, and lives on with those; there is none yet where it has only just been started.
        # A Mac says PermissionError where all of a group have ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.pipe.close()


class Processes:
    """A crew of worker processes, one for each setup."""

    def __init__(self, setups: list[Setup]) -> None:
        self.setups = setups
        # Forked from a server that has imported torch and no more: a new worker is there at once, and no CUDA context
        # is forked, which would be broken.
        self.context: ForkServerContext = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["bench.work"])

    def start(self, slot: int) -> Local:
        ours, theirs = self.context.Pipe()
        # No daemon: those may start no processes of their own, and a strategy may want to load images in some. It ends
        # with its pipe.
        process = self.context.Process(target=_serve, args=(theirs, self.setups[slot], dict(os.environ)))
        process.start()
        theirs.close()
        return Local(process, ours)

    def hear(self, workers: Mapping[int, Local], seconds: float | None) -> list[tuple[int, Message]]:
        # The pipe of a worker that is no more has no end as long as a process lives that it forked.
        ears = [ear for worker in workers.values() for ear in (worker.pipe, worker.process.sentinel)]
        heard = connection.wait(ears, seconds)
        return [
            (slot, _message(worker))
            for slot, worker in workers.items()
            if worker.pipe in heard or worker.process.sentinel in heard
        ]


def _message(worker: Local) -> Message:
    try:
        if not worker.pipe.poll() and not worker.process.is_alive():
            raise EOFError
        return worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode or 0
        return Lost(f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}")


def _serve(pipe: Pipe, setup: Setup, environment: dict[str, str]) -> None:
    """A worker's life: cells come through the pipe, messages go back."""
    os.setsid()  # a group of processes of its own, so that it ends with those that it starts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of a terminal's processes; the driver decides
    os.environ.clear()
    os.environ.update(environment)  # the server may have been started with another one
    given: queue.SimpleQueue[tuple[Cell, list[int]]] = queue.SimpleQueue()

    def receive() -> None:
        """A worker does not outlive the command that started it, killed or not: the same command, given again, would
        run the same cells beside it. The pipe ends with that command, at once. Nor do the processes that it started."""
        try:
            while True:
                given.put(pipe.recv())
        except (EOFError, OSError):
            os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=receive, daemon=True).start()
    bench = Workbench(setup, lambda text, share: pipe.send(Progress(text, share)))
    pipe.send(Ready())
    while True:
        pipe.send(bench.run(*given.get()))
