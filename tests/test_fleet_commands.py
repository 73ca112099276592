"""`retold ship`, `retold pull` and `retold.shipping`: addresses, endings, exit codes, and remaining events."""

import asyncio
import json
import shutil
import signal
import sqlite3
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import nats
import pytest

import retold
from retold.audit.erase import prune
from retold.audit.verify import verify
from retold.fleet.folder import FolderShelf
from retold.fleet.memory import MemoryShelf
from retold.fleet.opening import address, source_name
from retold.fleet.pull import Puller
from retold.fleet.ship import Shipper
from retold.recorder.errors import InputError
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from tests.children import Folder, rest_of, wait_until
from tests.conftest import ROOT, Cli
from tests.e2e import in_this_process, refused
from tests.messages_server import MessagesServer, Reply, text
from tests.nats import Nats
from tests.test_fleet import assert_equal, record, ship
from tests.wire import asks

PLAIN = {"RETOLD_SOURCE": "a"}


@pytest.fixture
def folder() -> Iterator[Folder]:
    """Return the working directory, with children."""
    folder = Folder(Path.cwd())
    yield folder
    folder.close()


# Addresses


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nats://user:word@127.0.0.1/x", "--credentials FILE"),
        ("nats://token@127.0.0.1/x", "--credentials FILE"),
        ("nats://far.example.com/x", "write tls://far.example.com"),
        ("nats://127.0.0.1,far.example.com/x", "write tls://far.example.com"),
        ("nats://127.0.0.1", "nats://HOST[:PORT]/NAME"),
        ("nats:///x", "nats://HOST[:PORT]/NAME"),
        ("tls://h/x?y=1", "tls://HOST[:PORT]/NAME"),
        ("nats://127.0.0.1/x/y", "no name"),
        ("nats://127.0.0.1/x.y", "no name"),
        ("nats://127.0.0.1:port/x", "no address"),
        ("nats://[::1/x", "no address"),
        ("http://127.0.0.1/x", "begins no address of a shelf"),
        ("s3://bucket", "begins no address of a shelf"),
        ("file://host/x", "three slashes"),
        ("file://", "three slashes"),
        ("", "is empty"),
    ],
)
def test_an_invalid_address_is_refused(url: str, reason: str) -> None:
    """Both commands name the way out, open no connection, and print no part of the credential."""
    for command in (["ship", "--until-done", "--to", url], ["pull", url]):
        text = refused(in_this_process(*command))
        assert reason in text
        assert "word" not in text.replace("password", "")
        assert "token" not in text


