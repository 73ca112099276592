"""The turns of a run: its parts, prompts, answers and uses of tools, each with its time. Exports for other tools read them.

`turns` folds the events of one run into these values, in the order in which they end. Only open ones are in memory.

1. An answer of an HTTP exchange begins with the request, and has the request, the usage and the ending.
2. Other answers (of the Agent SDK, of imported messages) are lines with one message id. They begin with the line before.
3. A tool runs from the end of its answer, or from its use if it answered before that, until its result: a message, or the
   next request that holds it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..recorder.errors import LogError
from ..recorder.events import Event
from ..recorder.http.call_errors import FAILED
from ..recorder.http.prompts import request_in
from ..recorder.log.reading import LogReader
from ..recorder.messages import blocks_of, content_blocks
from ..recorder.strict_json import object_or_empty

KINDS = (
    "run.started", "run.ended", "step.started", "step.ended", "task.started", "task.ended", "session.started", "session.ended",
    "wire.sent", "exchange.started", "response.started", "exchange.ended", "message",
)  # fmt: skip

SYSTEM_PROMPT = "system_prompt"
"""The subtype of a system message that holds a system prompt: an import has no requests to hold it."""

Unit = tuple[str, str]
"""Step and task. The task of a subagent's message is the id of the tool use that started it, unless it has a task."""


@dataclass(slots=True, eq=False)
class Scope:
    """A run, a step, a task of it, or a session of the Agent SDK. Times are nanoseconds since the epoch.

    `data` is the payload of its first event, `ended` that of its last one. `parent` is None for the run.
    """

    kind: Literal["run", "step", "task", "session"]
    seq: int
    name: str
    parent: "Scope | None"
    started_ns: int
    data: dict[str, Any]
    ended_ns: int = 0
    ended: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Prompt:
    """A text of the user: its content blocks, and the system prompt if it is new in its unit. Each may be empty.

    `earlier` are the messages before it that the run itself does not hold.
    """

    unit: Unit
    at_ns: int
    blocks: list[dict[str, Any]] = field(default_factory=list)
    earlier: list[dict[str, Any]] = field(default_factory=list)
    system: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Said:
    """An answer of the model, or the failure of one. `part` is the innermost part that holds it.

    Of an HTTP exchange, `seq` is its number, `started` and `ended` are its payloads, and `request` is its body. `first_ns` is
    the arrival of the first piece of a stream. Otherwise `exchange` is False, and the payloads are empty. `early` are the tools
    with a result before the answer `is_over`, such as those that the API runs.
    """

    seq: int
    unit: Unit
    part: Scope
    started_ns: int
    exchange: bool = False
    started: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, Any] = field(default_factory=dict)
    first_ns: int | None = None
    ended_ns: int = 0
    blocks: list[dict[str, Any]] = field(default_factory=list)
    message: dict[str, Any] = field(default_factory=dict)
    tools: list["Tool"] = field(default_factory=list)
    early: list["Tool"] = field(default_factory=list)
    is_over: bool = False
    replayed: bool = False

    @property
    def model(self) -> str:
        """The model that answered, or else the one that was asked."""
        return str(self.ended.get("model") or self.message.get("model") or self.request.get("model") or "")

    @property
    def usage(self) -> dict[str, Any]:
        """The reported usage; empty if there is none."""
        return object_or_empty(self.ended.get("usage") if self.exchange else self.message.get("usage"))

    @property
    def stop_reason(self) -> str | None:
        """The reason for which the model stopped, as the API reports it."""
        return self.ended.get("stop_reason") if self.exchange else self.message.get("stop_reason")

    @property
    def failed(self) -> bool:
        """Whether the exchange failed."""
        return self.ended.get("ending") in FAILED

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars, if it is known."""
        cost = self.ended.get("cost_usd")
        return float(cost) if isinstance(cost, int | float) else None


@dataclass(slots=True, eq=False)
class Tool:
    """A use of a tool, and its result. `ended_ns` is None if the run holds no result."""

    answer: Said
    block: dict[str, Any]
    used_ns: int
    ended_ns: int | None = None
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The id of the use."""
        return str(self.block.get("id", ""))

    @property
    def name(self) -> str:
        """The name of the tool."""
        return str(self.block.get("name", ""))

    @property
    def started_ns(self) -> int:
        """The beginning of the tool's work, as far as it is known."""
        end = self.answer.ended_ns
        return end if self.ended_ns is None or self.ended_ns >= end else self.used_ns


Turn = Scope | Prompt | Said | Tool


