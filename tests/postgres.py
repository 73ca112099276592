"""A real PostgreSQL server on loopback, started and ended by its tests.

It refuses to run as root, so root gives it another user.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.children import wait_until
from tests.nats import free_ports

PASSWORD = "a dummy for loopback"


def programs() -> Path | None:
    """Return the folder of the newest server's programs, or None if no server is installed."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *Path("/opt/homebrew/opt").glob("postgresql*/bin/initdb")]
    if found:
        return max(found, key=lambda path: [int(part) for part in path.parts if part.isdecimal()]).parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    """A server with its files in a new folder. The user `retold` has a password, which clients read from PGPASSWORD."""

    def __init__(self, **settings: str) -> None:
        bin_ = programs()
        assert bin_ is not None
        self._bin = bin_
        self.folder = Path(tempfile.mkdtemp(prefix="retold-postgres-"))
        (self.port,) = free_ports(1)
        self._as: dict[str, Any] = {"env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, "cwd": self.folder}
        if os.geteuid() == 0:
            user = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if _exists(name))
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        files = ["-D", str(self.folder / "data"), "--pwfile", str(password)]
        command = [str(bin_ / "initdb"), *files, "-U", "retold", "-A", "scram-sha-256"]
        subprocess.run([*command, "--no-sync", "-E", "UTF8"], check=True, stdout=subprocess.DEVNULL, **self._as)
        self._settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.folder)} | settings
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the address of the database."""
        return f"postgresql://retold@127.0.0.1:{self.port}/postgres"

    def start(self) -> Self:
        """Start the server, and wait until it answers."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            command = [str(self._bin / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *options]
            self._child = subprocess.Popen(command, stdout=log, stderr=log, **self._as)
        ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        wait_until(lambda: subprocess.run(ready, check=False).returncode == 0)
        return self

    def stop(self) -> None:
        """Kill the server, as in a crash. The next start reads its WAL."""
        assert self._child is not None
        self._child.send_signal(signal.SIGQUIT)
        self._child.wait(60)

    def asked(self, query: str) -> list[Any]:
        """Return the rows of a query."""
        with psycopg.connect(self.url, autocommit=True, password=PASSWORD) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def files_with(self, mark: bytes) -> list[str]:
        """Return the table files that contain the mark."""
        found = (path for path in (self.folder / "data" / "base").rglob("*") if path.is_file())
        return [str(path.relative_to(self.folder)) for path in found if mark in path.read_bytes()]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._child is not None and self._child.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)


def _exists(name: str) -> bool:
    return any(user.pw_name == name for user in pwd.getpwall())
