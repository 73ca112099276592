"""Follow the threads of a run: a request that continues an answer becomes a request with its whole history.

The conversation then has the same items as if its client had repeated everything. Only the field
`thread` of its first request is left as a difference. Ids that the server gave and a later request repeats become names, because
they change in every run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..recorder.http.threads import Histories, previous_id, turn_of
from ..recorder.messages import blocks_of
from ..recorder.strict_json import object_or_empty
from .conversations import ConversationBuilder


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
