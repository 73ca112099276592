"""Find the fields of recorded lines that the installed Agent SDK does not read.

A cassette outlives updates of the SDK. The SDK's parser drops fields that it does not know. The check parses the recorded lines
and watches which fields the parser takes. A dictionary that the parser keeps in a message is read as a whole.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from ..recorder.agent_wire import AgentSession, kind_of


class FieldWatch:
    """Watches the installed SDK parse the received lines of a session. `unread` names the fields that it does not read.

    A field is named by the type of its line: `assistant.message.context_management`, `result.errors[].code`. The name of a type
    alone stands for lines that the SDK skips as a whole. `errors` are the errors of lines that the SDK cannot parse.
    """

    def __init__(self) -> None:
        self._parse = _parser()
        self._unread: dict[str, None] = {}
        self.errors: list[str] = []

    def __repr__(self) -> str:
        return f"<FieldWatch {len(self._unread)} unread>"

    @property
    def unread(self) -> list[str] | None:
        """The names of the unread fields, or None if the SDK has no parser where this version of retold expects it."""
        return None if self._parse is None else list(self._unread)

    def received(self, line: dict[str, Any]) -> None:
        """Take a line. The SDK itself reads the control protocol, without its parser."""
        if self._parse is None or kind_of(line) == "wire.received":
            return
        watched, name = _Watched(line), str(line.get("type"))
        try:
            message = self._parse(watched)
        except Exception as error:  # the parser of another version may raise any error: the SDK raises it to the program
            self.errors.append(f"{name}: {error}")
            return
        if message is None:
            self._unread[name] = None
        else:
            self._unread |= dict.fromkeys(watched.unread(name, set(_kept(message))))


def _parser() -> Callable[[dict[str, Any]], Any] | None:
    try:
        from claude_agent_sdk._internal.message_parser import parse_message
    except ImportError:
        return None
    parse: Callable[[dict[str, Any]], Any] = parse_message
    return parse


def no_longer_read(session: AgentSession) -> tuple[list[str], list[str]]:
    """Return the fields of a session that the SDK read when it was recorded, and the installed one does not read.

    The second list holds the errors of lines that the installed SDK cannot parse: such a session cannot be replayed.
    """
    watch = FieldWatch()
    for line in session.lines:
        if not line.is_sent:
            watch.received(line.data)
    known = session.unread
    return ([] if known is None else [name for name in watch.unread or () if name not in known]), watch.errors


class _Watched(dict[str, Any]):
    """A JSON object that notes which of its keys are read."""

    def __init__(self, value: dict[str, Any]) -> None:
        super().__init__({key: _watched(item) for key, item in value.items()})
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self._read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, and note its key."""
        self._read.add(key)
        return super().get(key, default)

    def unread(self, name: str, kept: set[int]) -> Iterator[str]:
        """Yield the names of the keys that were not read. `kept` holds the ids of the objects that a message keeps."""
        if id(self) in kept:
            return
        for key, value in dict.items(self):
            if key not in self._read:
                yield f"{name}.{key}"
            else:
                yield from _unread(value, f"{name}.{key}", kept)


def _watched(value: Any) -> Any:
    if isinstance(value, dict):
        return _Watched(value)
    return [_watched(item) for item in value] if isinstance(value, list) else value


def _unread(value: Any, name: str, kept: set[int]) -> Iterator[str]:
    if isinstance(value, _Watched):
        yield from value.unread(name, kept)
    elif isinstance(value, list) and id(value) not in kept:
        for item in value:
            yield from _unread(item, f"{name}[]", kept)


def _kept(value: Any) -> Iterator[int]:
    """Yield the ids of all objects and lists that a message of the SDK keeps as they were."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _kept(getattr(value, field.name))
    elif isinstance(value, dict | list):
        yield id(value)
        if isinstance(value, list):
            for item in value:
                yield from _kept(item)
