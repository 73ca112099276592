"""retold textconv: a cassette as text for git diff."""

import sys
from typing import Annotated

import typer

from ..recorder.words import clean
from .common import Db, note


def textconv(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A cassette, or another recording that retold diff reads.")],
    db: Db = None,
) -> None:
    """Print a recording as plain text for git: prompts, answers, tool calls and totals, without ids, times and headers.

    With these two lines, `git diff` and `git log -p` show your cassettes by meaning:

    \b
        echo 'cassettes/**/*.yaml diff=retold' >> .gitattributes
        git config diff.retold.textconv 'retold textconv'

    A file that is no recording is printed as it is, with a note, because git would show no difference otherwise.

    Example: retold textconv cassettes/hello.yaml
    """
    from pathlib import Path

    from ..comparing.sources import read_side
    from ..comparing.textconv import as_plain
    from ..recorder.cassette.named import is_elsewhere
    from ..recorder.errors import InputError
    from ..recorder.files import read_regular

    try:
        side = read_side(file, db)
    except InputError as error:
        if is_elsewhere(file) or not Path(file).is_file():
            raise
        note(f"retold: printed as it is: {error}")
        sys.stdout.write(clean(read_regular(file).decode("utf-8", "backslashreplace")))
        return
    sys.stdout.writelines(f"{line}\n" for line in as_plain(side))
