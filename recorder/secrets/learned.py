"""The credentials of requests, so many that no regular expression can hold them: a gateway sees a key for each user, and a
signed request carries a signature of its own.

A search costs the same with one credential and with a thousand. Each credential is entered under the eight groups of 8 bytes that
begin in the first 8 of its last 15 bytes. A text that holds it has one of them at a multiple of 8, so one look at every eighth
place of the text finds each candidate. The candidates are then searched for as they are.
"""

import re
from collections.abc import Iterator

from .shapes import fold

MAX_LEARNED = 1000
"""The number of credentials that are remembered, beyond the first few. The one that was used the longest ago is forgotten."""

MAX_STARTS = 64
"""With more different beginnings, any four characters of a credential count as the beginning of one."""

ANY_START = rb"[A-Za-z0-9_\-.~+/=:,;@]{4}|[\x00-\x1f]"
"""The beginning of any of these credentials; one whose first letter reads like an escape begins with a control character."""

_GROUP = 8
_TAIL = 2 * _GROUP - 1

_PLAIN = re.compile(r"(?:(?![ux])[A-Za-z0-9_\-.~+/=:,;@]{16}|[A-Za-z0-9_\-.~+/=:,;@]{24})[A-Za-z0-9_\-.~+/=:,;@]*")
"""The characters of keys, tokens and signatures. Such a value has one spelling without escapes.

A backslash before `u1234` or `x41` reads like an escape and eats some letters; 15 bytes must be left.
"""


class Learned:
    """Credentials of plain characters, found in any number. `longest` is the size of the longest one, in bytes."""

    def __init__(self, prefix: int) -> None:
        """Take the size of the beginning of a secret that counts as one, in bytes."""
        self._prefix = prefix
        self._forms: dict[str, tuple[bytes, ...]] = {}
        self._groups: dict[int, set[bytes]] = {}
        self._by_start: dict[bytes, set[bytes]] = {}
        self.eaten: set[bytes] = set()
        """The forms of values whose first letter, after a backslash, reads like an escape."""
        self.longest = 0

    def __len__(self) -> int:
        return len(self._forms)

    def __repr__(self) -> str:
        return f"<Learned {len(self)} credentials>"

    @staticmethod
    def takes(value: str) -> bool:
        """Return whether a value has only plain characters, and enough of them."""
        return _PLAIN.fullmatch(value) is not None

    def add(self, value: str) -> bool:
        """Remember a credential as the one that was used last. Return whether it is new."""
        known = self._forms.pop(value, None)
        if known is not None:
            self._forms[value] = known
            return False
        form = value.encode()
        eaten = fold(b"\\" + form).data
        self._forms[value] = forms = (form,) if eaten == form else (form, eaten)
        self.eaten |= {*forms[1:]}
        for each in forms:
            for group in _groups_of(each):
                self._groups.setdefault(group, set()).add(each)
            self._by_start.setdefault(each[: self._prefix], set()).add(each)
        self.longest = max(self.longest, len(form))
        if len(self._forms) > MAX_LEARNED:
            self._forget(next(iter(self._forms)))
        return True

    def _forget(self, value: str) -> None:
        for each in self._forms.pop(value):
            self.eaten.discard(each)
            for group in _groups_of(each):
                _drop(self._groups, group, each)
            _drop(self._by_start, each[: self._prefix], each)

    @property
    def starts(self) -> set[bytes] | None:
        """The beginnings of all credentials, or None if they are too many to be searched for: `ANY_START` finds them."""
        return None if len(self._by_start) > MAX_STARTS else {*self._by_start}

    def may_be_in(self, data: bytes) -> bool:
        """Return False if no credential is in a text."""
        return bool(self._groups) and not self._groups.keys().isdisjoint(_aligned(data))

    def spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield the places of the credentials in a text, in any order."""
        if not self.may_be_in(data):
            return
        groups = self._groups.keys() & set(_aligned(data))
        for secret in set().union(*(self._groups[group] for group in groups)):
            at = data.find(secret)
            while at >= 0:
                yield at, at + len(secret)
                at = data.find(secret, at + 1)

    def is_open(self, text: bytes) -> bool:
        """Return whether a text ends inside a credential, after its beginning."""
        for at in range(max(0, len(text) - self.longest + 1), len(text) - self._prefix + 1):
            if (secrets := self._by_start.get(text[at : at + self._prefix])) is not None:
                rest = text[at:]
                if any(len(rest) < len(secret) and secret.startswith(rest) for secret in secrets):
                    return True
        return False


def _aligned(data: bytes) -> "memoryview[int]":
    """Return the groups of 8 bytes at the multiples of 8, as numbers."""
    return memoryview(data)[: len(data) // _GROUP * _GROUP].cast("Q")


def _groups_of(secret: bytes) -> Iterator[int]:
    tail = secret[-_TAIL:]
    for start in range(_GROUP):
        yield from _aligned(tail[start : start + _GROUP])


def _drop(index: "dict[int, set[bytes]] | dict[bytes, set[bytes]]", key: "int | bytes", secret: bytes) -> None:
    held = index[key]  # type: ignore[index]
    held.discard(secret)
    if not held:
        del index[key]  # type: ignore[arg-type]
