"""retold view: runs in a browser."""

from typing import Annotated

import typer

from .common import Db, note


def view(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="An id, prefix, name, last, or last~N.", show_default="the list of runs")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one. The URL is printed.")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    db: Db = None,
) -> None:
    """Look at runs in a browser: timeline, conversation, a player, search, differences; a running one goes on by itself.

    Serves on 127.0.0.1 only, under an address that others cannot guess, until Ctrl-C or SIGTERM. `retold export --format html`
    makes a file of the same page.

    Example: retold view last --open
    """
    from ..recorder.log import EventLog
    from ..view.serve import serve

    log = EventLog(db)
    found = None if run is None else log.find(run)
    log.runs(limit=1)  # a log that cannot be read is an error now, not a page later

    def ready(url: str) -> None:
        address = url if found is None else f"{url}run/{found.run}"
        print(address, flush=True)
        note("retold: Ctrl-C or SIGTERM ends it")
        if open_:
            import webbrowser

            webbrowser.open(address)

    serve(log, port, ready)
