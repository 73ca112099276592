"""One rule for colours, which every output asks: `in_colour`."""

import os
from typing import Literal, TextIO

Choice = Literal["auto", "always", "never"]

_chosen: Choice = "auto"


def choose(choice: Choice) -> None:
    """Set the choice of the user for this process: the value of `--color`."""
    global _chosen
    _chosen = choice


def in_colour(out: TextIO) -> bool:
    """Return whether an output gets colours. The first rule that applies decides:

    1. `--color always` and `--color never`.
    2. `NO_COLOR`, if it is not empty: never.
    3. `CLICOLOR_FORCE` or `FORCE_COLOR`, if it is neither empty nor 0: always.
    4. `TERM=dumb` or `CLICOLOR=0`: never.
    5. A terminal gets colours, and any other output does not.
    """
    if _chosen != "auto":
        return _chosen == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if any(os.environ.get(name, "") not in ("", "0") for name in ("CLICOLOR_FORCE", "FORCE_COLOR")):
        return True
    if os.environ.get("TERM") == "dumb" or os.environ.get("CLICOLOR") == "0":
        return False
    return out.isatty()
