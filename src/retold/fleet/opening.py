"""Open a shelf by its address, for commands, for `retold.shipping` and for `doctor`.

    nats://HOST[:PORT][,HOST[:PORT]…]/NAME    a stream of NATS JetStream on this machine
    tls://HOST[:PORT][,HOST[:PORT]…]/NAME     one on another machine
    postgresql://[USER@]HOST[:PORT]/DATABASE/NAME[?OPTIONS]    a schema of PostgreSQL, with options of libpq but a password
    file:///FOLDER, or a path                 a folder

An address never holds a credential, because addresses appear in shell histories, process listings and messages.
"""

import importlib.util
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..recorder.errors import InputError
from .folder import FolderShelf
from .jetstream import JetStreamShelf
from .postgres import PostgresShelf
from .shelf import Shelf

FORMS = "nats://HOST/NAME, tls://HOST/NAME, postgresql://HOST/DATABASE/NAME, file:///FOLDER or the path of a folder"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

READER = "reader"
"""The source of a shelf that is opened for reading. It only names the inbox of the reader."""


@dataclass(frozen=True)
class ShelfAddress:
    """The checked address of a shelf, with the files of its credential. `name` is the address in messages."""

    name: str
    _open: Callable[[str, bool], Shelf]

    def open(self, source: str, *, make: bool = True) -> Shelf:
        """Open the shelf for a writer with this source. The first use creates it, unless `make` is false. Raises InputError."""
        return self._open(source, make)

    def open_to_read(self) -> Shelf:
        """Open an existing shelf for a reader. Raises InputError."""
        return self._open(READER, False)


def address(url: str, *, credentials: Path | None = None, ca: Path | None = None) -> ShelfAddress:
    """Check the address of a shelf without connecting to it. Raises InputError.

    `credentials` is a file, by default `RETOLD_NATS_CREDENTIALS`, and `ca` a file of certificates for `tls://`, by default
    `RETOLD_NATS_CA`.
    """
    credentials = credentials or _named_file("RETOLD_NATS_CREDENTIALS")
    ca = ca or _named_file("RETOLD_NATS_CA")
    found = _SCHEME.match(url)
    if found is None:
        return _folder(url)
    for file, option in ((credentials, "--credentials"), (ca, "--ca")):
        if file is not None and not os.access(file, os.R_OK):
            raise InputError(f"{option}: there is no file {file} that can be read.")
    if found[1] not in _OPENERS:
        raise InputError(f"{found[0]} begins no address of a shelf; write {FORMS}.")
    return _OPENERS[found[1]](url, credentials, ca)


def source_name(given: str | None = None) -> str:
    """Return the given source, else `RETOLD_SOURCE`, else this host's name, in letters that shelves allow. Raises InputError."""
    if named := given or os.environ.get("RETOLD_SOURCE"):
        if not re.fullmatch(r"[0-9A-Za-z_-]{1,120}", named):
            raise InputError(f"{named!r} is no name for a source: use letters, digits, _ and -, 120 at most.")
        return named
    return re.sub(r"[^0-9A-Za-z_-]+", "-", socket.gethostname()).strip("-")[:120] or "host"


def _named_file(variable: str) -> Path | None:
    return Path(named) if (named := os.environ.get(variable)) else None


def _folder(path: str) -> ShelfAddress:
    if not path:
        raise InputError(f"the address of the shelf is empty; write {FORMS}.")
    return ShelfAddress(path, lambda source, make: FolderShelf(path, source=source, make=make))


def _file(url: str, credentials: Path | None, ca: Path | None) -> ShelfAddress:
    del credentials, ca  # for servers
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.path == "/":
        raise InputError(f"{url} is no folder; write file:///FOLDER with three slashes.")
    return _folder(unquote(parts.path))


def _nats(url: str, credentials: Path | None, ca: Path | None) -> ShelfAddress:
    scheme, _, rest = url.partition("://")
    hosts, _, log = rest.partition("/")
    if "@" in hosts:
        raise InputError(
            "the address of a shelf holds no user or password; name a file of credentials instead: --credentials FILE, or "
            "RETOLD_NATS_CREDENTIALS."
        )
    if not hosts or not log.rstrip("/") or "?" in log or "#" in log:
        raise InputError(f"{url} is no address of a shelf; write {scheme}://HOST[:PORT]/NAME.")
    log = log.rstrip("/")
    if importlib.util.find_spec("nats") is None:
        raise InputError("a shelf on NATS needs nats-py: pip install 'retold[nats]'.")
    if credentials is not None and importlib.util.find_spec("nkeys") is None:
        raise InputError("a file of credentials needs nkeys: pip install 'retold[nats]'.")
    servers = [f"{scheme}://{host}" for host in hosts.split(",")]

    def opened(source: str, make: bool) -> Shelf:
        return JetStreamShelf(servers, log, source=source, credentials=credentials, ca=ca, make=make)

    opened("check", False).close()  # it has not connected; this checks names, ports and TLS
    return ShelfAddress(f"{scheme}://{hosts}/{log}", opened)


def _postgres(url: str, credentials: Path | None, ca: Path | None) -> ShelfAddress:
    del credentials, ca  # for NATS: libpq has its own, in PGPASSWORD, ~/.pgpass and sslrootcert
    parts = urlsplit(url)
    database, _, log = parts.path.rstrip("/").rpartition("/")
    if not database.strip("/") or not log:
        raise InputError(f"this is no address of a shelf; write {parts.scheme}://HOST[:PORT]/DATABASE/NAME.")
    if importlib.util.find_spec("psycopg") is None:
        raise InputError("a shelf in PostgreSQL needs psycopg: pip install 'retold[postgres]'.")

    def opened(source: str, make: bool) -> PostgresShelf:
        return PostgresShelf(parts._replace(path=database).geturl(), log, source=source, make=make)

    return ShelfAddress(opened("check", False).name, opened)  # it has not connected; this checks names, password and TLS


_OPENERS: dict[str, Callable[[str, Path | None, Path | None], ShelfAddress]] = {
    "nats": _nats, "tls": _nats, "file": _file, "postgresql": _postgres, "postgres": _postgres,
}  # fmt: skip
"""The maker of an address by its scheme. A new kind of shelf is one more line."""
