"""The common parts of the commands record, replay, serve and proxy: use cassettes, serve them, and report the result."""

import asyncio
import errno
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..recorder.cassette.format import names_file
from ..recorder.cassette.kept import NOTHING_KEPT, Kept
from ..recorder.cassette.named import is_elsewhere, read_named
from ..recorder.cassette.transfer import exchanges_of, kept_in
from ..recorder.errors import CassetteError, CassetteMissing, InputError, MissError, RetoldError, RunError
from ..recorder.files import why_not_writable
from ..recorder.http.exchange import Exchange
from ..recorder.http.recognition import is_anthropic
from ..recorder.log.log import EventLog
from ..recorder.proxy.http1 import Server
from ..recorder.proxy.upstream import Upstream
from ..replay.matching.profiles import check_profile
from ..replay.matching.rules import DEFAULT_RULES, Rules
from ..replay.timing.timing import INSTANT, Timing
from ..settings import Settings
from ..testing.record_modes import RecordMode, check, resolve
from ..testing.session import CassetteSession
from ..workflow.pricing import price
from .child import Child, environment
from .serving import Serving
from .summary import door_lines, recorded_line, replayed_line, trouble_lines

GRACE_S = 0.5
"""How long connections may outlive the command, because their end arrives a moment after its own."""

Note = Callable[[str], None]


# Cassettes put to use


def put_to_use(
    path: Path | None, mode: RecordMode, *, log: EventLog, name: str, upstream: Upstream, profile: str = "auto",
    kept: Kept = NOTHING_KEPT, timing: Timing = INSTANT, data: dict[str, Any] | None = None, **settings: Any,
) -> CassetteSession:  # fmt: skip
    """Return the session of a cassette, or of the log alone if there is no path. Raise InputError, CassetteError, LogError.

    `kept` are rules of matching that a recording keeps.
    """
    if mode != "none":
        if path is not None and (why := why_not_writable(path)) is not None:
            raise CassetteError(f"cannot write the cassette {path}: {why}.")
        log.open()  # now, not while the first client waits for its answer; an unusable log is reported at once
        price("", {})  # loads for 150 ms, which must not fall into a stream
    rules, detect = (DEFAULT_RULES, True) if profile == "auto" else (_rules_of(profile), False)
    rules = rules.with_kept(kept)
    own = Settings(
        timing=timing, rules=rules, detect=detect, recordings=log, name=name, stamped="arrival", price=price,
        data={"upstream": upstream.url, **(data or {})}, **settings,
    )  # fmt: skip
    made = CassetteSession(path, mode, own)
    if made.only_replays and made.sessions and not made.exchanges:
        raise InputError(
            f"{path} holds no requests, only sessions of the Agent SDK. use_cassette replays them in the program itself; "
            "retold play shows them."
        )
    return made


def _rules_of(profile: str) -> Rules:
    return replace(DEFAULT_RULES, profile=check_profile(profile))


def mode_of(asked: str) -> RecordMode:
    """Return the record mode of a server. A started recording means `rewrite`, so it holds under CI too. Raise InputError."""
    mode = check(asked) if asked == "rewrite" else resolve(asked)
    if mode == "verify":
        raise InputError(
            "record mode verify is one of use_cassette and pytest; give none, once, new_episodes, refresh, all or rewrite."
        )
    return mode


def recording_named(reference: str, log: EventLog) -> tuple[str, Sequence[Exchange] | None, Kept]:
    """Return the name of the recording RUN|CASSETTE, and the exchanges and the kept rules of a run, a pipe or a revision.

    The exchanges are None for a cassette that is a file, which has a path.
    """
    if is_elsewhere(reference):
        held = read_named(reference)
        if not held.exchanges:
            raise InputError(f"{reference} has no exchanges to replay.")
        return reference, held.exchanges, held.kept
    if names_file(reference):
        if not Path(reference).exists():
            raise CassetteMissing(f"no cassette at {reference}. Record one: retold record -o {reference} -- COMMAND.")
        return reference, None, NOTHING_KEPT
    found = log.find(reference)
    exchanges = exchanges_of(log, found.run)
    if not exchanges:
        raise InputError(f"run {found.run} ({found.name}) has no exchanges to replay.")
    return f"run {found.run[:8]} ({found.name})", exchanges, kept_in(log, found.run)


