"""The part of `retold doctor` about other machines: the shelf of RETOLD_SHIP with its fleet, and the shelves of a mirror."""

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..fleet.shelf import Shelf
    from ..recorder.log.log import EventLog


def shelf_found(db: Path | None, problems: list[str]) -> dict[str, Any] | None:
    """Return the shelf of `RETOLD_SHIP` after a look at it, which makes nothing there. Return None if there is none."""
    from ..fleet.opening import address, source_name
    from ..recorder.errors import RetoldError

    if not (url := os.environ.get("RETOLD_SHIP")):
        return None
    found: dict[str, Any] = {
        "address": "RETOLD_SHIP", "source": None, "reached": False, "sources": [], "mirrors": [], "unknown": None,
    }  # fmt: skip
    try:
        place = address(url)
        found |= {"address": place.name, "source": source_name()}
        with closing(place.open(found["source"], make=False)) as shelf:
            shelf.last("0" * 16)  # a run that is not there: this looks at the server and at the settings of the stream
            found["reached"] = True
            _add_reports(db, shelf, found, problems)
    except RetoldError as error:
        problems.append(str(error))
    return found


def _add_reports(db: Path | None, shelf: "Shelf", found: dict[str, Any], problems: list[str]) -> None:
    """Add the sources and mirrors of the shelf, and a problem for each erasure and each event that a mirror lacks."""
    import time

    from ..fleet.presence import mirrors_behind, reports_on
    from ..fleet.reports import SourceReport
    from ..fleet.shelf import Refused
    from ..recorder.http.exchange import timestamp
    from ..recorder.log.log import EventLog

    try:
        reports, behind = reports_on(shelf), mirrors_behind(EventLog(db), shelf)
    except Refused as error:
        found["unknown"] = str(error)
        return
    left = {each.mirror: each.erasures for each in behind}
    for report in reports:
        at = None if report.at_ns == 0 else timestamp(report.at_ns)
        if isinstance(report, SourceReport):
            gone = report.is_gone(time.time_ns())
            found["sources"].append(
                {"source": report.name, "reported": at, "left": report.left, "ended": report.ended, "gone": gone}
            )
            continue
        found["mirrors"].append(
            {"mirror": report.name, "reported": at, "erasures_left": left.get(report.name, 0), "missing": dict(report.held)}
        )
        problems += [
            f"mirror {report.name} waits for event {seq} of run {run}, which is not on the shelf. `retold ship` on the log of "
            "that run ships it again, with a credential that may replace pages."
            for run, seq in report.held.items()
        ]
    problems += [f"{each.line()}." for each in behind]


def shelf_lines(found: dict[str, Any]) -> list[str]:
    """Return lines about the shelf for a person."""
    lines = [f"  {found['address']} as {found['source'] or 'no source'}: {'reached' if found['reached'] else 'not reached'}"]
    if found["unknown"] is not None:
        lines.append(f"  sources and mirrors are unknown: {found['unknown']}")
    for each in found["sources"]:
        state = {(False, False): "alive", (False, True): "gone"}.get((each["ended"], each["gone"]), "ended")
        left = f", {each['left']} events left to ship" if each["left"] else ""
        lines.append(f"  source {each['source']}: {state}, reported {each['reported'] or 'nothing readable'}{left}")
    lines += [f"  mirror {each['mirror']}: reported {each['reported'] or 'nothing readable'}" for each in found["mirrors"]]
    return lines


def mirror_found(log: "EventLog") -> list[dict[str, Any]]:
    """Return each shelf of a mirror, with the time of its last whole pull. Raises LogError."""
    from ..fleet.presence import kept_by
    from ..recorder.http.exchange import timestamp

    return [{"shelf": shelf, "pulled": timestamp(at_ns)} for shelf, at_ns in sorted(kept_by(log).shelves.items())]


def mirror_line(shelf: dict[str, Any]) -> str:
    """Return a line about a shelf of a mirror for a person."""
    return f"  a mirror of {shelf['shelf']}, pulled {shelf['pulled']}"
