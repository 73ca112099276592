"""Redacted places of a recording: REDACTED matches any text there.

Which texts are secret depends on the machine, because its environment defines them. A request recorded on a machine that
redacted a part of it equals the same request on a machine that redacts nothing, or another part.
"""

from ...recorder.secrets.redactor import REDACTED


def fits(recorded: str, wanted: str) -> bool:
    """Return True if a text equals the recorded one except at its redacted places. The cost is linear in practice.

    Each part between two marks takes its leftmost place, because that leaves the most text for the parts after it.
    """
    first, *parts = recorded.split(REDACTED)
    if not parts or not wanted.startswith(first):
        return recorded == wanted
    at = len(first)
    for part in parts[:-1]:
        found = wanted.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return wanted.endswith(parts[-1]) and len(wanted) - len(parts[-1]) >= at


def agree(recorded: object, wanted: object) -> bool:
    """Return True if two JSON values are equal except at the redacted places of the recorded one."""
    if isinstance(recorded, str) and isinstance(wanted, str):
        return fits(recorded, wanted)
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        return recorded.keys() == wanted.keys() and all(agree(value, wanted[key]) for key, value in recorded.items())
    if isinstance(recorded, list) and isinstance(wanted, list):
        return len(recorded) == len(wanted) and all(map(agree, recorded, wanted))
    return type(recorded) is type(wanted) and recorded == wanted


def may_agree(recorded: str, wanted: str) -> bool:
    """Return False if two values, as JSON text, cannot agree. This cheap test comes before both are parsed."""
    first, last = recorded.index(REDACTED), recorded.rindex(REDACTED) + len(REDACTED)
    return wanted.startswith(recorded[:first]) and wanted.endswith(recorded[last:])
