"""How handlers write text: times, lengths, and text from outside made harmless for a terminal."""

import math
import re
import time

from ..recorder.screen import clean, one_line

__all__ = ["LABELS", "clean", "clock", "cut", "dollars", "indent", "one_line", "plural", "seconds", "under"]


def clock(wall_ns: int) -> str:
    """The local time of day of nanoseconds since the epoch, `HH:MM:SS`."""
    return time.strftime("%H:%M:%S", time.localtime(wall_ns / 1e9))


def seconds(duration_ns: int) -> str:
    """`3.2s`; of more than a minute `2m 05s`."""
    if duration_ns < 60_000_000_000:
        return f"{duration_ns / 1e9:.1f}s"
    minutes, rest = divmod(round(duration_ns / 1e9), 60)
    return f"{minutes}m {rest:02d}s"


def dollars(cost: float) -> str:
    """`$0.0123`; of less than a hundredth of a cent as many digits as it takes to show one."""
    return f"${cost:.{4 if cost == 0 or cost >= 0.00005 else -math.floor(math.log10(cost))}f}"


def cut(text: str, limit: int) -> str:
    """The first `limit` characters, with `...` where there are more."""
    return text if len(text) <= limit else text[:limit] + "..."


def indent(text: str, width: int) -> str:
    """Further lines under the first."""
    return text.replace("\n", "\n" + " " * width)


LABELS = (
    "ASSISTANT:", "TOOL USE:", "TOOL RESULT:", "ERROR:", "RETRY:", "===", "✓ ", "✗ ", "0 of ", "Messages  ", "Tokens  ",
    "Cost  ", "Duration  ", "Average per message  ", "Time to first message  ", "retold:",
)  # fmt: skip
"""How lines of retold's own begin, after their time."""

_LIKE_OWN = re.compile(rf"\n(?=(?:\[\d\d:\d\d:\d\d\] )?(?:{'|'.join(map(re.escape, LABELS))}))")


def under(text: str, width: int) -> str:
    """Return text whose further lines cannot pass for lines of retold's own: all are indented under a head of `width`
    characters; without a head, those that begin as retold's do are indented by 2."""
    return indent(text, width) if width else _LIKE_OWN.sub("\n  ", text)


def plural(count: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
