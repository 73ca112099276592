"""`assert_same_stream`: a recording compared in a test, which fails with what `retold diff` would say."""

from collections.abc import Sequence

from ..recorder.log.log import EventLog
from .sources import Source, compare
from .text import as_text


def assert_same_stream(
    run: Source, golden: Source, *, ignore: Sequence[str] = (), only: Sequence[str] = (), tolerance: Sequence[str] = (),
    log: EventLog | None = None,
) -> None:  # fmt: skip
    """Fail with an AssertionError that shows the difference unless a run says what the golden recording says.

        result = retold.run_workflow("count.yaml", mode="live")
        retold.assert_same_stream(result, "cassettes/count.yaml", ignore=["thinking", "totals"])

    Both are whatever `compare` takes, and so are the options. Raises InputError for what cannot be read.
    """
    __tracebackhide__ = True  # pytest ends its traceback at the caller's line
    found = compare(golden, run, ignore=ignore, only=only, tolerance=tolerance, log=log)
    if not found.same:
        raise AssertionError(f"the stream differs (A is the golden one)\n{as_text(found)}")
