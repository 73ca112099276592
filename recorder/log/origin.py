"""The origin of a fork: the event of its parent run after which the fork goes its own way.

The first event of a fork holds it under the key `fork`: `{"parent": RUN, "seq": N, "hash": HEX}`. The hash is that of the
parent's event N, which covers all events before it. The hash of the fork's first event covers the origin, so both chains
together prove the events that parent and fork share.
"""

from dataclasses import dataclass
from typing import Any, Self

from ..strict_json import object_or_empty
from .reading import LogReader


@dataclass(frozen=True, slots=True)
class Origin:
    """The last event that a fork shares with its parent: the parent's id, the event's number, and its hash."""

    parent: str
    seq: int
    hash: bytes

    def as_dict(self) -> dict[str, Any]:
        """Return the value of `fork` in the first event of a fork."""
        return {"parent": self.parent, "seq": self.seq, "hash": self.hash.hex()}

    @classmethod
    def of(cls, started: Any) -> Self | None:
        """Return the origin in the payload of a run's first event, or None if the run is no fork."""
        value = object_or_empty(object_or_empty(started).get("fork"))
        parent, seq, digest = value.get("parent"), value.get("seq"), value.get("hash")
        if not isinstance(parent, str) or type(seq) is not int or not isinstance(digest, str):
            return None
        try:
            return cls(parent, seq, bytes.fromhex(digest))
        except ValueError:
            return None


def origin_of(log: LogReader, run: str) -> Origin | None:
    """Return the origin of a run, or None if it is no fork. Raises LogError."""
    first = next(iter(log.store.read(run, limit=1)), None)
    return None if first is None or first.kind != "run.started" else Origin.of(first.data)
