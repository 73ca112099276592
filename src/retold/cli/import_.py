"""retold import: read cassettes, stream-json, session transcripts and exported runs into the log."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Db, Json, note, print_json, say


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Cassettes (.yaml, .json) of retold or vcrpy; .jsonl: stream-json, a session, an export; traces, trajectories.",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name of the run.", show_default="the file's")] = None,
    again: Annotated[bool, typer.Option("--again", help="Import a file even if it is in the log already.")] = False,
    json: Json = False,
    db: Db = None,
) -> None:
    """Import files into the log, each as a separate run: cassettes of retold and vcrpy, the output of Claude Code with
    --output-format stream-json, its transcripts with those of their subagents, tapes of claude-agent-cassette, session traces of
    the Hugging Face Hub, trajectories in ATIF, traces in the JSON of OTLP, and JSON lines that retold exported.

    All files are read before the first is written. A file that was imported before is skipped.

    Example: retold import tests/cassettes/test_chat.yaml
    """
    from ..formats.imports import import_files
    from ..recorder.log.log import EventLog
    from ..recorder.words import counted, one_line, plural

    with EventLog(db) as log:
        imported = import_files(log, files, name=name, again=again)
    for each in imported:
        if each.cut_line is not None:
            note(one_line(f"retold: {each.file}:{each.cut_line}: the last line is cut short and was left out"))
        if each.unknown_lines:
            lines = ", ".join(map(str, each.unknown_lines[:5])) + (", …" if len(each.unknown_lines) > 5 else "")
            which = f"{plural(len(each.unknown_lines), 'line')} of an unknown form, kept unchanged: {lines}"
            note(one_line(f"retold: {each.file}: {which}"))
    if json:
        print_json([{**each.as_dict(), f"{each.counts}s": each.count} for each in imported])
        return
    for each in imported:
        held = counted(**{each.counts: each.count, "session": each.sessions})
        say(one_line(f"{each.run}  {each.name}  {held if each.new else 'is there already'}"))
