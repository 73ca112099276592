"""The sessions of the Agent SDK in a comparison: one conversation a session, and one for each of its subagents.

The items of a session are its options and the program's requests, such as a new model (`session`), the user's prompts, and the
messages. The working directory and the home folder have the names that a cassette gives them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..recorder.agent_wire import options_of
from ..recorder.cassette.sessions import CWD, HOME
from ..recorder.events import Event
from ..recorder.folders import FolderMap, Folders, pairs_between
from ..recorder.messages import blocks_of
from ..recorder.strict_json import object_or_empty
from .conversations import ConversationBuilder, Item, Label

GOOD = ("complete", "closed")
"""Endings of a session that are no item."""

KINDS = ("session.started", "wire.sent", "session.ended")
"""The kinds of events that are read, besides messages."""


class AgentConversations:
    """The sessions of one run. `begin` begins a conversation."""

    def __init__(self, begin: Callable[[Label], ConversationBuilder]) -> None:
        self._begin = begin
        self._folders: dict[int, FolderMap] = {}
        self._conversations: dict[tuple[int, int], ConversationBuilder] = {}

    def __contains__(self, session: int | None) -> bool:
        return session in self._folders

    def event(self, event: Event) -> list[Item]:
        """Take an event that is no message. Return the items that it adds."""
        data = event.data
        if event.kind == "session.started":
            self._folders[event.seq] = FolderMap(pairs_between(Folders(data["cwd"], data["home"]), Folders(CWD, HOME)))
            options = {"options": options_of(self._in_folders(event.seq, list(data.get("argv") or ())))}
            return [self._conversation(event).other({"type": "session", **options}, seq=event.seq, t_ns=event.t_ns)]
        if event.exchange not in self._folders:
            return []
        if event.kind == "wire.sent":
            return self._sent(event, self._in_folders(event.exchange, data))
        if data["ending"] not in GOOD:
            value = {"model": None, "stop_reason": None, "ending": data["ending"], "error": data.get("error")}
            conversation = self._conversation(event)
            conversation.answer(conversation.turn, value, seq=event.seq, t_ns=event.t_ns)
        return []

    def message(self, session: int, data: Mapping[str, Any], label: Label) -> tuple[ConversationBuilder, Mapping[str, Any]]:
        """Return the conversation of a message, and the message with the names of the folders."""
        return self._of(session, label), self._in_folders(session, data)

    def _sent(self, event: Event, line: dict[str, Any]) -> list[Item]:
        conversation, place = self._conversation(event), {"seq": event.seq, "t_ns": event.t_ns}
        if line.get("type") == "user":
            found = []
            for block in blocks_of(line):
                found.append(conversation.other({"type": "prompt", "content": [block]}, **place))
                conversation.root = conversation.root or found[0].key
            return found
        asked = object_or_empty(line.get("request"))
        if line.get("type") == "control_request" and asked.get("subtype") != "initialize":
            return [conversation.other({"type": "session", "request": asked}, **place)]
        return []

    def _conversation(self, event: Event) -> ConversationBuilder:
        return self._of(event.exchange or 0, Label(event.step, event.task))

    def _of(self, session: int, label: Label) -> ConversationBuilder:
        key = session, label.agent
        if key not in self._conversations:
            self._conversations[key] = self._begin(label)
        return self._conversations[key]

    def _in_folders(self, session: int, value: Any) -> Any:
        folders = self._folders[session]
        return folders.value(value) if folders else value
