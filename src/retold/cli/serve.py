"""retold serve and retold proxy: the servers of `replay` and `record`, for long use."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..recorder.cassette.kept import NOTHING_KEPT, Kept
from ..recorder.cassette.named import is_elsewhere, read_named, stem_of
from ..recorder.errors import InputError
from .common import (
    AllowOrigin,
    Db,
    FaultOption,
    IdleLimit,
    IgnoreOption,
    MaskOption,
    ProfileOption,
    ShipOption,
    TimingOption,
    UpstreamOption,
    note,
    shipped,
)
from .endings import check_cassette

if TYPE_CHECKING:
    from ..recorder.http.exchange import Exchange
    from ..recorder.log.log import EventLog
    from ..recorder.proxy.upstream import Upstream

Host = Annotated[str, typer.Option("--host", help="The address to listen on.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 chooses a free one. The URL is printed.")]
AllowRemote = Annotated[bool, typer.Option("--allow-remote", help="Answer other machines; requires --token.")]
Token = Annotated[
    str | None, typer.Option("--token", help="The token that requests must carry as x-retold-token.", envvar="RETOLD_TOKEN")
]


def serve(
    cassettes: Annotated[list[Path], typer.Argument(metavar="CASSETTE...", help="The cassettes to answer from.")],
    timing: TimingOption = "instant",
    idle_limit: IdleLimit = None,
    profile: ProfileOption = "auto",
    ignore: IgnoreOption = None,
    mask: MaskOption = None,
    fault: FaultOption = None,
    mode: Annotated[str, typer.Option("--mode", help="none, or to record: once, new_episodes, refresh, all, rewrite.")] = "none",
    upstream: UpstreamOption = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="Answer a request more often than it was recorded.")] = False,
    host: Host = "127.0.0.1",
    port: Port = 0,
    allow_remote: AllowRemote = False,
    token: Token = None,
    allow_origin: AllowOrigin = None,
    ship: ShipOption = None,
    db: Db = None,
) -> None:
    """Answer any client from cassettes, until Ctrl-C or SIGTERM. /health returns the numbers of played exchanges.

    With several cassettes, a client selects one by the base URL http://…/cassette/NAME or by the header x-retold-cassette.
    NAME is the name of the file without its ending.

    Example: retold serve cassettes/hello.yaml cassettes/bye.yaml --port 8080
    """
    from ..recorder.http.platforms import api_of
    from ..recorder.log.log import EventLog
    from ..recorder.proxy.upstream import Upstream
    from ..replay.timing.timing import Timing
    from ..servers.commands import mode_of, put_to_use, serve_until_stopped
    from ..servers.gate import Gate
    from ..servers.serving import Serving

    gate = Gate.make(host, allow_remote=allow_remote, token=token, origins=allow_origin or ())
    record_mode = mode_of(mode)
    to = Upstream.parse(upstream or api_of(os.environ))
    pace = Timing.parse(timing, idle_limit)
    files, kept = _named(cassettes), Kept(tuple(ignore or ()), tuple(mask or ()))
    for path in cassettes:
        if is_elsewhere(str(path)) and record_mode != "none":
            raise InputError(f"{path} cannot be recorded into; leave out --mode, or name a file.")
        if record_mode == "none" and not is_elsewhere(str(path)) and not path.exists():
            raise InputError(f"no cassette at {path}. Record it, for example with --mode once.")
    with EventLog(db) as log, shipped(log, None if record_mode == "none" else ship):
        uses = {
            name: put_to_use(
                held[0], record_mode, log=log, name=name, upstream=to, profile=profile, kept=held[2].with_(kept), timing=pace,
                recorded=held[1], repeats=repeat, faults=tuple(fault or ()),
                hint=f"Record the missing requests with: retold serve {path} --mode new_episodes",
            )
            for name, path in files.items()
            for held in (_held(path),)
        }  # fmt: skip
        serve_until_stopped(Serving(uses, to, gate, note=note), host, port, note)


def proxy(
    upstream: UpstreamOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="CASSETTE", help="Write a cassette at the end.", show_default="none")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the run.")] = "proxy",
    host: Host = "127.0.0.1",
    port: Port = 0,
    processes: Annotated[
        int, typer.Option("--processes", min=1, max=64, help="The processes that share the port; each writes a run of its own.")
    ] = 1,
    allow_remote: AllowRemote = False,
    token: Token = None,
    allow_origin: AllowOrigin = None,
    ship: ShipOption = None,
    db: Db = None,
    worker: Annotated[
        str | None, typer.Option("--worker", hidden=True, help="The mark of the proxy whose process this is.")
    ] = None,
) -> None:
    """Record every request that clients send to the API through this proxy, until Ctrl-C or SIGTERM.

    Example: retold proxy --upstream https://api.anthropic.com --port 8080
    """
    from ..recorder.http.platforms import api_of
    from ..recorder.log.log import EventLog
    from ..recorder.proxy.upstream import Upstream
    from ..servers.commands import put_to_use, serve_until_stopped
    from ..servers.gate import Gate
    from ..servers.serving import Serving

    check_cassette(output)
    gate = Gate.make(host, allow_remote=allow_remote, token=token, origins=allow_origin or ())
    to = Upstream.parse(upstream or api_of(os.environ))
    with EventLog(db) as log, shipped(log, None if worker else ship):
        if processes > 1 and worker is None:
            from ..servers.workers import proxy_in_processes

            command = _worker_command(to, log, name, host, allow_remote=allow_remote, origins=allow_origin or ())
            code = proxy_in_processes(
                processes, command, upstream=to, host=host, port=port, name=name, token=token, log=log, output=output, note=note
            )
            raise typer.Exit(code)
        use = put_to_use(output, "rewrite", log=log, name=name, upstream=to, data={"workers": worker} if worker else None)
        serve_until_stopped(Serving({name: use}, to, gate, note=note), host, port, note, is_worker=worker is not None)


def _worker_command(
    to: "Upstream", log: "EventLog", name: str, host: str, *, allow_remote: bool, origins: Sequence[str]
) -> list[str]:  # fmt: skip
    """Return the command of one process of a proxy, without its port."""
    command = ["proxy", "--upstream", to.url, "--name", name, "--host", host, "--db", str(log.path)]
    command += ["--allow-remote"] if allow_remote else []
    return command + [part for origin in origins for part in ("--allow-origin", origin)]


def _held(path: Path) -> "tuple[Path | None, Sequence[Exchange] | None, Kept]":
    """Return the path of a cassette that is a file; the exchanges and the kept rules of one that is a pipe or a revision."""
    if not is_elsewhere(str(path)):
        return path, None, NOTHING_KEPT
    held = read_named(path)
    return None, held.exchanges, held.kept


def _named(paths: list[Path]) -> dict[str, Path]:
    """Return the cassettes by the names that requests use. Raise InputError for two files of the same name."""
    files: dict[str, Path] = {}
    for path in paths:
        name = stem_of(path)
        if name in files:
            raise InputError(f"{files[name]} and {path} have the same name; serve them one at a time.")
        files[name] = path
    return files
