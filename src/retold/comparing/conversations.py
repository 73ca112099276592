"""Streams of items: the content of a recording, one stream a conversation, in an order that does not depend on arrival.

An item is the unit of comparison: a prompt, one content block of an answer, a tool result, the options of a request
(`request`), the ending of an answer (`answer`), or a message of the session (`init`, `result`, `system`). `value` holds the
parts that count. `volatile` holds ids, times and signatures, which change in every run.

A stream is one conversation. A request that continues an earlier one belongs to its conversation, so parallel calls are
separate streams even if their answers were interleaved. Inside a turn the order is: the request, the blocks of the answer, its
ending, and the tool results in the order of the calls, because tools may run while the answer still streams.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from ..recorder import strict_json
from ..recorder.messages import result_text

KINDS = (
    "request", "prompt", "history", "text", "thinking", "tool_use", "tool_result", "answer", "init", "system", "result",
    "session",
)  # fmt: skip
"""Kinds of items. Any other block type of the API is a kind of its own. `history` items are answers that a request contains.
`session` items are the options of a session of the Agent SDK, and the requests of its program.
"""

VOLATILE = frozenset(
    {
        *("id", "uuid", "session_id", "request_id", "message_id", "tool_use_id", "parent_tool_use_id", "task_id", "run_id"),
        *("agent_id", "signature", "encrypted_content", "encrypted_index", "timestamp", "cache_control", "container"),
        *("context_management", "diagnostics", "cwd", "memory_paths", "messaging_socket_path"),
        *("event_id", "session_thread_id", "from_session_thread_id", "to_session_thread_id", "workflow_run_id"),
        *("model_request_start_id", "custom_tool_use_id", "mcp_tool_use_id", "outcome_id", "outcome_evaluation_start_id"),
        *("sessionId", "parentUuid", "logicalParentUuid", "leafUuid", "requestId", "agentId", "toolUseID", "gitBranch"),
    }
)
"""Fields that change in every run, at any depth except inside a tool's input. Fields that end in `_ms`, `_at` or `_ids` are
volatile too.
"""

DEEPEST = 100
"""The number of nested levels that are examined. A model may nest deeper than Python's recursion limit."""

LONG_DATA = 100
"""Data in base64 with more characters are named by their size and a digest."""

_TOTALS = frozenset({"usage", "modelUsage", "model_usage_since_last_result", "total_cost_usd", "num_turns", "result"})
"""Fields of a result that are compared elsewhere: as totals, or as the text that they repeat."""


@dataclass(frozen=True, slots=True)
class Item:
    """One comparable part of a conversation.

    `turn` counts from 1. `seq` is the number of its event in the log. `t_ns` is in nanoseconds since the run began.
    """

    kind: str
    value: dict[str, Any]
    volatile: dict[str, Any]
    turn: int
    seq: int | None = None
    t_ns: int | None = None
    key: str = ""

    @classmethod
    def of(cls, kind: str, value: dict[str, Any], turn: int, *, seq: int | None = None, t_ns: int | None = None) -> "Item":
        """Return an item for a JSON object as recorded, with its volatile fields separated."""
        volatile: dict[str, Any] = {}
        # The matching rules have already removed the volatile parts of a request, and a tool's schema may have a field `id`.
        counts = value if kind == "request" else _counting(value, "", volatile)
        return cls(kind, counts, volatile, turn, seq, t_ns, key_of(kind, counts))

    @property
    def text(self) -> str:
        """The readable content of the item, as one text."""
        match self.kind:
            case "text" | "thinking":
                return str(self.value.get(self.kind, ""))
            case "prompt" | "history" | "tool_result":
                content = self.value.get("content")
                return content if isinstance(content, str) else strict_json.dumps(_without_bytes(content))
            case "tool_use":
                return f"{self.value.get('name')} {strict_json.dumps(self.value.get('input'))}"
        return strict_json.dumps(self.value)


