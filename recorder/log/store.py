"""Store: the interface between the log and the place in which events are kept.

A log numbers, seals and redacts events. A store keeps them, and answers questions that are asked by values. A store of another
author passes the tests of `tests/contracts/store.py`.
"""

from collections.abc import Sequence
from typing import Protocol

from ..errors import LogError
from ..events import Event
from .ledger import Entered
from .runs import RunInfo, RunQuery

PAGE = 500
"""Events of one answer, unless a reader asks for another number."""


class Conflict(LogError):
    """An event is not the next one of its run: another writer appended, or the run has ended or is not there."""


class Store(Protocol):
    """The events of runs, the listing of the runs and the ledger. Every method raises LogError if the store cannot be reached."""

    @property
    def name(self) -> str:
        """The name of the store in messages."""

    def begin(self, run: RunInfo, first: Event) -> None:
        """Keep the first event of a run, with its line in the listing and its entry in the ledger. Raises Conflict."""

    def append(self, events: Sequence[Event]) -> None:
        """Keep events of one run, all or none of them; they are durable on return.

        Raises Conflict unless they are the next events of the run, and their hashes chain.
        """

    def end(self, last: Event, run: RunInfo) -> None:
        """Keep the last event of a run, with its new line in the listing and its entry in the ledger. Raises Conflict."""

    def read(
        self, run: str, *, after: int = -1, until: int | None = None, kinds: Sequence[str] | None = None,
        exchange: int | None = None, step: str | None = None, newest_first: bool = False, limit: int = PAGE,
    ) -> Sequence[Event]:  # fmt: skip
        """Return the events of a run with a number above `after`, and at most `until`, that fit the other values."""

    def runs(self, query: RunQuery, *, limit: int | None = None, skip: int = 0) -> Sequence[RunInfo]:
        """Return the runs that fit the query, newest first."""

    def entries(self, after: int = 0) -> Sequence[Entered]:
        """Return the entries of the ledger with a number above `after`, in order."""

    def wait(self, run: str, after: int, seconds: float) -> None:
        """Return when the run holds an event after `after`, its writer is gone, or so many seconds have passed."""

    def is_alive(self, run: str) -> bool:
        """Return whether a writer may still append to the run."""
