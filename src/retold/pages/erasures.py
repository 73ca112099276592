"""The erasures that a page names in the place of a text: their time, their author and their reason."""

from ..recorder.http.exchange import timestamp
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunQuery


class Erasures:
    """The runs of a log that record erasures, by their ids."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._known: dict[str, dict[str, str]] = {}

    def of(self, run: str) -> dict[str, str]:
        """Return `{time, by, why}` of an erasure; empty if its run is not in this log. Raises LogError."""
        if run not in self._known:
            self._known[run] = self._read(run)
        return self._known[run]

    def _read(self, run: str) -> dict[str, str]:
        for info in self._log.runs(RunQuery(run=run), limit=1):
            for event in self._log.events(run, kinds=("run.started",)):
                data = event.data
                return {"time": timestamp(info.started_ns), "by": str(data.get("who", "")), "why": str(data.get("why", ""))}
        return {}
