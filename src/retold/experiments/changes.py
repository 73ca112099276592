"""Changes of live requests: another model, or other values at paths of the JSON body."""

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..recorder.errors import InputError
from ..recorder.events import encode
from ..recorder.strict_json import object_in, object_or_empty

_PATH = re.compile(r"[^.\[\]=]+(?:\.[^.\[\]=]+|\[\d{1,6}\])*")
_PARTS = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class Changes:
    """The changes of every live request of a fork that asks for a message: its model, and values by path.

    A path is `temperature`, `thinking.type` or `tools[3].description`. A value of None removes the key. Keys that a request does
    not have are added; a request without the item of a list stays as it is.
    """

    model: str | None = None
    values: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, model: str | None, assignments: Iterable[str]) -> Self:
        """Parse `PATH=VALUE` texts; a VALUE that is not JSON is text. Raise InputError."""
        values = []
        for text in assignments:
            path, equals, value = text.partition("=")
            if not equals:
                raise InputError(f"--set {text}: give PATH=VALUE, such as temperature=0.2 or thinking.type=disabled.")
            values.append((path.strip(), _value(value)))
        return cls.of(model, dict(values))

    @classmethod
    def of(cls, model: str | None, values: Mapping[str, Any]) -> Self:
        """Return the changes to a model and to values by path. Raise InputError."""
        for path in values:
            if _PATH.fullmatch(path) is None:
                raise InputError(f"{path!r} is no path in a request: give keys and indices, such as tools[3].description.")
        return cls(model, tuple(values.items()))

    @classmethod
    def recorded(cls, started: dict[str, Any]) -> tuple[Self, ...]:
        """Return the changes in the payload of a fork's first event: its own first, then those of its parents."""
        made = started.get("changes")
        values = [object_or_empty(value) for value in made] if isinstance(made, list) else []
        return tuple(cls.of(value.get("model"), object_or_empty(value.get("set"))) for value in values)

    def __bool__(self) -> bool:
        return self.model is not None or bool(self.values)

    def as_dict(self) -> dict[str, Any]:
        """Return the value of `changes` in the first event of a fork."""
        return {"model": self.model, "set": dict(self.values)}

    def applied(self, body: bytes) -> bytes:
        """Return the body of a request with the changes; a body that asks for no message is returned unchanged."""
        asked = object_in(body) if self else {}
        if not isinstance(asked.get("messages"), list):
            return body
        changed = self.applied_to(asked)
        return body if changed == asked else encode(changed)

    def applied_to(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return a request with the changes; the given object stays as it is."""
        changed: dict[str, Any] = json.loads(encode(asked))
        if self.model is not None and "model" in changed:
            changed["model"] = self.model
        for path, value in self.values:
            _put(changed, [key or int(index) for key, index in _PARTS.findall(path)], value)
        return changed

    def fits(self, body: bytes) -> str | None:
        """Return the first path that a request does not have, or None."""
        asked = object_in(body)
        for path, value in self.values:
            if not _put(json.loads(encode(asked)), [key or int(index) for key, index in _PARTS.findall(path)], value):
                return path
        return None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _put(target: Any, parts: list[str | int], value: Any) -> bool:
    """Set or remove the value at a path, and return whether the path fits. Absent objects are made, lists never grow."""
    for part, following in itertools.pairwise(parts):
        if isinstance(target, dict) and part not in target and isinstance(following, str) and value is not None:
            target[part] = {}
        if not _holds(target, part):
            return False
        target = target[part]
    last = parts[-1]
    if isinstance(target, dict) and isinstance(last, str):
        if value is None:
            target.pop(last, None)
        else:
            target[last] = value
        return True
    if not _holds(target, last):
        return False
    if value is None:
        del target[last]
    else:
        target[last] = value
    return True


def _holds(target: Any, part: str | int) -> bool:
    if isinstance(target, dict):
        return part in target
    return isinstance(target, list) and isinstance(part, int) and part < len(target)
