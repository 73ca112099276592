"""The prompt cache of a recording: for each request, whether it found the prefix that the request before it had cached.

A request is compared with the last answered request of the same conversation only. A new conversation, a subagent or a retry of
a refused call is therefore no miss. A request missed the cache if the API read fewer tokens than it had cached for the request
before; a difference of the prefixes alone is no miss. The causes are those that the two requests prove.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..comparing.continuing import Threads
from ..comparing.reading import MESSAGES, READ_KINDS, Answers, ItemReader, answers_in, named_path, names_in
from ..comparing.varying import OWN_MANNER, Varying
from ..recorder.cassette.folding import FoldedExchanges, in_order
from ..recorder.cassette.format import names_file
from ..recorder.cassette.kept import Kept
from ..recorder.cassette.named import read_named
from ..recorder.cassette.transfer import kept_in
from ..recorder.errors import InputError
from ..recorder.events import Event, encode
from ..recorder.http.exchange import from_text, wall_ns_of
from ..recorder.http.platforms import messages_request
from ..recorder.http.threads import turn_of
from ..recorder.interrupted import events_of
from ..recorder.log.log import EventLog
from ..recorder.strict_json import object_in, object_or_empty
from .prefix import PARTS, Departure, Prefix, by_meaning

Price = Callable[[str, dict[str, Any]], float | None]
"""Returns the cost in US dollars of a usage of a model; None if it is unknown."""

Outcome = Literal["hit", "missed", "nothing cached", "unknown"]

NO_CAUSE = "the requests show no cause"


@dataclass(frozen=True, slots=True)
class CachingRequest:
    """A request, and its usage if the answer has one. Times are in nanoseconds of the run; `wall_ns` is since the epoch."""

    conversation: int
    place: str
    turn: int
    seq: int
    model: str
    prefix: Prefix
    started_ns: int
    wall_ns: int | None
    ended_ns: int = 0
    usage: Mapping[str, Any] | None = None
    answered_by: str = ""
    diagnostics: Mapping[str, Any] | None = None

    def tokens(self, name: str) -> int:
        """Return a count of the usage; 0 if the usage lacks it."""
        value = (self.usage or {}).get(name)
        return value if isinstance(value, int) and value > 0 else 0

    @property
    def cached(self) -> int:
        """The tokens that the cache held for this request after its answer."""
        return self.tokens("cache_read_input_tokens") + self.tokens("cache_creation_input_tokens")


@dataclass(frozen=True, slots=True)
class Explained:
    """One request against the one before it in its conversation. Tokens are counts of the API, times are seconds.

    `same` has the parts of the prefix before `difference`, the first differing path. `missed_tokens` would have been read from
    the cache; `missed_usd` is the part of the cost that this would have saved. None is unknown.
    """

    conversation: int
    place: str
    turn: int
    seq: int
    compared_with: int
    model: str
    outcome: Outcome
    same: list[str]
    difference: dict[str, Any] | None
    gap_s: float | None
    lifetime_s: float | None
    cached_before: int | None
    read_tokens: int | None
    written_tokens: int | None
    input_tokens: int | None
    missed_tokens: int | None
    missed_usd: float | None
    cost_usd: float | None
    causes: list[str]
    cache_miss_reason: str | None
    api_missed_tokens: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON."""
        return asdict(self)


def explain_cache(source: str, log: Path | None, price: Price) -> list[Explained]:
    """Explain each request after the first of its conversation, in a cassette or in a run of the log.

    Raise InputError, or a subclass of it, if there is no such recording, or if no answer in it has a usage.
    """
    if names_file(source):
        held = read_named(source)
        folded = FoldedExchanges(in_order(held.exchanges, held.sessions))
        requests = _Requests(folded.events, folded.answer, held.kept)
    else:
        with EventLog(log) as opened:
            info = opened.find(source)
            events = list(events_of(opened, info.run, READ_KINDS))
            # The usage of a replay is the recorded one, but its times are its own, so they prove nothing about the cache.
            has_times = info.mode != "mock"
            requests = _Requests(events, answers_in(opened), kept_in(opened, info.run), has_times=has_times)
    if not requests.count:
        raise InputError(f"{source} has no request of the Messages API with its whole history; there is nothing to explain.")
    if not requests.has_usage:
        raise InputError(f"no answer in {source} has a usage, so the cache of its requests is unknown.")
    return [explain(before, asked, price) for before, asked in requests.pairs]


