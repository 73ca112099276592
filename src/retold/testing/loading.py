"""Load the recording of a block before its first request."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

from ..recorder import clock
from ..recorder.agent_wire import AgentSession
from ..recorder.cassette.kept import NOTHING_KEPT, Kept
from ..recorder.errors import CassetteError
from ..recorder.http.exchange import Exchange
from ..settings import Settings
from .record_modes import RecordMode, in_ci
from .saving import CassetteFile

__tracebackhide__ = True


class ExpiredWarning(UserWarning):
    """A cassette is older than its `max_age`."""


@dataclass(frozen=True)
class LoadedRecording:
    """The recording of a block. `existed` if there was one; `file` is None if the recording does not come from a file.

    `kept` are the rules of matching that the recording keeps. `is_new`: the same session of pytest has made the recording.

    `mode` is the record mode of the block, which an expired cassette may have changed to `rewrite`.
    """

    mode: RecordMode
    existed: bool
    is_new: bool = field(default=False, kw_only=True)
    exchanges: Sequence[Exchange] = ()
    sessions: tuple[AgentSession, ...] = ()
    file: CassetteFile | None = None
    kept: Kept = NOTHING_KEPT

    @property
    def only_replays(self) -> bool:
        """Whether the block records nothing."""
        return self.mode == "none" or (self.mode == "once" and self.existed and not self.is_new)

    @property
    def records_misses(self) -> bool:
        """Whether the block plays recorded requests and records the others."""
        return self.mode in ("new_episodes", "refresh") or (self.mode == "once" and self.existed and self.is_new)

    @property
    def records_everything(self) -> bool:
        """Whether the block plays nothing."""
        return self.mode in ("all", "rewrite", "verify") or (self.mode == "once" and not self.existed)


def load(path: Path | None, mode: RecordMode, settings: Settings, source: str) -> LoadedRecording:
    """Return the recording at `path`, or the one in the settings. Raise CassetteError if it is damaged.

    With `on_expired="fail"` an expired one is an error, too. Else warn with an ExpiredWarning.
    """
    if settings.recorded is not None:
        return LoadedRecording(mode, True, tuple(settings.recorded))
    if path is None or settings.keep is not None:
        return LoadedRecording(mode, False)
    # A use that may write the file reads all of it now, so that it never replaces what it could not read.
    file = CassetteFile(path, since=settings.since, lazy=mode in ("none", "once"))
    is_new = mode == "once" and file.is_of_this_session
    if is_new:  # another test of the session has made it: this one adds its own requests
        file = CassetteFile(path, since=settings.since)
    if (expired := why_expired(chain(file.loaded, file.sessions), settings.max_age, source)) is not None:
        if settings.on_expired == "fail":
            raise CassetteError(f'{expired}. Record it again with record_mode="rewrite".')
        if settings.on_expired == "rerecord" and mode != "verify" and not settings.is_overridden and not in_ci():
            mode = "rewrite"
        else:
            # The frames: load, CassetteSession(), __enter__ of the use, the caller's.
            warnings.warn(f'{expired}; record it again with record_mode="rewrite"', ExpiredWarning, stacklevel=4)
    if mode == "rewrite":
        return LoadedRecording(mode, file.existed, file=file, kept=file.kept)
    return LoadedRecording(mode, file.existed, file.loaded, file.sessions, file, file.kept, is_new=is_new)


def why_expired(exchanges: Iterable[Exchange | AgentSession], limit: timedelta | None, source: str) -> str | None:
    """Return a sentence if the oldest exchange or session is older than `limit`, else None. Raise CassetteError.

    The age counts from the recording of an exchange: loading never makes it younger. A time without an offset is UTC.
    """
    if limit is None:
        return None
    times = [_time_of(exchange.recorded_at, source) for exchange in exchanges if exchange.recorded_at]
    if not times or (age := clock.now() - min(times)) <= limit:
        return None
    return f"{source} was recorded {age.days} days ago, longer than its max_age of {limit.days} days"


def _time_of(stamp: str, source: str) -> datetime:
    try:
        at = datetime.fromisoformat(stamp)
    except ValueError as error:
        raise CassetteError(
            f"{source}: recorded_at should be a time such as 2026-11-22T14:29:35.123Z, and is {stamp[:60]!r}."
        ) from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
