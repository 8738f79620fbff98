"""A results folder is one command's at a time; with `--shard`, n commands may have a part each.

A command writes a claim, a small file in `claims/`, then looks for the claims of others: whichever of two wrote later
sees the other's. It needs no locks of the file system, which network folders often lack, and no clock: a claim is alive
as long as its holder keeps counting in the file.
"""

from __future__ import annotations

import json
import os
import platform
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from uuid import uuid4

import psutil

from bench import provenance, shards, store
from bench.errors import StorageError

BEAT = 2.0
"""Seconds from one count to the next."""
STOP = signal.SIGUSR1
"""To this process itself. Not Ctrl-C's signal, which a command that a script runs in the background ignores."""
PATIENCE = 60.0
"""Seconds without a count after which a holder that cannot be asked for otherwise is taken for dead."""
READS = 5
"""Times that a claim is read that cannot be, before it is taken for something else."""
OF = "-of-"
"""For the stroke of a shard, i/n, in file names."""


@dataclass(frozen=True)
class Claim:
    """What a claim's file holds."""

    shard: str
    host: str
    machine: str
    """What process numbers are unique in: a host since it was started, or a container in it."""
    process: int
    since_utc: str
    """For people to read; nothing is decided by it."""
    command: str
    held: bool = False
    """False while its command still looks for others."""
    count: int = 0

    @property
    def holder(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since_utc}: {self.command}"


@contextmanager
def claimed(results: Path, shard: str, command: str) -> Iterator[None]:
    """Meanwhile the results folder, or the shard's part of it, is this command's. Raises StorageError where another
    command has it, with who that is, where it cannot be written, or where the claim was lost because this process
    stood still for a minute."""
    mine = Claim(shard, platform.node(), _machine(), os.getpid(), provenance.utc(), command)
    path = _taken(results, mine)
    lost: list[str] = []
    done = threading.Event()

    def keep_counting() -> None:
        count = 0
        while not done.wait(BEAT):
            count += 1
            try:
                _count(path, replace(mine, held=True, count=count))
            except FileNotFoundError:
                lost.append(f"{results}: another command took this folder over, because this one stood still. Stopped.")
                if caller is threading.main_thread():
                    signal.pthread_kill(caller.ident or 0, STOP)  # ends a sleep, too
                return
            except OSError:  # a network that is away for now; others wait for PATIENCE
                continue

    thread = threading.Thread(target=keep_counting, daemon=True)
    caller = threading.current_thread()
    before = signal.signal(STOP, _interrupt) if caller is threading.main_thread() else None
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost:
            raise StorageError(lost[0]) from None
        raise
    finally:
        done.set()
        thread.join()
        if before is not None:
            signal.signal(STOP, before)
        path.unlink(missing_ok=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _taken(results: Path, mine: Claim) -> Path:
    """The file of this command's claim, once no other one is in its way. Raises StorageError."""
    while True:
        path = results / "claims" / f"{mine.shard.replace('/', OF)}.{uuid4().hex[:12]}.json"
        _write(path, mine)
        try:
            others = _others(path, mine)
            if holder := next((other for other in others if other.held), None):
                fix = "Wait for it, or give this run another folder with --results."
                raise StorageError(f"{results}: in use by {holder.holder}. {fix}")
            if not others:
                _write(path, replace(mine, held=True))
                return path
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        path.unlink()  # another command looks at the same time: each steps back, and for another while
        time.sleep(random.uniform(0, BEAT / 4))


def _others(own: Path, mine: Claim) -> list[Claim]:
    """The claims of other commands to cells of this one, as far as they are alive; dead ones are removed. Alive is one
    whose file changes, since its process number may have been given away, or is of another machine. Until that is
    known, this claim counts as well: others may be looking at it."""
    near = [path for path in own.parent.glob("*.json") if path != own and shards.overlap(mine.shard, _shard(path))]
    unknown = {path: claim for path in near if (claim := _read(path))}
    alive: list[Claim] = []
    waited_from = time.monotonic()
    while unknown:
        for path, claim in list(unknown.items()):
            now = _read(path)
            if now is not None and now != claim:
                alive.append(now)
            elif now is not None and (_ended(now) or time.monotonic() - waited_from > PATIENCE):
                path.unlink(missing_ok=True)
            elif now is not None:
                continue
            del unknown[path]
        if any(claim.held for claim in alive):
            break
        if unknown:
            time.sleep(BEAT / 10)
            mine = replace(mine, count=mine.count + 1)
            _write(own, mine)
    return alive


def _ended(claim: Claim) -> bool:
    """Whether the claim's process is known to be no more."""
    return claim.machine == _machine() and not psutil.pid_exists(claim.process)


def _shard(path: Path) -> str:
    """The shard that a claim is for, as its file's name has it: files of others need not be read."""
    return path.name.partition(".")[0].replace(OF, "/")


def _read(path: Path, times: int = READS) -> Claim | None:
    """None where it is gone. A network folder may show a file half overwritten, or lose hold of it, for a moment."""
    try:
        return Claim(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        if times == 1:
            raise StorageError(
                f"{path}: not a claim of this version ({error}). Delete it if no run uses the folder."
            ) from None
    time.sleep(BEAT / 10)
    return _read(path, times - 1)


def _write(path: Path, claim: Claim) -> None:
    store.write(path, json.dumps(asdict(claim)).encode())


def _count(path: Path, claim: Claim) -> None:
    """Write a higher count over the file, which gets no shorter by it. Raises FileNotFoundError where another command
    has removed it: unlike a new file put in its place, this cannot bring it back."""
    with open(path, "r+b") as file:
        file.write(json.dumps(asdict(claim)).encode())


def _machine() -> str:
    parts = [platform.node()]
    with suppress(OSError):  # Linux has these two; elsewhere the name has to do
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)
