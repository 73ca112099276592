"""retold pull: copy the runs of other machines from a shelf into a log, the mirror."""

import re
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import CaOption, CredentialsOption, Db, Json, note, print_json

if TYPE_CHECKING:
    from ..fleet.pull import Pulled, Puller

BOUND_S = 10.0
"""Seconds that a pull may take to write its last pages after a signal."""


def pull(
    shelf: Annotated[str, typer.Argument(metavar="URL", help="The shelf: nats://HOST/NAME, tls://HOST/NAME, or a folder.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new pages until Ctrl-C or SIGTERM.")] = False,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Pull this run only, by its whole id.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only runs that began since: 2h or 7d (ago), today, a date.")
    ] = None,
    credentials: CredentialsOption = None,
    ca: CaOption = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Pull the runs of other machines from a shelf into a log, which every other command then reads.

    A later pull goes on where this one ended. Exit code 1 if a run was refused, or waits for events that the shelf lacks.

    Example: retold pull tls://nats.example.com/team --db mirror.db
    """
    from ..audit.when import moment
    from ..fleet.opening import address, source_name
    from ..fleet.presence import mirror_name
    from ..fleet.pull import Puller
    from ..recorder.errors import InputError
    from ..recorder.log.log import EventLog
    from .attending import Attendant

    if run is not None and not re.fullmatch("[0-9a-f]{16}", run):
        raise InputError(f"--run {run!r}: give the whole id of the run, 16 hexadecimal digits; `retold ls --json` prints it.")
    since_ns = None if since is None else moment(since, "--since")
    place, attendant = (
        address(shelf, credentials=credentials, ca=ca),
        Attendant("pulled", bound_s=BOUND_S, leaving="writing the last pages"),
    )
    opened = place.open_to_read()
    with EventLog(db) as log:
        puller = Puller(
            log, opened, only=run, since_ns=since_ns, name=mirror_name(source_name(), log.path),
            on_trouble=lambda text: attendant.tell("the shelf answers again." if text is None else f"{text} Waiting for it."),
        )  # fmt: skip
        if follow:
            note(f"retold: following {place.name} into {log.path}; Ctrl-C ends it")
        work = _Work(puller, follow=follow)
        attendant.attend(work.join, lambda: puller.pulled.events, leave=puller.stop, stop=opened.close)
        opened.close()
        if work.failure is not None and not puller.pulled.pages:
            raise work.failure
        if json:
            print_json({"shelf": place.name, "log": str(log.path), **_as_json(puller.pulled)})
        _summarise(puller.pulled, place.name, str(log.path))
        if puller.fault is not None:
            note(f"retold: this mirror cannot report, so its source cannot name it after an erasure: {puller.fault}")
    if work.failure is not None:
        raise work.failure
    if puller.pulled.held or puller.pulled.refused:
        raise typer.Exit(1)


class _Work:
    """A puller in a thread; `failure` is the error that ended it."""

    def __init__(self, puller: "Puller", *, follow: bool) -> None:
        self.failure: BaseException | None = None
        self._puller, self._follow = puller, follow
        self._thread = threading.Thread(target=self._run, name="retold-pull", daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Wait so many seconds for the end; return whether the puller has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._puller.run(follow=self._follow)
        except BaseException as error:
            self.failure = error


def _as_json(pulled: "Pulled") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(pulled)


def _summarise(pulled: "Pulled", shelf: str, log: str) -> None:
    from ..recorder.words import plural

    erased = f", {plural(pulled.erased, 'payload')} erased" if pulled.erased else ""
    pages = f"{plural(pulled.events, 'new event')} in {plural(pulled.pages, 'page')}{erased}"
    note(f"retold: pulled {pages} from {shelf} into {log}")
    for run, missing in pulled.held.items():
        note(f"retold: run {run} waits for event {missing}, which is not on the shelf")
    for run, why in pulled.refused.items():
        note(f"retold: run {run} is refused: {why}")
