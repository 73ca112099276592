"""The page of a run: events folded into page data, at once for a file, or step by step while the run is in progress.

Times are microseconds since the run began. A run may have 100,000 frames, so frames are columns of numbers: the time since the
previous frame, the exchange, the kind, the block, and the number of UTF-16 units that the frame adds to the text of the block.
From these the player types a text as it arrived, and the page stores the text only once.
"""

from typing import Any

from ..comparing.conversations import Item
from ..comparing.reading import ItemReader, answers_in, error_of
from ..recorder import strict_json
from ..recorder.events import Event
from ..recorder.http.call_errors import CallCounts, call_error, outcome
from ..recorder.http.exchange import frame_json, timestamp
from ..recorder.http.sessions import text_delta
from ..recorder.interrupted import DIED, events_of
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from ..recorder.messages import Message
from ..recorder.strict_json import object_or_empty
from ..recorder.words import seconds
from .assemble import page
from .content import parts_of
from .erasures import Erasures
from .rendering import rendered

PAGE_KINDS = (
    "run.started",
    "exchange.started",
    "session.started",
    "wire.sent",
    "response.started",
    "frame",
    "chunk",
    "message",
    "exchange.ended",
    "session.ended",
    "run.ended",
)
"""The kinds of events that a page is made of."""


READ = ("exchange.started", "message", "exchange.ended", "session.started", "wire.sent", "session.ended")
"""The kinds of events that belong to conversations."""

ERASED_TEXTS = ("exchange.started", "wire.sent", "message")
"""The kinds of events in whose place the page shows an erasure."""

FIRST = ("content_block_start", "content_block_delta", "completion", "error", "event_delta", "agent.message")
"""Kinds of frames that are the first sign of an answer."""


def run_page(log: EventLog, info: RunInfo) -> str:
    """Return a run as one self-contained HTML file. Raise LogError."""
    fold = RunFold(log, info)
    for event in events_of(log, info.run, PAGE_KINDS):
        fold.event(event)
    return render(fold.data(), info)


def render(data: dict[str, Any], info: RunInfo, *, live: bool = False) -> str:
    """Return the page for the data of a fold."""
    took = "" if info.ended_ns is None else f", {seconds(info.ended_ns - info.started_ns)}"
    calls = CallCounts()
    for x in data["exchanges"]:
        if x["ending"] is not None:
            calls.ended(x["seq"], x["step"], x["task"], x)
    status = outcome(info.status, calls.count, calls.failed)
    plain = f"{info.name}: {info.mode}, {status}{took}, {info.messages} messages, {info.exchanges} exchanges"
    return page("run", title=f"{info.name} · retold", data=data, plain=plain, live=live)


