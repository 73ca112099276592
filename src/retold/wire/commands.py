"""Commands run against a server of their own: recorded, or replayed."""

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from ..recorder.errors import CassetteMissing, InputError, MissError, RetoldError, RunError
from ..recorder.exchange import Exchange
from ..recorder.http1 import Server
from ..recorder.log import EventLog
from ..recorder.transfer import exchanges_of
from ..used import UsedCassette
from ..workflow.pricing import price
from .child import Child, environment
from .serving import Serving

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
