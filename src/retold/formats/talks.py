"""Talks: the messages of another program's file, as lines of stream-json with their times. An import appends them as a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..recorder.messages import Session
from .stream_json import Timed
from .turns import SYSTEM_PROMPT


@dataclass(slots=True)
class Talk:
    """The lines of one run. `key` is empty for a file with one run; else it differs between the runs of the file."""

    name: str
    key: str = ""
    lines: list[Timed] = field(default_factory=list)
    session: Session = field(default_factory=Session)

    def add(self, at_ns: int, unit: tuple[str, str], data: dict[str, Any], *, copied: bool = False) -> None:
        """Add a line. `copied` marks context of another trajectory."""
        self.lines.append(Timed(at_ns, *unit, data | {"is_copied_context": True} if copied else data))

    def user(self, at_ns: int, unit: tuple[str, str], blocks: list[dict[str, Any]], *, copied: bool = False) -> None:
        """Add a prompt or results of tools."""
        self.add(at_ns, unit, self.session.user(blocks), copied=copied)

    def system(self, at_ns: int, unit: tuple[str, str], blocks: list[dict[str, Any]], *, copied: bool = False) -> None:
        """Add a system prompt."""
        self.add(at_ns, unit, self.session.system(SYSTEM_PROMPT, {"content": blocks}), copied=copied)

    def answer(
        self, at_ns: int, unit: tuple[str, str], message: Mapping[str, Any], blocks: list[dict[str, Any]], *, copied: bool = False
    ) -> None:  # fmt: skip
        """Add an answer, one line for each of its blocks. `message` has its id, model, usage and so on."""
        whole = {"type": "message", "role": "assistant", **{key: value for key, value in message.items() if value is not None}}
        for block in blocks or [{"type": "text", "text": ""}]:
            self.add(at_ns, unit, self.session.assistant(whole, block, None), copied=copied)

    @property
    def count(self) -> int:
        """The number of messages."""
        return len(self.lines)
