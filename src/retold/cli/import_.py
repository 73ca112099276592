"""retold import: cassettes, retold's or vcrpy's, into the log."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Db, Json, print_json


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Cassettes: YAML or JSON, of retold or vcrpy.")],
    name: Annotated[str | None, typer.Option(help="Name of the run.", show_default="the file's")] = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Import cassettes into the log, each as a run of its own.

    Example: retold import tests/cassettes/test_chat.yaml
    """
    from ..handlers.text import plural
    from ..recorder.cassette import read_cassette
    from ..recorder.errors import InputError
    from ..recorder.log import EventLog
    from ..recorder.transfer import import_exchanges

    cassettes = [read_cassette(file) for file in files]  # all are read before the first is written
    for cassette in cassettes:
        if not cassette.exchanges:
            raise InputError(f"{cassette.path} holds no interactions; there is nothing to import.")
    imported = []
    with EventLog(db) as log:
        for cassette in cassettes:
            title = name or cassette.path.stem
            run = import_exchanges(log, cassette.exchanges, name=title, source=str(cassette.path))
            imported.append({"run": run, "name": title, "file": str(cassette.path), "exchanges": len(cassette.exchanges)})
            if not json:
                print(f"{run}  {title}  {plural(len(cassette.exchanges), 'exchange')}", flush=True)
    if json:
        print_json(imported)
