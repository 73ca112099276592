"""One side of a comparison: the streams and totals of a run in the log, or of messages from another source.

Only events about messages are read from the log, not frames, so a run of 100,000 frames costs as much as its messages. Volatile
values that a workflow put into its prompts (`variables` of an exchange) are replaced by their names on both sides.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..recorder.cassette.exchanges import Shared
from ..recorder.cassette.folding import FoldedExchanges, Recorded
from ..recorder.cassette.kept import NOTHING_KEPT, Kept
from ..recorder.cassette.transfer import kept_in
from ..recorder.events import Event
from ..recorder.http.platforms import messages_request
from ..recorder.http.refold import REFOLDED, RecordedAnswer
from ..recorder.interrupted import events_of
from ..recorder.log.log import EventLog
from ..recorder.log.origin import Origin
from ..recorder.messages import blocks_of
from ..replay.matching.rules import path
from . import agent_sessions
from .continuing import Conversations, Threads
from .conversations import ConversationBuilder, Item, Label, Stream, Texts, body_key, text_content
from .lines import Said, said_in
from .sessions import Sessions
from .totals import Sums
from .varying import OWN_MANNER, PLAIN, Manner, Varying

READ_KINDS = ("run.started", "exchange.started", "message", "exchange.ended", "run.ended", *agent_sessions.KINDS)

MESSAGES = "POST /v1/messages"
"""The request of a turn."""

SAID = frozenset({"system", "assistant", "user", "result"})
"""Types of lines of a session's file that are messages."""

Progress = Callable[[int], None]

Answers = Callable[[Event], RecordedAnswer]
"""Returns the answer of the exchange that an event belongs to."""


