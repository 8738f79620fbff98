"""A results folder, or a shard of it, is one command's at a time, whatever became of the command before."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import claim, shards
from bench.claim import Claim, claimed
from bench.errors import StorageError
from tests.small import CHECKOUT

HOLD = (
    "import sys, time; from pathlib import Path; from bench.claim import claimed\n"
    "with claimed(Path(sys.argv[1]), sys.argv[2], 'medtransfer run first'):\n"
    "    print('held', flush=True); time.sleep(100)"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "BEAT", 0.1)
    monkeypatch.setattr(claim, "PATIENCE", 2.0)


def holder(results: Path, shard: str) -> subprocess.Popen[str]:
    """A command that holds the folder."""
    command = [sys.executable, "-c", HOLD, str(results), shard]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def left(results: Path) -> list[Path]:
    return list((results / "claims").iterdir())


def write(results: Path, **facts: object) -> Path:
    """A claim that nobody counts in."""
    about = asdict(Claim("1/1", "elsewhere", "elsewhere", 1, "2000-01-01T00:00:00Z", "medtransfer run", held=True))
    (results / "claims").mkdir(parents=True, exist_ok=True)
    path = results / "claims" / "other.json"
    path.write_text(json.dumps(about | facts))
    return path


def test_the_second_command_is_told_who_has_the_folder_and_the_first_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "PATIENCE", 60.0)  # the first one counts in its own, slower time
    first = holder(tmp_path, "1/1")
    try:
        for shard, jump in (("1/1", -1e9), ("2/3", 1e9)):
            monkeypatch.setattr(time, "time", lambda jump=jump: jump)  # nothing is decided by the clock on the wall
            with pytest.raises(StorageError) as told, claimed(tmp_path, shard, "second"):
                pass
            assert f"process {first.pid} on" in str(told.value)
            assert "medtransfer run first" in str(told.value)
        assert first.poll() is None
        assert len(left(tmp_path)) == 1
    finally:
        first.kill()
        first.wait()
    with claimed(tmp_path, "1/1", "third"):  # at once: nobody waits for a process that is known to be gone
        assert len(left(tmp_path)) == 1
    assert left(tmp_path) == []


def test_shards_of_one_division_may_run_beside_each_other(tmp_path: Path) -> None:
    with claimed(tmp_path, "1/2", "first"), claimed(tmp_path, "2/2", "second"):
        with pytest.raises(StorageError, match="second"), claimed(tmp_path, "2/2", "third"):
            pass
        with pytest.raises(StorageError, match="in use by"), claimed(tmp_path, "3/4", "fourth"):
            pass
    assert left(tmp_path) == []


def test_the_claim_of_another_shard_is_not_even_read(tmp_path: Path) -> None:
    write(tmp_path)
    [other] = left(tmp_path)
    other.rename(torn := other.with_name("1-of-2.abc.json"))
    torn.write_text("{")  # as a network folder may show it for a moment
    with claimed(tmp_path, "2/2", "second"):
        assert torn.exists()


@pytest.mark.parametrize("trouble", [OSError(errno.ESTALE, "Stale file handle"), ValueError("torn")])
def test_a_claim_that_cannot_be_read_for_a_moment_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    monkeypatch.setattr(claim, "BEAT", 0.01)
    path, reads, read = write(tmp_path), [0], Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        reads[0] += 1
        if reads[0] < claim.READS:
            raise trouble
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    found = claim._read(path)
    assert found is not None
    assert found.command
    reads[0] = -claim.READS
    with pytest.raises(StorageError, match="not a claim"):
        claim._read(path)


def test_of_commands_that_start_together_one_gets_the_folder(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from bench.claim import claimed; from bench.errors import StorageError\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    with claimed(Path(sys.argv[1]), '1/1', 'one of them'):\n"
        "        print('got', flush=True); sys.stdin.readline()\n"
        "except StorageError as error: print(error, flush=True)\n"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script, str(tmp_path)]
    them = [subprocess.Popen(command, cwd=CHECKOUT, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in them:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline() for process in them if process.stdout is not None]
    assert sorted(text == "got\n" for text in said) == [False, True]
    for process in them:
        process.communicate("end\n")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "facts",
    [
        {},  # of another machine
        {"machine": "here", "process": 2**22 + 1},  # of this one, gone
        {"machine": "here", "process": os.getppid()},  # its number was given to another process
        {"since_utc": "2999-01-01T00:00:00Z"},  # the clock was wrong
    ],
)
def test_the_claim_of_a_command_that_died_is_taken_over(tmp_path: Path, facts: dict[str, object]) -> None:
    if facts.get("machine"):
        facts = facts | {"machine": claim._machine()}
    other = write(tmp_path, **facts)
    with claimed(tmp_path, "1/1", "next"):
        assert not other.exists()


def test_a_command_that_stood_still_and_lost_its_claim_stops(tmp_path: Path) -> None:
    def slow() -> None:
        with claimed(tmp_path, "1/1", "slow"):
            left(tmp_path)[0].unlink()
            time.sleep(30)

    with pytest.raises(StorageError, match="took this folder over"):
        slow()


@given(count=st.integers(1, 9), prints=st.lists(st.text("0123456789abcdef", min_size=20, max_size=20), max_size=20))
def test_every_cell_is_of_exactly_one_shard(count: int, prints: list[str]) -> None:
    for fingerprint in prints:
        assert sum(shards.holds(f"{number}/{count}", fingerprint) for number in range(1, count + 1)) == 1


@pytest.mark.parametrize(
    ("text", "valid"), [("1/1", True), ("3/8", True), ("0/2", False), ("3/2", False), ("01/2", False)]
)
def test_a_shard_is_one_of_n(text: str, valid: bool) -> None:
    assert shards.is_shard(text) is valid
