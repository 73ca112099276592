"""A recording by the name that a person gives: a file, `-` (stdin), an open pipe (`/dev/fd/63`), or a revision (`HEAD:path`).

A revision is git's `REV:path`: the path counts from the top of the repository, and from the working directory if it begins with
`./`. An empty REV is the index. A pipe can be read once.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from ..errors import CassetteError, CassetteMissing
from ..files import plain_name
from ..hints import unreadable
from .format import Cassette, cassette_of, read_cassette

STDIN = ("-", "/dev/stdin")

ENDINGS = (".yaml", ".yml", ".json", ".toml", ".jsonl", ".ndjson")
"""The endings of recordings, before `.gz`."""

_DESCRIPTOR = re.compile(r"/(?:dev/fd|proc/self/fd)/\d+")
_REVISION = re.compile(r"(?!-)([\w./~^@{}+-]*):(?!:|//)(.+)", re.ASCII | re.DOTALL)


def is_elsewhere(reference: str) -> bool:
    """Return whether a name means stdin, an open pipe or a revision, and not a file in a folder."""
    return reference in STDIN or _is_pipe(reference) or is_revision(reference)


def is_revision(reference: str) -> bool:
    """Return whether a name means `REV:path`: its path ends as recordings do, and there is no file of the whole name."""
    found = _REVISION.fullmatch(reference)
    return found is not None and plain_name(found[2]).endswith(ENDINGS) and not os.path.lexists(reference)


def stem_of(reference: str | os.PathLike[str]) -> str:
    """Return the name of a recording without its folder, its endings and its revision; `stdin` for `-`."""
    name = os.fspath(reference)
    path = name.rpartition(":")[2] if is_revision(name) else name
    return "stdin" if path in STDIN else Path(path.removesuffix(".gz")).stem


def _is_pipe(reference: str) -> bool:
    return _DESCRIPTOR.fullmatch(reference) is not None and not Path(reference).is_file()


def read_named(reference: str | os.PathLike[str], *, lazy: bool = False) -> Cassette:
    """Read a cassette by its name; see `read_cassette` for `lazy`. Raise CassetteMissing or CassetteError."""
    name = os.fspath(reference)
    if not is_elsewhere(name):
        return read_cassette(name, lazy=lazy)
    return cassette_of(Path(name), bytes_of(name), lazy=lazy)


def bytes_of(name: str) -> bytes:
    """Return the content of a name that `is_elsewhere`. Raise CassetteMissing or CassetteError."""
    try:
        if name in STDIN:
            return sys.stdin.buffer.read()
        if _is_pipe(name):
            return Path(name).read_bytes()
    except OSError as error:
        raise CassetteError(f"cannot read the cassette {name}: {unreadable(error)}") from error
    return _of_revision(name)


def _of_revision(name: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "cat-file", "blob", name], capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )  # fmt: skip
    except OSError as error:
        raise CassetteError(f"cannot read {name}: git cannot be run ({error.strerror or error}).") from error
    if done.returncode:
        said = " ".join(re.sub(r"(?m)^(?:fatal|hint|error): ", "", done.stderr.decode("utf-8", "replace")).split())
        raise CassetteMissing(f"no cassette at {name}: {said.rstrip('.')}.")
    return done.stdout
