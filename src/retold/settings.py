"""The settings of a cassette in use, shared by `use_cassette`, the pytest plugin and the servers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from .experiments.branch import Branch
from .recorder.http.capture import Price
from .recorder.http.exchange import Exchange, Request
from .recorder.log.log import EventLog
from .replay.matching.rules import Rules
from .replay.timing.timing import Timing
from .testing.record_modes import OneTest, how_to_record

OnExpired = Literal["warn", "fail", "rerecord"]
BeforeRecord = Callable[[Request], Request | None]


@dataclass(frozen=True)
class Settings:
    """The settings of a cassette in use. `use_cassette` documents each of them."""

    timing: Timing
    rules: Rules
    hosts: tuple[str, ...] = ()
    block_network: bool = False
    before_record: BeforeRecord | None = None
    redact: tuple[str, ...] = ()
    repeats: bool = False
    also: tuple[Path, ...] = ()
    max_age: timedelta | None = None
    on_expired: OnExpired = "warn"
    log: EventLog | str | os.PathLike[str] | None = None
    recordings: EventLog | str | os.PathLike[str] | None = None
    name: str | None = None
    before_keep: Callable[[Exchange], Exchange | None] | None = None
    is_overridden: bool = False
    since: str | None = None
    # For servers: exchanges may come from a run, and recordings may go to the log alone.
    recorded: Sequence[Exchange] | None = None
    # For forks: the recorded side. `recorded` holds its prefix.
    branch: Branch | None = None
    # For vcrpy cassettes: a callback that takes new exchanges instead of the file, and whether aiohttp is led to the door.
    keep: Callable[[list[Exchange]], None] | None = None
    leads: bool = True
    stamped: str = "pull"
    price: Price | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    # The way to record after a miss, of a command; or the test that misses, which is reported in a few lines.
    hint: str | None = None
    test: OneTest | None = None
    detect: bool = False
    faults: tuple[str, ...] = ()

    def how_to_record(self, *, existed: bool) -> str:
        """Return the advice on recording that a miss prints. `existed`: the cassette file existed."""
        if self.test is not None:
            return self.test.how_to_record(existed=existed)
        return self.hint or how_to_record(existed=existed)

    def load_prices(self) -> None:
        """Load the price table if costs are computed. Loading takes 150 ms, once per process."""
        if self.price is not None:
            self.price("", {})
