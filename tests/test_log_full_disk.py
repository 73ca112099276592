"""A disk without a free byte: you can read, erase and prune the log, and the disk gets room back."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from retold.audit.verify import verify
from retold.recorder.errors import LogError
from retold.recorder.events import Entry, encode
from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite import reserve
from tests.e2e import in_this_process, refused

MIB = 1024 * 1024
NAME = "Jane Q. Doe"


pytestmark = pytest.mark.filterwarnings("default::retold.LogSpaceWarning")


@contextlib.contextmanager
def small_disk(disk: Path) -> Iterator[None]:
    """Mount a disk of 16 MB, if mounting is permitted."""
    disk.mkdir()
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Record until the disk is full, and return the files of the log."""
    disk = tmp_path_factory.mktemp("recorded") / "disk"
    with small_disk(disk):
        with EventLog(disk / "log.db") as log, pytest.raises(LogError, match="disk is full"):
            fill(log)
        return {path.name: path.read_bytes() for path in disk.iterdir() if path.is_file()}


@pytest.fixture
def full(tmp_path: Path, recorded: dict[str, bytes]) -> Iterator[Path]:
    """Return the log on its disk, which another program has filled to the last byte."""
    disk = tmp_path / "disk"
    with small_disk(disk):
        for name, data in recorded.items():
            (disk / name).write_bytes(data)
        take_the_rest(disk / "other")
        assert reserve.free_bytes(disk / "log.db") == 0
        yield disk / "log.db"


def take_the_rest(path: Path) -> None:
    with path.open("wb", buffering=0) as other, contextlib.suppress(OSError):
        while True:
            other.write(bytes(4096))


def fill(log: EventLog) -> None:
    for number in range(10_000):
        with log.start(name=f"run {number}", mode="import") as writer:
            for size in (50, 700, 3000, 9000, 40_000):
                said = f"{NAME if number % 5 == 0 else ''} {number}" + "x" * size
                writer.append(Entry("message", encode({"type": "user", "message": {"role": "user", "content": said}})))


def holds(path: Path) -> list[str]:
    return [each.name for each in path.parent.glob("log.db*") if each.is_file() and NAME.encode() in each.read_bytes()]


def test_recording_fills_the_disk_and_leaves_the_log_folded(full: Path) -> None:
    """Every acknowledged event is there in full. The WAL is folded into the file, and the reserve exists."""
    assert not full.with_name("log.db-wal").exists()
    assert full.stat().st_size > 9 * MIB
    assert reserve.reserve_of(full).stat().st_size > 3 * MIB
    assert verify(EventLog(full)).findings == []


def test_a_text_is_erased_from_the_bytes_of_a_full_disk(full: Path) -> None:
    """Without room for a copy, retold overwrites the file in place and reports that. The chains stay valid."""
    runs = len(EventLog(full).runs())
    done = in_this_process("erase", "--text", NAME, "--why", "a test", "--yes", "--db", full)
    assert (done.returncode, "overwritten in place" in done.stderr) == (0, True)
    assert holds(full) == []
    assert verify(EventLog(full)).findings == []
    assert len(EventLog(full).runs()) == runs + 1


def test_pruning_runs_frees_room(full: Path) -> None:
    """Pruning half of the runs works in place and frees pages. Pruning nearly all rewrites the file, which becomes short."""
    runs = len(EventLog(full).runs())
    done = in_this_process("prune", "--older-than", "0s", "--keep", str(runs // 2), "--yes", "--db", full)
    assert (done.returncode, "overwritten in place" in done.stderr) == (0, True)
    assert reserve.free_bytes(full) > 3 * MIB
    done = in_this_process("prune", "--older-than", "0s", "--keep", "3", "--yes", "--db", full)
    assert (done.returncode, "overwritten in place" in done.stderr) == (0, False)
    assert full.stat().st_size < MIB
    assert reserve.free_bytes(full) > 9 * MIB
    assert verify(EventLog(full)).findings == []
    with EventLog(full) as log, log.start(name="after", mode="import") as writer:
        writer.append(Entry("frame", bytes(MIB)))


def test_a_reader_without_room_or_reserve_names_the_way_out(full: Path) -> None:
    """Reading needs a file beside the log. `ls` takes its room from the reserve. Without one the error gives the size."""
    assert in_this_process("ls", "--db", full).returncode == 0
    assert 3 * MIB < reserve.reserve_of(full).stat().st_size < reserve.RESERVE_BYTES
    for name in ("log.db-reserve", "log.db-shm", "log.db-wal"):
        full.with_name(name).unlink()
    take_the_rest(full.parent / "another")
    assert "its disk is full, and reading it needs 64 kB of room" in refused(in_this_process("ls", "--db", full))
