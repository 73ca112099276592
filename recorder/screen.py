"""Make text from outside harmless for a screen. All text that retold shows passes through this module.

A model's output, a tool's name, a header or a file name may hold characters that a terminal obeys (escape sequences, a lone
carriage return), reorders (bidirectional controls) or does not show (zero-width and tag characters). They are replaced by their
numbers. Ordinary text is unchanged, except that CRLF becomes LF.
"""

import re

_CONTROLS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    "\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # not shown, or shown as a line's end
    "\ud800-\udfff"  # halves of characters, which no terminal accepts
    "\U000e0000-\U000e0fff"  # tags and variation selectors for which no font exists
)
# Joiners stay inside words and emoji. Next to ASCII they join nothing and only hide text.
_HOSTILE = re.compile(f"[{_CONTROLS}]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])")


def clean(text: str) -> str:
    r"""Return text with hostile characters replaced by their numbers (`\x1b`, `\u202e`, `\U000e0041`)."""
    return _HOSTILE.sub(_visible, text.replace("\r\n", "\n"))


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
