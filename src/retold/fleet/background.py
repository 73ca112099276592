"""Run a shipper in a thread: beside the recordings of a command or of a program, or alone as `retold ship`.

A recording never waits for the shipper. At the end of the program the shipper has a limited time to ship the remaining events.
"""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..recorder.errors import InputError, RetoldError, ShelfError, ShippingWarning
from ..recorder.log.log import EventLog
from ..recorder.words import plural
from .opening import address, source_name
from .presence import Behind, Heartbeat, mirrors_behind
from .shelf import ErasableShelf, Shelf
from .ship import Shipped, Shipper

DRAIN_S = 10.0
"""Seconds that the shipper may take for the remaining events at the end, by default."""

MOMENT_S = 2.0
"""Seconds that a shipper waits at its end for mirrors that follow to pull an erasure."""


@dataclass
class ShippingEnd:
    """The result of a shipper: its totals, the number of events of each run that are not on the shelf, and its error.

    `behind` has the mirrors that have not pulled every erasure of the log, `unknown` the reason if the
    shipper cannot find them. `remains` is the shelf's own sentence about erased bytes.
    """

    shipped: Shipped = field(default_factory=Shipped)
    left: dict[str, int] = field(default_factory=dict)
    behind: list[Behind] = field(default_factory=list)
    unknown: str | None = None
    remains: str = ""
    failure: BaseException | None = None


class BackgroundShipper:
    """Ships a log in a thread until `leave` or `stop` is called, or until every run has ended (`until_done`).

    The thread calls `on_trouble` with a text when the shelf fails, and with None when the shelf works again.
    """

    def __init__(
        self, log: EventLog, shelf: Shelf, *, on_trouble: Callable[[str | None], None], until_done: bool = False
    ) -> None:  # fmt: skip
        self._shelf = shelf
        self._shipper = Shipper(log.reopened(), shelf, on_trouble=on_trouble)
        self._until_done = until_done
        self._failure: BaseException | None = None
        self._heartbeat = Heartbeat(shelf, self._shipper)
        self._behind: list[Behind] = []
        self._unknown: str | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="retold-ship", daemon=True)

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def join(self, seconds: float | None = None) -> bool:
        """Wait at most `seconds` for the shipper, None for no limit. Return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def events(self) -> int:
        """The number of events that the shipper has put on the shelf."""
        return self._shipper.shipped.events

    def leave(self) -> None:
        """Let the shipper end after it has shipped all events that the log has now."""
        self._shipper.leave()

    def stop(self) -> None:
        """End now, and give up the pages that are on their way."""
        self._is_stopped = True
        self._shipper.stop()
        self._shelf.close()

    def ended(self) -> ShippingEnd:
        """Return the result after the thread has ended. Raises LogError, or the thread's unexpected error."""
        if self._failure is not None and not isinstance(self._failure, RetoldError):
            raise self._failure
        remains = self._shelf.remains if isinstance(self._shelf, ErasableShelf) else ""
        return ShippingEnd(self._shipper.shipped, self._shipper.left(), self._behind, self._unknown, remains, self._failure)

    def _run(self) -> None:
        self._heartbeat.start()
        try:
            try:
                self._shipper.run(until_done=self._until_done)
            finally:
                self._heartbeat.stop()
            if not self._is_stopped:
                self._heartbeat.end()
                self._look_at_mirrors()
        except BaseException as error:
            self._failure = error
        finally:
            self._shelf.close()

    def _look_at_mirrors(self) -> None:
        """Find the mirrors that have not pulled every erasure, after a moment for those that follow."""
        until_s = time.monotonic() + (MOMENT_S if self._shipper.shipped.pages else 0)
        try:
            self._behind = mirrors_behind(self._shipper.log, self._shelf)
            while any(each.follows for each in self._behind) and time.monotonic() < until_s and not self._is_stopped:
                time.sleep(0.1)
                self._behind = mirrors_behind(self._shipper.log, self._shelf)
        except ShelfError as error:
            self._unknown = str(error)


def drain_s() -> float:
    """Return `RETOLD_SHIP_DRAIN_S`, or 10 seconds. Raises InputError."""
    text = os.environ.get("RETOLD_SHIP_DRAIN_S") or str(DRAIN_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e6:
        raise InputError(f"RETOLD_SHIP_DRAIN_S is {text!r}: set it to a number of seconds, or unset it.")
    return seconds


@contextmanager
def shipping(
    log: EventLog, to: str | None = None, *, source: str | None = None, credentials: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None, tell: Callable[[str], None] | None = None,
) -> Iterator[None]:  # fmt: skip
    """Ship a log to a shelf in a thread while the block runs. A recording never waits for the shelf.

    `to` is the address of the shelf, by default `RETOLD_SHIP`. Without an address the block runs and nothing is shipped. At the
    end of the block the shipper has at most `RETOLD_SHIP_DRAIN_S` seconds (10) for the remaining events. A failing shelf and
    events that remain raise no error, because the log has all events: `tell` gets a line about each, and the default `tell`
    issues a ShippingWarning. Raises InputError for a wrong address.
    """
    to = to or os.environ.get("RETOLD_SHIP")
    if not to:
        yield
        return
    tell = tell or _warn
    place = address(to, credentials=_path(credentials), ca=_path(ca))
    seconds = drain_s()
    shipper = BackgroundShipper(log, place.open(source_name(source)), on_trouble=lambda trouble: tell(trouble_line(trouble)))
    shipper.start()
    try:
        yield
    finally:
        shipper.leave()
        if not shipper.join(seconds):
            shipper.stop()
            shipper.join()
        try:
            ended = shipper.ended()
            lines = end_lines(ended, place.name) + erasure_lines(ended)
        except RetoldError as error:  # the log cannot be read any more
            lines = [str(error)]
        for line in lines:
            tell(line)


def trouble_line(trouble: str | None) -> str:
    """Return a line for the user: about the failing shelf, or, for None, about a shelf that works again."""
    return "the shelf answers again." if trouble is None else f"{trouble} Waiting for the shelf; recording goes on."


def end_lines(ended: ShippingEnd, shelf: str) -> list[str]:
    """Return a line for each failure of a shipper: its error, a forked run, events that are not on the shelf."""
    lines = [] if ended.failure is None else [str(ended.failure)]
    lines += [f"run {run} is not shipped: {why}." for run, why in ended.shipped.forked.items()]
    if ended.left:
        events, runs = plural(sum(ended.left.values()), "event"), plural(len(ended.left), "run")
        lines.append(f"left: {events} of {runs} are not known to be on {shelf}; `retold ship --to {shelf}` ships them.")
    return lines


def erasure_lines(ended: ShippingEnd) -> list[str]:
    """Return a line for each mirror that may still have an erased text, and one if that is unknown. They are no failures."""
    lines = []
    if ended.shipped.erasures and ended.remains:
        lines.append(f"the erasure is on the shelf. {ended.remains}")
    if ended.unknown is not None:
        return [*lines, f"the mirrors that have not pulled the erasures of this log are unknown: {ended.unknown}"]
    return lines + [each.line() for each in ended.behind]


def _path(file: str | os.PathLike[str] | None) -> Path | None:
    return None if file is None else Path(file)


def _warn(line: str) -> None:
    warnings.warn(line, ShippingWarning, stacklevel=2)
