"""Branch: the recorded side of a fork. The replayed exchanges, the recorded exchanges after the point, and the changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..recorder.cassette.kept import NOTHING_KEPT, Kept
from ..recorder.http.exchange import Exchange, Request
from ..recorder.log.origin import Origin
from .changes import Changes

ANSWERED = "answer"
"""The `stamped` of an exchange with an answer of the user's."""


@dataclass(frozen=True)
class Branch:
    """A parent run, split at a point.

    title         the parent, for messages
    point         the point, as the user named it
    prefix        the exchanges that are replayed: those that began before the point, the last one cut or answered by the user
    rest          the recorded exchanges after the point: a request that is equal to one of them has reached the point
    changes       the changes of live requests
    inherited     the changes with which requests of the parent were sent, if it or one of its parents is a fork
    kept          the rules of matching that the parent keeps
    tool_results  the results of tools before the point, by the id of the tool use
    started       the payload of the parent's first event
    point_ns      the time of the point, in nanoseconds since the parent began
    resumed       the payloads of the steps that the parent took over from an earlier run
    """

    origin: Origin
    title: str
    name: str
    point: str
    prefix: tuple[Exchange, ...]
    rest: tuple[Exchange, ...] = ()
    changes: Changes = field(default_factory=Changes)
    inherited: tuple[Changes, ...] = ()
    kept: Kept = NOTHING_KEPT
    tool_results: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    started: Mapping[str, Any] = field(default_factory=dict)
    point_ns: int = 0
    resumed: tuple[dict[str, Any], ...] = ()

    def __repr__(self) -> str:
        return f"<Branch of {self.title} at {self.point}: {len(self.prefix)} exchanges before it>"

    @property
    def data(self) -> dict[str, Any]:
        """The fields of the fork's first event."""
        made = [changes.as_dict() for changes in (self.changes, *self.inherited) if changes]
        return {"fork": self.origin.as_dict(), "at": self.point, **({"changes": made} if made else {})}

    @property
    def last_call(self) -> int:
        """The highest number of a replayed call."""
        return max((exchange.place.call for exchange in self.prefix), default=0)

    def forms_of(self, request: Request) -> Iterator[Request]:
        """Yield the forms in which the parent may hold a request: as the program sends it, and as a fork changed it."""
        yield request
        yield from (replace(request, body=changes.applied(request.body)) for changes in self.inherited)