class _Requests:
    """The requests of a recording, each with the last answered one before it in its conversation."""

    def __init__(self, events: Sequence[Event], answers: Answers, kept: Kept, *, has_times: bool = True) -> None:
        self.pairs: list[tuple[CachingRequest, CachingRequest]] = []
        self.count = 0
        self.has_usage = False
        self._has_times = has_times
        self._reader = ItemReader(Varying(names_in(each for each in events if each.kind == "exchange.started"), OWN_MANNER, kept))
        self._threads = Threads()
        self._open: dict[int, tuple[CachingRequest, CachingRequest | None]] = {}
        self._last: dict[int, CachingRequest] = {}
        for event in events:
            if event.kind == "exchange.ended":
                self._ended(event)  # before the reader forgets the place of the exchange
            self._reader.event(_by_meaning(event) if event.kind == "exchange.started" else event, answers)
            if event.kind == "exchange.started":
                self._started(event)
            elif event.kind == "message" and event.exchange in self._open:
                self._message(event.exchange, event.data)

    def _started(self, event: Event) -> None:
        data, placed = event.data, self._reader.placed(event.seq)
        raw = from_text(data["body"])
        whole = messages_request(data["uri"], raw) if "/model" in data["uri"] else None
        where = f"{data['method'].upper()} {named_path(data['uri']) if whole is None else whole.path}"
        if placed is None or where != MESSAGES:
            return
        conversation, turn = placed
        body = self._threads.whole(event.seq, object_in(raw) if whole is None else whole.body)
        if turn_of(body) == "continue":  # of a thread that began in another run: its prefix is unknown
            return
        asked = CachingRequest(
            conversation.number, str(conversation.label), turn, event.seq, str(body.get("model", "")), Prefix(body),
            event.t_ns if self._has_times else 0, wall_ns_of(data["recorded_at"] or "") if self._has_times else None,
        )  # fmt: skip
        self.count += 1
        self._open[event.seq] = asked, self._last.get(conversation.number)

    def _message(self, exchange: int, data: Mapping[str, Any]) -> None:
        self._threads.answered(exchange, data)
        asked, before = self._open[exchange]
        diagnostics = object_or_empty(data.get("message")).get("diagnostics")
        if isinstance(diagnostics, Mapping):
            self._open[exchange] = replace(asked, diagnostics=diagnostics), before

    def _ended(self, event: Event) -> None:
        if event.exchange not in self._open:
            return
        asked, before = self._open.pop(event.exchange)
        data = event.data
        if (placed := self._reader.placed(event.exchange)) is not None:
            self._threads.ended(event.exchange, data.get("message_id"), placed[0])
        usage = data.get("usage")
        asked = replace(asked, ended_ns=event.t_ns, usage=usage or None, answered_by=str(data.get("model") or asked.model))
        if before is not None:
            self.pairs.append((before, asked))
        if usage:
            self.has_usage = True
            self._last[asked.conversation] = asked


def _by_meaning(started: Event) -> Event:
    """Return the start of an exchange with its request by meaning. Clients move marks, and turn texts into blocks for them."""
    data = started.data
    body = object_in(from_text(data["body"]))
    if not isinstance(body.get("messages"), list):
        return started
    return started._replace(payload=encode(data | {"body": encode(by_meaning(body)).decode()}))


