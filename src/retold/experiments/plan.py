"""Plan a fork: find the parent and the point, and refuse everything that cannot be forked, before anything is written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..recorder.cassette.transfer import each_exchange, kept_in
from ..recorder.errors import InputError
from ..recorder.events import Event
from ..recorder.http.exchange import Exchange, Failure
from ..recorder.http.platforms import model_path
from ..recorder.log.erasure import is_tombstone
from ..recorder.log.log import EventLog
from ..recorder.log.origin import Origin
from ..recorder.log.runs import RunInfo
from ..recorder.messages import blocks_of
from ..recorder.strict_json import object_in
from ..recorder.words import nearest, sentence
from ..workflow.pricing import is_priced
from ..workflow.schema import MODELS
from .answer import Message, answered
from .branch import Branch
from .changes import Changes
from .point import Point, point_of

CUT = Failure("Cut", "the fork cuts the recorded answer here")
"""The failure of the exchange that a point cuts."""


@dataclass(frozen=True)
class Wanted:
    """The fork that a user asks for.

    at        the point (point.py)
    changes   the changes of live requests
    answer    an answer of the user's to the request at the point
    failed    accept a parent that did not end well
    unpriced  accept a model that the price table does not have
    """

    at: str
    changes: Changes = field(default_factory=Changes)
    answer: Message | None = None
    failed: bool = False
    unpriced: bool = False


def plan(log: EventLog, ref: str, wanted: Wanted) -> Branch:
    """Return the branch of the run that `ref` names. Raise InputError if it cannot be forked as wanted, and LogError."""
    info = log.find(ref)
    title = f"run {info.run[:8]} ({info.name})"
    changes = replace(wanted.changes, model=checked_model(wanted.changes.model, unpriced=wanted.unpriced))
    with log.reading():
        first = next(log.events(info.run))
        if "erased_by" in first.data:
            raise InputError(f"{title} was erased; nothing of it can be replayed.")
        _check_parent(log, info, title, failed=wanted.failed)
        point = point_of(log, info, wanted.at)
        _check_erased(log, info, title, point)
        exchanges = list(_numbered(log, info.run))
        prefix = [_until(log, info.run, point, seq, exchange) for seq, exchange in exchanges if seq <= point.seq]
        rest = [exchange for seq, exchange in exchanges if seq > point.seq or seq == point.cut]
        if wanted.answer is not None:
            prefix.append(_answered(exchanges, title, point, wanted.answer))
        _check_changes(changes, rest)
        last = next(iter(log.store.read(info.run, after=point.seq - 1, until=point.seq)))
        return Branch(
            Origin(info.run, point.seq, last.hash), title, f"{info.name}@{point.text}", point.text, tuple(prefix), tuple(rest),
            changes=changes, inherited=Changes.recorded(first.data), kept=kept_in(log, info.run), started=first.data,
            tool_results=_tool_results(log, info.run, point.seq), point_ns=last.t_ns,
            resumed=tuple(event.data for event in log.events(info.run, until=point.seq, kinds=("step.resumed",))),
        )  # fmt: skip


@dataclass(frozen=True)
class PlannedFork:
    """A fork that options of a command ask for; `run_workflow` accepts it as its argument `fork`."""

    run: str
    wanted: Wanted

    def branch(self, log: EventLog) -> Branch:
        """Return the branch of the run in a log. Raise InputError, LogError."""
        return plan(log, self.run, self.wanted)


def checked_model(name: str | None, *, unpriced: bool) -> str | None:
    """Return the id of a model, also for an alias such as `haiku`. Raise InputError if the price table does not have it."""
    if name is None:
        return None
    model = MODELS.get(name, name)
    if not unpriced and is_priced(model) is False:
        known = [*MODELS, *MODELS.values()]
        raise InputError(
            f"{sentence(f'unknown model {name!r}{nearest(name, known)}')} The price table does not have it; "
            "with --unpriced it is used all the same, and its cost stays unknown."
        )
    return model


def _check_parent(log: EventLog, info: RunInfo, title: str, *, failed: bool) -> None:
    if info.mode == "audit":
        raise InputError(f"{title} records a change of the log itself; it has nothing to fork.")
    if info.status == "running":
        raise InputError(f"{title} is still being recorded; fork it when it has ended.")
    if info.status != "completed" and not failed:
        reason = f": {info.error}" if info.error else ""
        raise InputError(f"{title} {_ENDED[info.status]}{reason}. To fork what was recorded until then, add --failed.")
    if log.store.read(info.run, kinds=("session.started",), limit=1):
        raise InputError(
            f"{title} is a session of the Agent SDK, which cannot be forked here: its requests are in Claude Code. "
            "Resume it with the SDK's fork_session, from retold.session_store(log)."
        )
    if not log.store.read(info.run, kinds=("exchange.started",), limit=1):
        raise InputError(f"{title} has no exchanges to fork; it holds messages only.")


_ENDED = {"failed": "failed", "cancelled": "was cancelled", "interrupted": "was interrupted"}


def _check_erased(log: EventLog, info: RunInfo, title: str, point: Point) -> None:
    """Refuse a parent if events before the point, or their answers, were erased: they cannot be replayed."""
    for event in erased_in(log, info.run):
        if event.seq <= point.seq or (event.exchange is not None and event.exchange <= point.seq):
            raise InputError(f"{title} cannot be forked at {point.text}: event {event.seq} ({event.kind}) was erased.")


def erased_in(log: EventLog, run: str) -> Iterator[Event]:
    """Yield the events of a run without their content, which was erased."""
    for event in log.events(run):
        if is_tombstone(event.kind, event.payload) and (event.kind != "chunk" or event.digest != _EMPTY):
            yield event


_EMPTY = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
"""The digest of an empty payload: an empty chunk is no erased one."""


def _numbered(log: EventLog, run: str) -> Iterator[tuple[int, Exchange]]:
    """Yield the exchanges of a run in the order of their starts, each with the number of its first event."""
    seqs = [event.seq for event in log.events(run, kinds=("exchange.started",))]
    return zip(seqs, each_exchange(log, run), strict=True)


def _until(log: EventLog, run: str, point: Point, seq: int, exchange: Exchange) -> Exchange:
    """Return an exchange of the shared part, cut if the point is inside its answer."""
    if seq != point.cut:
        return exchange
    assert exchange.response is not None
    pieces = sum(1 for _ in log.events(run, until=point.seq, exchange=seq, kinds=("frame", "chunk")))
    response = replace(exchange.response, pieces=tuple(exchange.response.pieces[:pieces]))
    ended_ns = exchange.started_ns + response.span_ns[1]
    return replace(exchange, response=response, ending="cut", failure=CUT, ended_ns=ended_ns, cost_usd=None, tool_results=())


def _answered(exchanges: Sequence[tuple[int, Exchange]], title: str, point: Point, answer: Message) -> Exchange:
    at = point.cut if point.cut is not None else point.after
    found = next((exchange for seq, exchange in exchanges if seq == at), None)
    if found is None:
        raise InputError(f"{title} has no request after {point.text}, so there is nothing to answer.")
    if point.cut is not None:  # the program asks again after the cut
        found = replace(found, place=replace(found.place, attempt=found.place.attempt + 1))
    return answered(found, answer)


def _check_changes(changes: Changes, rest: Sequence[Exchange]) -> None:
    asking = [exchange.request for exchange in rest if isinstance(object_in(exchange.request.body).get("messages"), list)]
    if changes.model is not None and any(model_path(request.uri) is not None for request in asking):
        raise InputError("--model cannot change requests of Bedrock or Vertex: their URL names the model.")
    if asking and (path := _unfit(changes, [request.body for request in asking])) is not None:
        raise InputError(f"--set {path}: no request after the point has this path.")


def _unfit(changes: Changes, bodies: Sequence[bytes]) -> str | None:
    found = [changes.fits(body) for body in bodies]
    return found[0] if all(path is not None for path in found) else None


def _tool_results(log: EventLog, run: str, until: int) -> Mapping[str, dict[str, Any]]:
    messages: Iterator[Event] = log.events(run, until=until, kinds=("message",))
    blocks = (block for event in messages if event.data.get("type") == "user" for block in blocks_of(event.data))
    return {str(block.get("tool_use_id")): block for block in blocks if block.get("type") == "tool_result"}
