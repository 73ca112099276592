"""Several processes behind one port, for a recording proxy under more load than one core carries.

The kernel spreads connections over the processes (SO_REUSEPORT). Each process is a proxy of its own and writes a run of its own
into the same log. This process serves nothing: it holds the port, starts the others, replaces one that dies, and ends them.
A worker ends when the pipe to its stdin is closed, so none of them outlives this process, even if that is killed.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..recorder.cassette.format import write_cassette
from ..recorder.cassette.transfer import exchanges_of
from ..recorder.clock import wall_ns
from ..recorder.errors import CassetteError, RunError
from ..recorder.files import why_not_writable
from ..recorder.http.exchange import Exchange
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunQuery
from ..recorder.proxy.http1 import url_of
from ..recorder.proxy.upstream import Upstream
from ..recorder.words import plural
from .commands import Note, cannot_listen

MAX_DEATHS, DEATHS_S = 5, 60.0
"""With more deaths than this, in so many seconds, the proxy ends: something is wrong that another process does not mend."""

MARK = "workers"
"""The key of a run's first event that holds the mark of the proxy whose process wrote it."""


@contextlib.contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Hold a port for processes that share it, and return its number. Raise OSError if another server listens on it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as probe:  # does not share: it fails beside any other server
        port = probe.getsockname()[1]
    with socket.socket(family) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))  # and does not listen, so that no connection waits here
        yield port


class Workers:
    """The processes of a proxy. `command` are the arguments of `retold` for each of them."""

    def __init__(self, number: int, command: Sequence[str], environ: dict[str, str], note: Note) -> None:
        self.mark = secrets.token_hex(8)
        self.began_ns = wall_ns()
        self._number = number
        self._command = (sys.executable, "-P", "-m", "retold", *command, "--worker", self.mark)
        self._environ = environ
        self._note = note
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._deaths: deque[float] = deque(maxlen=MAX_DEATHS + 1)
        self._died = 0
        self._stop = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Workers {len(self._running)} of {self._number}>"

    async def run(self, listening: Callable[[], None]) -> int:
        """Run the processes until SIGINT or SIGTERM; call `listening` when all of them serve. Return their first exit code.

        Raise RunError if a process cannot start, or if one died.
        """
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self._stop.set)
        try:
            await asyncio.gather(*map(self._start, range(1, self._number + 1)))
            if not self._stop.is_set():
                listening()
            await self._attend()
        finally:
            for number in signals:  # a second Ctrl-C ends this process, and the pipes end the others
                loop.remove_signal_handler(number)
            codes = await self._end()
        if self._died:
            died = "a process of the proxy" if self._died == 1 else f"{self._died} processes of the proxy"
            raise RunError(
                f"{died} died, with the streams in flight. The log holds what their clients saw; `retold ls` shows the runs as "
                "interrupted."
            )
        return next(filter(None, codes), 0)

    async def _start(self, number: int) -> None:
        """Start a process and wait until it serves."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, env=self._environ)
        self._running[number] = process
        assert process.stdout is not None
        if not await process.stdout.readline() and not self._stop.is_set():
            code = await process.wait()
            raise RunError(f"process {number} of {self._number} of the proxy {_ending(code)} before it served; see above.")

    async def _attend(self) -> None:
        """Replace processes that die, until the proxy is stopped."""
        stopped = asyncio.create_task(self._stop.wait())
        ends = {asyncio.create_task(process.wait()): number for number, process in self._running.items()}
        while not self._stop.is_set():
            done, _ = await asyncio.wait({stopped, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                break
            for number in [ends.pop(end) for end in done & ends.keys()]:
                self._mourn(number)
                await self._start(number)
                ends[asyncio.create_task(self._running[number].wait())] = number
        for task in (stopped, *ends):
            task.cancel()

    def _mourn(self, number: int) -> None:
        """Report a dead process. Raise RunError after too many deaths."""
        process = self._running.pop(number)
        ending = _ending(process.returncode or 0)
        self._died += 1
        self._deaths.append(time.monotonic())
        if len(self._deaths) > MAX_DEATHS and self._deaths[-1] - self._deaths[0] < DEATHS_S:
            raise RunError(
                f"process {number} of {self._number} of the proxy (pid {process.pid}) {ending}, the {len(self._deaths)}th death "
                f"within {DEATHS_S:g} s; the proxy ends."
            )
        self._note(
            f"retold: process {number} of {self._number} (pid {process.pid}) {ending}; another one takes its place. Its clients "
            "lost their connections, and the log holds what they had seen."
        )

    async def _end(self) -> list[int]:
        """End all processes and return their exit codes; Ctrl-C may have ended one that had not started yet."""
        for process in self._running.values():
            assert process.stdin is not None
            process.stdin.close()
        codes = [await process.wait() for process in self._running.values()]
        return [0 if code in (-signal.SIGINT, 128 + signal.SIGINT) else code for code in codes]


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def proxy_in_processes(
    number: int, command: Sequence[str], *, upstream: Upstream, host: str, port: int, name: str, token: str | None,
    log: EventLog, output: Path | None, note: Note,
) -> int:  # fmt: skip
    """Run a proxy in several processes until SIGINT or SIGTERM, and return its exit code. `command` is that of each process.

    Print the URL to stdout when all processes listen. Raise InputError, CassetteError, LogError, RunError.
    """
    if output is not None and (why := why_not_writable(output)) is not None:
        raise CassetteError(f"cannot write the cassette {output}: {why}.")
    log.open()  # an unusable log is reported once
    # A token is not an argument, because any user of the machine sees those.
    environ = {**os.environ, **({} if token is None else {"RETOLD_TOKEN": token})}
    try:
        with reserved(host, port) as taken:
            workers = Workers(number, (*command, "--port", str(taken)), environ, note)

            def listening() -> None:
                url = url_of(host, taken)
                print(url, flush=True)
                note(f"retold: recording {upstream.url} ({name}) at {url} in {number} processes; Ctrl-C or SIGTERM ends it")

            try:
                return asyncio.run(workers.run(listening))
            finally:
                if output is not None:
                    write_together(log, workers, output, note)
    except OSError as error:
        raise cannot_listen(host, port, error) from error


def write_together(log: EventLog, workers: Workers, path: Path, note: Note) -> None:
    """Write the exchanges of all processes to a cassette, in the order in which they began. Raise CassetteError, LogError."""
    found: list[tuple[str, Exchange]] = []
    for info in log.runs(RunQuery(since_ns=workers.began_ns)):
        first = next(log.events(info.run, kinds=("run.started",)), None)
        if first is not None and first.data.get(MARK) == workers.mark:
            found += [(info.run, exchange) for exchange in exchanges_of(log, info.run)]
    found.sort(key=lambda each: each[1].recorded_at)
    if not found:
        return
    calls: dict[tuple[str, int], int] = {}
    exchanges = []
    for run, exchange in found:
        call = calls.setdefault((run, exchange.place.call), len(calls) + 1)  # retries keep the number of their call
        exchanges.append(replace(exchange, place=replace(exchange.place, call=call)))
    count = write_cassette(path, exchanges)
    note(f"retold: wrote {plural(count, 'exchange')} to {path}")
