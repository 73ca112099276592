"""The sessions of Managed Agents in a comparison: one conversation a session, and one for each thread of a subagent.

The items of a session are the request that created it and the messages of its events, sent ones included. Reading the events is
no item, because it does not change the session: a client may stream them, list them, or reconnect. An answer with an error, or a
stream that was cut, is one.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..recorder.events import Event
from ..recorder.http.refold import RecordedAnswer
from ..recorder.http.sessions import SessionPath, session_path
from ..recorder.messages import blocks_of
from ..recorder.strict_json import object_in, object_or_empty
from .conversations import ConversationBuilder, Item, Label

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
        self._prompted: set[ConversationBuilder] = set()

    def __contains__(self, exchange: int | None) -> bool:
        return exchange in self._paths

    def started(self, event: Event, path: str, body: Mapping[str, Any]) -> list[Item] | None:
        """Take a request. Return the items that it adds, or None if it does not belong to a session."""
        found = session_path(path)
        if found is None:
            return None
        self._paths[event.seq] = found
        if event.data["method"].upper() == "POST" and not found.session:
            conversation = self._created[event.seq] = self._begin(Label(event.step, event.task))
            conversation.next_turn()
            return conversation.request({"request": f"POST {path}"} | dict(body), [], 0, seq=event.seq, t_ns=event.t_ns)
        return []

    def message(self, exchange: int, data: Mapping[str, Any], label: Label, seq: int | None, t_ns: int | None) -> None:
        """Take a message that an exchange of a session brought."""
        conversation = self._conversation(self._paths[exchange], data, label)
        if data.get("type") == "assistant":
            for block in blocks_of(data):
                conversation.block(conversation.turn, block, incomplete=bool(data.get("incomplete")), seq=seq, t_ns=t_ns)
        elif data.get("type") == "user":
            self._user(conversation, data, seq, t_ns)
        else:
            conversation.other(data, seq=seq, t_ns=t_ns)

    def ended(self, event: Event, answer: Callable[[Event], RecordedAnswer], error: dict[str, Any] | None) -> None:
        """Take the end of an exchange of a session, and the error of its answer if it has one."""
        exchange = event.exchange or 0
        found, data = self._paths[exchange], event.data
        conversation = self._created.pop(exchange, None)
        if conversation is not None:
            self._conversations[str(object_in(answer(event).body).get("id")), ""] = conversation
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

    def _user(self, conversation: ConversationBuilder, data: Mapping[str, Any], seq: int | None, t_ns: int | None) -> None:
        """Add a message of the user, which begins a turn if it is a prompt."""
        if any(block.get("type") != "tool_result" for block in blocks_of(data)):
            self.prompts += 1
            if conversation in self._prompted:
                conversation.next_turn()
            self._prompted.add(conversation)
        message = object_or_empty(data.get("message"))
        conversation.request(conversation.options or {}, [message], 0, seq=seq, t_ns=t_ns)
