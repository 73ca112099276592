"""The file of a cassette in use: loaded when the use begins, merged with when it ends.

Between the two, other writers may have saved the same cassette: threads, nested blocks, workers of pytest-xdist, tests that
share a file. Saving therefore takes a lock on the folder, reads the file again and adds only exchanges of its own. An exchange
is *old* if the file held it when the use began; `rewrite` and `all` remove old exchanges and nothing else. With `since`, the
beginning of a pytest session, exchanges recorded in that session are never old: tests that share a file keep each other's.

A block that refreshes a cassette removes the old exchanges that it did not play. Blocks that refresh one file at the same time
keep what each of them played, by two rules. The end of each such block renews the file, even if nothing changed. A block that
finds a renewed file removes nothing, and puts back what it played and the other block removed.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from ..recorder.agent_wire import AgentSession
from ..recorder.cassette.format import read_cassette, write_cassette
from ..recorder.cassette.kept import NOTHING_KEPT, Kept
from ..recorder.cassette.sessions import each_session
from ..recorder.cassette.transfer import exchanges_of
from ..recorder.errors import CassetteError, CassetteMissing
from ..recorder.files import why_not_writable
from ..recorder.http.exchange import Exchange
from ..recorder.log.log import EventLog
from ..recorder.log.sqlite.opening import locked

T = TypeVar("T", Exchange, AgentSession)
Signature = tuple[int, int, int]
Keep = Callable[[Exchange], Exchange | None]
Drops = Callable[[Exchange, Sequence[Exchange]], bool]
"""(an old exchange, the new ones) -> whether the old one is removed."""
DropsSession = Callable[[AgentSession, Sequence[AgentSession]], bool]
"""(an old session, the new ones) -> whether the old one is removed."""


class CassetteFile:
    """The file at `path`; the path is made absolute at once, so that a later `chdir` changes nothing.

    `since` is a time as in `recorded_at`. `lazy` (`read_cassette`) is for a use that never writes the file.
    Raises CassetteError for a damaged file, which is never overwritten.
    """

    def __init__(self, path: Path, *, since: str | None = None, lazy: bool = False) -> None:
        self.path = Path(os.path.abspath(path))
        self._since = since
        self._signature = self._sign()
        self.loaded: Sequence[Exchange] = ()
        self.sessions: tuple[AgentSession, ...] = ()
        self.kept = NOTHING_KEPT
        try:
            _, self.loaded, self.sessions, self.kept = read_cassette(os.path.normpath(path), lazy=lazy)
            self.existed = True
        except CassetteMissing:
            self.existed = False

    def __repr__(self) -> str:
        return f"<CassetteFile {self.path} {len(self.loaded)} exchanges>"

    @property
    def is_of_this_session(self) -> bool:
        """Whether the session of pytest made the file: no recording in it is older, because new ones come last."""
        first = next(iter(self.loaded), None) or next(iter(self.sessions), None)
        return first is not None and self._since is not None and first.recorded_at >= self._since

    def why_not_writable(self) -> str | None:
        """Return why the file cannot be written; None if nothing is known to prevent it. Nothing is made."""
        return why_not_writable(self.path)

    def save(
        self, run: tuple[EventLog, str] | None, *, keep: Keep | None, drops: Drops, drops_session: DropsSession, kept: Kept,
        refreshes: bool = False,
    ) -> None:  # fmt: skip
        """Add the exchanges of a run, as `keep` leaves them, its sessions and the rules `kept`; remove old ones.

        Without a run there is nothing to add. Raises CassetteError.
        """
        new, sessions = ([], []) if run is None else _recorded(*run)
        if keep is not None:
            new = [left for exchange in new if (left := keep(exchange)) is not None]
        try:
            target = Path(os.path.realpath(self.path))
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.parent):
                self._merge(new, lambda old: drops(old, new), sessions, lambda old: drops_session(old, sessions), kept, refreshes)
        except (CassetteError, OSError) as error:
            text = f"cannot write the cassette {self.path}: {error.strerror or error}." if isinstance(error, OSError) else error
            way = "" if run is None else f" The recording is in the log: retold export {run[1][:8]} -o CASSETTE."
            raise CassetteError(f"{text}{way}") from error

    def _merge(
        self, new: Sequence[Exchange], drops: Callable[[Exchange], bool], sessions: Sequence[AgentSession],
        drops_session: Callable[[AgentSession], bool], rules: Kept, refreshes: bool,
    ) -> None:  # fmt: skip
        """Write the file anew. New calls get numbers after the others, so that retries stay with their call."""
        is_renewed = self._sign() != self._signature
        now, held, its = self._current()
        if refreshes and is_renewed:
            now = [*now, *_missing_in(now, [each for each in self.loaded if not drops(each)])]
            held = [*held, *(each for each in self.sessions if not drops_session(each) and each not in held)]
            kept = list(now)
        else:
            kept = self._kept(now, drops)
            held = [each for each in held if not (each in self.sessions and self._may_be_old(each) and drops_session(each))]
        if refreshes and not is_renewed and not new and not sessions and (kept, held) == (list(now), list(self.sessions)):
            os.utime(self.path)
            return
        last = max((exchange.place.call for exchange in kept), default=0)
        whole = [*kept, *(_renumbered(exchange, last) for exchange in new)]
        write_cassette(self.path, whole, [*held, *sessions], its.with_(rules))

    def _kept(self, now: Iterable[Exchange], drops: Callable[[Exchange], bool]) -> list[Exchange]:
        old = Counter(map(_digest, filter(self._may_be_old, self.loaded)))
        kept = []
        for exchange in now:
            digest = _digest(exchange)
            is_old = old[digest] > 0
            old[digest] -= is_old
            if not (is_old and drops(exchange)):
                kept.append(exchange)
        return kept

    def _current(self) -> tuple[Iterable[Exchange], Iterable[AgentSession], Kept]:
        """The content of the file as it is now. A file that was deleted meanwhile counts as unchanged: nothing gets lost."""
        if self._sign() == self._signature:
            return self.loaded, self.sessions, self.kept
        try:
            found = read_cassette(self.path)
            return found.exchanges, found.sessions, found.kept
        except CassetteMissing:
            return self.loaded, self.sessions, self.kept

    def _may_be_old(self, exchange: Exchange | AgentSession) -> bool:
        return self._since is None or exchange.recorded_at < self._since

    def _sign(self) -> Signature | None:
        """Return a value that differs for each state of the file, because each write of a cassette makes a new inode."""
        try:
            state = self.path.stat()
        except OSError:
            return None
        return state.st_ino, state.st_size, state.st_mtime_ns


def _recorded(log: EventLog, run: str) -> tuple[list[Exchange], list[AgentSession]]:
    """Return the exchanges and sessions of a run that were not replayed."""
    with log.reading() as held:
        new = [exchange for exchange in exchanges_of(held, run) if exchange.place.stamped != "replay"]
        return new, list(each_session(held, run))


def each_once(left: Sequence[T]) -> Callable[[T, object], bool]:
    """Return the function that is true for each value of `left`, as often as it is in there."""
    rest = list(left)

    def drops(old: T, _: object) -> bool:
        is_left = old in rest
        if is_left:
            rest.remove(old)
        return is_left

    return drops


def _missing_in(now: Iterable[Exchange], wanted: Iterable[Exchange]) -> list[Exchange]:
    """Return the wanted exchanges that are not there now."""
    there = Counter(map(_digest, now))
    missing = []
    for exchange in wanted:
        digest = _digest(exchange)
        if there[digest] > 0:
            there[digest] -= 1
        else:
            missing.append(exchange)
    return missing


def _renumbered(exchange: Exchange, last: int) -> Exchange:
    return replace(exchange, place=replace(exchange.place, call=exchange.place.call + last))


def _digest(exchange: Exchange) -> bytes:
    request, response, at = exchange.request, exchange.response, exchange.place
    body = b"" if response is None else sha256(response.body).digest()
    place = f"{exchange.recorded_at} {exchange.started_ns} {at.call} {at.attempt} {request.method} {request.uri}"
    return sha256(place.encode("utf-8", "surrogatepass") + sha256(request.body).digest() + body).digest()
