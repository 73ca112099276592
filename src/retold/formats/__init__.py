"""The formats of exports, one module each, and the import of files.

The module of a format has a function `write(log, runs, out)`, which reads events from the log while it writes. So memory stays
flat for runs of any length.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo

Write = Callable[[EventLog, Sequence[RunInfo], BinaryIO], int]
"""A function that writes runs to an open file and returns the number of events, messages or exchanges. Raises LogError."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its module, the suffixes of its files, the noun of its count, and whether a file holds several runs."""

    module: str
    suffixes: tuple[str, ...]
    counts: str
    many: bool = True
    text: bool = True

    @property
    def write(self) -> Write:
        """The function that writes the format. Access imports its module."""
        return cast(Write, importlib.import_module(f".{self.module}", __name__).write)


FORMATS = {
    "cassette": Format("cassette", (".yaml", ".yml", ".json"), "exchange", many=False),
    "jsonl": Format("jsonl", (".jsonl", ".ndjson"), "event"),
    "stream-json": Format("stream_json", (), "message"),
    "agent-cassette": Format("agent_cassette", (), "line", many=False),
    "transcript": Format("transcript", (), "line", many=False),
    "markdown": Format("markdown", (".md", ".markdown"), "message"),
    "html": Format("html", (".html", ".htm"), "message", many=False),
    "parquet": Format("parquet", (".parquet",), "event", text=False),
}