# Servers


def run_command(command: Sequence[str], serving: Serving, *, key: bool = False) -> Child:
    """Run a command against a server of its own until it ends. With `key`, it gets a dummy key if it has none.

    A recording through Anthropic's API leaves the clients of Bedrock and Vertex alone, because their requests and credentials
    belong to other hosts. A replay answers them, too.
    Signals go to the command until you leave the child as a context manager.
    """
    server = Server(serving.answerer)
    try:
        platforms = key or not is_anthropic(serving.upstream.host)
        child = Child(command, environment(os.environ, server.url, key=key, platforms=platforms))
    except RetoldError:
        server.close()
        raise
    try:
        asyncio.run(server.run(child.wait(), grace_s=GRACE_S))
    except BaseException:
        with child:
            raise
    return child


def serve_until_stopped(serving: Serving, host: str, port: int, note: Note, *, is_worker: bool = False) -> None:
    """Serve until SIGINT or SIGTERM. Print the URL to stdout when the server listens and can be stopped. Raise MissError.

    A worker shares its port, and is stopped by the end of its stdin or SIGTERM.
    """
    try:
        server = Server(serving.answerer, host=host, port=port, shares_port=is_worker)
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    gc.collect()
    gc.freeze()  # a collection of all that was imported would delay every stream by 50 ms
    asyncio.run(_served(server, serving, is_worker=is_worker))
    for use in serving.uses.values():
        close(use, None, note)
    note_doors(serving, note)
    raise_for(serving)


def cannot_listen(host: str, port: int, error: OSError) -> InputError:
    """Return the error of an address that is not available."""
    if error.errno == errno.EADDRINUSE:
        return InputError(f"cannot listen on {host} port {port}: it is in use. --port 0 takes a free one.")
    return InputError(f"cannot listen on {host} port {port}: {error.strerror or error}.")


def _stopped_by_stdin(stop: asyncio.Event) -> None:
    """End a worker: its parent sends nothing, so its stdin can be read when the parent has closed it, or is gone."""
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    stop.set()


async def _served(server: Server, serving: Serving, *, is_worker: bool) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if is_worker:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the parent ends the workers
        loop.add_reader(sys.stdin.fileno(), _stopped_by_stdin, stop)
    else:
        loop.add_signal_handler(signal.SIGINT, stop.set)
    print(server.url, flush=True)
    if not is_worker:
        serving.tell(f"retold: {serving} at {server.url}; Ctrl-C or SIGTERM ends it")
    await server.run(stop.wait())


# Endings


def failure_of(child: Child) -> RunError | None:
    """Return the failure of the command, or None if it exited with 0."""
    if child.code == 0:
        return None
    return RunError(f"the command exited with {child.code}" if child.code > 0 else f"signal {-child.code} ended the command")


def close(use: CassetteSession, failure: RunError | None, note: Note) -> None:
    """End the use of a cassette and print its summary. A failed command does not replace a cassette that is there."""
    kept = failure is None or use.path is None or not use.path.exists()
    use.close(kept=kept, error=failure)
    if use.play_count or use.record_mode == "none":
        note(f"retold: {replayed_line(use)}")
    if use.recorded:
        note(f"retold: {recorded_line(use)}")
        for line in trouble_lines(use):
            note(f"retold: {line}")
    if use.recorded and not kept:
        way = f"retold export {(use.run or '')[:8]} -f -o {use.path}"
        note(f"retold: {use.path} was not replaced, because the command failed; replace it with: {way}")


def note_doors(serving: Serving, note: Note) -> None:
    """Report the requests that a server refused, and the exchanges that clients did not close as they were recorded."""
    for line in door_lines(serving.refusals, serving.kept_open):
        note(f"retold: {line}")


def raise_for(serving: Serving) -> None:
    """Raise the first failure of a server: of its log, else its first miss, because later misses usually follow from it."""
    for failure in serving.failures:
        raise failure
    misses = [miss for use in serving.uses.values() for miss in use.misses]
    if misses:
        raise MissError(misses[0] + (f"\n… and {len(misses) - 1} more after it" if len(misses) > 1 else ""))
