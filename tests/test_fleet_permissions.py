"""The permission file of examples/fleet on a real server: a pod can only append to its own source, and a reader can only read."""

import asyncio
import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import nkeys
import pytest
import typer.main
import yaml

from retold.audit.erase import erase, plan_text
from retold.cli import make_app
from retold.fleet.jetstream import JetStreamShelf
from retold.fleet.presence import kept_by
from retold.recorder.log.log import EventLog
from tests.conftest import ROOT
from tests.e2e import in_this_process, refused
from tests.nats import SERVER, Nats
from tests.test_fleet import assert_equal, lines, record

USERS = ("POD_A", "POD_B", "READER", "ADMIN")
API = "$JS.API"

NO_POD = [
    "retold.team.pod-b.run.0", "retold.team.pod-b.part.0.0.0", "retold.team.pod-a.put.0.0", "retold.team.pod-a.other.0",
    "retold.team.pod-a2.run.0", "retold.other.pod-a.run.0", "retold.team.pod-a", "retold.team.pod-a.run",
    f"{API}.DIRECT.GET.retold-team", f"{API}.DIRECT.GET.retold-team.retold.team.pod-b.run.0",
    f"{API}.DIRECT.GET.retold-other.retold.team.pod-a.run.0", f"{API}.STREAM.MSG.GET.retold-team",
    f"{API}.CONSUMER.CREATE.retold-team", f"{API}.CONSUMER.CREATE.retold-team.mine",
    f"{API}.CONSUMER.CREATE.retold-team.mine.retold.team.pod-a.run.0", f"{API}.CONSUMER.DURABLE.CREATE.retold-team.mine",
    f"{API}.CONSUMER.MSG.NEXT.retold-team.mine", f"{API}.CONSUMER.INFO.retold-team.mine", f"{API}.CONSUMER.NAMES.retold-team",
    f"{API}.CONSUMER.LIST.retold-team", f"{API}.STREAM.INFO.retold-other", "_INBOX_reader.0", "_INBOX_pod-b.0",
    "$KV.retold-team-alive.source.pod-b", "$KV.retold-team-alive.mirror.m", "$KV.retold-team-alive.source.pod-a.x",
    f"{API}.DIRECT.GET.KV_retold-team-alive", f"{API}.CONSUMER.CREATE.KV_retold-team-alive.mine",
    f"{API}.STREAM.INFO.KV_retold-team-alive",
]  # fmt: skip
"""Subjects to which only a pod has a reason to publish."""

NO_READER = [
    "retold.team.pod-a.run.0", "retold.team.pod-a.part.0.0.0", "retold.team.pod-a.put.0.0", "retold.team.reader.run.0",
    f"{API}.CONSUMER.DURABLE.CREATE.retold-team.mine", f"{API}.DIRECT.GET.retold-other.retold.team.pod-a.run.0",
    f"{API}.CONSUMER.CREATE.retold-other.mine", "_INBOX_pod-a.0", "$KV.retold-team-alive.source.pod-a",
    "$KV.retold-team-alive.mirror.a.b", "$KV.retold-other-alive.mirror.m",
]  # fmt: skip

NOBODY = [
    *(f"{API}.STREAM.{what}.retold-team" for what in (
        "CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE", "PEER.REMOVE", "LEADER.STEPDOWN",
    )),
    f"{API}.STREAM.CREATE.mine", f"{API}.STREAM.NAMES", f"{API}.STREAM.LIST", f"{API}.INFO", f"{API}.META.LEADER.STEPDOWN",
    f"{API}.SERVER.REMOVE", f"{API}.ACCOUNT.PURGE.$G", f"{API}.CONSUMER.DELETE.retold-team.mine",
    f"{API}.CONSUMER.LEADER.STEPDOWN.retold-team.mine", f"{API}.CONSUMER.PAUSE.retold-team.mine",
    *(f"{API}.STREAM.{what}.KV_retold-team-alive" for what in ("CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE")),
    "$JS.ACK.retold-team.mine.1.1.1.1.0", "$KV.mine.0", "$O.mine.0", "$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "other",
]  # fmt: skip
"""Subjects to which neither may publish."""

