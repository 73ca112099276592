"""Redacted places of a recording: REDACTED stands for any text there.

What a secret is depends on the machine: its environment names them. A request that was recorded on a machine which took
something out is the same request on a machine that takes nothing out, or something else.
"""

from ..recorder.redact import REDACTED


def fits(recorded: str, wanted: str) -> bool:
    """Return whether a text is the recorded one but for its redacted places. The cost is linear in practice.

    The leftmost place of each part between two marks is as good as any later one: it leaves the most for the parts behind it.
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
    """Return whether two JSON values are equal but for the redacted places of the recorded one."""
    if isinstance(recorded, str) and isinstance(wanted, str):
        return fits(recorded, wanted)
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        return recorded.keys() == wanted.keys() and all(agree(value, wanted[key]) for key, value in recorded.items())
    if isinstance(recorded, list) and isinstance(wanted, list):
        return len(recorded) == len(wanted) and all(map(agree, recorded, wanted))
    return type(recorded) is type(wanted) and recorded == wanted


def may_agree(recorded: str, wanted: str) -> bool:
    """Return False if two values, written as JSON, cannot agree: a cheap look before both are parsed."""
    first, last = recorded.index(REDACTED), recorded.rindex(REDACTED) + len(REDACTED)
    return wanted.startswith(recorded[:first]) and wanted.endswith(recorded[last:])
