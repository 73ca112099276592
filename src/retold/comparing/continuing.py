"""The conversations of one side: found by the request that continues them, or by the tool use that a result answers.

The search does not depend on the number of conversations, except for those that failed.

A request of a message thread names the answer that it continues. It becomes a request with its whole history, so the conversation
has the same items as if its client had repeated everything. Only the field `thread` of its first request is left as a difference.
Ids that the server gave and a later request repeats become names, because they change in every run.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..recorder.http.threads import Histories, previous_id, turn_of
from ..recorder.messages import blocks_of
from ..recorder.strict_json import object_or_empty
from .conversations import ConversationBuilder, Item, Label

_Group = dict[tuple[int, str | None], list[int]]
"""Numbers of conversations in order, by the count of their messages and the key of the last one (None: of any key)."""


class Conversations:
    """All conversations, in the order in which they began."""

    def __init__(self) -> None:
        self.all: list[ConversationBuilder] = []
        self._of_label: defaultdict[Label, list[ConversationBuilder]] = defaultdict(list)
        self._rootless: defaultdict[Label, list[int]] = defaultdict(list)
        self._groups: defaultdict[tuple[Label, str], _Group] = defaultdict(dict)
        self._places: dict[int, tuple[_Group, int, str]] = {}
        self._users: dict[tuple[Label, str], int] = {}
        self._failed: dict[ConversationBuilder, None] = {}

    def new(self, label: Label, root: str = "") -> ConversationBuilder:
        """Begin a conversation. Without a root it takes the root of the first request that continues it."""
        number = len(self.all)
        conversation = ConversationBuilder(label, number, self._users)
        conversation.root = root
        self.all.append(conversation)
        self._of_label[label].append(conversation)
        if not root:
            self._rootless[label].append(number)
        return conversation

    def asked(self, conversation: ConversationBuilder) -> None:
        """Note that the number of messages, or the last message, of a conversation with a root has changed."""
        number, tail = conversation.number, key_of_tail(conversation.tail)
        if number in self._places:
            group, count, known = self._places[number]
            for key in ((count, known), (count, None)):
                del group[key][bisect_left(group[key], number)]
                if not group[key]:
                    del group[key]
        group = self._groups[conversation.label, conversation.root]
        self._places[number] = group, conversation.asked, tail
        for key in ((conversation.asked, tail), (conversation.asked, None)):
            insort(group.setdefault(key, []), number)

    def ended(self, conversation: ConversationBuilder, *, failed: bool) -> None:
        """Note whether the last exchange of a conversation failed."""
        if failed:
            self._failed[conversation] = None
        else:
            self._failed.pop(conversation, None)

    def continued(
        self, label: Label, root: str, messages: list[dict[str, Any]], *, again: bool
    ) -> ConversationBuilder | None:  # fmt: skip
        """Return the conversation that a request with these messages continues, or None.

        Of conversations that begin alike, a request continues the one whose last prompt it repeats, else the newest one. `again`:
        the request is a retry, which has as many messages as the request before it. So has a repetition after a failure.
        """
        count, group = len(messages), self._groups.get((label, root), {})
        found: list[int] = []
        same: list[int] = []
        for asked in {asked for asked, _ in group if asked < count or (again and asked == count)}:
            found.append(group[asked, None][-1])
            tail = key_of_tail(messages[max(0, asked - 1) : asked])
            same += group.get((asked, tail), [])[-1:]
        for conversation in self._failed:
            if conversation.label == label and conversation.root == root and conversation.asked == count:
                found.append(conversation.number)
                if key_of_tail(conversation.tail) == key_of_tail(messages[max(0, count - 1) :]):
                    same.append(conversation.number)
        rootless = self._rootless[label]
        if rootless and rootless[-1] > max(found, default=-1):  # it holds only messages so far, such as init
            conversation = self.all[rootless.pop()]
            conversation.root = root
            return conversation
        return self.all[max(same or found)] if found else None

    def of_result(self, label: Label, uses: set[Any]) -> ConversationBuilder | None:
        """Return the newest conversation of a label with one of the tool uses, else its newest one, else None."""
        users = [self._users[label, use] for use in uses if (label, use) in self._users]
        if users:
            return self.all[max(users)]
        return self._of_label[label][-1] if self._of_label[label] else None


def key_of_tail(messages: list[dict[str, Any]]) -> str:
    """Return a digest of the last message of a request, given as a list of at most one."""
    return Item.of("tail", {"messages": messages}, 0).key


@dataclass(slots=True)
class _Asked:
    """A request of a thread that is not answered yet, and the blocks of its answer."""

    body: Mapping[str, Any]
    blocks: list[dict[str, Any]] = field(default_factory=list)


class Threads:
    """The threads of one run, and the conversation that each answer ended."""

    def __init__(self) -> None:
        self._asked: dict[int, _Asked] = {}
        self._ended: dict[str, ConversationBuilder] = {}
        self._last: dict[ConversationBuilder, str] = {}

    @cached_property
    def _histories(self) -> Histories:
        return Histories()

    def whole(self, exchange: int, body: dict[str, Any]) -> dict[str, Any]:
        """Return the request of an exchange with its whole history. `thread` has the same value in each turn of a thread."""
        if "thread" not in body or turn_of(body) is None:
            return body
        self._asked[exchange] = _Asked(body)
        whole = self._histories.whole(body)
        if whole is None:  # the thread began in another run
            return body | {"thread": {"type": "continue"}}
        return whole | {"thread": {"type": "create"}}

    def continued(self, body: Mapping[str, Any]) -> tuple[ConversationBuilder | None, bool]:
        """Return the conversation that a request continues, if any, and whether it branches off before its last answer."""
        previous = previous_id(body) if "thread" in body else None
        conversation = None if previous is None else self._ended.get(previous)
        if conversation is None or self._last[conversation] == previous:
            return conversation, False
        return None, True

    def answered(self, exchange: int | None, message: Mapping[str, Any]) -> None:
        """Take a message of the answer to an exchange."""
        if exchange in self._asked:
            self._asked[exchange].blocks += blocks_of(message)

    def ended(self, exchange: int, message_id: object, conversation: ConversationBuilder) -> None:
        """Take the end of an exchange and the id of its answer, which is the last one of its conversation now."""
        asked = self._asked.pop(exchange, None)
        if isinstance(message_id, str):
            self._ended[message_id], self._last[conversation] = conversation, message_id
            if asked is not None:
                self._histories.hold(message_id, asked.body, asked.blocks)

    def named(self, options: dict[str, Any], conversation: ConversationBuilder) -> dict[str, Any]:
        """Return the options of a request with names in place of the ids and tokens that the server gave."""
        options = dict(options)
        diagnostics = object_or_empty(options.get("diagnostics"))
        previous = diagnostics.get("previous_message_id")
        if isinstance(previous, str) and previous in self._ended:
            name = "{{last answer}}" if self._last.get(conversation) == previous else "{{earlier answer}}"
            options["diagnostics"] = diagnostics | {"previous_message_id": name}
        container = options.get("container")
        if isinstance(container, str):
            options["container"] = "{{container}}"
        elif isinstance(container, dict) and container.get("id") is not None:
            options["container"] = container | {"id": "{{container}}"}
        if (token := options.get("fallback_credit_token")) is not None:
            mode = object_or_empty(token)
            options["fallback_credit_token"] = mode | {"token": "{{token}}"} if mode else "{{token}}"
        return options
