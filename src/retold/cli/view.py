"""retold view: show runs in a browser."""

from typing import Annotated

import typer

from .common import Db, note


def view(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="An id, prefix, name, last, or last~N.", show_default="the list of runs")
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port; 0 chooses a free one. The URL is printed.")
    ] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    db: Db = None,
) -> None:
    """Show runs in a browser: timeline, conversation, player, search, differences. A run in progress is updated live.

    The server listens on 127.0.0.1 only, at an address with a secret, until Ctrl-C or SIGTERM. To save the same page in a file,
    run `retold export --format html`.

    Example: retold view last --open
    """
    from ..recorder.log.log import EventLog
    from ..view.serve import serve

    log = EventLog(db)
    found = None if run is None else log.find(run)
    log.runs(limit=1)  # report an unreadable log now instead of on a page

    def ready(url: str) -> None:
        address = url if found is None else f"{url}run/{found.run}"
        print(address, flush=True)
        note("retold: Ctrl-C or SIGTERM ends it")
        if open_:
            import webbrowser

            webbrowser.open(address)

    serve(log, port, ready)
