"""Shelves behind TLS: real servers with certificates of the test, and one clear error for each wrong credential."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import nkeys
import pytest
import trustme

from retold.fleet.postgres import PostgresShelf
from retold.fleet.shelf import Refused, Unreachable
from retold.recorder.log.log import EventLog
from tests.contracts.shelf import got_from, pages_of
from tests.e2e import in_this_process, refused
from tests.nats import Nats
from tests.postgres import PASSWORD, Postgres, programs
from tests.test_fleet import assert_equal, record


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a folder with two authorities, certificates of the first for this host and for another one, and two keys."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    for name, host in (("server", "127.0.0.1"), ("elsewhere", "nats.example.com")):
        authority.issue_cert(host).private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
    for name in ("own", "wrong"):
        (folder / f"{name}.key").write_bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
    return folder


def configuration(files: Path, name: str) -> str:
    """Return the settings of a server with a certificate that accepts one key."""
    public = nkeys.from_seed(bytearray((files / "own.key").read_bytes())).public_key.decode()
    certificate = files / f"{name}.pem"
    return f'tls {{ cert_file: "{certificate}", key_file: "{certificate}" }}\nauthorization {{ users = [{{ nkey: {public} }}] }}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[Nats]:
    """Start a NATS server with a certificate for 127.0.0.1."""
    with Nats(tmp_path_factory.mktemp("nats"), extra=configuration(files, "server")) as server:
        yield server


def address_of(server: Nats, scheme: str = "tls") -> str:
    """Return the address of a shelf on the server."""
    return f"{scheme}://127.0.0.1:{server.ports[0]}/team"


def test_a_log_is_shipped_and_pulled_over_tls(server: Nats, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The options name the files, or the environment does."""
    url, log = address_of(server), EventLog("a.db")
    record(log, "one", 3)
    given = ("--credentials", files / "own.key", "--ca", files / "ca.pem")
    done = in_this_process("ship", "--to", url, "--until-done", "--db", "a.db", "--source", "a", *given)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("RETOLD_NATS_CREDENTIALS", str(files / "own.key"))
    monkeypatch.setenv("RETOLD_NATS_CA", str(files / "ca.pem"))
    done = in_this_process("pull", url, "--db", "mirror.db")
    assert done.returncode == 0, done.stderr
    assert_equal(EventLog("mirror.db"), log)
    seed = (files / "own.key").read_bytes()
    assert [path for path in Path().rglob("*") if path.is_file() and seed in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("scheme", "key", "ca", "fault"),
    [
        ("tls", "own.key", "other.pem", "certificate verify failed"),
        ("tls", "own.key", None, "certificate verify failed"),
        ("tls", None, "ca.pem", "refuses this: nats: 'Authorization Violation'"),
        ("tls", "wrong.key", "ca.pem", "refuses this: nats: 'Authorization Violation'"),
        ("nats", "own.key", "ca.pem", "Write tls://"),
    ],
)
def test_each_wrong_credential_is_one_clear_error(
    server: Nats, files: Path, scheme: str, key: str | None, ca: str | None, fault: str
) -> None:
    """Cases are another authority, no authority, no key, another key, and an address without TLS."""
    given: list[str | Path] = ["--credentials", files / key] if key else []
    given += ["--ca", files / ca] if ca else []
    text = refused(in_this_process("pull", address_of(server, scheme), "--db", "mirror.db", *given), 1)
    assert fault in text
    assert text.count("\n") == 1


@pytest.mark.stress
def test_a_refused_shipper_names_the_remaining_events(server: Nats, files: Path) -> None:
    """It does not wait until the certificate changes."""
    record(EventLog("a.db"), "one", 3)
    given = ("--credentials", files / "own.key", "--ca", files / "other.pem")
    done = in_this_process("ship", "--to", address_of(server), "--until-done", "--db", "a.db", *given)
    assert done.returncode == 1
    assert "certificate verify failed" in done.stderr
    assert "left: 5 events of 1 run" in done.stderr


def test_a_certificate_of_another_host_is_refused(tmp_path: Path, files: Path) -> None:
    """Its authority is trusted, but its name differs from the address."""
    with Nats(tmp_path, extra=configuration(files, "elsewhere")) as server:
        given = ("--credentials", files / "own.key", "--ca", files / "ca.pem")
        text = refused(in_this_process("pull", address_of(server), "--db", "mirror.db", *given), 1)
    assert "not valid for '127.0.0.1'" in text


@pytest.mark.stress
def test_a_shelf_in_postgresql_over_tls(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address names the authority. Another authority and a connection without TLS are refused."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    server, (page,) = Postgres(ssl="on", ssl_cert_file="server.pem", ssl_key_file="server.pem"), pages_of("one", [3])
    copied = shutil.copy(files / "server.pem", server.folder / "data")
    shutil.chown(copied, (server.folder / "data").owner(), (server.folder / "data").group())
    Path(copied).chmod(0o600)
    hba = server.folder / "data" / "pg_hba.conf"
    hba.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with server:
        for ca, mode, kind in (("ca", "verify-full", None), ("other", "verify-full", Refused), ("ca", "disable", Refused)):
            url = f"{server.url}?sslmode={mode}&sslrootcert={files / ca}.pem"
            with closing(PostgresShelf(url, "team", source="a")) as shelf:
                if kind is None:
                    shelf.put(page, None)
                    assert [got.page for got in got_from(shelf)] == [page]
                    continue
                with pytest.raises(kind, match=r"certificate verify failed|no encryption") as refusal:
                    shelf.last(page.run)
                assert not isinstance(refusal.value, Unreachable)