def turns(log: LogReader, run: str) -> Iterator[Turn]:
    """Yield the turns of a run, each when it ends. Open ones end with the run. Raises LogError."""
    with log.reading() as held:
        fold: _Fold | None = None
        for event in held.events(run, kinds=KINDS):
            if fold is None:
                if event.kind != "run.started":
                    raise LogError(f"run {run} does not begin with its beginning; see `retold verify`.")
                fold = _Fold(held, event)
            else:
                yield from fold.take(event)
        if fold is not None:
            yield from fold.flush()


def key_of(blocks: Iterable[Mapping[str, Any]]) -> str:
    """Return a text by which an answer is recognised in later requests: its texts, and the ids of its tool uses."""
    return "\0".join(str(b.get("text") or b.get("id")) for b in blocks if b.get("type") in ("text", "tool_use"))


class _Fold:
    """The open turns of a run while its events are read."""

    def __init__(self, log: LogReader, first: Event) -> None:
        self._log, self._run_id = log, first.run
        self._log, self._run_id = log, first.run
        self._base_ns = self._now_ns = first.wall_ns - first.t_ns
        data = first.data
        self._run = Scope("run", first.seq, str(data.get("name", "")), None, first.wall_ns, data)
        self._parts: dict[tuple[str, str], Scope] = {}
        self._sessions: dict[int, Scope] = {}
        self._exchanges: dict[int, Said] = {}
        self._lines: dict[tuple[Unit, int | None], Said] = {}
        self._quiet_ns: dict[Unit, int] = {}  # the time of the newest line of a unit
        self._tools: dict[str, Tool] = {}
        self._known: set[Unit] = set()  # units with a request or a prompt
        self._systems: dict[Unit, list[list[dict[str, Any]]]] = {}
        self._said: set[str] = set()  # the answers of the run

    def take(self, event: Event) -> Iterator[Turn]:
        """Take one event, and yield the turns that it ends."""
        data, (family, _, what) = event.data, event.kind.partition(".")
        self._now_ns = self._base_ns + event.t_ns
        match family:
            case "step" | "task":
                yield from self._part(event, data, what)
            case "session":
                yield from self._session(event, data, what)
            case "exchange" | "response":
                yield from self._exchange(event, data)
            case "wire":
                yield from self._sent(event, data)
            case "message":
                yield from self._message(event, data)
            case "run":
                yield from self._close(dict(data))

    def flush(self) -> Iterator[Turn]:
        """End the open turns of a run without an end."""
        if self._run.ended_ns == 0:
            yield from self._close({"status": "interrupted"})

    def _close(self, ended: dict[str, Any]) -> Iterator[Turn]:
        for answer in [*self._exchanges.values(), *self._lines.values()]:
            yield from self._answered(answer)
        yield from self._tools.values()
        for part in [*self._sessions.values(), *reversed(self._parts.values()), self._run]:
            part.ended_ns = self._now_ns
            part.ended = ended if part is self._run else {"status": "interrupted"}
            yield part

    def _at(self, event: Event) -> Scope:
        session = self._sessions.get(event.exchange) if event.exchange is not None else None
        return session or self._parts.get((event.step, event.task)) or self._parts.get((event.step, "")) or self._run

    def _part(self, event: Event, data: dict[str, Any], what: str) -> Iterator[Scope]:
        place = (event.step, event.task)
        if what == "started":
            parent = self._parts.get((event.step, ""), self._run) if event.task else self._run
            kind: Literal["step", "task"] = "task" if event.task else "step"
            self._parts[place] = Scope(kind, event.seq, event.task or event.step, parent, self._now_ns, data)
        elif what == "ended" and (part := self._parts.pop(place, None)) is not None:
            part.ended_ns, part.ended = self._now_ns, data
            yield part

    def _session(self, event: Event, data: dict[str, Any], what: str) -> Iterator[Turn]:
        if what == "started":
            self._sessions[event.seq] = Scope("session", event.seq, "Claude Code", self._at(event), self._now_ns, data)
        elif what == "ended" and event.exchange is not None and (part := self._sessions.get(event.exchange)) is not None:
            for key in [key for key in self._lines if key[1] == event.exchange]:
                yield from self._answered(self._lines.pop(key))
            del self._sessions[event.exchange]
            part.ended_ns, part.ended = self._now_ns, data
            yield part

    def _exchange(self, event: Event, data: dict[str, Any]) -> Iterator[Turn]:
        unit = (event.step, event.task)
        if event.kind == "exchange.started":
            request = request_in(data)
            answer = Said(event.seq, unit, self._at(event), self._now_ns, True, data, request)
            answer.replayed = data.get("stamped") == "replay"
            self._exchanges[event.seq] = answer
            yield from self._asked(answer)
        elif (open_ := self._exchanges.get(event.exchange or 0)) is not None:
            if event.kind == "response.started":
                open_.head = data
                return
            open_.ended = data
            del self._exchanges[open_.seq]
            yield from self._answered(open_)

    def _asked(self, answer: Said) -> Iterator[Turn]:
        """Yield the results of tools that a request holds, and its prompt."""
        messages = answer.request.get("messages")
        said = [each for each in messages if isinstance(each, Mapping)] if isinstance(messages, list) else []
        at = len(said)
        while at and said[at - 1].get("role") == "user":
            at -= 1
        new = [block for message in said[at:] for block in content_blocks(message.get("content"))]
        yield from self._results([block for block in new if block.get("type") == "tool_result"])
        if (answer.started.get("attempt") or 1) > 1:
            return
        blocks = [block for block in new if block.get("type") != "tool_result"]
        earlier = [dict(each) for each in said[:at]] if answer.unit not in self._known else []
        if earlier and key_of(content_blocks(earlier[-1].get("content"))) in self._said:
            earlier = []  # a conversation of an earlier step goes on
        self._known.add(answer.unit)
        if isinstance(prompt := answer.request.get("prompt"), str):  # /v1/complete
            blocks.append({"type": "text", "text": prompt})
        system, known = list(content_blocks(answer.request.get("system"))), self._systems.setdefault(answer.unit, [])
        if not system or system in known:
            system = []
        else:
            known.append(system)
        if blocks or earlier or system:
            yield Prompt(answer.unit, self._now_ns, blocks, earlier, system)

    def _sent(self, event: Event, data: dict[str, Any]) -> Iterator[Turn]:
        if data.get("type") == "user":
            yield from self._user(event, data, (event.step, event.task))

    def _user(self, event: Event, data: dict[str, Any], unit: Unit) -> Iterator[Turn]:
        """Yield the turns of a message of the user: results of tools, and a prompt."""
        if (line := self._lines.pop((unit, event.exchange), None)) is not None:
            yield from self._answered(line)
        blocks = list(blocks_of(data))
        yield from self._results([block for block in blocks if block.get("type") == "tool_result"])
        self._quiet_ns[unit] = self._now_ns
        if said := [block for block in blocks if block.get("type") != "tool_result"]:
            self._known.add(unit)
            yield Prompt(unit, self._now_ns, said)

    def _message(self, event: Event, data: dict[str, Any]) -> Iterator[Turn]:
        of_subagent = data.get("parent_tool_use_id")
        unit = (event.step, event.task or (of_subagent if isinstance(of_subagent, str) else ""))
        answer = self._exchanges.get(event.exchange or 0)
        if data.get("type") == "user":
            yield from self._user(event, data, unit)
        elif (data.get("type"), data.get("subtype")) == ("system", SYSTEM_PROMPT):
            yield Prompt(unit, self._now_ns, system=list(content_blocks(data.get("content"))))
        elif data.get("type") == "assistant":
            inner = object_or_empty(data.get("message"))
            if answer is None:
                key = (unit, event.exchange)
                answer = self._lines.get(key)
                if answer is not None and answer.message.get("id") != inner.get("id"):
                    yield from self._answered(self._lines.pop(key))
                    answer = None
                if answer is None:
                    since_ns = self._quiet_ns.get(unit, self._now_ns)
                    answer = self._lines[key] = Said(event.seq, unit, self._at(event), since_ns)
                self._quiet_ns[unit] = answer.ended_ns = self._now_ns
            answer.message = inner
            for block in blocks_of(data):
                answer.blocks.append(block)
                yield from self._block(answer, block)

    def _block(self, answer: Said, block: dict[str, Any]) -> Iterator[Tool]:
        kind = str(block.get("type", ""))
        if kind.endswith("tool_use"):
            tool = Tool(answer, block, self._now_ns)
            answer.tools.append(tool)
            self._tools[tool.id] = tool
        elif kind.endswith("tool_result"):  # of a tool that the API runs
            yield from self._results([block])

    def _results(self, results: list[dict[str, Any]]) -> Iterator[Tool]:
        for block in results:
            if (tool := self._tools.pop(str(block.get("tool_use_id")), None)) is not None:
                tool.ended_ns, tool.result = self._now_ns, block
                if tool.answer.is_over:
                    yield tool
                else:  # a tool comes after its answer
                    tool.answer.early.append(tool)

    def _answered(self, answer: Said) -> Iterator[Turn]:
        self._said.add(key_of(answer.blocks))
        if answer.exchange:
            answer.ended_ns = self._now_ns
            if answer.head:
                first = next(iter(self._log.store.read(
                    self._run_id, exchange=answer.seq, kinds=("frame", "chunk"), limit=1)), None)  # fmt: skip
                answer.first_ns = None if first is None else self._base_ns + first.t_ns
        answer.is_over = True
        yield answer
        yield from answer.early