NOT_HEARD = [
    ">", "*", "retold.>", "retold.team.pod-b.run.*", "retold.team.pod-a.run.*", "_INBOX.>", "$JS.>", "$SYS.>",
]  # fmt: skip
"""Subjects to which neither may subscribe."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a file with the key of each user."""
    folder = tmp_path_factory.mktemp("keys")
    for user in USERS:
        (folder / user).write_bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER) + b"\n")
    return {user: folder / user for user in USERS}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Path]) -> Iterator[Nats]:
    """Start a server with the permissions of the example, and with the stream, created by the administrator."""
    publics = {user: nkeys.from_seed(bytearray(path.read_bytes().strip())).public_key.decode() for user, path in keys.items()}
    folder = tmp_path_factory.mktemp("nats")
    extra = "\n".join(f"{user}: {public}" for user, public in publics.items())
    with Nats(folder, extra=f"{extra}\n{(ROOT / 'examples/fleet/permissions.conf').read_text()}") as server:
        shelf = JetStreamShelf(server.servers, "team", source="setup", credentials=keys["ADMIN"])
        assert shelf.last("0" * 16) is None
        shelf.close()
        yield server


class Tried:
    """A client that notes the errors of the server."""

    def __init__(self, server: Nats, key: Path, inbox: str) -> None:
        self.errors: list[str] = []
        self._options: dict[str, Any] = {"servers": server.servers, "nkeys_seed": str(key), "inbox_prefix": inbox}

    async def _note(self, error: Exception) -> None:
        self.errors.append(str(error))

    async def __aenter__(self) -> Any:
        self.client = await nats.connect(error_cb=self._note, **self._options)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def is_refused(self, act: Any) -> bool:
        """Return whether the server reports a violation after the action."""
        before = len(self.errors)
        await act
        await self.client.flush()
        for _ in range(100):
            if len(self.errors) > before:
                break
            await asyncio.sleep(0.01)
        return any("permissions violation" in error.lower() for error in self.errors[before:])


async def _allowed(server: Nats, key: Path, inbox: str, published: list[str], heard: list[str]) -> list[str]:
    """Return the subjects that the server does not refuse."""
    async with Tried(server, key, inbox) as tried:
        found = [subject for subject in published if not await tried.is_refused(tried.client.publish(subject, b"{}"))]
        found += [subject for subject in heard if not await tried.is_refused(tried.client.subscribe(subject))]
    return found


def _state(server: Nats, key: Path) -> Any:
    """Return the configuration of the stream, its messages and its consumers, as the administrator sees them."""

    async def ask() -> Any:
        async with Tried(server, key, "_INBOX_admin") as tried:
            info = json.loads((await tried.client.request(f"{API}.STREAM.INFO.retold-team", b"")).data)
        return info["config"], {name: info["state"][name] for name in ("messages", "last_seq", "consumer_count")}

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("user", "inbox", "published", "heard"),
    [
        ("POD_A", "_INBOX_pod-a", NO_POD + NOBODY, [*NOT_HEARD, "_INBOX_reader.>", "_INBOX_pod-b.>"]),
        ("READER", "_INBOX_reader", NO_READER + NOBODY, [*NOT_HEARD, "_INBOX_pod-a.>"]),
    ],
)
def test_a_credential_is_refused_for_every_forbidden_action(
    server: Nats, keys: dict[str, Path], user: str, inbox: str, published: list[str], heard: list[str]
) -> None:
    """The server reports a violation for each attempt, and the stream stays unchanged."""
    before = _state(server, keys["ADMIN"])
    assert asyncio.run(_allowed(server, keys[user], inbox, published, heard)) == []
    assert _state(server, keys["ADMIN"]) == before