def _without_bytes(value: Any, depth: int = 0) -> Any:
    """Return a content with the size and a digest in place of long data in base64: no person reads an image as text."""
    if depth == DEEPEST:
        return value
    if isinstance(value, list):
        return [_without_bytes(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    data = value.get("data")
    rest = {key: _without_bytes(item, depth + 1) for key, item in value.items()}
    if isinstance(data, str) and len(data) > LONG_DATA and value.get("type") == "base64":
        digest = sha256(data.encode("utf-8", "replace")).hexdigest()[:12]
        rest["data"] = f"{len(data) * 3 // 4:,} bytes, sha256 of the base64 {digest}"
    return rest


def key_of(kind: str, value: Any) -> str:
    """Return a digest that items of equal meaning share."""
    return sha256(_canonical([kind, value]).encode()).hexdigest()[:32]


_canonical = json.JSONEncoder(
    sort_keys=True, separators=(",", ":")
).encode  # made once, because json.dumps makes an encoder for each call


def _counting(value: Any, path: str, volatile: dict[str, Any], depth: int = 0) -> Any:
    """Return the parts of a JSON value that count, and add the volatile ones to `volatile` by path.

    Values nested deeper than DEEPEST levels count as a whole.
    """
    if depth == DEEPEST:
        return value
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            if (
                key in VOLATILE
                or key.endswith(("_ms", "_at", "_ids"))
                or (key == "data" and value.get("type") == "redacted_thinking")
            ):
                volatile[f"{path}.{key}" if path else key] = item
            elif isinstance(item, dict | list) and key != "input":
                kept[key] = _counting(item, f"{path}.{key}" if path else key, volatile, depth + 1)
            else:
                kept[key] = item
        return kept
    if isinstance(value, list):
        return [_counting(item, f"{path}[{number}]", volatile, depth + 1) for number, item in enumerate(value)]
    return value


class Label(NamedTuple):
    """The origin of a stream: its step, its task and its subagent, numbered from 1 (0 is the main conversation)."""

    step: str = ""
    task: str = ""
    agent: int = 0

    def __str__(self) -> str:
        parts = [self.step, self.task, f"agent {self.agent}" if self.agent else ""]
        return " / ".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class Stream:
    """One conversation. Conversations that began with the same message have the same `root`."""

    label: Label
    root: str
    items: tuple[Item, ...]


@dataclass(slots=True)
class _Turn:
    """A turn under construction, its parts in the order of comparison."""

    before: list[Item] = field(default_factory=list)
    blocks: list[Item] = field(default_factory=list)
    answer: list[Item] = field(default_factory=list)
    results: list[Item] = field(default_factory=list)
    after: list[Item] = field(default_factory=list)
    uses: list[str] = field(default_factory=list)

    def items(self) -> Iterator[Item]:
        def of_use(item: Item) -> int:
            use = item.volatile.get("tool_use_id")
            return self.uses.index(use) if use in self.uses else len(self.uses)

        yield from (*self.before, *self.blocks, *self.answer, *sorted(self.results, key=of_use), *self.after)


class ConversationBuilder:
    """A conversation under construction, from requests, blocks, endings and other messages as they arrive.

    `number` is its place among the conversations of its side. `on_use` is called with each of its tool uses.
    """

    def __init__(self, label: Label, number: int, on_use: "Callable[[ConversationBuilder, str], None]") -> None:
        self.label = label
        self.number = number
        self.root = ""
        self.asked = 0
        self.tail: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.options: dict[str, Any] | None = None
        self._turns = [_Turn()]
        self._on_use = on_use
        self._use_turn: dict[str, int] = {}
        self._answered: set[str] = set()

    @property
    def turn(self) -> int:
        """The number of the current turn."""
        return len(self._turns) - 1

    def next_turn(self) -> int:
        """Begin a turn and return its number."""
        self._turns.append(_Turn())
        return self.turn

    def edited(self, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the messages of the user in a request that differ from those in the same places of the request before it.

        The first list holds the old messages, the second the new ones.
        """
        pairs = zip(self.messages[: self.asked], messages, strict=False)
        found = [(old, new) for old, new in pairs if new.get("role") == "user" and _differ(old, new)]
        return [old for old, _ in found], [new for _, new in found]

    def request(
        self, options: dict[str, Any], new: list[dict[str, Any]], count: int, *,
        edited: tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]] = ((), ()), seq: int | None, t_ns: int | None,
    ) -> list[Item]:  # fmt: skip
        """Add a request: its options if they changed, its edited and its new messages. `count` is the number of all.

        `edited` holds the old and the new messages of `edited()`, without what varies. Those that are equal now do not count.
        Return the items that it adds, without tool results.
        """
        turn = self._turns[-1]
        shown = len(turn.before)
        if options != self.options:
            turn.before.append(Item.of("request", options, self.turn, seq=seq, t_ns=t_ns))
            self.options = options
        # Each request repeats the whole conversation, beginning with the answer just recorded.
        if self.asked and new and new[0].get("role") == "assistant":
            new = new[1:]  # the previous answer, which has its own items
        self.asked = count
        changed = [after for before, after in zip(*edited, strict=True) if _differ(before, after)]
        for message in (*changed, *new):
            self._asked(turn, message, seq, t_ns)
        return turn.before[shown:]

    def _asked(self, turn: _Turn, message: Mapping[str, Any], seq: int | None, t_ns: int | None) -> None:
        content = message.get("content")
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        rest = []
        for block in blocks:
            if isinstance(block, dict) and block.get("type") == "tool_result":
                self.tool_result(block, seq=seq, t_ns=t_ns)
            else:
                rest.append(block)
        if rest:
            said = result_text(rest) if all(_is_text(block) for block in rest) else rest
            kind = "history" if message.get("role") == "assistant" else "prompt"
            turn.before.append(Item.of(kind, {"content": said}, self.turn, seq=seq, t_ns=t_ns))

    def block(self, turn: int, block: Mapping[str, Any], *, incomplete: bool, seq: int | None, t_ns: int | None) -> None:
        """Add a content block of an answer."""
        kind = str(block.get("type"))
        value = {key: item for key, item in block.items() if key != "type"} | ({"incomplete": True} if incomplete else {})
        place = self._turns[turn]
        place.blocks.append(Item.of("thinking" if kind == "redacted_thinking" else kind, value, turn, seq=seq, t_ns=t_ns))
        if kind == "tool_use":
            place.uses.append(str(block.get("id")))
            self._use_turn[str(block.get("id"))] = turn
            self._on_use(self, str(block.get("id")))

    def tool_result(self, block: Mapping[str, Any], *, seq: int | None, t_ns: int | None) -> None:
        """Add a tool result. Later requests repeat it; the repetitions are ignored."""
        use = str(block.get("tool_use_id"))
        if use in self._answered:
            return
        self._answered.add(use)
        content = block.get("content")
        texts = isinstance(content, str) or (isinstance(content, list) and all(map(_is_text, content)))
        value = {
            "content": result_text(content) if texts else content,
            "is_error": bool(block.get("is_error")),
            "tool_use_id": use,
        }
        turn = self._use_turn.get(use, self.turn)
        self._turns[turn].results.append(Item.of("tool_result", value, turn, seq=seq, t_ns=t_ns))

    def answer(self, turn: int, value: dict[str, Any], *, seq: int | None, t_ns: int | None) -> None:
        """Add the ending of an answer."""
        self._turns[turn].answer.append(Item.of("answer", value, turn, seq=seq, t_ns=t_ns))

    def other(self, message: Mapping[str, Any], *, seq: int | None, t_ns: int | None) -> Item:
        """Add a message that is neither a prompt nor an answer, and return its item."""
        kind = str(message.get("type"))
        if kind == "system" and message.get("subtype") == "init":
            kind = "init"
        value = {key: item for key, item in message.items() if key != "type" and (kind != "result" or key not in _TOTALS)}
        item = Item.of(kind, value, self.turn, seq=seq, t_ns=t_ns)
        self._turns[-1].after.append(item)
        return item

    def stream(self) -> Stream:
        """Return the finished stream."""
        return Stream(self.label, self.root, tuple(item for turn in self._turns for item in turn.items()))


def _differ(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return old != new and Item.of("user", old, 0).key != Item.of("user", new, 0).key


def _is_text(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "text" and not block.get("citations")


def body_key(body: bytes) -> str:
    """Return a digest of the body of an answer that is no message. Ids and times in JSON, or in lines of JSON, do not count."""
    for parts in ([body], body.split(b"\n")):
        try:
            return Item.of("body", {"values": [json.loads(part) for part in parts if part.strip()]}, 0).key
        except (ValueError, RecursionError):
            continue
    return sha256(body).hexdigest()[:32]
