"""Read times as users write them: `2h` ago, a date, a date and a time, today."""

import re
from datetime import datetime, timedelta

from ..recorder.errors import InputError

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def age(text: str, option: str) -> timedelta:
    """Return a span such as 30m, 12h, 90d, 2w. Raises InputError."""
    found = _AGO.fullmatch(text.strip().lower())
    if found is None:
        raise InputError(f"{option}: {text!r} is no span of time; write one such as 30m, 12h, 90d or 2w.")
    try:
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError as error:
        raise InputError(f"{option}: {text!r} is longer than time itself; write one such as 30m, 12h, 90d or 2w.") from error


def moment(text: str, option: str, now: datetime | None = None) -> int:
    """Return the nanoseconds since the epoch of `2h` (ago), `today`, `yesterday`, `2026-11-22` or `2026-11-22 14:30`.

    A time without an offset is local. Raises InputError.
    """
    now = now or datetime.now().astimezone()
    word = text.strip().lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        if _AGO.fullmatch(word):
            at = now - age(word, option)
        elif word in ("today", "yesterday"):
            at = midnight - timedelta(days=word == "yesterday")
        else:
            at = datetime.fromisoformat(text.strip()).astimezone() if word else datetime.fromisoformat("")
        return int(at.timestamp() * 1e6) * 1000
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(
            f"{option}: {text!r} is no time; write 2h or 7d (ago), today, 2026-11-22 or '2026-11-22 14:30'."
        ) from error
