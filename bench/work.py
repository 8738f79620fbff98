"""What a worker does, wherever it runs: set itself up once, then run the cells it is given."""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import device, memory
from bench.attempt import run_cell
from bench.errors import StorageError
from bench.places import Place
from bench.plan import Cell
from bench.session import Notify, Session
from bench.supervise import Done, Ended


@dataclass(frozen=True)
class Setup:
    """All that a worker is told before its first cell."""

    place: Place
    threads: int
    results: Path
    folder: Path
    """The current directory of the command, which relative paths are relative to."""
    deterministic: bool = False
    debug: bool = False


class Workbench:
    """A process that is set up to run cells."""

    def __init__(self, setup: Setup, notify: Notify | None = None) -> None:
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        os.chdir(setup.folder)
        torch.set_num_threads(setup.threads)
        where = torch.device(setup.place.device)
        device.set_up(where, setup.deterministic)
        if setup.place.share < 1:
            memory.limit(where, setup.place.share)
        self.session = Session(where, setup.results, debug=setup.debug)
        if notify is not None:
            self.session.notify = notify

    def run(self, cell: Cell, seeds: list[int]) -> Done | Ended:
        """Run a cell for its seeds; what cannot be a row of its own ends the run."""
        try:
            statuses = run_cell(cell, seeds, self.session)
            return Done(statuses, spent=not device.works(self.session.device))
        except StorageError as error:
            return Ended(error)
        except Exception:  # --debug lets a strategy's own error through; a traceback does not survive the way back
            return Ended(RuntimeError(f"in a worker process:\n{traceback.format_exc()}"))