def test_a_reader_cannot_make_the_server_write(server: Nats, keys: dict[str, Path]) -> None:
    """A consumer may deliver to any subject, but not to one of the stream."""

    async def push() -> dict[str, Any]:
        config = {"deliver_subject": "retold.team.pod-a.run.0", "ack_policy": "none", "deliver_policy": "all"}
        asked = json.dumps({"stream_name": "retold-team", "config": config | {"name": "mine"}}).encode()
        async with Tried(server, keys["READER"], "_INBOX_reader") as tried:
            answer = await tried.client.request(f"{API}.CONSUMER.CREATE.retold-team.mine", asked)
        return dict(json.loads(answer.data))

    before = _state(server, keys["ADMIN"])
    assert "cycle" in asyncio.run(push())["error"]["description"]
    assert _state(server, keys["ADMIN"]) == before


def test_pods_ship_and_a_reader_pulls(server: Nats, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """They use their own credentials and sources, with large events. The source or credential of another pod is refused."""
    url = f"{server.servers[0]}/team"
    logs = [EventLog("a.db"), EventLog("b.db")]
    for name, log in zip("ab", logs, strict=True):
        record(log, "one", 3)
        record(log, "large", 1, text="x" * 600_000)
        shipped = ("ship", "--to", url, "--until-done", "--db", log.path, "--source", f"pod-{name}")
        done = in_this_process(*shipped, "--credentials", keys[f"POD_{name.upper()}"])
        assert done.returncode == 0, done.stderr
    monkeypatch.setenv("RETOLD_NATS_CREDENTIALS", str(keys["READER"]))
    done = in_this_process("pull", url, "--db", "mirror.db")
    assert done.returncode == 0, done.stderr
    assert "cannot report" not in done.stderr
    assert_equal(EventLog("mirror.db"), *logs)
    assert sorted(kept_by(EventLog("mirror.db")).sources) == ["pod-a", "pod-b"]


@pytest.mark.stress
def test_another_source_and_an_erasure_need_another_credential(
    server: Nats, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod's credential is refused for another source and for an erasure. The administrator's credential is accepted."""
    url = f"{server.servers[0]}/team"
    erasing = ("ship", "--to", url, "--until-done", "--db", "a.db", "--source", "pod-a", "--credentials")
    log = EventLog("a.db")
    record(log, "one", 3, text="Alice")
    other = in_this_process(*erasing, keys["POD_B"])
    assert (other.returncode, "permissions violation" in other.stderr) == (1, True)
    assert in_this_process(*erasing, keys["POD_A"]).returncode == 0
    erase(log, plan_text(log, "Alice"), why="asked", by="me")
    own = in_this_process(*erasing, keys["POD_A"])
    assert (own.returncode, "permissions violation" in own.stderr) == (1, True)
    assert in_this_process("pull", url, "--db", "mirror.db", "--credentials", keys["READER"]).returncode == 0
    done = in_this_process(*erasing, keys["ADMIN"])
    assert (done.returncode, "has not pulled 1 erasure yet" in done.stderr) == (0, True)
    assert "in their own journals for 2 to 3 minutes" in done.stderr
    monkeypatch.setenv("RETOLD_NATS_CREDENTIALS", str(keys["READER"]))
    assert in_this_process("pull", url, "--db", "mirror.db").returncode == 0
    for info in log.runs():
        assert lines(EventLog("mirror.db"), info.run) == lines(log, info.run)


def test_a_client_without_a_credential_is_refused(server: Nats) -> None:
    """The error names the server."""
    assert "refuses this: nats: 'Authorization Violation'" in refused(
        in_this_process("pull", f"{server.servers[0]}/team", "--db", "mirror.db"), 1
    )


def _commands(value: Any) -> Iterator[list[str]]:
    """Yield every command of retold in a file for a cluster."""
    if isinstance(value, dict):
        if isinstance(value.get("command"), list) and value["command"][0] == "retold":
            yield value["command"]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _commands(inner)


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml"])
def test_files_for_clusters_name_commands_and_settings_of_retold(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command parses, with the address from the environment. retold reads each variable."""
    text = (ROOT / "examples" / "fleet" / name).read_text("utf-8")
    monkeypatch.setenv("RETOLD_SHIP", "tls://nats/team")
    group: Any = typer.main.get_command(make_app())
    commands = list(_commands(yaml.safe_load(text)))
    assert len(commands) >= 3
    for _, command, *arguments in commands:
        group.commands[command].make_context(command, list(arguments))
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src/retold").rglob("*.py"))
    assert [variable for variable in set(re.findall(r"RETOLD_\w+", text)) if variable not in source] == []


def test_the_server_of_the_compose_file_accepts_its_configuration(tmp_path: Path, keys: dict[str, Path]) -> None:
    """The files of its certificate are left out, because the test does not have them."""
    for name in ("nats.conf", "permissions.conf"):
        text = (ROOT / "examples" / "fleet" / name).read_text("utf-8")
        (tmp_path / name).write_text("\n".join(line for line in text.splitlines() if not line.startswith("tls ")))
    publics = {user: nkeys.from_seed(bytearray(path.read_bytes().strip())).public_key.decode() for user, path in keys.items()}
    command = [str(SERVER), "-c", str(tmp_path / "nats.conf"), "-t"]
    done = subprocess.run(command, env=publics, capture_output=True, text=True, check=False)
    assert (done.returncode, "is valid" in done.stderr) == (0, True), done.stderr


def _token(issuer: nkeys.KeyPair, subject: str, **claims: Any) -> str:
    """Return a signed token like those of `nsc`."""
    body = {"jti": "x", "iat": 1, "iss": issuer.public_key.decode(), "sub": subject, "nats": {"version": 2, **claims}}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)
    ]
    text = b".".join(parts)
    return (text + b"." + base64.urlsafe_b64encode(issuer.sign(text)).rstrip(b"=")).decode()


