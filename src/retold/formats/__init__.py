"""The formats of exports, one module each, and the import of files.

The module of a format has a function `write(log, runs, out)`, which reads events from the log while it writes. So memory stays
flat for runs of any length. (The one document of `atif` is built in memory.)
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, cast

from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo

Write = Callable[[EventLog, Sequence[RunInfo], BinaryIO], int]
"""A function that writes runs to an open file and returns the number of events, messages or exchanges. Raises LogError."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its module, the endings of its files, the noun of its count, and whether a file holds several runs.

    `--all` gives the files of a format with one run per file the ending `ending`. A format with `content` leaves out texts
    unless `with_content` is true.
    """

    module: str
    suffixes: tuple[str, ...]
    counts: str
    many: bool = True
    text: bool = True
    content: bool = False
    with_content: bool = False
    own_ending: str = ""

    @property
    def ending(self) -> str:
        """The ending of a file that `--all` writes."""
        return self.own_ending or self.suffixes[0]

    @property
    def write(self) -> Write:
        """The function that writes the format. Access imports its module."""
        write = importlib.import_module(f".{self.module}", __name__).write
        return cast(Write, partial(write, content=True) if self.with_content else write)


FORMATS = {
    "cassette": Format("cassette", (".yaml", ".yml", ".json"), "exchange", many=False),
    "jsonl": Format("jsonl", (".jsonl", ".ndjson"), "event"),
    "stream-json": Format("stream_json", (), "message"),
    "agent-cassette": Format("agent_cassette", (), "line", many=False, own_ending=".jsonl"),
    "transcript": Format("transcript", (), "line", many=False, own_ending=".jsonl"),
    "session-trace": Format("session_trace", (".trace.jsonl",), "message", many=False),
    "otlp": Format("otlp", (".otlp.json", ".otlp.jsonl"), "span", content=True),
    "atif": Format("atif", (".atif.json",), "step", many=False),
    "markdown": Format("markdown", (".md", ".markdown"), "message"),
    "html": Format("html", (".html", ".htm"), "message", many=False),
    "parquet": Format("parquet", (".parquet",), "event", text=False),
}
