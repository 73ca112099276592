"""What earlier checks of a log proved, kept in a file beside it, so that `retold verify --new` checks only the rest.

The file holds the head of the log at the last check that found nothing, and the times of that check and of the last one that read
every row. It saves time and is no evidence: a person who can edit the log can edit this file too. A row that was edited after it
was checked is found by the next check of the whole log, or against a head that is kept elsewhere.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from ..recorder import clock, strict_json
from ..recorder.errors import InputError
from ..recorder.files import read_regular, replacing
from ..recorder.log.log import EventLog
from ..recorder.log.store import Head

VERSION = 1


def path_of(log: EventLog) -> Path:
    """Return the path of the file beside a log."""
    return log.path.with_name(log.path.name + ".proved")


def now() -> str:
    """Return the present time, as in `2026-11-29T12:00:00Z`."""
    return datetime.fromtimestamp(clock.wall_ns() // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Proof:
    """The head up to which a log was checked; `whole_at` is the time of the last check of every row, `at` of the last check."""

    head: str
    whole_at: str
    at: str

    @classmethod
    def read(cls, log: EventLog) -> "Self | None":
        """Return the proof beside a log; None if there is none, or the file holds something else."""
        try:
            data = json.loads(read_regular(path_of(log)))
            if not isinstance(data, dict) or data.pop("version", None) != VERSION:
                return None
            found = cls(**{name: str(value) for name, value in data.items()})
            Head.parse(found.head)
        except (OSError, ValueError, TypeError, RecursionError, InputError):
            return None
        return found

    def keep(self, log: EventLog) -> None:
        """Write the proof beside the log. Raise OSError."""
        with replacing(path_of(log)) as file:
            file.write(strict_json.dumps({"version": VERSION, **asdict(self)}).encode() + b"\n")


def forget(log: EventLog) -> None:
    """Remove the proof beside a log. Raise OSError."""
    path_of(log).unlink(missing_ok=True)
