"""`retold.record`: record every client in a block into the log, without a cassette. This is the form for production."""

import os
from collections.abc import Iterable
from types import TracebackType

from .recorder.http.patching import block_here, open_blocks
from .recorder.log.log import EventLog
from .replay.matching.rules import DEFAULT_RULES
from .replay.timing.timing import INSTANT
from .settings import BeforeRecord, Settings
from .testing.record_modes import RecordMode
from .testing.session import CassetteSession
from .testing.use import Use
from .testing.used import UsedCassette
from .workflow.pricing import price

_RECORDS: RecordMode = "all"


class record:
    """Record every client inside a `with` or `async with` block into the log, as a run called `name`; nothing is replayed.

        with retold.record("job-17") as recording:
            anthropic.Anthropic().messages.create(...)
        print(recording.run)

    The run begins with the first request and ends with the block: as completed, or as failed with the error that left the block.
    A block without a request leaves no run. Blocks of other threads and tasks are runs of their own, and of nested blocks the
    innermost one records. `CI` and `RETOLD_RECORD_MODE` change nothing.

    Inside a block of `use_cassette`, for example in a test, the cassette alone decides about each request, so that a replay is
    never sent to the API. `record` then records nothing, and `run` stays None.

    name           the name of the run
    log            the log or its path; without it the default log. An open log is not closed
    hosts          further hosts to record, as patterns; the Anthropic API is recorded at any base URL
    before_record  (request) -> the request to record, or None to pass it through unrecorded
    redact         further secret values to remove

    Raises LogError at the beginning if the log cannot be opened.
    """

    def __init__(
        self,
        name: str = "recording",
        *,
        log: EventLog | str | os.PathLike[str] | None = None,
        hosts: Iterable[str] = (),
        before_record: BeforeRecord | None = None,
        redact: Iterable[str] = (),
    ) -> None:
        self._settings = Settings(
            timing=INSTANT, rules=DEFAULT_RULES, name=name, recordings=log, recorded=(), before_record=before_record, price=price,
            hosts=(hosts,) if isinstance(hosts, str) else tuple(hosts),
            redact=(redact,) if isinstance(redact, str) else tuple(redact),
        )  # fmt: skip
        self._use: Use | None = None

    def __repr__(self) -> str:
        return f"<record {self._settings.name!r}>"

    def __enter__(self) -> UsedCassette:
        if _cassette_decides():
            return CassetteSession(None, "none", self._settings)
        use = Use(None, _RECORDS, self._settings)
        recording = use.__enter__()
        self._use = use
        return recording

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        use, self._use = self._use, None
        if use is not None:
            use.__exit__(kind, error, trace)

    async def __aenter__(self) -> UsedCassette:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.__exit__(kind, error, trace)


def _cassette_decides() -> bool:
    """Return whether a cassette, or a run of a workflow, decides about the requests of this context already."""
    block = block_here()
    if block is None:
        return any(other.only_replays for other in open_blocks())
    session = block.interceptor
    return not (isinstance(session, CassetteSession) and session.path is None and session.record_mode == _RECORDS)
