"""The exchanges of a long cassette, each read when it is first needed.

A damaged interaction raises the CassetteError of a reader of the whole file, with the same place and text, when it is needed. An
outline never guesses: a text that it cannot read makes the whole file be read (outline.py).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import overload

from ..http.exchange import Exchange
from .block_yaml import NotPlain
from .entry import DAMAGE, to_exchange
from .foreign import named_interaction
from .outline import Outline

Whole = Callable[[], tuple[Exchange, ...]]
"""Reads all exchanges of a file. Raises CassetteError."""


class Exchanges(Sequence[Exchange]):
    """Equal to the tuple of all exchanges of a cassette. An exchange that was read once stays the same object.

    Access to an item raises CassetteError if the file is damaged there.
    """

    def __init__(self, outline: Outline, whole: Whole) -> None:
        self._outline = outline
        self._read_whole = whole
        self._all: tuple[Exchange, ...] | None = None
        self._known: dict[int, Exchange] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        with self._lock:
            if self._all is None:
                try:
                    return len(self._outline)
                except NotPlain:
                    self._all = self._whole()
            return len(self._all)

    @overload
    def __getitem__(self, index: int) -> Exchange: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Exchange, ...]: ...

    def __getitem__(self, index: int | slice) -> Exchange | tuple[Exchange, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = index + len(self) if index < 0 else index
        with self._lock:
            if self._all is None and number not in self._known:
                found = self._one(number)
                if found is not None:
                    self._known[number] = found
            return self._known[number] if self._all is None else self._all[number]

    @property
    def read_count(self) -> int:
        """How many exchanges were read."""
        return len(self._known) if self._all is None else len(self._all)

    def may_have(self, key: str) -> bool:
        """Return False if certainly no interaction has a key of that name."""
        return self._outline.mentions(key)

    def _one(self, number: int) -> Exchange | None:
        """Return one exchange; None after the whole file had to be read. Raise IndexError, CassetteError."""
        if not number >= 0:
            raise IndexError(number)
        try:
            entry = self._outline.entry(number)
            if named_interaction(entry) is None:
                return to_exchange(entry)
        except (NotPlain, *DAMAGE):
            pass
        self._all = self._whole()
        return None

    def _whole(self) -> tuple[Exchange, ...]:
        read = self._read_whole()
        return tuple(self._known.get(number, exchange) for number, exchange in enumerate(read))

    def __iter__(self) -> Iterator[Exchange]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Exchanges | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"<Exchanges {len(self)}>"
