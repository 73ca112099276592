"""retold replay: run a program offline against its recording."""

from typing import Annotated

import typer

from .common import AllowOrigin, Db, FaultOption, IdleLimit, IgnoreOption, MaskOption, ProfileOption, TimingOption, note


def replay(
    recording: Annotated[
        str, typer.Argument(metavar="RUN|CASSETTE", help="A run in the log, or a cassette: a file, - or REV:path.")
    ],
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The program and its arguments, after --.")],
    timing: TimingOption = "instant",
    idle_limit: IdleLimit = None,
    profile: ProfileOption = "auto",
    ignore: IgnoreOption = None,
    mask: MaskOption = None,
    fault: FaultOption = None,
    allow_origin: AllowOrigin = None,
    db: Db = None,
) -> None:
    """Run a program against a recording, offline and without a key. It gets the recorded bytes and the recorded endings.

    A request without a recording gets an error with the reason, and the exit code is 3. Otherwise it is the program's own.

    Example: retold replay cassettes/hello.yaml -- claude -p "Say hello"
    """
    from pathlib import Path

    from ..recorder.cassette.kept import Kept
    from ..recorder.folders import Folders
    from ..recorder.log.log import EventLog
    from ..recorder.proxy.upstream import Upstream
    from ..replay.timing.timing import Timing
    from ..servers.commands import close, note_doors, put_to_use, raise_for, recording_named, run_command
    from ..servers.gate import Gate, origins_of
    from ..servers.serving import Serving

    log, gate = EventLog(db), Gate(origins=origins_of(allow_origin or ()))
    to = Upstream.parse("https://api.anthropic.com")
    source, exchanges, kept = recording_named(recording, log)
    own = Kept(tuple(ignore or ()), tuple(mask or ()))
    target = recording if exchanges is None else "CASSETTE"
    use = put_to_use(
        Path(recording) if exchanges is None else None, "none", log=log, name=source, upstream=to, profile=profile,
        kept=kept.with_(own), timing=Timing.parse(timing, idle_limit), recorded=exchanges, faults=tuple(fault or ()),
        hint=f"Record the missing requests with: retold record --mode new_episodes -o {target} -- {command[0]} … "
        "Exclude a part that varies with --mask REGEX or --ignore PATH.",
    )  # fmt: skip
    serving = Serving({source: use}, to, gate, folders=Folders.here())
    with run_command(command, serving, key=True) as child:
        close(use, None, note)
        note_doors(serving, note)
    raise_for(serving)
    child.end_alike()
    if not use.play_count:
        note("retold: nothing was replayed: no request came. Does the program read ANTHROPIC_BASE_URL?")
    raise typer.Exit(child.code or int(use.play_count == 0 or serving.turned_away))
