"""retold search: search prompts, answers and tools, newest first."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..recorder.words import plural
from .common import Csv, Db, Json, form_of, note, print_json_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..audit.runs import Chosen
    from ..audit.search import Hit, Narrowed, TextLine
    from ..recorder.log.log import EventLog

WIDTH = 200
"""Columns of a long line to print if the output is not a terminal."""


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help='Words, "a phrase", beginn*, AND, OR, NOT, parentheses.')],
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only in this run.", show_default="all")] = None,
    step: Annotated[str | None, typer.Option("--step", metavar="NAME", help="Only in steps of this name.")] = None,
    type_: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="TYPE", help="prompt, assistant, user, text, thinking, tool_use, tool_result, result or error."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="TEXT", help="Only runs with this in their name, or a pattern with *.")
    ] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Only runs that are running, completed, failed, cancelled or interrupted.")
    ] = None,
    error: Annotated[bool, typer.Option("--error", help="Only runs that failed, or have a failed call.")] = False,
    tool: Annotated[str | None, typer.Option("--tool", metavar="NAME", help="Only inputs and results of this tool.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Only prompts and answers of this model.")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="2h or 7d (ago), today, a date, a time.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="The end, in the same forms.")] = None,
    around: Annotated[int, typer.Option("--context", "-C", min=0, metavar="N", help="Lines around each matching line.")] = 1,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of hits.")] = 20,
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first.")] = False,
    csv: Csv = False,
    json: Json = False,
    db: Db = None,
) -> None:
    """Search the messages, prompts, tool inputs, tool results and errors of all runs, newest first.

    Exit code 1 if nothing was found.

    Example: retold search '"rate limit" AND retry*' --since 7d
    """
    from ..audit.runs import Chosen
    from ..audit.search import Narrowed, to_fts
    from ..audit.when import moment
    from ..recorder.log.log import EventLog

    to_fts(text)
    form = form_of(json=json, csv=csv)
    log = EventLog(db)
    narrowed = Narrowed(
        run=None if run is None else log.find(run).run,
        step=step,
        type=type_,
        tool=tool,
        model=model,
        since_ns=None if since is None else moment(since, "--since"),
        until_ns=None if until is None else moment(until, "--until"),
    )
    chosen = Chosen(name=name, status=status, failed=error)
    count = 0
    for count, hit in enumerate(_hits(log, text, narrowed, chosen, limit=limit + 1, oldest=oldest), 1):
        if count > limit:
            note(f"retold: the {'oldest' if oldest else 'newest'} {limit}; more with -n {limit * 5}")
        else:
            _print(hit, around, form, first=count == 1)
    _tell(text, count, limit)


def _print(hit: "Hit", around: int, form: str, *, first: bool) -> None:
    from .table import print_csv

    if form == "text":
        _show(hit, around, first=first)
        return
    found = _as_json(hit, around)
    if form == "json":
        print_json_lines([found])
        return
    lines = "\n".join(line.text for line in hit.lines if line.found)
    row = {**found, "type": hit.type, "lines": lines}
    if first:
        print_csv(list(row), [])
    print_csv([], [list(row.values())])


def _tell(text: str, count: int, limit: int) -> None:
    """Print the number of hits on a terminal. Exit with 1 if there are none."""
    if not count:
        note(f"retold: nothing found for {text!r}")
        raise typer.Exit(1)
    if sys.stderr.isatty() and count <= limit:
        note(f"retold: {plural(count, 'hit')}")


def _hits(
    log: "EventLog", text: str, narrowed: "Narrowed", chosen: "Chosen", *, limit: int, oldest: bool
) -> "Iterator[Hit]":  # fmt: skip
    from contextlib import ExitStack
    from dataclasses import replace

    from ..audit.index import opened
    from ..audit.runs import ids_of
    from ..audit.search import search as find
    from ..recorder.log.runs import EVERY_RUN
    from .ls import check_status
    from .terminal import progress

    check_status(chosen.status)
    with ExitStack() as stack:
        with progress("indexed", "events") as told:  # its line is gone before the first hit
            index = stack.enter_context(opened(log, progress=told))
        if chosen.query != EVERY_RUN or chosen.failed:
            narrowed = replace(narrowed, runs=ids_of(log, index, chosen))
        yield from find(index, text, narrowed, limit=limit, oldest=oldest)


def _as_json(hit: "Hit", around: int) -> dict[str, object]:
    from ..audit.search import context
    from ..recorder.http.exchange import timestamp

    return {
        "run": hit.run,
        "name": hit.name,
        "seq": hit.seq,
        "time": timestamp(hit.wall_ns),
        "step": hit.step,
        "type": hit.type.split(),
        "tool": hit.tool,
        "model": hit.model,
        "lines": [
            {"number": line.number, "text": line.text, "found": [list(span) for span in line.found]}
            for group in context(hit.lines, around)
            for line in group
        ],
    }


def _show(hit: "Hit", around: int, *, first: bool) -> None:
    import shutil
    import time

    from ..audit.search import context
    from ..recorder.words import one_line
    from .common import colours
    from .table import fitted

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    bold, off = ("\x1b[1m", "\x1b[0m") if colours() else ("", "")
    when = time.strftime("%m-%d %H:%M:%S", time.localtime(hit.wall_ns / 1e9))
    what = " ".join(filter(None, (hit.type, hit.tool)))
    where = one_line("  ".join(filter(None, (f"{hit.run[:8]}#{hit.seq}", when, what, hit.name, hit.step))))
    print(f"{'' if first else chr(10)}{bold}{fitted(where, width)}{off}")
    for number, group in enumerate(context(hit.lines, around)):
        if number:
            print("  …")
        for line in group:
            print("  " + _shown(line, width - 2))


def _shown(line: "TextLine", width: int) -> str:
    """Return a line, cut to the width around its first match. On a terminal the matches are marked."""
    from ..recorder.words import clean
    from .common import colours
    from .table import width_of

    start = 0
    if line.found and line.found[0][1] > width - 2:
        start = max(line.found[0][0] - width // 3, 0)
    end = min(start + width - 2, len(line.text))
    while width_of(line.text[start:end]) > width - 2:  # wide characters
        end -= 1
    on, off = ("\x1b[1;31m", "\x1b[0m") if colours() else ("", "")
    text, at = "…" if start else "", start
    for low, high in line.found:
        low, high = max(low, at), min(high, end)
        if low < high:
            text += clean(line.text[at:low]) + on + clean(line.text[low:high]) + off
            at = high
    return text + clean(line.text[at:end]) + ("…" if end < len(line.text) else "")
