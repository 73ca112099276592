"""Streams of items: the content of a recording, one stream a conversation, in an order that does not depend on arrival.

An item is the unit of comparison: a prompt, one content block of an answer, a tool result, the options of a request
(`request`), the ending of an answer (`answer`), or a message of the session (`init`, `result`, `system`). `value` holds the
parts that count. `volatile` holds ids, times and signatures, which change in every run.

A stream is one conversation. A request that continues an earlier one belongs to its conversation, so parallel calls are
separate streams even if their answers were interleaved. Inside a turn the order is: the request, the blocks of the answer, its
ending, and the tool results in the order of the calls, because tools may run while the answer still streams.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import repeat
from json.encoder import encode_basestring_ascii
from operator import add, attrgetter
from typing import Any, NamedTuple, cast

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


class Item(NamedTuple):
    """One comparable part of a conversation.

    `turn` counts from 1. `seq` is the number of its event in the log. `t_ns` is in nanoseconds since the run began. Equal texts
    share `value` and `volatile`: never change them.
    """

    kind: str
    value: dict[str, Any]
    volatile: dict[str, Any]
    key: str
    turn: int
    seq: int | None = None
    t_ns: int | None = None

    @classmethod
    def of(cls, kind: str, value: dict[str, Any], turn: int, *, seq: int | None = None, t_ns: int | None = None) -> "Item":
        """Return an item for a JSON object as recorded, with its volatile fields separated."""
        volatile: dict[str, Any] = {}
        # The matching rules have already removed the volatile parts of a request, and a tool's schema may have a field `id`.
        counts = value if kind == "request" else _counting(value, "", volatile)
        return cls(kind, counts, volatile, key_of(kind, counts), turn, seq, t_ns)

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


def text_content(text: str) -> "_Content":
    """Return the content of `Item.of("text", {"text": text})`, in a fifth of its time: a long session has mostly such items."""
    canonical = f'["text",{{"text":{encode_basestring_ascii(text)}}}]'
    return "text", {"text": text}, {}, sha256(canonical.encode()).hexdigest()[:32]


_Content = tuple[str, dict[str, Any], dict[str, Any], str]
"""The first four fields of an item, which do not depend on its place."""

Texts = dict[str, _Content]
"""The contents of items that are only a text, by the text. Two sides share them, because most texts occur in both."""


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


@dataclass(frozen=True)
class Stream:
    """One conversation. Conversations that began with the same message have the same `root`."""

    label: Label
    root: str
    items: tuple[Item, ...]

    @cached_property
    def kinds(self) -> frozenset[str]:
        """The kinds of items that occur."""
        return frozenset(map(attrgetter("kind"), self.items))


_PARTS = ("before", "blocks", "answer", "results", "after")
"""The parts of a turn in the order of comparison: the request, the blocks of the answer, its ending, tool results, the rest."""

_BEFORE, _BLOCKS, _ANSWER, _RESULTS, _AFTER = range(len(_PARTS))


class ConversationBuilder:
    """A conversation under construction, from requests, blocks, endings and other messages as they arrive.

    `number` is its place among the conversations of its side. `users` gets the newest conversation with each tool use.
    """

    def __init__(self, label: Label, number: int, users: dict[tuple[Label, str], int]) -> None:
        self.label = label
        self.number = number
        self.root = ""
        self.asked = 0
        self.tail: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.options: dict[str, Any] | None = None
        self.turn_of: dict[str, int] = {}
        """The turns of answers that no exchange brought, by the id of the message."""
        self.turn = 0
        """The number of the current turn."""
        # The items in two halves: most contents occur again, and `stream` joins the halves in a fifth of the time.
        self._contents: list[_Content] = []
        self._origins: list[tuple[int, int | None, int | None]] = []
        self._last_id: object = ...  # unlike every id, even a missing one
        self._last_origin: tuple[int, None, None] = (0, None, None)
        self._last_place = 0
        self._places: list[int] = []
        """The place of each item: the number of its turn times the number of parts, plus that of its part."""
        self._users = users
        self._use_turn: dict[str, int] = {}
        self._uses: defaultdict[int, dict[str, int]] = defaultdict(dict)
        self._answered: set[str] = set()

    def next_turn(self) -> int:
        """Begin a turn and return its number."""
        self.turn += 1
        return self.turn

    def _add(self, part: int, item: Item) -> Item:
        self._contents.append(item[:4])
        self._origins.append(item[4:])
        self._places.append(item.turn * len(_PARTS) + part)
        return item

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
        added: list[Item] = []
        if options != self.options:
            added.append(Item.of("request", options, self.turn, seq=seq, t_ns=t_ns))
            self.options = options
        # Each request repeats the whole conversation, beginning with the answer just recorded.
        if self.asked and new and new[0].get("role") == "assistant":
            new = new[1:]  # the previous answer, which has its own items
        self.asked = count
        changed = [after for before, after in zip(*edited, strict=True) if _differ(before, after)]
        for message in (*changed, *new):
            added += self._asked(message, seq, t_ns)
        return [self._add(_BEFORE, item) for item in added]

    def _asked(self, message: Mapping[str, Any], seq: int | None, t_ns: int | None) -> list[Item]:
        """Add the tool results of a message of a request, and return its other content as items."""
        content = message.get("content")
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        rest = []
        for block in blocks:
            if isinstance(block, dict) and block.get("type") == "tool_result":
                self.tool_result(block, seq=seq, t_ns=t_ns)
            else:
                rest.append(block)
        if not rest:
            return []
        said = result_text(rest) if all(_is_text(block) for block in rest) else rest
        kind = "history" if message.get("role") == "assistant" else "prompt"
        return [Item.of(kind, {"content": said}, self.turn, seq=seq, t_ns=t_ns)]

    def block(self, turn: int, block: Mapping[str, Any], *, incomplete: bool, seq: int | None, t_ns: int | None) -> None:
        """Add a content block of an answer."""
        kind = str(block.get("type"))
        value = {key: item for key, item in block.items() if key != "type"} | ({"incomplete": True} if incomplete else {})
        shown = "thinking" if kind == "redacted_thinking" else kind
        self._add(_BLOCKS, Item.of(shown, value, turn, seq=seq, t_ns=t_ns))
        if kind == "tool_use":
            use, uses = str(block.get("id")), self._uses[turn]
            uses.setdefault(use, len(uses))
            self._use_turn[use] = turn
            self._users[self.label, use] = max(self.number, self._users.get((self.label, use), 0))

    def text(self, message_id: object, content: _Content) -> None:
        """Add a text of an answer as `block` does. Lines of one answer share the id of its message."""
        if message_id != self._last_id:
            self._last_id = known = str(message_id)
            turn = self.turn_of.get(known) or self.turn_of.setdefault(known, self.next_turn())
            self._last_place, self._last_origin = turn * len(_PARTS) + _BLOCKS, (turn, None, None)
        self._contents.append(content)
        self._origins.append(self._last_origin)
        self._places.append(self._last_place)

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
        self._add(_RESULTS, Item.of("tool_result", value, turn, seq=seq, t_ns=t_ns))

    def answer(self, turn: int, value: dict[str, Any], *, seq: int | None, t_ns: int | None) -> None:
        """Add the ending of an answer."""
        self._add(_ANSWER, Item.of("answer", value, turn, seq=seq, t_ns=t_ns))

    def other(self, message: Mapping[str, Any], *, seq: int | None, t_ns: int | None) -> Item:
        """Add a message that is neither a prompt nor an answer, and return its item."""
        kind = str(message.get("type"))
        if kind == "system" and message.get("subtype") == "init":
            kind = "init"
        value = {key: item for key, item in message.items() if key != "type" and (kind != "result" or key not in _TOTALS)}
        return self._add(_AFTER, Item.of(kind, value, self.turn, seq=seq, t_ns=t_ns))

    def stream(self) -> Stream:
        """Return the finished stream."""
        # `map(Item, …)` would call Python for each item.
        joined = map(tuple.__new__, repeat(Item), map(add, self._contents, self._origins))
        items, places = cast(list[Item], list(joined)), self._places
        if self._answered or places != sorted(places):

            def place(number: int) -> tuple[int, int]:
                item = items[number]
                uses = self._uses.get(item.turn, {})
                is_result = places[number] % len(_PARTS) == _RESULTS
                return places[number], uses.get(item.volatile["tool_use_id"], len(uses)) if is_result else 0

            items = [items[number] for number in sorted(range(len(items)), key=place)]
        return Stream(self.label, self.root, tuple(items))


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
