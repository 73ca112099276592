"""Hints for a file that a person named by mistake: it is missing, is not text, or was given instead of a run."""

import os
import re
from pathlib import Path

from .words import closest


def near(path: Path) -> str:
    """Return `; did you mean cassettes/hello.yaml?` if the folder of a missing file holds a similar name, else `.`."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return "."
    if (name := closest(path.name, names, cutoff=0.75)) is not None:
        return f"; did you mean {path.parent / name}?"
    return f"; did you mean {path}.yaml?" if f"{path.name}.yaml" in names else "."


def unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Return the reason why a file cannot be read as text, with the way out if there is one."""
    if isinstance(error, IsADirectoryError):
        return "it is a folder; name a file in it."
    if isinstance(error, OSError):
        return f"{error.strerror or error}."
    if error.object.startswith(b"SQLite format 3\0"):
        return "it is an SQLite file; name a log with --db."
    return f"it is not text (byte {error.start + 1} is not UTF-8)."


def not_a_run(ref: str) -> str | None:
    """Return a hint for a file or a folder that was given instead of a run; None if there is no such file."""
    if os.path.isdir(ref):
        return f"{ref} is a folder, not a run. Name a run (`retold ls` lists them), or a file."
    if os.path.isfile(ref):
        return f"{ref} is a file, not a run. `retold play` shows a cassette; `retold import` takes it into the log."
    return None


SHELF = re.compile(r"(nats|tls|file|postgres|postgresql):/+")
"""The beginning of the address of a shelf, also as a Path spells it."""


def not_a_log(shelf: re.Match[str]) -> str:
    """Return a hint for the address of a shelf that was given as the path of a log."""
    # A Path has one slash where the address had two or three.
    url = f"{shelf[1]}://{'/' if shelf[1] == 'file' else ''}{shelf.string[shelf.end() :]}"
    if "@" in url:
        url = "URL"  # it may hold a password
    return f"a shelf is no log: make a log of it with `retold pull {url} --db mirror.db`, and use --db mirror.db."
