"""The facts of a run that expectations are about."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class TableRow(NamedTuple):
    """One row of a run's table: the conversation, the turn (0 for none), the kind of the item, its content, and its event."""

    place: str
    turn: int
    what: str
    content: str
    seq: int | None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of the model. `result` and `is_error` are None if the recording has no result of it.

    `conversation` is empty for the main one. `row` is its place in the table of the run.
    """

    name: str
    input: dict[str, Any]
    turn: int
    conversation: str
    row: int = field(compare=False)
    result: str | None
    is_error: bool | None

    def as_dict(self) -> dict[str, Any]:
        """Return the call as JSON."""
        found = {"name": self.name, "input": self.input, "turn": self.turn, "conversation": self.conversation}
        return found | {"result": self.result, "is_error": self.is_error}


@dataclass(frozen=True)
class Facts:
    """The facts of a run or of a step.

    `conversations` are their names and the words for their ends, `run_ended` is the word for the end of the run. `rows` are its
    table; the last row is its end. `unknown` is why the tokens and the cost are incomplete, or an empty text.
    """

    title: str
    calls: tuple[ToolCall, ...]
    turns: int
    texts: tuple[str, ...]
    conversations: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[TableRow, ...]
    run_ended: tuple[str, ...] = ()
    tokens: int | None = None
    cost_usd: float | None = None
    unknown: str = ""
    steps: Mapping[str, "Facts"] = field(default_factory=dict)

    @property
    def ended(self) -> tuple[str, ...]:
        """The words for the end: of the run and of its conversations, each once."""
        return tuple(dict.fromkeys([*self.run_ended, *(word for _, words in self.conversations for word in words)]))
