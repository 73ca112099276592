"""Fold the frames of one response into complete messages, without I/O and without the SDK.

The same fold serves live recording, mock runs and imports, so all three yield equal messages. Unknown event types, block types,
delta types and fields pass through. A wire is a module that cuts bytes into frames and returns the event in a frame (sse.py,
event_stream.py); `Fold.take` folds events of every wire. Session events have a fold of their own (sessions.py).
"""

import json
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from ..events import Ending
from ..messages import Session, content_blocks
from ..strict_json import object_or_empty
from . import converse
from .batches import answers_in
from .exchange import frame_json
from .sessions import SessionFold, events_in, is_session_event
from .sse import PLAIN_DELTA, Delta


class Fold:
    """The fold of one response. `feed` and `feed_json` return the messages that their bytes complete.

    `model` is the model that the request names in its path. The answers of Bedrock's Converse API do not name it.
    """

    def __init__(self, session: Session, request_id: str | None = None, *, model: str | None = None) -> None:
        self._named = {} if model is None else {"model": model}
        self.request_id = request_id
        self.message: dict[str, Any] = {}
        self.content: list[dict[str, Any]] = []
        self.incomplete: list[dict[str, Any]] = []
        self.stop_reason: str | None = None
        self.stopped = False
        self.usage: dict[str, Any] = {}
        self.error: dict[str, Any] | None = None
        self._failed_request: Any = None
        self._session = session
        self.deltas: list[Delta] = []
        """Plain deltas that are not yet in their blocks. `feed_event` and `flush` fold them."""
        self._open: dict[int, dict[str, Any]] = {}
        self._grown: dict[int, dict[str, list[str]]] = {}
        self._cited: dict[int, list[Any]] = {}
        self._completion: list[str] = []
        self._managed: SessionFold | None = None

    def feed(self, frame: bytes) -> list[dict[str, Any]]:
        """Take one frame; return the assistant messages that it completes (at most one in a well-formed stream)."""
        if (delta := PLAIN_DELTA.fullmatch(frame)) is None:
            return self.feed_event(frame)
        self.deltas.append(delta.groups())
        return []

    def feed_event(self, frame: bytes) -> list[dict[str, Any]]:
        """Take one frame that is not a plain delta; return the assistant messages that it completes."""
        event = frame_json(frame)
        return [] if event is None else self.take(event)

    def take(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Take one event of the Messages API or of a session; return the messages that it completes."""
        if self.deltas:
            self._fold_deltas()
        match event.get("type"):
            case "message_start":
                self.message = self._named | object_or_empty(event.get("message"))
                self.usage = dict(object_or_empty(self.message.get("usage")))
            case "content_block_start":
                self._open[_index(event)] = dict(object_or_empty(event.get("content_block")))
            case "content_block_delta":
                self._open.setdefault(_index(event), dict(object_or_empty(event.get("content_block"))))
                self._delta(_index(event), object_or_empty(event.get("delta")))
            case "content_block_stop":
                return self._close(_index(event))
            case "message_delta":
                self._message_delta(event)
            case "message_stop":
                self.stopped = True
                self._message_delta(event)  # Converse has the stop reason here
            case "error":
                self._failed(event)
            case "completion":
                return self._legacy_completion(event)
            case "ping":
                pass
            case _ if is_session_event(event):
                return self._session_event(event)
        return []

    def _session_event(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        if self._managed is None:
            self._managed = SessionFold(self._session, self.request_id)
        messages = self._managed.feed(event)
        self.usage = dict(self._managed.usage)
        self.stop_reason = self._managed.stop_reason
        self.stopped = self._managed.is_over
        return messages

    def _batch_answer(self, answer: dict[str, Any], custom_id: str) -> list[dict[str, Any]]:
        """Return the messages of one result of a batch. They have no common message, so usage adds up without a model."""
        for name, count in object_or_empty(answer.get("usage")).items():
            if isinstance(count, int):
                self.usage[name] = self.usage.get(name, 0) + count
        message, blocks = {**answer, "content": []}, content_blocks(answer.get("content"))
        return [self._session.assistant(message, block, self.request_id) | {"custom_id": custom_id} for block in blocks]

    def feed_json(self, body: bytes) -> list[dict[str, Any]]:
        """Take a complete JSON body: an answer without streaming, an error envelope, session events or a batch's results."""
        if batched := answers_in(body):
            return [message for custom_id, answer in batched for message in self._batch_answer(answer, custom_id)]
        try:
            answer = object_or_empty(json.loads(body))
        except (ValueError, RecursionError):
            return []
        if events := events_in(answer):
            return [message for event in events for message in self._session_event(event)]
        if (message := converse.message_of(answer)) is not None:
            answer = self._named | message
        elif answer.keys() == {"message"}:  # an error of Bedrock
            self.error = answer
        if answer.get("type") == "error":
            self._failed(answer)
        if answer.get("type") == "completion":
            return self._legacy_completion(answer | {"stop_reason": answer.get("stop_reason") or "stop_sequence"})
        if answer.get("type") != "message":
            return []
        self.message = {**answer, "content": [], "stop_reason": None, "stop_sequence": None}
        self.stop_reason, self.stopped = answer.get("stop_reason"), True
        self.usage = dict(object_or_empty(answer.get("usage")))
        self.content = list(content_blocks(answer.get("content")))
        return [self._session.assistant(self.message, block, self.request_id) for block in self.content]

    def flush(self) -> list[dict[str, Any]]:
        """Return the blocks that the stream left open, as incomplete messages. Empty blocks are left out."""
        self._fold_deltas()
        messages = []
        for index in sorted(self._open):
            block = self._finished(index, self._open[index])
            if block.get("text") or block.get("thinking") or block.get("type") not in ("text", "thinking"):
                messages.append(self._session.assistant(self.message, block, self.request_id, incomplete=True))
                self.incomplete.append(block)
        self._open.clear()
        if self._managed is not None:
            messages += self._managed.flush()
        if self._completion:
            messages += self._legacy_completion({"completion": "", "stop_reason": "incomplete"}, incomplete=True)
        return messages

    def _delta(self, index: int, delta: dict[str, Any]) -> None:
        """Add a delta to its block. A text is a list of pieces, because adding strings costs the square of its length."""
        block = self._open.setdefault(index, {})
        for key, value in delta.items():
            if key == "type":
                continue
            if isinstance(value, str):
                self._grown.setdefault(index, {}).setdefault(key, []).append(value)
            elif key == "citation":
                self._cited.setdefault(index, []).append(value)
            else:
                block[key] = value

    def _fold_deltas(self) -> None:
        """Add the waiting deltas to their blocks. The texts of one block are decoded together."""
        deltas, self.deltas = self.deltas, []
        for (number, key), those in groupby(deltas, key=itemgetter(0, 1)):
            text = b"".join([text for _, _, text in those])
            value = text.decode("utf-8", "replace")
            if b"\\" in text:  # without escapes it needs no JSON parser
                value = json.loads(f'"{value}"')
            self._delta(int(number), {key.decode(): value})

    def _failed(self, envelope: dict[str, Any]) -> None:
        """Take the API's envelope of an error, which repeats the request id of the headers."""
        self.error = object_or_empty(envelope.get("error"))
        self._failed_request = envelope.get("request_id")

    def _close(self, index: int) -> list[dict[str, Any]]:
        block = self._open.pop(index, None)
        if block is None:
            return []
        block = self._finished(index, block)
        self.content.append(block)
        return [self._session.assistant(self.message, block, self.request_id)]

    def _finished(self, index: int, block: dict[str, Any]) -> dict[str, Any]:
        grown = {key: joined(pieces) for key, pieces in self._grown.pop(index, {}).items()}
        if text := grown.pop("partial_json", ""):
            try:
                block["input"] = json.loads(text)
            except (ValueError, RecursionError):  # cut inside the input: keep the received part as text
                block["input"] = text
        if cited := self._cited.pop(index, None):
            before = block.get("citations")
            block["citations"] = [*(before if isinstance(before, list) else []), *cited]
        for key, value in grown.items():
            start = block.get(key)
            block[key] = start + value if isinstance(start, str) else value
        return block

    def _message_delta(self, event: dict[str, Any]) -> None:
        delta = object_or_empty(event.get("delta"))
        self.stop_reason = delta.get("stop_reason", self.stop_reason)
        self.usage |= {key: value for key, value in object_or_empty(event.get("usage")).items() if value is not None}

    def _legacy_completion(self, event: dict[str, Any], *, incomplete: bool = False) -> list[dict[str, Any]]:
        """/v1/complete, the old API: bare text pieces, the last one with a stop reason."""
        self._completion.append(str(event.get("completion", "")))
        if event.get("stop_reason") is None:
            return []
        text, self._completion = joined(self._completion), []
        block = {"type": "text", "text": text}
        self.message = {"id": event.get("id"), "type": "message", "role": "assistant", "model": event.get("model")}
        self.content.append(block)
        if not incomplete:
            self.stop_reason, self.stopped = event["stop_reason"], True
        return [self._session.assistant(self.message, block, self.request_id, incomplete=incomplete)]

    def ending(self, ending: Ending, status: int | None, *, is_withheld: bool = False) -> Ending:
        """Return the ending of the exchange, from the ending of its connection. `is_withheld`: a part may not be recorded."""
        # The content of the stream decides before the end of its connection, and a status before both, except for a cut:
        # - an error event: the API itself ended the stream;
        # - closed after `message_stop`: the client had everything, so it is complete;
        # - complete, but with a withheld part: the recording is not complete, and a replay must not claim so.
        if ending in ("complete", "closed") and self.error is not None:
            ending = "error_event"
        elif ending == "closed" and self.stopped:
            ending = "complete"
        if status is not None and status >= 400 and ending != "cut":
            ending = "http_error"
        return "cut" if is_withheld and ending == "complete" else ending

    def summary(self) -> dict[str, Any]:
        """Return the fields of the answer that the event of its ending holds."""
        return {
            "message_id": self.message.get("id"),
            "model": self.message.get("model"),
            "stop_reason": self.stop_reason,
            "usage": self.usage or None,
            "api_error": self._api_error(),
        }

    def _api_error(self) -> dict[str, str] | None:
        """Return the error that the API reported, as `{type, message, request_id}` without the unknown ones."""
        if self.error is None:
            return None
        found = {key: self.error.get(key) for key in ("type", "message")} | {
            "request_id": self.request_id or self._failed_request
        }
        return {key: value for key, value in found.items() if isinstance(value, str)}

    @property
    def text(self) -> str:
        """The text blocks of the answer, joined."""
        return "".join(str(block.get("text", "")) for block in self.content if block.get("type") == "text")


def joined(pieces: Sequence[str]) -> str:
    """Join pieces of a text. Two halves of a character that JSON escaped in two pieces become that character."""
    text = "".join(pieces)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text


def _index(event: dict[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else -1
