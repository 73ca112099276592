"""retold record: record any program through a proxy between it and the API."""

import os
from pathlib import Path
from typing import Annotated

import typer

from .common import AllowOrigin, Db, IgnoreOption, MaskOption, ProfileOption, ShipOption, UpstreamOption, note, shipped
from .endings import check_cassette


def record(
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The program and its arguments, after --.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="CASSETTE", help="Also write a cassette.", show_default="the log only"),
    ] = None,
    upstream: UpstreamOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.", show_default="the cassette's, or the program's")] = None,
    mode: Annotated[
        str, typer.Option("--mode", help="rewrite, or with -o: once, new_episodes, refresh or all, as in tests.")
    ] = "rewrite",
    profile: ProfileOption = "auto",
    ignore: IgnoreOption = None,
    mask: MaskOption = None,
    allow_origin: AllowOrigin = None,
    ship: ShipOption = None,
    db: Db = None,
) -> None:
    """Run a program and record its requests to the API through a proxy on this machine.

    ANTHROPIC_BASE_URL is set for the program only, and the variables of Bedrock and Vertex if --upstream is not Anthropic's. The
    program keeps its streams, signals and exit code, and gets every byte of
    the API on arrival.

    Example: retold record -o cassettes/hello.yaml -- claude -p "Say hello"
    """
    from ..recorder.cassette.kept import Kept
    from ..recorder.errors import InputError
    from ..recorder.folders import Folders
    from ..recorder.http.platforms import api_of
    from ..recorder.log.log import EventLog
    from ..recorder.proxy.upstream import Upstream
    from ..servers.commands import close, failure_of, mode_of, note_doors, put_to_use, raise_for, run_command
    from ..servers.gate import Gate, origins_of
    from ..servers.serving import Serving

    check_cassette(output)
    to, gate = Upstream.parse(upstream or api_of(os.environ)), Gate(origins=origins_of(allow_origin or ()))
    record_mode = mode_of(mode)
    if output is None and record_mode != "rewrite":
        raise InputError(f"--mode {mode} needs a cassette to look into; name it with -o.")
    title = name or (output.stem if output is not None else Path(command[0]).name)
    with EventLog(db) as log, shipped(log, ship):
        data = {"command": command}
        kept = Kept(tuple(ignore or ()), tuple(mask or ()))
        use = put_to_use(output, record_mode, log=log, name=title, upstream=to, profile=profile, kept=kept, data=data)
        serving = Serving({title: use}, to, gate, folders=Folders.here())
        with run_command(command, serving) as child:
            close(use, failure_of(child), note)
            note_doors(serving, note)
    raise_for(serving)
    child.end_alike()
    nothing = not use.recorded and not use.play_count
    if nothing:
        note("retold: nothing was recorded: no request came. Does the program read ANTHROPIC_BASE_URL?")
        if not os.environ.keys() & {"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"}:
            note("retold: ANTHROPIC_API_KEY is not set, and without a key most programs send no request.")
    raise typer.Exit(child.code or int(nothing or serving.turned_away))