def explain(before: CachingRequest, asked: CachingRequest, price: Price) -> Explained:
    """Return the explanation of a request, compared with the answered request before it."""
    difference = before.prefix.difference(asked.prefix)
    known = asked.usage is not None
    missed = _missed(before, asked) if known else None
    reason = object_or_empty((asked.diagnostics or {}).get("cache_miss_reason"))
    usage = dict(asked.usage or {})
    return Explained(
        conversation=asked.conversation + 1,
        place=asked.place,
        turn=asked.turn,
        seq=asked.seq,
        compared_with=before.turn,
        model=asked.answered_by,
        outcome=_outcome(before, missed),
        same=_same(difference),
        difference=None if difference is None else {"path": difference.path, "kind": difference.kind, "tool": difference.tool},
        gap_s=gap_s(before, asked),
        lifetime_s=before.prefix.lifetime_s,
        cached_before=before.cached,
        read_tokens=asked.tokens("cache_read_input_tokens") if known else None,
        written_tokens=asked.tokens("cache_creation_input_tokens") if known else None,
        input_tokens=asked.tokens("input_tokens") if known else None,
        missed_tokens=missed,
        missed_usd=_missed_usd(asked.answered_by, usage, missed, price) if missed is not None else None,
        cost_usd=price(asked.answered_by, usage) if known else None,
        causes=_causes(before, asked, difference) if missed else [],
        cache_miss_reason=reason.get("type") if isinstance(reason.get("type"), str) else None,
        api_missed_tokens=tokens if isinstance(tokens := reason.get("cache_missed_input_tokens"), int) else None,
    )


def _outcome(before: CachingRequest, missed: int | None) -> Outcome:
    if missed is None:
        return "unknown"
    if missed:
        return "missed"
    return "hit" if before.cached else "nothing cached"


def gap_s(before: CachingRequest, asked: CachingRequest) -> float | None:
    """Return the seconds between two requests; None if the recording has no times, as those of some other recorders."""
    if before.wall_ns is not None and asked.wall_ns is not None:
        gap_ns = asked.wall_ns - before.wall_ns
    else:
        gap_ns = asked.started_ns - before.started_ns
    return gap_ns / 1e9 if gap_ns > 0 else None


def _same(difference: Departure | None) -> list[str]:
    return list(PARTS if difference is None else PARTS[: PARTS.index(difference.part)])


def _missed(before: CachingRequest, asked: CachingRequest) -> int:
    """Return the tokens that the cache held, that the API did not read from it, and that this request had to pay otherwise."""
    paid = asked.tokens("cache_creation_input_tokens") + asked.tokens("input_tokens")
    return min(max(before.cached - asked.tokens("cache_read_input_tokens"), 0), paid)


def _causes(before: CachingRequest, asked: CachingRequest, difference: Departure | None) -> list[str]:
    """Return the causes of a miss that the requests prove."""
    found = [] if before.model == asked.model else [f"model changed from {before.model} to {asked.model}"]
    if difference is not None and difference.cached:
        found.append(str(difference))
    if before.prefix.has_marked_messages:
        found += [f"{name} changed, which concerns messages only" for name in before.prefix.changed_settings(asked.prefix)]
    gap, lifetime = gap_s(before, asked), before.prefix.lifetime_s
    if gap is not None and lifetime is not None and gap > lifetime:
        took = (before.ended_ns - before.started_ns) / 1e9
        # The lifetime begins anew while the API answers, at a moment that it does not report.
        verb = "was" if gap - took > lifetime else "may have been"
        found.append(f"the lifetime of {_minutes(lifetime)} {verb} over")
    if not asked.prefix.is_marked:
        found.append("the request has no cache_control")
    return found or [NO_CAUSE]


def _minutes(seconds: float) -> str:
    return "1 hour" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"


def _missed_usd(model: str, usage: dict[str, Any], missed: int, price: Price) -> float | None:
    """Return the cost of a usage minus its cost if the missed tokens had been read. None if a price or a lifetime is unknown."""
    written = usage.get("cache_creation_input_tokens") or 0
    split = {key: value for key, value in object_or_empty(usage.get("cache_creation")).items() if value}
    from_written = min(missed, written)
    if from_written < written and len(split) > 1:  # it is unknown which of the two lifetimes the missed tokens had
        return None
    moved = usage | {
        "cache_creation_input_tokens": written - from_written,
        "cache_read_input_tokens": (usage.get("cache_read_input_tokens") or 0) + missed,
        "input_tokens": (usage.get("input_tokens") or 0) - (missed - from_written),
    }
    if split:
        moved["cache_creation"] = {key: written - from_written if len(split) == 1 else 0 for key in split}
    paid, saved = price(model, usage), price(model, moved)
    return None if paid is None or saved is None else round(paid - saved, 10)