def _pair(prefix: int) -> tuple[bytes, nkeys.KeyPair]:
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    return seed, nkeys.from_seed(bytearray(seed))


def test_a_file_of_nsc_is_a_credential(tmp_path: Path) -> None:
    """It has a token and its key. A server with an operator refuses a user of another account."""
    (_, operator), (_, account), (seed, user) = (
        _pair(prefix) for prefix in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    limits = dict.fromkeys(("subs", "data", "payload", "conn", "leaf", "mem_storage", "disk_storage", "streams", "consumer"), -1)
    name = account.public_key.decode()
    owner = _token(operator, operator.public_key.decode(), type="operator")
    preload = _token(operator, name, type="account", limits=limits)
    system = _pair(nkeys.PREFIX_BYTE_ACCOUNT)[1].public_key.decode()
    own = _token(operator, system, type="account", limits=limits | {"disk_storage": 0, "mem_storage": 0, "streams": 0})
    preloads = f"resolver: MEMORY\nresolver_preload: {{ {name}: {preload}, {system}: {own} }}\n"
    config = f"operator: {owner}\nsystem_account: {system}\n{preloads}"
    for file, issuer in (("good.creds", account), ("bad.creds", _pair(nkeys.PREFIX_BYTE_ACCOUNT)[1])):
        token = _token(issuer, user.public_key.decode(), type="user", subs=-1, data=-1, payload=-1)
        Path(file).write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed.decode()}\n------END USER NKEY SEED------\n"
        )
    log = EventLog("a.db")
    record(log, "one", 3)
    with Nats(tmp_path, extra=config) as server:
        url = f"{server.servers[0]}/team"
        shipped = in_this_process("ship", "--to", url, "--until-done", "--db", "a.db", "--credentials", "good.creds")
        assert shipped.returncode == 0, shipped.stderr
        done = in_this_process("pull", url, "--db", "mirror.db", "--credentials", "good.creds")
        assert done.returncode == 0, done.stderr
        assert "refuses this" in refused(in_this_process("pull", url, "--db", "other.db", "--credentials", "bad.creds"), 1)
    assert_equal(EventLog("mirror.db"), log)
