"""retold replay: the same program again, offline, answered from its recording."""

from typing import Annotated

import typer

from .common import Db, FaultOption, IdleLimit, ProfileOption, TimingOption, note


def replay(
    recording: Annotated[str, typer.Argument(metavar="RUN|CASSETTE", help="A run in the log, or a cassette file.")],
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The program and its arguments, after --.")],
    timing: TimingOption = "instant",
    idle_limit: IdleLimit = None,
    profile: ProfileOption = "auto",
    fault: FaultOption = None,
    db: Db = None,
) -> None:
    """Run a program against a recording: offline, no key needed, the recorded bytes and the recorded endings.

    A request that was not recorded is refused (the program shows why) and makes the exit code 3; else it is the program's own.

    Example: retold replay cassettes/hello.yaml -- claude -p "Say hello"
    """
    from pathlib import Path

    from ..recorder.log import EventLog
    from ..recorder.upstream import Upstream
    from ..replay.timing import Timing
    from ..settings import Settings
    from ..used import UsedCassette
    from ..wire.commands import miss_of, recording_named, rules_for, run_command
    from ..wire.serving import Serving
    from ..wire.summary import replayed_line

    pace = Timing.parse(timing, idle_limit)
    source, exchanges = recording_named(recording, EventLog(db))
    target = recording if exchanges is None else "CASSETTE"
    hint = f"Record what is missing with: retold record --mode new_episodes -o {target} -- {command[0]} …"
    settings = Settings(timing=pace, **rules_for(profile), name=source, recorded=exchanges, hint=hint, faults=tuple(fault or ()))
    use = UsedCassette(Path(recording) if exchanges is None else None, "none", settings)
    serving = Serving({source: use}, Upstream.parse("https://api.anthropic.com"))
    child = run_command(command, serving, key=True)
    note(f"retold: {replayed_line(use, source)}")
    for failure in (*serving.failures, miss_of([use])):
        if failure is not None:
            raise failure
    child.end_alike()
    raise typer.Exit(child.code or int(use.play_count == 0))
