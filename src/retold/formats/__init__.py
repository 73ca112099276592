"""What a run can be exported as, and where what is imported comes from.

A format is a module of this package with `write(log, runs, out)`: it takes events from the log as it writes them, so that
memory stays flat however long a run is.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo

Write = Callable[[EventLog, Sequence[RunInfo], BinaryIO], int]
"""Writes runs to an open file and returns how many things it wrote (events, messages, exchanges). Raises LogError."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format: the module that writes it, the endings of its files, what it counts, whether a file holds several runs."""

    module: str
    suffixes: tuple[str, ...]
    counts: str
    many: bool = True
    text: bool = True

    @property
    def write(self) -> Write:
        """The function that writes it; its module is imported now."""
        return cast(Write, importlib.import_module(f".{self.module}", __name__).write)


FORMATS = {
    "cassette": Format("cassette", (".yaml", ".yml", ".json"), "exchange", many=False),
    "jsonl": Format("jsonl", (".jsonl", ".ndjson"), "event"),
    "stream-json": Format("stream_json", (), "message"),
    "markdown": Format("markdown", (".md", ".markdown"), "message"),
    "html": Format("html", (".html", ".htm"), "message", many=False),
    "parquet": Format("parquet", (".parquet",), "event", text=False),
}
