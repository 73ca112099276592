"""Commands run against a server of their own: recorded, or replayed."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..recorder.errors import CassetteMissing, InputError, MissError, RetoldError, RunError
from ..recorder.exchange import Exchange
from ..recorder.http1 import Server
from ..recorder.log import EventLog
from ..recorder.transfer import exchanges_of
from ..replay.profiles import check_profile
from ..replay.rules import DEFAULT_RULES
from ..used import UsedCassette
from ..workflow.pricing import price
from .child import Child, environment
from .serving import Serving
from .summary import recorded_line, replayed_line

GRACE_S = 0.5
"""How long connections may outlive the command: their end is seen a moment after its own."""


def run_command(command: Sequence[str], serving: Serving, *, key: bool = False) -> Child:
    """Run a command against a server of its own, to its end; with `key`, a dummy key stands in for one it does not have."""
    server = Server(serving.answerer)
    try:
        child = Child(command, environment(os.environ, server.url, key=key))
    except RetoldError:
        server.close()
        raise
    # Prices take 150 ms to load, which must not fall into a stream.
    threading.Thread(target=price, args=("", {}), daemon=True).start()
    asyncio.run(server.run(child.wait(), grace_s=GRACE_S))
    return child


def serve_until_stopped(serving: Serving, host: str, port: int, note: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; the URL goes to stdout when the server listens and can be stopped. Raises MissError."""
    try:
        server = Server(serving.answerer, host=host, port=port)
    except OSError as error:
        raise InputError(f"cannot listen on {host} port {port}: {error.strerror or error}.") from error
    threading.Thread(target=price, args=("", {}), daemon=True).start()
    asyncio.run(_served(server, serving))
    for use in serving.uses.values():
        use.close(kept=True)
        if use.exchanges or use.play_count:
            note(f"retold: {replayed_line(use, use.source)}")
        if use.recorded:
            note(f"retold: {recorded_line(use)}")
    for failure in (*serving.failures, miss_of(list(serving.uses.values()))):
        if failure is not None:
            raise failure


async def _served(server: Server, serving: Serving) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(server.url, flush=True)
    serving.tell(f"retold: {serving} at {server.url}; Ctrl-C or SIGTERM ends it")
    await server.run(stop.wait())


def failure_of(child: Child) -> RunError | None:
    """How the command failed, if it did."""
    if child.code == 0:
        return None
    return RunError(f"the command exited with {child.code}" if child.code > 0 else f"signal {-child.code} ended the command")


def close_recording(use: UsedCassette, failure: RunError | None) -> str | None:
    """End a recording. A failed command does not replace a cassette that is there; returns what to say then."""
    kept = failure is None or use.path is None or not use.path.exists()
    use.close(kept=kept, error=failure)
    if kept or not use.recorded:
        return None
    assert use.run is not None
    return f"{use.path} was left as it is, for the command failed; replace it with: retold export {use.run[:8]} -f -o {use.path}"


def recording_named(reference: str, log: EventLog) -> tuple[str, Sequence[Exchange] | None]:
    """What RUN|CASSETTE names: its source, and the exchanges of a run (None for a cassette, which is read by its path)."""
    if is_file(reference):
        if not Path(reference).exists():
            raise CassetteMissing(f"no cassette at {reference}. Record one: retold record -o {reference} -- COMMAND.")
        return reference, None
    found = log.find(reference)
    exchanges = exchanges_of(log, found.run)
    if not exchanges:
        raise InputError(f"run {found.run} ({found.name}) has no exchanges to replay.")
    return f"run {found.run[:8]} ({found.name})", exchanges


def rules_for(profile: str) -> dict[str, Any]:
    """Matching by this profile, as settings of a cassette's use. Raises InputError."""
    if profile == "auto":
        return {"rules": DEFAULT_RULES, "detect": True}
    return {"rules": replace(DEFAULT_RULES, profile=check_profile(profile))}


def is_file(reference: str) -> bool:
    """Whether a reference is the path of a cassette, not a run."""
    return reference.endswith((".yaml", ".yml", ".json")) or "/" in reference or Path(reference).is_file()


def miss_of(uses: Sequence[UsedCassette]) -> MissError | None:
    """The first miss, with how many followed: where a client first diverges is what explains the rest."""
    misses = [miss for use in uses for miss in use.misses]
    if not misses:
        return None
    more = f"\n… and {len(misses) - 1} more after it" if len(misses) > 1 else ""
    return MissError(misses[0] + more)
