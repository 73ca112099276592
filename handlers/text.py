"""How handlers write text: times, lengths, and model output made harmless for a terminal."""

import math
import re
import time

# Everything a terminal may act on: C0 and C1 controls but tab and newline, the marks that reorder text, and halves of
# characters, which no terminal takes.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """Text whose control characters are shown instead of obeyed: a model's output is hostile input. CRLF becomes LF."""
    return _CONTROL.sub(_visible, text.replace("\r\n", "\n"))


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


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


def plural(count: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
