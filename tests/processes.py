"""Commands as processes of their own that a test can kill, forked from a server that has imported torch once."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

import torch

context: Any = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["bench.work", "tests.cheap"])


def started(action: Callable[..., Any], *arguments: Any) -> Any:
    """A process that does something, as `medtransfer run` would: exit code 130 after Ctrl-C, else 0."""
    process = context.Process(target=_do, args=(action, arguments, dict(os.environ)))
    process.start()
    return process


def _do(action: Callable[..., Any], arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        action(*arguments)
    except KeyboardInterrupt:
        sys.exit(130)
