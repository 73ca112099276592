"""The sessions of Managed Agents in a comparison: one conversation a session, and one for each thread of a subagent.

The items of a session are the request that created it, the prompts and results that were sent, and the messages of its events.
Reading the events is no item, because it does not change the session: a client may stream them, list them, or reconnect. An
answer with an error, or a stream that was cut, is one. The API repeats sent events in its answers; they count once.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..recorder.events import Event
from ..recorder.http.refold import REFOLDED, body_of
from ..recorder.http.sessions import SessionFold, SessionPath, is_session_event, session_path
from ..recorder.log.log import EventLog
from ..recorder.messages import Session, blocks_of
from ..recorder.strict_json import object_in, object_or_empty
from .conversations import ConversationBuilder, Item, Label, key_of

GOOD = ("complete", "closed")
"""Endings of an exchange that are no item of a session."""

Begin = Callable[[Label], ConversationBuilder]
"""Begins a conversation."""


class Sessions:
    """The sessions of one run. `begin` begins a conversation, `agent` returns the number of a subagent by its thread."""

    def __init__(self, begin: Begin, agent: Callable[[str], int]) -> None:
        self.prompts = 0
        self._begin = begin
        self._agent = agent
        self._paths: dict[int, SessionPath] = {}
        self._created: dict[int, ConversationBuilder] = {}
        self._conversations: dict[tuple[str, str], ConversationBuilder] = {}
        self._sent: dict[ConversationBuilder, Counter[str]] = {}
        self._prompted: set[ConversationBuilder] = set()

    def __contains__(self, exchange: int | None) -> bool:
        return exchange in self._paths

    def started(self, event: Event, path: str, body: Mapping[str, Any]) -> list[Item] | None:
        """Take a request. Return the items that it adds, or None if it does not belong to a session."""
        found = session_path(path)
        if found is None:
            return None
        self._paths[event.seq] = found
        if event.data["method"].upper() != "POST":
            return []
        if not found.session:
            conversation = self._created[event.seq] = self._begin(Label(event.step, event.task))
            conversation.next_turn()
            return conversation.request({"request": f"POST {path}"} | dict(body), [], 0, seq=event.seq, t_ns=event.t_ns)
        items: list[Item] = []
        events = body.get("events") if found.has_events else None
        for message in _messages(events if isinstance(events, list) else []):
            conversation = self._conversation(found, message, Label(event.step, event.task))
            items += self._user(conversation, message, event.seq, event.t_ns)
            self._sent.setdefault(conversation, Counter())[_key(message)] += 1
        return items

    def message(self, exchange: int, data: Mapping[str, Any], label: Label, seq: int | None, t_ns: int | None) -> None:
        """Take a message that an exchange of a session brought."""
        conversation = self._conversation(self._paths[exchange], data, label)
        sent = self._sent.setdefault(conversation, Counter())
        if data.get("type") != "assistant" and sent[_key(data)]:
            sent[_key(data)] -= 1
        elif data.get("type") == "assistant":
            for block in blocks_of(data):
                conversation.block(conversation.turn, block, incomplete=bool(data.get("incomplete")), seq=seq, t_ns=t_ns)
        else:
            self._user(conversation, data, seq, t_ns)

    def ended(self, event: Event, log: EventLog, error: dict[str, Any] | None) -> None:
        """Take the end of an exchange of a session, and the error of its answer if it has one."""
        exchange = event.exchange or 0
        found, data = self._paths[exchange], event.data
        conversation = self._created.pop(exchange, None)
        if conversation is not None:
            body = body_of(log.events(event.run, exchange=exchange, kinds=REFOLDED))
            self._conversations[str(object_in(body).get("id")), ""] = conversation
        if data["ending"] in GOOD:
            return
        value = {"model": None, "stop_reason": data.get("stop_reason"), "ending": data["ending"], "error": error}
        value |= {"status": data["status"]} if (data.get("status") or 200) >= 400 else {}
        conversation = conversation or self._conversation(found, {}, Label(event.step, event.task))
        conversation.answer(conversation.turn, value, seq=event.seq, t_ns=event.t_ns)

    def _conversation(self, found: SessionPath, data: Mapping[str, Any], label: Label) -> ConversationBuilder:
        thread = str(data.get("session_thread_id") or found.thread)
        conversation = self._conversations.get((found.session, thread))
        if conversation is None:
            agent = self._agent(thread) if thread else 0
            conversation = self._conversations[found.session, thread] = self._begin(label._replace(agent=agent))
            conversation.options = {}
            conversation.next_turn()
        return conversation

    def _user(
        self, conversation: ConversationBuilder, data: Mapping[str, Any], seq: int | None, t_ns: int | None
    ) -> list[Item]:  # fmt: skip
        """Add a message of the user, which begins a turn if it is a prompt, or a message of the session."""
        if data.get("type") != "user":
            conversation.other(data, seq=seq, t_ns=t_ns)
            return []
        if any(block.get("type") != "tool_result" for block in blocks_of(data)):
            self.prompts += 1
            if conversation in self._prompted:
                conversation.next_turn()
            self._prompted.add(conversation)
        message = object_or_empty(data.get("message"))
        return conversation.request(conversation.options or {}, [message], 0, seq=seq, t_ns=t_ns)


def _messages(sent: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages of events as a client sends them, which have no ids yet."""
    fold = SessionFold(Session("sent"))
    for event in sent:
        if is_session_event(event):
            yield from fold.feed(event)


def _key(data: Mapping[str, Any]) -> str:
    """Return a text that a sent message and its repetition by the API share."""
    kind = str(data.get("type"))
    if kind == "user":
        return key_of(kind, object_or_empty(data.get("message")).get("content"))
    ignored = ("id", "uuid", "session_id", "processed_at")
    return key_of(kind, {name: value for name, value in data.items() if name not in ignored and value is not None})
