"""`use_cassette`: record or replay each Anthropic client in a block, sync or async, at any base URL."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..recorder.errors import InputError
from ..recorder.http.exchange import Exchange
from ..recorder.log.log import EventLog
from ..replay.matching.rules import DEFAULT_IGNORE, Predicate, Rules
from ..replay.timing.timing import Timing, parse_duration_ns
from ..settings import BeforeRecord, OnExpired, Settings
from ..workflow.pricing import price
from .record_modes import is_overridden, resolve
from .use import Use

_AGE_DAYS = re.compile(r"(\d+)\s*(d|w)")


class use_cassette(Use):
    """Record into, or replay from, the cassette at `path` inside a `with` block or a decorated function, sync or async.

    A recording goes into the log first, as a run named after the cassette. The cassette is written from that run if the block
    ends well, so a failed test never replaces a good cassette.

        with retold.use_cassette("cassettes/hello.yaml", record_mode="once") as cassette:
            anthropic.Anthropic().messages.create(...)
        assert cassette.play_count == 1

    path          the file, in YAML or JSON; as a decorator without a path, `cassettes/FUNCTION.yaml` beside the function's file
    record_mode   none, once, new_episodes, refresh, all, rewrite, verify; `CI=true` means none
    timing        instant, original, 2x …; idle_limit caps pauses, for example `"2s"`
    match_on      names of rules, or functions of (request, recorded) that return whether both agree
    ignore        paths in JSON bodies that matching ignores
    mask          regular expressions for texts in bodies that matching ignores; the cassette keeps them and the paths
    hosts         further hosts to record, as patterns; the Anthropic API is recorded at any base URL
    block_network refuse requests to other hosts instead of passing them through
    before_record (request) -> the request to record and match, or None to pass it through unrecorded
    before_keep   (exchange) -> the exchange to write to the cassette, or None to leave it out
    redact        further secret values to remove
    allow_playback_repeats  play a recording again if a request comes more often than it was recorded
    faults        failures to simulate, such as `"cut@frame=5"`
    max_age       `"90d"` or a timedelta; on_expired: warn, fail, or rerecord
    log           the log for recordings and replays; without it, replays leave no trace and recordings go to the default log
    name          the name of the run in the log

    If nothing can be recorded and the environment has no key, the block sets a placeholder, because the SDK's clients send
    nothing without a key.

    Raises InputError for wrong arguments and CassetteError for a damaged cassette. Requests inside the block raise MissError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        record_mode: str | None = None,
        timing: Timing | str = "instant",
        idle_limit: str | None = None,
        match_on: Sequence[str | Predicate] | None = None,
        ignore: Sequence[str] = DEFAULT_IGNORE,
        mask: Sequence[str] = (),
        hosts: Iterable[str] = (),
        block_network: bool = False,
        before_record: BeforeRecord | None = None,
        before_keep: Callable[[Exchange], Exchange | None] | None = None,
        redact: Iterable[str] = (),
        allow_playback_repeats: bool = False,
        faults: Sequence[str] = (),
        max_age: str | timedelta | None = None,
        on_expired: OnExpired = "warn",
        log: EventLog | str | os.PathLike[str] | None = None,
        name: str | None = None,
    ) -> None:
        if on_expired not in ("warn", "fail", "rerecord"):
            raise InputError(f"unknown on_expired {on_expired!r}: give warn, fail or rerecord.")
        settings = Settings(
            timing=Timing.parse(timing, idle_limit) if isinstance(timing, str) else timing,
            rules=_rules(match_on, ignore, mask),
            detect=True,
            hosts=_several(hosts),
            block_network=block_network,
            before_record=before_record,
            redact=_several(redact),
            repeats=allow_playback_repeats,
            max_age=_age(max_age),
            on_expired=on_expired,
            log=log,
            name=name,
            before_keep=before_keep,
            faults=_several(faults),
            price=price,
            is_overridden=is_overridden(),
        )
        super().__init__(None if path is None else Path(path), resolve(record_mode), settings)


def _rules(match_on: Sequence[str | Predicate] | None, ignore: Sequence[str], mask: Sequence[str]) -> Rules:
    rules = Rules(ignore=_several(ignore), mask=_several(mask))
    return rules if match_on is None else replace(rules, match_on=_several(match_on))


def _several(values: Any) -> tuple[Any, ...]:
    """Return a tuple; a single string is one value, not its letters."""
    return (values,) if isinstance(values, str) else tuple(values)


def _age(value: str | timedelta | None) -> timedelta | None:
    if value is None or isinstance(value, timedelta):
        return value
    match = _AGE_DAYS.fullmatch(value.strip())
    if match is not None:
        return timedelta(days=int(match[1]) * (7 if match[2] == "w" else 1))
    return timedelta(microseconds=parse_duration_ns(value) / 1000)
