"""`assert_same_stream`: compare a recording in a test. The failure shows the output of `retold diff`."""

from collections.abc import Sequence

from ..recorder.log.log import EventLog
from .sources import Source, compare
from .text import as_text


def assert_same_stream(
    run: Source, golden: Source, *, ignore: Sequence[str] = (), only: Sequence[str] = (), tolerance: Sequence[str] = (),
    log: EventLog | None = None,
) -> None:  # fmt: skip
    """Raise AssertionError with the differences unless a run equals the golden recording.

        result = retold.run_workflow("count.yaml", mode="live")
        retold.assert_same_stream(result, "cassettes/count.yaml", ignore=["thinking", "totals"])

    Sources and options are those of `compare`. Raise InputError for a source that cannot be read.
    """
    __tracebackhide__ = True  # pytest ends its traceback at the caller's line
    found = compare(golden, run, ignore=ignore, only=only, tolerance=tolerance, log=log)
    if not found.same:
        raise AssertionError(f"the stream differs (A is the golden one)\n{as_text(found)}")
