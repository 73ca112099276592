"""retold export: write runs of the log to files."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from ..recorder.files import plain_name
from ..recorder.words import clean
from .common import Db, note
from .endings import file_of, unknown_ending

if TYPE_CHECKING:
    from ..formats import Format
    from ..recorder.log.log import EventLog
    from ..recorder.log.runs import RunInfo


def export(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="An id, a unique prefix of one, a name, last, or last~N.", show_default=False),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Export every run, oldest first; cassettes are written to a folder.")
    ] = False,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="cassette, jsonl, stream-json, transcript, agent-cassette, session-trace, otlp, atif, markdown, html, parquet.",
            show_default="by the file's ending",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file to write.", show_default="stdout")
    ] = None,
    content: Annotated[
        bool, typer.Option("--content", help="With otlp: write prompts, answers, tool inputs and results, and error texts, too.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
    db: Db = None,
) -> None:
    """Export a run as a cassette (which vcrpy can replay), as JSON lines, as a transcript, or for another tool: otlp for
    OpenTelemetry, atif for Harbor, session-trace for the trace viewer of the Hugging Face Hub.

    jsonl keeps every event byte-exact. `retold import` reads it and every other format but markdown, html and parquet.

    Example: retold export last -o cassettes/hello.yaml
    """
    from ..recorder.errors import InputError
    from ..recorder.log.log import EventLog

    if (run is None) != everything:
        raise InputError("name the run to export, or --all; one of them.")
    output = file_of(output)
    name = format_ or _by_ending(output)
    form, log = _format(name, content=content), EventLog(db)
    runs = log.runs()[::-1] if run is None else [log.find(run)]
    if not runs:
        raise InputError(f"the log {log.path} holds no runs yet; there is nothing to export.")
    known, runs = len(runs), list(_readable(log, form, runs)) if everything else runs
    if everything and not form.many:
        _write_folder(log, form, [info for info in runs if info.mode != "audit"], output, force=force)
    elif not runs:
        raise InputError("no run can be read; nothing was written.")
    elif output is None:
        if not form.text and sys.stdout.isatty():
            raise InputError(f"{name} is not for a terminal; name a file with -o FILE.")
        form.write(log, runs, cast(BinaryIO, _Screen()) if sys.stdout.isatty() else sys.stdout.buffer)
        _note_erased(log, form, runs)
    else:
        _write(log, form, runs, output, force=force)
    if not everything and runs[0].mode == "mock" and name == "cassette":
        note(f"retold: run {runs[0].run[:8]} is a replay; the cassette has the pace of the replay, not of its recording")
    if len(runs) < known:
        raise typer.Exit(1)


def _readable(log: "EventLog", form: "Format", runs: "Sequence[RunInfo]") -> "Iterator[RunInfo]":
    """Yield the writable runs and name the others, so that one changed run does not block the export of the rest."""
    from ..formats.cassette import is_empty
    from ..recorder.errors import RetoldError

    with open(os.devnull, "wb") as nowhere:
        for info in runs:
            try:
                if form.counts != "exchange" or not is_empty(log, info):
                    form.write(log, [info], nowhere)
                yield info
            except RetoldError as error:
                note(f"retold: run {info.run[:8]} ({info.name}) is left out: {error}")


def _format(name: str, *, content: bool) -> "Format":
    from ..formats import FORMATS
    from ..recorder.errors import InputError

    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}: one of {', '.join(FORMATS)}.")
    form = FORMATS[name]
    if content and not form.content:
        raise InputError(f"--content is for --format otlp; {name} always has the content.")
    return replace(form, with_content=content)


def _by_ending(output: Path | None) -> str:
    """Return the format that the ending of a file names: a cassette without a file or an ending."""
    from ..formats import FORMATS

    if output is None or not output.suffix or output.is_dir():
        return "cassette"
    name = plain_name(output)
    endings = [(ending, format_) for format_, form in FORMATS.items() for ending in form.suffixes if name.endswith(ending)]
    if not endings:
        raise unknown_ending(output, [ending for form in FORMATS.values() for ending in form.suffixes])
    return max(endings, key=lambda found: len(found[0]))[1]


def _write(log: "EventLog", form: "Format", runs: "Sequence[RunInfo]", output: Path, *, force: bool) -> None:
    """Write the file completely or not at all: the new file replaces the old one only when it is complete."""
    from ..formats import FORMATS
    from ..formats.cassette import check
    from ..formats.transcript import write_files
    from ..recorder.cassette.format import write_cassette
    from ..recorder.cassette.sessions import each_session
    from ..recorder.cassette.transfer import each_exchange, kept_in
    from ..recorder.errors import InputError
    from ..recorder.files import is_packed, packing, replacing
    from ..recorder.words import counted, plural

    if output.is_dir():
        raise InputError(f"{output} is a folder; name a file in it.")
    if output.exists() and not force:
        raise InputError(f"{output} exists already; name another file, or replace it with --force.")
    try:
        if form.counts == "exchange":  # a file for git gets the mode of other files there
            check(log, runs[0])
            sessions = list(each_session(log, runs[0].run))
            count = write_cassette(output, each_exchange(log, runs[0].run), sessions, kept_in(log, runs[0].run))
            written = counted(exchange=count, session=len(sessions))
        elif form.module == FORMATS["transcript"].module:
            if is_packed(output):
                raise InputError("a transcript has several files, which are not compressed; leave out .gz.")
            written = plural(write_files(log, runs[0], output), form.counts)
        else:
            with replacing(output, mode=0o600) as file, packing(file, output) as packed:
                written = plural(form.write(log, runs, packed), form.counts)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror or error}.") from error
    whole = f"run {runs[0].run[:8]}" if len(runs) == 1 else plural(len(runs), "run")
    note(f"retold: {written} of {whole} written to {output}")
    _note_erased(log, form, runs)


def _note_erased(log: "EventLog", form: "Format", runs: "Sequence[RunInfo]") -> None:
    """Report erased requests and answers of a cassette, which no replay plays."""
    from ..experiments.plan import erased_in
    from ..recorder.words import plural

    if form.counts == "exchange":
        for info in runs:
            erased = sum(event.exchange is not None for event in erased_in(log, info.run))
            if erased:
                note(f"retold: the cassette cannot be replayed whole: {plural(erased, 'payload')} of run {info.run[:8]} erased")


def _write_folder(log: "EventLog", form: "Format", runs: "Sequence[RunInfo]", output: Path | None, *, force: bool) -> None:
    """Write one file per run, with its name."""
    import re

    from ..formats.cassette import is_empty
    from ..recorder.errors import InputError

    if output is None or output.suffix:
        raise InputError("this format holds one run per file: name a folder with -o FOLDER, or choose --format jsonl.")
    for info in runs:
        if form.counts != "exchange" or not is_empty(log, info):
            stem = re.sub(r"[^\w.-]+", "_", info.name).strip("._")[:80] or "run"
            _write(log, form, [info], output / f"{stem}-{info.run[:8]}{form.ending}", force=force)
        else:
            note(f"retold: run {info.run[:8]} ({info.name}) has no exchanges; no cassette of it")


class _Screen:
    """The terminal as a binary file that cleans each line."""

    def write(self, data: bytes) -> int:
        sys.stdout.write(clean(data.decode("utf-8", "backslashreplace")))
        return len(data)
