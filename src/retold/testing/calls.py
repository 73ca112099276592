"""The calls of a recording: which request repeats which call, and a tally of exchanges that are over.

A proxy records for days, so an exchange that is over leaves numbers behind and nothing else. Only a failed call keeps its place,
because the SDK may repeat it.
"""

from collections import Counter
from dataclasses import dataclass, field

from ..recorder.http.capture import Capture

REPEATED = ("http_error", "no_response")
"""Endings after which an SDK sends the same call again."""

MAX_FAILED = 10_000
"""Failed calls that are remembered; older ones, whose retry never came, are forgotten."""


@dataclass
class Tally:
    """Exchanges in numbers: how many ended how, frames, tokens, US dollars, and each reason for a missing response once."""

    endings: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    used: int = 0
    priced: int = 0
    cost_usd: float = 0.0
    reasons: dict[str, None] = field(default_factory=dict)

    def add(self, capture: Capture) -> None:
        """Count one exchange; one without an ending counts as cut."""
        self.endings[capture.ending or "cut"] += 1
        self.frames += capture.frames
        if usage := capture.fold.usage:
            counts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
            self.used += 1
            self.input_tokens += sum(usage.get(name) or 0 for name in counts)
            self.output_tokens += usage.get("output_tokens") or 0
            if capture.cost_usd is not None:
                self.priced += 1
                self.cost_usd += capture.cost_usd
        if capture.ending == "no_response" and capture.failure is not None:
            self.reasons[f"{capture.failure.type}: {capture.failure.message}"] = None


class Calls:
    """The exchanges of one recording, numbered after call `after`. The caller holds a lock around every method."""

    def __init__(self, *, after: int = 0) -> None:
        self.count = 0
        self.open: list[Capture] = []
        self._keys: dict[int, str] = {}
        self._last_call = after
        self._failed: dict[str, dict[int, int]] = {}
        self._tally = Tally()

    def __repr__(self) -> str:
        return f"<Calls {self.count} exchanges, {len(self.open)} open>"

    @property
    def tally(self) -> Tally:
        """All exchanges in numbers; the caller has ended those that are open."""
        self.settle()
        return self._tally

    def place(self, key: str, retry: str) -> tuple[int, int]:
        """Return the call and the attempt of a request; `retry` is the SDK's own count of its retries.

        Of several identical calls at once, a retry belongs to the first that has failed as often as it counts. The caller has
        called `settle` before.
        """
        for call, attempt in self._failed.get(key, {}).items():
            if retry == str(attempt):
                self._forget(key, call)
                return call, attempt + 1
        self._last_call += 1
        return self._last_call, 1

    def add(self, key: str, capture: Capture) -> None:
        """Note an exchange that has begun."""
        self.count += 1
        self.open.append(capture)
        self._keys[id(capture)] = key

    def note_failed(self, key: str, call: int, attempt: int) -> None:
        """Note that an attempt failed, so that a repetition of its request gets the next number."""
        self._failed.setdefault(key, {})[call] = attempt
        while len(self._failed) > MAX_FAILED:
            del self._failed[next(iter(self._failed))]

    def settle(self) -> list[Capture]:
        """Count the exchanges that have ended since the last time, let go of them and return them."""
        ended = [capture for capture in self.open if capture.ending is not None]
        if ended:
            self.open = [capture for capture in self.open if capture.ending is None]
        for capture in ended:
            key = self._keys.pop(id(capture))
            self._tally.add(capture)
            if capture.ending in REPEATED:
                self.note_failed(key, capture.place.call, capture.place.attempt)
        return ended

    def _forget(self, key: str, call: int) -> None:
        del self._failed[key][call]
        if not self._failed[key]:
            del self._failed[key]
