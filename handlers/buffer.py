"""buffer: keep messages in memory for the program that runs the workflow. They are in the run's result."""

from collections import deque
from typing import Annotated, Any, Literal

from pydantic import Field

from ..recorder.messages import Message
from .base import Handler, Options
from .jsonl import as_json


class BufferOptions(Options):
    """The number of messages to keep, and which ones to drop beyond it."""

    max_size: Annotated[int, Field(ge=1)] = 1000
    drop: Literal["oldest", "newest"] = "oldest"


class Buffer(Handler):
    """Keeps up to `max_size` messages and counts the dropped ones."""

    name = "buffer"
    Options = BufferOptions
    options: BufferOptions
    silent = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.messages: deque[Message] = deque()
        self.dropped = 0

    def message(self, message: Message) -> bool:
        if len(self.messages) < self.options.max_size:
            self.messages.append(message)
            return True
        self.dropped += 1
        if self.options.drop == "newest":
            return False
        self.messages.popleft()
        self.messages.append(message)
        return True

    def result(self) -> dict[str, Any]:
        """Return `{buffered: [message, …], dropped: n}`, with messages in the form of `handlers/jsonl.py`."""
        return {"buffered": [as_json(message) for message in self.messages], "dropped": self.dropped}
