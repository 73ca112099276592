"""retold ship: copy the log to a shelf, from which other machines pull it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import CaOption, CredentialsOption, Db, Json, SourceOption, note, print_json

if TYPE_CHECKING:
    from ..fleet.background import ShippingEnd


def ship(
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="URL", help="The shelf: nats://HOST/NAME, tls://HOST/NAME, or a folder.", envvar="RETOLD_SHIP"
        ),
    ],
    until_done: Annotated[bool, typer.Option("--until-done", help="End when every run has ended and is on the shelf.")] = False,
    source: SourceOption = None,
    credentials: CredentialsOption = None,
    ca: CaOption = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Ship the runs of the log to a shelf while they are recorded, until Ctrl-C or SIGTERM.

    After the signal, the events that are left are shipped for at most RETOLD_SHIP_DRAIN_S seconds (10). Exit code 1 if events
    are left, or a run has forked.

    Example: retold ship --to tls://nats.example.com/team --until-done
    """
    from ..fleet.background import BackgroundShipper, drain_s, trouble_line
    from ..fleet.opening import address, source_name
    from ..recorder.errors import LogError
    from ..recorder.log.log import EventLog
    from .attending import Attendant

    place, name = address(to, credentials=credentials, ca=ca), source_name(source)
    log, attendant = EventLog(db), Attendant("shipped", bound_s=drain_s(), leaving="shipping the rest")
    if until_done and not log.exists():
        raise LogError(f"there is no log at {log.path}; the first recording makes it.")
    if not until_done:
        note(f"retold: shipping {log.path} to {place.name} as {name}; Ctrl-C ends it")
    shipper = BackgroundShipper(
        log, place.open(name), on_trouble=lambda trouble: attendant.tell(trouble_line(trouble)), until_done=until_done
    )
    shipper.start()
    attendant.attend(shipper.join, lambda: shipper.events, leave=shipper.leave, stop=shipper.stop)
    ended = shipper.ended()
    if json:
        print_json(_as_json(ended, place.name, name))
    _summarise(ended, place.name, name)


def _as_json(ended: "ShippingEnd", shelf: str, source: str) -> dict[str, Any]:
    from dataclasses import asdict

    failure = None if ended.failure is None else str(ended.failure)
    return {
        "shelf": shelf, "source": source, **asdict(ended.shipped), "left": ended.left, "error": failure,
        "behind": {each.mirror: each.erasures for each in ended.behind},
    }  # fmt: skip


def _summarise(ended: "ShippingEnd", shelf: str, source: str) -> None:
    from ..fleet.background import end_lines, erasure_lines
    from ..recorder.words import plural

    shipped, lines = ended.shipped, end_lines(ended, shelf)
    pages = f"{plural(shipped.events, 'event')} in {plural(shipped.pages, 'page')}"
    note(f"retold: shipped {pages} to {shelf} as {source}" + ("" if lines else "; nothing is left"))
    for line in lines + erasure_lines(ended):
        note(f"retold: {line}")
    if ended.failure is not None:
        raise typer.Exit(getattr(ended.failure, "exit_code", 1))
    if lines:
        raise typer.Exit(1)
