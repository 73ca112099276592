"""retold record: any program, recorded by a proxy between it and the API."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Db, ProfileOption, UpstreamOption, note


def record(
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The program and its arguments, after --.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="CASSETTE", help="Write a cassette too.", show_default="the log only")
    ] = None,
    upstream: UpstreamOption = "https://api.anthropic.com",
    name: Annotated[str | None, typer.Option(help="Name of the run.", show_default="the cassette's, or the program's")] = None,
    mode: Annotated[
        str, typer.Option("--mode", help="rewrite, or with -o: once, new_episodes (record what it lacks) or all.")
    ] = "rewrite",
    profile: ProfileOption = "auto",
    db: Db = None,
) -> None:
    """Run a program and record what it asks the API: a proxy on this machine, ANTHROPIC_BASE_URL set for the program only.

    Its streams, signals and exit code are its own; what it gets is what the API sends, as it comes.

    Example: retold record -o cassettes/hello.yaml -- claude -p "Say hello"
    """
    from ..modes import check, resolve
    from ..recorder.log import EventLog
    from ..recorder.upstream import Upstream
    from ..replay.timing import INSTANT
    from ..settings import Settings
    from ..used import UsedCassette
    from ..wire.commands import close_recording, failure_of, miss_of, rules_for, run_command
    from ..wire.serving import Serving
    from ..wire.summary import recorded_line, replayed_line
    from ..workflow.pricing import price

    to = Upstream.parse(upstream)
    title = name or (output.stem if output is not None else Path(command[0]).name)
    record_mode = check(mode) if mode == "rewrite" else resolve(mode)
    with EventLog(db) as log:
        settings = Settings(
            timing=INSTANT, **rules_for(profile), recordings=log, name=title, stamped="arrival", price=price,
            data={"command": command, "upstream": to.url},
        )  # fmt: skip
        use = UsedCassette(output, record_mode, settings)
        serving = Serving({title: use}, to)
        child = run_command(command, serving, key=False)
        remark = close_recording(use, failure_of(child))
        if use.play_count:
            note(f"retold: {replayed_line(use, use.source)}")
        if use.recorded:
            note(f"retold: {recorded_line(use)}")
    if remark is not None:
        note(f"retold: {remark}")
    for failure in (*serving.failures, miss_of([use])):
        if failure is not None:
            raise failure
    child.end_alike()
    if not use.recorded and not use.play_count:
        note("retold: nothing was recorded: no request came. Does the program heed ANTHROPIC_BASE_URL?")
    raise typer.Exit(child.code or int(not use.recorded and not use.play_count))