class RunFold:
    """A run being folded. `data` returns all of it; `news` returns the additions since the last call."""

    def __init__(self, log: EventLog, info: RunInfo) -> None:
        self._answers = answers_in(log)
        self._erasures = Erasures(log)
        self._info = info
        self._reader = ItemReader()
        self._exchanges: list[dict[str, Any]] = []
        self._messages: list[dict[str, Any]] = []
        self._frames: list[tuple[int, int, int, int, int]] = []
        self._kinds: dict[str, int] = {}
        self._number: dict[int, int] = {}
        self._open: dict[int, dict[int, dict[str, Any]]] = {}
        self._previews: dict[int, dict[tuple[str, int], int]] = {}
        self._closed: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        self._told = (0, 0)
        self._touched: set[int] = set()
        self._agents: dict[str, int] = {}
        self._news = False
        self._last_us = 0
        self._frame_us = 0
        self._end: dict[str, Any] = {"status": info.status, "error": info.error}

    def event(self, event: Event) -> None:
        """Add the next event of the run."""
        at = event.t_ns // 1000
        self._last_us = max(self._last_us, at)
        if event.kind == "frame":
            self._frame(event, at)
            return
        asked = self._reader.event(event, self._answers) if event.kind in READ else []
        number = self._number.get(event.exchange if event.exchange is not None else -1)
        if event.kind in ERASED_TEXTS and b'"erased_by"' in event.payload and "erased_by" in event.data:
            asked = []
            of = len(self._exchanges) if event.kind == "exchange.started" else number
            erasure = self._erasures.of(str(event.data["erased_by"]))
            self._say("erased", "", at, event.seq, event.step, event.task, of, erased=erasure)
        match event.kind:
            case "exchange.started":
                self._exchange(event, at, asked)
            case "session.started" | "wire.sent":
                self._say_asked(asked, event, at, None)
            case "response.started" if number is not None:
                self._exchanges[number] |= {"head": at, "status": event.data["status"], "answered": event.data["headers"]}
            case "message":
                self._message(Message.of(event), number, at)
            case "exchange.ended" if number is not None:
                self._ended(event, self._exchanges[number], at)
            case "run.ended":
                self._end = {"status": event.data.get("status"), "error": event.data.get("error")}
                self._news = True
        if number is not None:
            self._touched.add(number)
            # A body without frames: its first chunk is the first sign of an answer.
            if event.kind == "chunk" and self._exchanges[number]["first"] is None:
                self._exchanges[number]["first"] = at

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return bool(self._end["status"] != "running")

    def stopped(self, info: RunInfo) -> None:
        """Mark the run as over although its last event never came."""
        self._end = {"status": info.status, "error": info.error or DIED}
        self._news = True

    def data(self) -> dict[str, Any]:
        """Return all data of the page."""
        self._mark_told()
        info = self._info
        run = {"run": info.run, "name": info.name, "mode": info.mode, "started": timestamp(info.started_ns), **self._end}
        return {
            "run": run,
            "total": self._last_us,
            "exchanges": self._exchanges,
            "messages": self._messages,
            "kinds": list(self._kinds),
            "frames": [list(column) for column in zip(*self._frames, strict=True)] or [[], [], [], [], []],
        }

    def news(self) -> dict[str, Any] | None:
        """Return the additions since the last call: whole exchanges, new messages and frames. Return None if there are none."""
        messages, frames = self._told
        if not self._news and not self._touched and self._told == (len(self._messages), len(self._frames)):
            return None
        found = {
            "run": self._end,
            "total": self._last_us,
            "exchanges": [[number, self._exchanges[number]] for number in sorted(self._touched)],
            "messages": self._messages[messages:],
            "kinds": list(self._kinds),
            "frames": [list(column) for column in zip(*self._frames[frames:], strict=True)] or [[], [], [], [], []],
        }
        self._mark_told()
        return found

    def _mark_told(self) -> None:
        self._told = len(self._messages), len(self._frames)
        self._touched.clear()
        self._news = False

    def _exchange(self, event: Event, at: int, asked: list[Item]) -> None:
        number = self._number[event.seq] = len(self._exchanges)
        self._touched.add(number)
        data = event.data
        self._exchanges.append({
            "seq": event.seq, "t": at, "head": None, "first": None, "end": None, "step": event.step, "task": event.task,
            "call": data["call"], "attempt": data["attempt"], "method": data["method"], "uri": data["uri"], "frames": 0,
            "status": None, "ending": None, "model": None, "stop": None, "usage": None, "cost": None, "error": None,
            "asked": data["headers"], "answered": [], "to": self._reader.asked_model,
        })  # fmt: skip
        self._say_asked(asked, event, at, number)

    def _say_asked(self, asked: list[Item], event: Event, at: int, number: int | None) -> None:
        for item in asked:
            fields: dict[str, Any] = {}
            if item.kind in ("prompt", "history"):
                text, images = parts_of(item.value.get("content"))
                fields |= {"images": images} if images else {}
            else:
                text = _pretty(item.value) if item.kind in ("request", "session") else item.text
            self._say(item.kind, text, at, event.seq, event.step, event.task, number, **fields)

    def _frame(self, event: Event, at: int) -> None:
        number = self._number.get(event.exchange if event.exchange is not None else -1)
        if number is None:
            return
        value = frame_json(event.payload) or {}
        kind, block, size = str(value.get("type", "other")), -1, 0
        open_blocks = self._open.setdefault(number, {})
        if isinstance(value.get("index"), int):
            block = value["index"]
        if kind in ("event_delta", "agent.message"):
            block, size = self._preview(number, value, at)
        elif kind == "content_block_start":
            open_blocks[block] = {"start": at, "raw": [], "size": 0}
        elif kind == "content_block_delta" and block in open_blocks:
            delta = value.get("delta") or {}
            piece = next((delta[key] for key in ("text", "thinking", "partial_json") if isinstance(delta.get(key), str)), "")
            size = _units(piece)
            open_blocks[block]["size"] += size
            if "partial_json" in delta:
                open_blocks[block]["raw"].append(piece)
        elif kind == "content_block_stop" and block in open_blocks:
            self._closed.setdefault(number, []).append((block, open_blocks.pop(block)))
        exchange = self._exchanges[number]
        exchange["frames"] += 1
        if exchange["first"] is None and kind in FIRST:
            exchange["first"] = at
        self._touched.add(number)
        code = self._kinds.setdefault(kind, len(self._kinds))
        self._frames.append((at - self._frame_us, number, code, block, size))
        self._frame_us = at

    def _preview(self, number: int, value: dict[str, Any], at: int) -> tuple[int, int]:
        """Take a frame of a session: a piece of a message, or the message. Return the block of the piece, and its size.

        A stream of a session has many messages with blocks from 0, so blocks are numbered anew over the stream.
        """
        names = self._previews.setdefault(number, {})
        open_blocks = self._open.setdefault(number, {})
        if value["type"] == "agent.message":
            for (event_id, _), block in names.items():
                if event_id == value.get("id") and block in open_blocks:
                    self._closed.setdefault(number, []).append((block, open_blocks.pop(block)))
            return -1, 0
        index = object_or_empty(value.get("delta")).get("index")
        block = names.setdefault((str(value.get("event_id")), index if isinstance(index, int) else 0), len(names))
        size = _units(text_delta(value))
        open_blocks.setdefault(block, {"start": at, "raw": [], "size": 0})["size"] += size
        return block, size

    def _message(self, message: Message, number: int | None, at: int) -> None:
        place = (message.step, message.task)
        if message.type == "erased":
            return
        if message.type not in ("assistant", "user") or not list(message.blocks):
            kind = "init" if message.subtype == "init" else message.type
            self._say(kind, _pretty(message.data), at, message.seq, *place, number, title=str(message.subtype or ""))
            return
        for block in message.blocks:
            kind = str(block.get("type"))
            known = self._block(number, bool(message.data.get("incomplete"))) if message.type == "assistant" else None
            fields: dict[str, Any] = {"incomplete": True} if message.data.get("incomplete") else {}
            if (parent := message.data.get("parent_tool_use_id")) is not None:
                fields["agent"] = self._agents.setdefault(str(parent), len(self._agents) + 1)
            if known is not None:
                fields |= {"block": known[0], "start": known[1]["start"]}
                if known[1]["raw"]:
                    fields["raw"] = "".join(known[1]["raw"])
            match kind:
                case "text" | "thinking":
                    text = str(block.get(kind, ""))
                    kind = "prompt" if message.type == "user" else kind
                case "tool_use" | "server_tool_use":
                    text, fields["title"], fields["use"] = (
                        _pretty(block.get("input")),
                        str(block.get("name")),
                        str(block.get("id")),
                    )
                case "tool_result":
                    text, images = parts_of(block.get("content"))
                    fields |= {"use": str(block.get("tool_use_id")), "error": bool(block.get("is_error"))}
                    fields |= {"images": images} if images else {}
                case "image" | "document":
                    text, images = parts_of([block])
                    kind, fields["images"] = "prompt" if message.type == "user" else kind, images
                case _:
                    text = _pretty(block)
            self._say(kind, text, at, message.seq, *place, number, **fields)

    def _block(self, number: int | None, incomplete: bool) -> tuple[int, dict[str, Any]] | None:
        """Return the streamed block that a message completes, or the block in which its stream broke off."""
        if number is None:
            return None
        if incomplete and (left := self._open.get(number)):
            block = min([number for number in left if left[number]["size"]] or left)  # prefer a block that has text
            return block, left.pop(block)
        closed = self._closed.get(number)
        return closed.pop(0) if closed else None

    def _say(self, kind: str, text: str, at: int, seq: int, step: str, task: str, number: int | None, **fields: Any) -> None:
        place = {"step": step, "task": task, "x": number}
        if kind in ("text", "thinking", "prompt", "history") and (tree := rendered(text)) is not None:
            fields["tree"] = tree
        self._messages.append({"kind": kind, "text": text, "t": at, "start": at, "seq": seq, **place, **fields})

    def _ended(self, event: Event, exchange: dict[str, Any], at: int) -> None:
        data = event.data
        if data["ending"] in ("error_event", "http_error") and "api_error" not in data:  # recorded by retold 0.1
            data = data | {"api_error": error_of(self._answers(event))}
        error = call_error(data)
        if error is not None:
            self._say("error", error, at, event.seq, event.step, event.task, self._number[event.exchange or 0])
        exchange |= {
            "end": at, "ending": data["ending"], "model": data.get("model"), "stop": data.get("stop_reason"),
            "usage": data.get("usage"), "cost": data.get("cost_usd"), "error": error,
        }  # fmt: skip


def _units(piece: str) -> int:
    """Return the length of a text as JavaScript counts it: two units for a character outside the BMP."""
    return len(piece.encode("utf-16-le", "surrogatepass")) // 2


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else strict_json.dumps(value, indent=2)
