"""Words of messages: plurals, spelling suggestions, sentences, and text made harmless for a screen.

A model's output, a tool's name, a header or a file name may hold characters that a terminal obeys (escape sequences, a lone
carriage return), reorders (bidirectional controls) or hides (zero-width and tag characters). `clean` shows such characters by
their number. All text that retold prints passes through it. Ordinary text stays as it is, and CRLF becomes LF.
"""

import difflib
import math
import re
import time
from collections.abc import Iterable, Sequence


def plural(count: int, noun: str) -> str:
    """Return `1 message`, `2 messages`, `1,000 messages`."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def counted(**counts: int) -> str:
    """Return `2 exchanges and 1 session`, without the nouns of which there are none; `0 exchanges` if there are none at all."""
    found = [plural(count, noun) for noun, count in counts.items() if count]
    return " and ".join(found) or plural(0, next(iter(counts)))


def sentence(text: str) -> str:
    """Return the text with a full stop, unless it ends in a question mark."""
    return text if text.endswith("?") else f"{text}."


def closest(word: str, words: Iterable[str], *, cutoff: float = 0.65) -> str | None:
    """Return the word that is spelled most like this one, in any letter case; None if none is. `cutoff` is a ratio of difflib."""
    by_lower = {each.lower(): each for each in reversed([*words])}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[close[0]] if close else None


def nearest(word: str, words: Sequence[str]) -> str:
    """Return `; did you mean 'simple'?`, or the list of valid names."""
    if (close := closest(word, words)) is not None:
        return f"; did you mean {close!r}?"
    return f"; there are {', '.join(words)}" if words else "; it takes none"


_CONTROLS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    "\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # not shown, or shown as the end of a line
    "\ud800-\udfff"  # halves of characters, which no terminal accepts
    "\U000e0000-\U000e0fff"  # tags and variation selectors for which no font exists
)
# Joiners stay inside words and emoji. Next to ASCII they join nothing and only hide text.
_HOSTILE_ASCII = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_HOSTILE = re.compile(f"[{_CONTROLS}]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])")


def clean(text: str) -> str:
    r"""Return text with hostile characters replaced by their numbers (`\x1b`, `\u202e`, `\U000e0041`)."""
    text = text.replace("\r\n", "\n")
    # Ten times as fast, and most texts are ASCII.
    return (_HOSTILE_ASCII if text.isascii() else _HOSTILE).sub(_visible, text)


def one_line(text: str) -> str:
    r"""Return clean text with line ends written as `\n`, so that it cannot forge a line."""
    return clean(text).replace("\n", "\\n")


def clean_json(text: str) -> str:
    """Return the same JSON with hostile characters written as escapes of JSON. The value does not change."""
    return _HOSTILE.sub(_escaped, text)


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def clock(wall_ns: int) -> str:
    """Return nanoseconds since the epoch as the local time of day, `HH:MM:SS`."""
    return time.strftime("%H:%M:%S", time.localtime(wall_ns / 1e9))


def seconds(duration_ns: int) -> str:
    """Return a duration in nanoseconds as `3.2s`, or from a minute on as `2m 05s`."""
    if duration_ns < 60_000_000_000:
        return f"{duration_ns / 1e9:.1f}s"
    minutes, rest = divmod(round(duration_ns / 1e9), 60)
    return f"{minutes}m {rest:02d}s"


def dollars(cost: float) -> str:
    """Return `$12.30` or `$0.0123`. A cost below a hundredth of a cent gets as many digits as it takes to show one."""
    digits = 2 if cost == 0 or cost >= 1 else 4
    return f"${cost:.{digits if cost == 0 or cost >= 0.00005 else -math.floor(math.log10(cost))}f}"


def cut(text: str, limit: int) -> str:
    """Return the first `limit` characters, followed by `...` if there are more."""
    return text if len(text) <= limit else text[:limit] + "..."


def indent(text: str, width: int) -> str:
    """Return the text with all lines after the first indented."""
    return text.replace("\n", "\n" + " " * width)