def test_missing_credential_files_are_refused() -> None:
    """The error names the option and the file, also for a file from the environment."""
    for option in ("--credentials", "--ca"):
        assert f"{option}: there is no file no.creds" in refused(in_this_process("pull", "tls://h/x", option, "no.creds"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETOLD_NATS_CREDENTIALS", "other.creds")
        with pytest.raises(InputError, match=r"other\.creds"):
            address("nats://127.0.0.1/x")


def test_a_source_is_named_by_option_environment_or_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the host is adapted. The other two must be valid."""
    monkeypatch.setattr("socket.gethostname", lambda: "pod-7.team.example_com.")
    assert source_name() == "pod-7-team-example_com"
    monkeypatch.setenv("RETOLD_SOURCE", "b")
    assert (source_name(), source_name("c")) == ("b", "c")
    with pytest.raises(InputError, match="no name for a source"):
        source_name("a.b")


@pytest.mark.parametrize("url", ["nats://127.0.0.1:4222/x", "tls://h/x", "postgresql://h/x", "file:///tmp/x"])
def test_a_shelf_is_not_a_log(url: str) -> None:
    """Every command and the library name, in one sentence, the command that makes a log of it."""
    for command in (["ls"], ["verify"], ["show", "last"], ["stats"]):
        text = refused(in_this_process(*command, "--db", url))
        assert f"`retold pull {url} --db mirror.db`" in text
        assert text.count("\n") == 1
    with pytest.raises(InputError, match="retold pull"):
        EventLog(url)
    assert "secret" not in refused(in_this_process("ls", "--db", "postgresql://me:secret@h/x"))


# Ship and pull


def test_two_logs_meet_in_a_mirror() -> None:
    """The commands do it. A later pull continues, and a second shipping has nothing to do."""
    logs = [EventLog(f"{name}.db") for name in "ab"]
    for log in logs:
        record(log, "one", 3)
        done = in_this_process("ship", "--to", "shelf", "--until-done", "--source", log.path.stem, "--db", log.path)
        assert (done.returncode, done.stdout) == (0, "")
        assert "shipped 5 events in 1 page to shelf" in done.stderr
        assert "nothing is left" in done.stderr
    first = in_this_process("pull", "shelf", "--db", "mirror.db")
    assert (first.returncode, first.stdout) == (0, "")
    assert "pulled 10 new events in 2 pages from shelf into mirror.db" in first.stderr
    assert_equal(EventLog("mirror.db"), *logs)
    record(logs[0], "two", 3)
    again = in_this_process(
        "ship", "--to", f"file://{Path.cwd()}/shelf", "--until-done", "--source", "a", "--db", "a.db", "--json"
    )
    assert {key: json.loads(again.stdout)[key] for key in ("events", "left", "forked", "error")} == {
        "events": 5, "left": {}, "forked": {}, "error": None,
    }  # fmt: skip
    pulled = json.loads(in_this_process("pull", "shelf", "--db", "mirror.db", "--json").stdout)
    assert (pulled["events"], pulled["known"], pulled["held"], pulled["refused"]) == (5, 0, {}, {})
    assert_equal(EventLog("mirror.db"), *logs)


def test_one_run_and_the_runs_since_a_time_are_pulled() -> None:
    """An incomplete id is refused. A later pull of everything omits nothing."""
    with EventLog("a.db") as log:
        for name, year in (("old", 2001), ("middle", 2011), ("new", 2021)):
            with log.start(name=name, mode="import", recorded_ns=(year - 1970) * 31_556_952 * 10**9) as writer:
                writer.append(Entry("frame", b"data: 1\n\n"))
        middle = log.find("middle").run
        ship(log, FolderShelf("shelf", source="a"))
    assert in_this_process("pull", "shelf", "--db", "one.db", "--run", middle).returncode == 0
    assert [info.name for info in EventLog("one.db").runs()] == ["middle"]
    assert in_this_process("pull", "shelf", "--db", "one.db", "--since", "2010-01-01").returncode == 0
    assert [info.name for info in EventLog("one.db").runs()] == ["new", "middle"]
    assert in_this_process("pull", "shelf", "--db", "one.db").returncode == 0
    assert_equal(EventLog("one.db"), log)
    assert "16 hexadecimal digits" in refused(in_this_process("pull", "shelf", "--run", middle[:8]))
    assert "--since" in refused(in_this_process("pull", "shelf", "--since", "someday"))


def test_following_a_part_reads_it_once() -> None:
    """A puller of one run continues after the pages that it has seen, although it does not move the mirror's cursor."""
    shelf, log = MemoryShelf("a"), EventLog("a.db")
    run = record(log, "one", 3)
    ship(log, shelf)
    puller = Puller(EventLog("mirror.db"), shelf, only=run)
    assert [puller.run().pages for _ in range(3)] == [1, 1, 1]


def test_a_missing_shelf_cannot_be_read() -> None:
    """A misspelt folder is an error, and is not created."""
    done = in_this_process("pull", "no-shelf", "--db", "mirror.db")
    assert "there is no shelf in no-shelf" in refused(done, 1)
    assert not Path("no-shelf").exists()
    assert "there is no log at no.db" in refused(in_this_process("ship", "--to", "shelf", "--until-done", "--db", "no.db"))


def test_forked_and_refused_runs_are_named() -> None:
    """A log was copied and continued twice. ship exits with code 1, and so does a pull of both sources."""
    with EventLog("a.db") as log:
        record(log, "one", 3)
        writer = log.start(name="two", mode="live")
        log.close()
        shutil.copy("a.db", "b.db")
        writer.end()
    with EventLog("b.db") as copy:
        copy.open()  # opening ends the run, because its writer is not here
    assert in_this_process("ship", "--to", "shelf", "--until-done", "--source", "a", "--db", "a.db").returncode == 0
    shipped = in_this_process("ship", "--to", "shelf", "--until-done", "--source", "a", "--db", "b.db")
    assert (shipped.returncode, f"run {writer.run} is not shipped: event 1 on the shelf" in shipped.stderr) == (1, True)
    assert in_this_process("ship", "--to", "shelf", "--until-done", "--source", "b", "--db", "b.db").returncode == 0
    pulled = in_this_process("pull", "shelf", "--db", "mirror.db")
    assert (pulled.returncode, f"run {writer.run} is refused: it has forked" in pulled.stderr) == (1, True)


def test_a_pruned_run_does_not_block_shipping() -> None:
    """It is pruned before it was shipped, or while the shelf has it."""
    with EventLog("a.db") as log:
        for name in ("one", "two"):
            record(log, name, 3)
        prune(log, [log.find("one")], why="old", by="me")
        ship(log, FolderShelf("shelf", source="a"))
        prune(log, [log.find("two")], why="old", by="me")
        shipper = Shipper(log, FolderShelf("shelf", source="a"))
        shipper.run(until_done=True)
        assert shipper.left() == {}
    Puller(EventLog("mirror.db"), FolderShelf("shelf", source="reader")).run()
    assert {info.mode for info in EventLog("mirror.db").runs()} == {"audit"}


def test_an_open_run_of_a_killed_program_is_shipped_to_its_end(folder: Folder) -> None:
    """`--until-done` ends it as interrupted, and does not wait for the dead writer."""
    script = "import retold, os; retold.EventLog().start(name='one', mode='live'); os.kill(os.getpid(), 9)"
    folder.run_python(script)
    assert in_this_process("ship", "--to", "shelf", "--until-done").returncode == 0
    in_this_process("pull", "shelf", "--db", "mirror.db")
    assert [info.status for info in EventLog("mirror.db").runs()] == ["interrupted"]


def test_a_file_in_the_place_of_a_shelf_is_an_error() -> None:
    """The shipper does not wait until it becomes a folder."""
    record(EventLog("a.db"), "one", 3)
    done = in_this_process("ship", "--to", "a.db", "--until-done", "--db", "a.db")
    assert (done.returncode, "File exists" in done.stderr, "left: 5 events" in done.stderr) == (1, True, True)


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both_with_a_summary(folder: Folder, number: signal.Signals) -> None:
    """The shipper starts before the log exists, like a sidecar. At the end the shelf has the events of an open run."""
    shipper = folder.spawn("ship", "--to", "shelf", **PLAIN)
    wait_until(lambda: Path("shelf").exists() or shipper.poll() is not None or not folder.log.exists())
    with folder.log.start(name="one", mode="live") as writer:
        writer.append(Entry("frame", b"data: 1\n\n"))
        wait_until(Path("shelf/journal").exists)
        puller = folder.spawn("pull", "shelf", "--follow", "--db", "mirror.db")
        mirror = EventLog("mirror.db")
        wait_until(lambda: mirror.exists() and len(mirror.runs()) == 1)
        writer.append(Entry("frame", b"data: 2\n\n"))
        shipper.send_signal(number)
        out, err = rest_of(shipper)
        assert (shipper.returncode, out) == (0, "")
        assert "shipping .retold/log.db to shelf as a; Ctrl-C ends it" in err
        assert "shipped 3 events in" in err
        assert "nothing is left" in err
        wait_until(lambda: len(list(mirror.events(writer.run))) == 3)
    puller.send_signal(number)
    out, err = rest_of(puller)
    assert (puller.returncode, out) == (0, "")
    assert "following shelf into mirror.db" in err
    assert "pulled 3 new events" in err
    assert "Traceback" not in err


def test_remaining_events_are_counted(folder: Folder) -> None:
    """The shelf is unreachable. The problem is reported once, the end takes a bounded time, and the exit code is 1."""
    record(folder.log, "one", 3)
    Path("file").write_text("no folder")
    shipper = folder.spawn("ship", "--to", "file/shelf", RETOLD_SHIP_DRAIN_S="0", **PLAIN)
    assert shipper.stderr is not None
    head = [shipper.stderr.readline() for _ in range(2)]
    assert "Not a directory" in head[1]
    shipper.send_signal(signal.SIGTERM)
    out, err = rest_of(shipper)
    assert (shipper.returncode, out) == (1, "")
    assert "shipped 0 events" in err
    assert "left: 5 events of 1 run are not known to be on file/shelf" in err
    assert "Not a directory" not in err


def test_the_bound_of_the_end_must_be_a_number() -> None:
    """A word is refused before anything is shipped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETOLD_SHIP_DRAIN_S", "long")
        assert "RETOLD_SHIP_DRAIN_S is 'long'" in refused(in_this_process("ship", "--to", "shelf"))


# Beside a recording


def test_a_program_ships_its_log_while_it_records() -> None:
    """`retold.shipping` ships until the end of its block.

    Without an address it does nothing, and it refuses a wrong one at once.
    """
    with EventLog("a.db") as log:
        with retold.shipping(log, "shelf", source="a"):
            record(log, "one", 30)
        with retold.shipping(log):
            record(log, "two", 3)
        with pytest.raises(InputError, match="begins no address"), retold.shipping(log, "http://h/x"):
            raise AssertionError("not reached")
    in_this_process("pull", "shelf", "--db", "mirror.db")
    assert [info.name for info in EventLog("mirror.db").runs()] == ["one"]


def test_a_program_gets_a_warning_about_remaining_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recording is complete, and its own error is not replaced."""
    monkeypatch.setenv("RETOLD_SHIP_DRAIN_S", "0")
    Path("file").write_text("no folder")
    with warnings.catch_warnings(record=True, action="always") as found, pytest.raises(ValueError, match="own"):
        _fail_while_shipping("file/shelf")
    warned = [str(each.message) for each in found if each.category is retold.ShippingWarning]
    assert "left: 5 events of 1 run" in warned[-1]  # after a warning that the shelf is away, if there was time to notice it
    assert [info.status for info in EventLog("a.db").runs()] == ["completed"]


def _fail_while_shipping(to: str) -> None:
    with EventLog("a.db") as log, retold.shipping(log, to, source="a"):
        record(log, "one", 3)
        raise ValueError("own")


# On a server


@pytest.mark.stress
def test_commands_on_a_real_server(folder: Folder, tmp_path: Path) -> None:
    """The server is killed and comes back. Each problem is reported once when it begins, and once when it ends."""
    with Nats(tmp_path) as server:
        url = f"{server.servers[0]}/team"
        assert "has no stream retold-team" in refused(in_this_process("pull", url, "--db", "mirror.db"), 1)
        shipper = folder.spawn("ship", "--to", url, **PLAIN)
        record(folder.log, "one", 3)
        mirror = EventLog("mirror.db")
        has = partial(_has_runs, mirror, url)
        wait_until(lambda: has(1))
        server.kill(0)
        record(folder.log, "two", 3)
        assert shipper.stderr is not None
        assert "shipping" in shipper.stderr.readline()
        assert "Waiting for the shelf" in shipper.stderr.readline()
        server.start()
        assert "the shelf answers again" in shipper.stderr.readline()
        wait_until(lambda: has(2))
        shipper.send_signal(signal.SIGTERM)
        assert "shipped 10 events" in rest_of(shipper)[1]
        assert shipper.returncode == 0
    assert_equal(mirror, folder.log)
    with closing(sqlite3.connect("mirror.db")) as connection:
        assert connection.execute("SELECT DISTINCT source, shelf FROM received").fetchall() == [("a", url)]


def _has_runs(mirror: EventLog, url: str, number: int) -> bool:
    """Pull, and return whether the mirror has this many ended runs."""
    in_this_process("pull", url, "--db", mirror.path)
    return mirror.exists() and [info.status for info in mirror.runs()] == ["completed"] * number


# The commands that record, list and check


def test_commands_that_record_ship_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """`record` ships by its option, `run` by the environment. An invalid shelf is refused before anything is recorded."""
    with MessagesServer([Reply([text("Hello.")])]) as server:
        command = ("record", "--ship", "shelf", "--upstream", server.url, "--", *asks("a"))
        assert cli(*command, env={"RETOLD_SOURCE": "a"}).returncode == 0
    monkeypatch.setenv("RETOLD_SHIP", "shelf")
    monkeypatch.setenv("RETOLD_SOURCE", "b")
    assert in_this_process("run", ROOT / "examples" / "clean_streaming_numbers.yaml").returncode == 0
    assert in_this_process("pull", "shelf", "--db", "mirror.db").returncode == 0
    assert_equal(EventLog("mirror.db"), EventLog())
    listed = in_this_process("ls", "--db", "mirror.db").stdout
    assert listed.splitlines()[0].split() == [
        "RUN",
        "STARTED",
        "MODE",
        "STATUS",
        "TOOK",
        "MSGS",
        "ERRORS",
        "SOURCE",
        "HEARD",
        "NAME",
    ]
    assert sorted(run["source"] for run in json.loads(in_this_process("ls", "--db", "mirror.db", "--json").stdout)) == ["a", "b"]
    assert "SOURCE" not in in_this_process("ls").stdout
    assert verify(EventLog("mirror.db")).findings == []
    for refusing in (["run", "w.yaml"], ["record", "--", "true"], ["proxy"], ["serve", "c.yaml", "--mode", "once"]):
        done = in_this_process(refusing[0], "--ship", "http://h/x", "--db", "new.db", *refusing[1:])
        assert "begins no address of a shelf" in refused(done)
    assert not Path("new.db").exists()


def test_a_server_ships_its_recordings(folder: Folder) -> None:
    """`proxy` ends at a signal as before, and ships the rest."""
    with MessagesServer([Reply([text("Hello.")])]) as server:
        child = folder.spawn("proxy", "--ship", "shelf", "--upstream", server.url, **PLAIN)
        assert child.stdout is not None
        request = urllib.request.Request(child.stdout.readline().strip() + "/v1/messages", b"{}", {"x-api-key": "k"})
        urllib.request.urlopen(request).close()
        child.send_signal(signal.SIGTERM)
        rest_of(child)
    assert child.returncode == 0
    in_this_process("pull", "shelf", "--db", "mirror.db")
    assert_equal(EventLog("mirror.db"), folder.log)
    assert [info.exchanges for info in EventLog("mirror.db").runs()] == [1]


@pytest.mark.parametrize("table", ["received", "shelves"])
def test_a_changed_row_about_a_shelf_is_a_finding(table: str) -> None:
    """Examples are a run without a ledger entry, a source that is not text, and a shelf without a name."""
    with EventLog("a.db") as log:
        record(log, "one", 3)
        ship(log, FolderShelf("shelf", source="a"))
    Puller(EventLog("mirror.db"), FolderShelf("shelf", source="reader")).run()
    changes = {
        "received": ["run = '00ff00ff00ff00ff'", "run = x'00'", "source = x'61'", "source = ''", "shelf = ''"],
        "shelves": ["shelf = ''", "cursor = x'61'", "cursor = ''"],
    }
    for change in changes[table]:
        shutil.copy("mirror.db", "changed.db")
        with closing(sqlite3.connect("changed.db")) as connection:
            connection.execute(f"UPDATE {table} SET {change}")
            connection.commit()
        assert "received" in [finding.what for finding in verify(EventLog("changed.db")).findings], change


def test_doctor_checks_the_shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    """It creates nothing there. A missing shelf, an invalid one, and an unreachable one are problems."""
    assert json.loads(in_this_process("doctor", "--json").stdout)["shelf"] is None
    monkeypatch.setenv("RETOLD_SOURCE", "a")
    FolderShelf("shelf", source="a").last("0" * 16)
    for url, reached, problem in (
        ("shelf", True, None),
        ("no-shelf", False, "there is no shelf in no-shelf"),
        ("nats://me:word@127.0.0.1/x", False, "--credentials FILE"),
    ):
        monkeypatch.setenv("RETOLD_SHIP", url)
        done = in_this_process("doctor", "--json")
        found = json.loads(done.stdout)
        assert (found["shelf"]["reached"], done.returncode) == (reached, 0 if reached else 1)
        assert problem is None or problem in found["problems"][0]
        assert "word" not in done.stdout.replace("password", "")
        assert f": {'reached' if reached else 'not reached'}\n" in in_this_process("doctor").stdout
    assert not Path("no-shelf").exists()


def test_doctor_checks_the_stream_on_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stream that would lose pages is a problem, by name."""
    with Nats(tmp_path) as server:
        monkeypatch.setenv("RETOLD_SHIP", f"{server.servers[0]}/team")
        assert "has no stream retold-team" in json.loads(in_this_process("doctor", "--json").stdout)["problems"][0]
        asyncio.run(_make_stream(server.servers[0], "retold-team", max_age=60))
        assert "it forgets pages by age; set max_age to 0" in in_this_process("doctor").stdout


async def _make_stream(server: str, name: str, **settings: Any) -> None:
    client = await nats.connect(server)
    await client.jetstream().add_stream(name=name, subjects=["retold.team.>"], allow_direct=True, discard="new", **settings)
    await client.close()