@dataclass(frozen=True, slots=True)
class Side:
    """A recording that was read. A total is None if the recording lacks it.

    `kept` are the rules that the recording keeps, and `has_folders` is whether its requests give the folders of their program.
    A run of a log has its id in `run`, its status, and if it is a fork, in `fork` its origin and its first exchange of its own.
    """

    title: str
    streams: tuple[Stream, ...]
    totals: dict[str, float | None]
    source: str = ""
    kept: Kept = NOTHING_KEPT
    has_folders: bool = False
    run: str = ""
    status: str = ""
    fork: tuple[Origin, int] | None = None

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of items that occur."""
        return frozenset[str]().union(*(stream.kinds for stream in self.streams))


@dataclass(frozen=True, slots=True)
class Common:
    """The parts that the sides of a comparison have in common, so that each is read once."""

    texts: Texts = field(default_factory=dict)
    exchanges: Shared = field(default_factory=dict)


def read_run(
    log: EventLog, run: str, *, title: str = "", progress: Progress = lambda _: None, manner: Manner = OWN_MANNER
) -> Side:  # fmt: skip
    """Read a run as a side of a comparison. `progress` is called with the number of events read. Raise LogError."""
    answers = answers_in(log)
    varying = Varying(names_in(log.events(run, kinds=("exchange.started",))), manner, kept_in(log, run))
    reader = ItemReader(varying)
    _feed(reader, events_of(log, run, READ_KINDS), answers, progress)
    first = reader.first_exchange
    if first is not None and reader.ttft_ms is None:
        frame = next(log.events(run, exchange=first.seq, kinds=("frame", "chunk")), None)
        reader.ttft_ms = None if frame is None else (frame.t_ns - first.t_ns) / 1e6
    return reader.side(title or run, f"{log.path}:{run}")


def read_exchanges(
    exchanges: Iterable[Recorded], *, title: str, progress: Progress = lambda _: None, manner: Manner = OWN_MANNER,
    kept: Kept = NOTHING_KEPT,
) -> Side:  # fmt: skip
    """Return the exchanges and sessions of a cassette as a side of a comparison, equal to the side of their import."""
    folded = FoldedExchanges(exchanges)
    names = names_in(event for event in folded.events if event.kind == "exchange.started")
    reader = ItemReader(Varying(names, manner, kept))
    _feed(reader, folded.events, folded.answer, progress)
    if reader.first_exchange is not None:
        first_ns = folded.first_piece_ns(reader.first_exchange)
        reader.ttft_ms = None if first_ns is None else first_ns / 1e6
    return reader.side(title, title)


def answers_in(log: EventLog) -> Answers:
    """Return the function that reads the answers of a log."""
    return lambda event: RecordedAnswer.of_events(log.events(event.run, exchange=event.exchange, kinds=REFOLDED))


def _feed(reader: "ItemReader", events: Iterable[Event], answers: Answers, progress: Progress) -> None:
    for count, event in enumerate(events, 1):
        reader.event(event, answers)
        progress(count)


def read_messages(
    messages: Iterable[Mapping[str, Any] | Said], *, title: str, source: str = "", progress: Progress = lambda _: None,
    common: Common | None = None,
) -> Side:  # fmt: skip
    """Return messages in the shapes of stream-json as a side of a comparison."""
    reader = ItemReader()
    reader.read(messages, (common or Common()).texts, progress)
    return reader.side(title, source)


def names_in(started: Iterable[Event]) -> dict[str, str]:
    """Return the names of the volatile values that requests have, by value."""
    names: dict[str, str] = {}
    for event in started:
        if b'"variables":{}' not in event.payload:
            names |= {value: name for name, value in event.data["variables"].items() if value}
    return names


class ItemReader:
    """Builds conversations from events in the order of the log. Without `varying` everything is read as it is."""

    def __init__(self, varying: Varying | None = None) -> None:
        self.first_exchange: Event | None = None
        self.ttft_ms: float | None = None
        self.asked_model: str | None = None
        self._varying = varying or Varying({}, PLAIN)
        self._conversations = Conversations()
        self._of_exchange: dict[int, tuple[ConversationBuilder, int, Event]] = {}
        self._agents: dict[str, int] = {}
        self._threads = Threads()
        # Few recordings have sessions: both are None until the first one.
        self._sessions: Sessions | None = None
        self._agent_sessions: agent_sessions.AgentConversations | None = None
        self._sums = Sums()
        self._span_ns = [0, 0]

    def event(self, event: Event, answer: Answers) -> list[Item]:
        """Add the next event of a run. Return the items of a request that no earlier request contained."""
        match event.kind:
            case "exchange.started":
                return self._exchange(event)
            case "message":
                self.message(event.data, event.seq, event.t_ns, event.exchange, event.step, event.task)
            case "exchange.ended" if event.exchange in self._of_exchange:
                self._ended(event, answer)
            case "exchange.ended" if self._sessions is not None and event.exchange in self._sessions:
                ended = event.data
                self._sessions.ended(event, answer, _error_at(event, ended, answer))
                self._spent(event, ended)
            case "session.started" | "wire.sent" | "session.ended":
                if self._agent_sessions is None:
                    self._agent_sessions = agent_sessions.AgentConversations(self._conversations.new)
                return self._agent_sessions.event(event)
            case "run.ended":
                for seq in list(self._of_exchange):
                    self._interrupted(seq)
        return []

    def _exchange(self, event: Event) -> list[Item]:
        data = event.data
        if self.first_exchange is None:
            self.first_exchange, self._span_ns[0] = event, event.t_ns
        raw = self._varying.body(data)
        whole = messages_request(data["uri"], raw) if "/model" in data["uri"] else None
        where = f"{data['method'].upper()} {named_path(data['uri']) if whole is None else whole.path}"
        sent = _object(raw) if whole is None else whole.body
        self.asked_model = model if isinstance(model := sent.get("model"), str) else None
        if "/sessions" in data["uri"]:
            self._sessions = self._sessions or Sessions(self._conversations.new, self._agent_of)
            if (items := self._sessions.started(event, path(data["uri"]), sent)) is not None:
                return items
        body = self._threads.whole(event.seq, sent)
        messages = [message for message in body.get("messages") or () if isinstance(message, dict)]
        conversation, branches = self._threads.continued(sent) if where == MESSAGES else (None, False)
        if conversation is None or conversation.label != Label(event.step, event.task):
            root = Item.of(where, {"first": self._varying.first(body, messages)}, 0).key
            conversation = self._going_on(event, root, messages, data["attempt"], branches=branches)
        turn = conversation.turn if data["attempt"] > 1 and conversation.turn else conversation.next_turn()
        self._of_exchange[event.seq] = conversation, turn, event
        # Each request of a long conversation contains all earlier messages; only the new and the edited ones are examined.
        old, edited = conversation.edited(messages)
        conversation.tail, conversation.messages = messages[-1:], messages
        asked = self._varying.meaning(data, body | {"messages": old + edited + messages[conversation.asked :]})
        options = {key: value for key, value in asked.items() if key not in ("messages", "stream")}
        options = self._threads.named(options, conversation)
        if where != MESSAGES:
            options = {"request": where} | options
        said, n = asked["messages"], len(edited)
        changed = said[:n], said[n : 2 * n]
        items = conversation.request(options, said[2 * n :], len(messages), edited=changed, seq=event.seq, t_ns=event.t_ns)
        self._conversations.asked(conversation)
        return items

    def _going_on(
        self, event: Event, root: str, messages: list[dict[str, Any]], attempt: int, *, branches: bool = False
    ) -> ConversationBuilder:  # fmt: skip
        """Return the conversation that a request continues, or a new one. A request that branches off begins a new one."""
        label = Label(event.step, event.task)
        if not branches:
            found = self._conversations.continued(label, root, messages, again=attempt > 1)
            if found is not None:
                return found
        return self._conversations.new(label, root)

    def placed(self, exchange: int) -> tuple[ConversationBuilder, int] | None:
        """Return the conversation and the turn of an exchange that has not ended; None if it belongs to a session."""
        found = self._of_exchange.get(exchange)
        return None if found is None else found[:2]

    def message(
        self, data: Mapping[str, Any], seq: int | None, t_ns: int | None, exchange: int | None, step: str, task: str
    ) -> None:
        """Add the next message."""
        kind = data.get("type")
        if kind == "stream_event":  # part of a message that follows complete
            return
        if "sessionId" in data and kind not in SAID:  # other lines that Claude Code writes into a session's file
            return
        if kind == "assistant":
            self._threads.answered(exchange, data)
        data = self._varying.value(data)
        if exchange is not None and self._sessions is not None and exchange in self._sessions:
            self._sessions.message(exchange, data, Label(step, task), seq, t_ns)
            return
        if exchange in self._of_exchange and kind == "assistant":
            conversation, turn, _ = self._of_exchange[exchange]
            self._blocks(conversation, turn, data, seq, t_ns)
            return
        label = Label(step, task, self._agent(data))
        if exchange is not None and self._agent_sessions is not None and exchange in self._agent_sessions:
            conversation, data = self._agent_sessions.message(exchange, data, label)
        else:
            conversation = self._place(data, label)
        if kind == "assistant":
            self._blocks(conversation, self._turn_of(conversation, data), data, seq, t_ns)
        elif kind == "user":
            self._user(conversation, data, seq, t_ns)
        else:
            if kind == "result":
                self._sums.result(data)
                if self.ttft_ms is None and isinstance(data.get("ttft_ms"), int | float):
                    self.ttft_ms = data["ttft_ms"]
            conversation.other(data, seq=seq, t_ns=t_ns)

    def read(self, messages: Iterable[Mapping[str, Any] | Said], texts: Texts, progress: Progress) -> None:
        """Add the messages of a recording without exchanges. `texts` are those of messages that were read before."""
        count, main, known = 0, None, texts.get
        for count, data in enumerate(messages, 1):
            if isinstance(data, tuple):
                said: Said | None = data
            elif (said := said_in(data)) is None:
                self.message(data, None, None, None, "", "")
            if said is not None:
                # `message` would do the same, in three times the time, and a long session consists of such messages.
                main, (id_, text) = main or self._place({}, Label()), said
                main.text(id_, known(text) or texts.setdefault(text, text_content(text)))
            if not count & 255:
                progress(count)
        progress(count)

    def _agent(self, data: Mapping[str, Any]) -> int:
        parent = data.get("parent_tool_use_id") or (data.get("agentId") if data.get("isSidechain") else None)
        return 0 if parent is None else self._agent_of(str(parent))

    def _agent_of(self, name: str) -> int:
        return self._agents.setdefault(name, len(self._agents) + 1)

    def _place(self, data: Mapping[str, Any], label: Label) -> ConversationBuilder:
        """Return the conversation of a message that no exchange brought.

        A tool result belongs to the conversation of its tool use, any other message to the latest conversation of its step.
        """
        uses = {block.get("tool_use_id") for block in blocks_of(data)} if data.get("type") == "user" else set()
        return self._conversations.of_result(label, uses) or self._conversations.new(label)

    def _turn_of(self, conversation: ConversationBuilder, data: Mapping[str, Any]) -> int:
        """Return the turn of an answer. Lines of one answer share the id of its message."""
        known = str((data.get("message") or {}).get("id"))
        if known not in conversation.turn_of:
            conversation.turn_of[known] = conversation.next_turn()
        return conversation.turn_of[known]

    def _blocks(
        self, conversation: ConversationBuilder, turn: int, data: Mapping[str, Any], seq: int | None, t_ns: int | None
    ) -> None:  # fmt: skip
        for block in blocks_of(data):
            conversation.block(turn, block, incomplete=bool(data.get("incomplete")), seq=seq, t_ns=t_ns)

    def _user(self, conversation: ConversationBuilder, data: Mapping[str, Any], seq: int | None, t_ns: int | None) -> None:
        for block in blocks_of(data):
            if block.get("type") == "tool_result":
                conversation.tool_result(block, seq=seq, t_ns=t_ns)
            else:
                conversation.other({"type": "prompt", "content": [block]}, seq=seq, t_ns=t_ns)

    def _ended(self, event: Event, answer: Answers) -> None:
        conversation, turn, started = self._of_exchange.pop(event.exchange or 0)
        data = event.data
        value = {key: data.get(key) for key in ("model", "stop_reason", "ending")}
        if (error := _error_at(event, data, answer)) is not None:
            value["error"] = error
        if (data.get("status") or 200) >= 400:
            value["status"] = data["status"]
        if data["ending"] == "complete" and data.get("model") is None:  # not a message: count_tokens, a list of models
            value["body_sha256"] = body_key(answer(event).body)
        volatile = {"message_id": data.get("message_id"), "duration_ms": (event.t_ns - started.t_ns) / 1e6}
        conversation.answer(turn, value | volatile, seq=event.seq, t_ns=event.t_ns)
        self._threads.ended(started.seq, data.get("message_id"), conversation)
        self._conversations.ended(conversation, failed=data["ending"] != "complete")
        self._sums.turn(data["ending"])
        self._spent(event, data)

    def _spent(self, event: Event, ended: Mapping[str, Any]) -> None:
        """Add the time and the usage of an exchange that ended."""
        self._span_ns[1] = max(self._span_ns[1], event.t_ns)
        self._sums.spent(ended)

    def _interrupted(self, seq: int) -> None:
        conversation, turn, started = self._of_exchange.pop(seq)
        value = {"model": None, "stop_reason": None, "ending": "interrupted"}
        conversation.answer(turn, value, seq=started.seq, t_ns=started.t_ns)

    def totals(self) -> dict[str, float | None]:
        """Return the totals. If the exchanges lack one, the session results provide it."""
        found = self._sums.totals(prompts=self._sessions.prompts if self._sessions is not None else 0)
        if found["duration_ms"] is None and self.first_exchange is not None:
            found["duration_ms"] = (self._span_ns[1] - self._span_ns[0]) / 1e6
        return found | {"ttft_ms": self.ttft_ms}

    def side(self, title: str, source: str) -> Side:
        """Return what was read."""
        return Side(title, self.streams(), self.totals(), source, self._varying.kept, self._varying.has_folders)

    def streams(self) -> tuple[Stream, ...]:
        """Return the conversations, in the order in which they began."""
        for seq in list(self._of_exchange):
            self._interrupted(seq)
        return tuple(conversation.stream() for conversation in self._conversations.all)


_ID = re.compile(r"(?<=/)[a-z]{2,}_\d[A-Za-z0-9]*(?=/|$)")


def named_path(uri: str) -> str:
    """Return the path of a request with a name in place of the ids in it: `/v1/files/{id}`. The server gave them."""
    return _ID.sub("{id}", path(uri))


def _object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request. Any other body is returned as text in an object."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"body": body.decode("utf-8", "backslashreplace")}


def _error_at(event: Event, ended: Mapping[str, Any], answer: Answers) -> dict[str, Any] | None:
    return error_of(answer(event)) if ended["ending"] in ("error_event", "http_error") else None


def error_of(answer: RecordedAnswer) -> dict[str, Any] | None:
    """Return the error of an answer that ended in one. Only such answers are folded a second time."""
    # The error is in the frames of a stream, or in the plain body of a refused call.
    error = answer.fold().error
    return None if error is None else {key: value for key, value in error.items() if key != "details"}
