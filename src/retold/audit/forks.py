"""Check the forks of a log: each shares the events before its point with its parent.

A fork names an event of its parent and the hash of that event, which covers every event before it. Both runs have passed their
own checks, so an equal hash proves that the fork began with exactly these events. The answers that the fork replayed are
compared with the parent's, too: each must have the same bytes as an answer of the parent that began before the point.

A parent that was pruned, or that is in another log, proves nothing: the fork counts as unproven, which is no finding. The same
holds for replayed answers if payloads of the parent or the fork were erased or redacted.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256

from ..recorder.log.origin import Origin
from ..recorder.log.sqlite.evidence import Evidence
from ..recorder.strict_json import object_in
from .chain import Finding


@dataclass(frozen=True)
class Lineage:
    """The checked runs of a log. `runs` are those without findings, `pruned` those that were removed, `changed` returns
    whether payloads of a run were erased or redacted."""

    evidence: Evidence
    runs: Collection[str]
    pruned: Collection[str]
    changed: Callable[[str], bool]

    def check(self, run: str, origin: Origin) -> Finding | str | None:
        """Return the finding of a fork, the reason why its origin is unproven, or None if it is proven."""
        parent = origin.parent
        if parent in self.pruned:
            return f"its parent {parent} was pruned"
        event = self.evidence.event(parent, origin.seq)
        if parent not in self.runs and event is None:
            return f"its parent {parent} is not in this log"
        if parent not in self.runs:
            return Finding(run, 0, "fork", f"its parent {parent} has a finding")
        if event is None:
            return Finding(run, 0, "fork", f"its parent {parent} has no event {origin.seq}")
        if event.hash != origin.hash:
            return Finding(run, 0, "fork", f"event {origin.seq} of its parent {parent} has another hash than the fork names")
        return self._check_answers(run, origin)

    def _check_answers(self, run: str, origin: Origin) -> Finding | str | None:
        shared = Counter(digest for _, digest in self._answers(origin.parent, until=origin.seq))
        for seq, digest in self._answers(run, replayed=True):
            if not shared[digest]:
                if self.changed(run) or self.changed(origin.parent):
                    return "payloads were erased or redacted since"
                return Finding(run, seq, "fork", f"the replayed answer is none of its parent {origin.parent} before the fork")
            shared[digest] -= 1
        return None

    def _answers(self, run: str, *, until: int | None = None, replayed: bool = False) -> Iterator[tuple[int, bytes]]:
        """Return (first event, sha256 of the bytes) of each answer that began until an event.

        An answer that goes on after it is returned twice: whole, and cut there. With `replayed`, only replayed exchanges count.
        """
        found: dict[int, list[bytes]] = {}
        cut: dict[int, bytes] = {}
        for _, seq, _, _, kind, _, _, exchange, payload, *_ in self.evidence.rows(run):
            if kind == "exchange.started" and (until is None or seq <= until):
                if not replayed or object_in(payload).get("stamped") == "replay":
                    found[seq] = []
            elif kind in ("frame", "chunk") and exchange in found:
                if until is not None and seq > until and exchange not in cut:
                    cut[exchange] = b"".join(found[exchange])
                found[exchange].append(payload.encode() if isinstance(payload, str) else payload)
        whole = [(seq, b"".join(pieces)) for seq, pieces in found.items()]
        return ((seq, sha256(body).digest()) for seq, body in [*whole, *cut.items()])
