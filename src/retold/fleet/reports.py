"""Reports: the last sign of life of each source and each mirror, which a shelf keeps beside its pages.

    source.NAME    {"at_ns", "left", "ended"}               a shipper: events that are not on the shelf yet, and a regular end
    mirror.NAME    {"at_ns", "cursor", "held", "refused"}   a puller: its cursor, and the first missing event by run

A report replaces the one before it under the same key. `at_ns` is the clock of the machine that reports, in nanoseconds since
1970. A source that reported no regular end and is silent for `GONE_AFTER_S` seconds is gone; until then it may only be quiet.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..recorder import strict_json

HEARTBEAT_S = 10.0
"""Seconds between two reports of one shipper or puller."""

GONE_AFTER_S = 60.0
"""Seconds of silence after which a source counts as gone."""


class SourceReport(NamedTuple):
    """The report of a source. An unreadable one has `at_ns` 0."""

    name: str
    at_ns: int = 0
    left: int = 0
    ended: bool = False

    def is_gone(self, now_ns: int) -> bool:
        """Return whether the source is silent for too long, without a regular end."""
        return not self.ended and now_ns - self.at_ns > GONE_AFTER_S * 1e9


class MirrorReport(NamedTuple):
    """The report of a mirror. The cursor is None if it pulled only some runs, and in an unreadable report."""

    name: str
    at_ns: int = 0
    cursor: str | None = None
    held: Mapping[str, int] = {}
    refused: int = 0


def entry_of(report: SourceReport | MirrorReport) -> tuple[str, bytes]:
    """Return the key and the text of a report, as a shelf keeps them."""
    kind = "source" if isinstance(report, SourceReport) else "mirror"
    values = report._asdict()
    return f"{kind}.{values.pop('name')}", strict_json.dumps(values).encode()


def report_of(key: str, text: bytes) -> SourceReport | MirrorReport | None:
    """Return the report under a key of a shelf; None for a key of another kind.

    Another program may have written the text, so a report that cannot be read is the report of a source or mirror at time 0.
    """
    kind, _, name = key.partition(".")
    if kind not in ("source", "mirror") or not name:
        return None
    try:
        values: Any = json.loads(text)
        return _source(name, values) if kind == "source" else _mirror(name, values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return SourceReport(name) if kind == "source" else MirrorReport(name)


def _source(name: str, values: Any) -> SourceReport:
    return SourceReport(name, int(values["at_ns"]), int(values["left"]), bool(values["ended"]))


def _mirror(name: str, values: Any) -> MirrorReport:
    cursor, held = values["cursor"], {str(run): int(seq) for run, seq in values["held"].items()}
    return MirrorReport(name, int(values["at_ns"]), None if cursor is None else str(cursor), held, int(values["refused"]))
