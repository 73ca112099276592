"""Undo the spellings of a text: JSON escapes of any depth and language, and percent-encoding.

`A"b/` is `A\\"b/` to Python, `A\\"b\\/` to PHP and `\\u0041\\u0022b\\u002F` to others. In a string of JSON in a string of JSON
each backslash is doubled, in a URL it is `A%22b%2F`. `fold` maps all of them to one text without backslashes, so one search
finds a value. Two texts that differ only in backslashes have the same fold; for a secret this is harmless.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass, field

_BACKSLASHES = rb"(?:\\++(?:u005[cC])?+|%(?:25)*5[cC])++"
_ESCAPE = re.compile(
    _BACKSLASHES
    + rb"(?:u([dD][89abAB][0-9a-fA-F]{2})\\++u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([bfnrt\"'/]))?"
    + rb"|%(?:25)*([0-9a-fA-F]{2})"
)
_CONTROLS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_HALF = re.compile(rb"(?:\\+(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?|u[dD][89abAB][0-9a-fA-F]{2})?|%(?:25)*[0-9a-fA-F]?)\Z")
_HALF_BYTES = 12


@dataclass(slots=True)
class Folded:
    """A folded text, and the place of each of its parts in the original."""

    data: bytes
    _starts: list[int] = field(default_factory=list)
    _marks: list[tuple[int, int, int]] = field(default_factory=list)

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return the place in the original of a non-empty place in `data`. An escape is never cut."""
        return self._at(start)[0], self._at(end - 1)[1]

    def _at(self, place: int) -> tuple[int, int]:
        """Return the start and the end, in the original, of the byte at a place of `data`."""
        number = bisect_right(self._starts, place) - 1
        if number < 0:
            return place, place + 1
        end, raw_start, raw_end = self._marks[number]
        if place < end:
            return raw_start, raw_end
        return raw_end + place - end, raw_end + place - end + 1


def fold(data: bytes) -> Folded:
    """Return the text with every escape undone. The cost is linear."""
    parts: list[bytes] = []
    starts: list[int] = []
    marks: list[tuple[int, int, int]] = []
    size = at = 0
    for match in _ESCAPE.finditer(data):
        plain = data[at : match.start()]
        character = _character(match)
        size += len(plain)
        starts.append(size)
        size += len(character)
        marks.append((size, _start(match), match.end()))
        parts += (plain, character)
        at = match.end()
    parts.append(data[at:])
    return Folded(b"".join(parts), starts, marks)


def _start(match: re.Match[bytes]) -> int:
    """Return the start of an escape. Only the last 1, 2, 4, … backslashes before `u` or `n` belong to it; the rest is text."""
    escape, start = match[0], match.start()
    if escape[1:2] != b"\\":
        return start
    count = len(escape) - len(escape.lstrip(b"\\"))
    return start + count - (count & -count) if escape[count : count + 1] in (b"u", b"x", b"b", b"f", b"n", b"r", b"t") else start


def _character(match: re.Match[bytes]) -> bytes:
    high, low, code, byte, letter, percent = match.groups()
    if letter is not None:
        return _CONTROLS.get(letter, letter)
    if code is not None:
        return b"" if code in (b"005c", b"005C") else chr(int(code, 16)).encode("utf-8", "surrogatepass")
    if high is not None:
        return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF)).encode()
    found = byte or percent
    return b"" if found is None else bytes([int(found, 16)])


def ends_in_half_an_escape(data: bytes) -> bool:
    """Return whether the last bytes may be the beginning of an escape, or half of a surrogate pair."""
    return _HALF.search(data, max(0, len(data) - _HALF_BYTES)) is not None
