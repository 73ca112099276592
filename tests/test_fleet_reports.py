"""Reports on a shelf: sources that are quiet or gone, mirrors that have not pulled an erasure, and lost pages."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retold.audit.erase import erase, plan_text
from retold.fleet.background import BackgroundShipper, erasure_lines
from retold.fleet.folder import FolderShelf
from retold.fleet.memory import MemoryShelf
from retold.fleet.presence import ago, kept_by, mirror_name, mirrors_behind, reports_on, send
from retold.fleet.pull import Puller
from retold.fleet.reports import GONE_AFTER_S, MirrorReport, SourceReport, entry_of, report_of
from retold.fleet.shelf import Refused, Shelf, Unreachable
from retold.fleet.ship import Shipper, gaps_of
from retold.recorder.log.log import EventLog
from tests.children import wait_until
from tests.e2e import in_this_process
from tests.test_fleet import assert_equal, lines, record, running, ship

NAMES = st.from_regex(r"[0-9A-Za-z_-]{1,20}", fullmatch=True)


@pytest.fixture
def source(tmp_path: Path) -> EventLog:
    """Return the recording log."""
    return EventLog(tmp_path / "source.db")


@pytest.fixture
def mirror(tmp_path: Path) -> EventLog:
    """Return the log that pulls."""
    return EventLog(tmp_path / "mirror.db")


def shipper_of(log: EventLog, shelf: Shelf) -> BackgroundShipper:
    """Ship everything like `retold ship --until-done`, and return the ended shipper."""
    shipper = BackgroundShipper(log, shelf, on_trouble=lambda _: None, until_done=True)
    shipper.start()
    assert shipper.join(30)
    return shipper


# Reports as text


@given(NAMES, st.integers(0, 2**62), st.integers(0, 10**9), st.booleans())
def test_the_report_of_a_source_reads_back(name: str, at_ns: int, left: int, ended: bool) -> None:
    """All values are equal."""
    report = SourceReport(name, at_ns, left, ended)
    assert report_of(*entry_of(report)) == report


@given(NAMES, st.none() | st.text(min_size=1), st.dictionaries(st.text(), st.integers(0, 10**9)), st.integers(0, 9))
def test_the_report_of_a_mirror_reads_back(name: str, cursor: str | None, held: dict[str, int], refused: int) -> None:
    """Any cursor works."""
    report = MirrorReport(name, 5, cursor, held, refused)
    assert report_of(*entry_of(report)) == report


@given(
    st.sampled_from(["source.a", "mirror.a"]), st.binary(max_size=30) | st.sampled_from([b"[]", b"{}", b'{"at_ns":"x"}', b"1"])
)
def test_an_unreadable_report_is_one_of_time_0(key: str, text: bytes) -> None:
    """Another program wrote it. Its name is shown, and no value of it is used."""
    report = report_of(key, text)
    assert report is not None
    assert (report.name, report.at_ns) == ("a", 0)
    assert report_of("other.a", text) is report_of("source", text) is None


def test_a_source_is_gone_if_it_is_silent_without_an_end() -> None:
    """A source that ended regularly is not gone."""
    now_ns = 10**18
    ages = [int(seconds * 1e9) for seconds in (0, GONE_AFTER_S - 1, GONE_AFTER_S + 1)]
    assert [SourceReport("a", now_ns - age).is_gone(now_ns) for age in ages] == [False, False, True]
    assert not SourceReport("a", now_ns - ages[-1], ended=True).is_gone(now_ns)


def test_an_age_is_in_the_largest_exact_enough_unit() -> None:
    """Below two of a unit, the smaller unit is used. A clock ahead of this one means now."""
    seconds = {0: "0 s", 119: "119 s", 120: "2 min", 7_199: "119 min", 7_200: "2 h", 172_799: "47 h", 172_800: "2 d", -5: "0 s"}
    now_ns = 10**18
    assert {each: ago(now_ns - each * 10**9, now_ns) for each in seconds} == {n: f"{text} ago" for n, text in seconds.items()}
    assert ago(0) == "never"


def test_a_mirror_has_a_unique_name(tmp_path: Path) -> None:
    """Two files of one name on one host differ, and any file name becomes a valid name on a shelf."""
    names = {mirror_name("host", tmp_path / path) for path in ("a/mirror.db", "b/mirror.db", "a/é ü.db", "a/\udcff.db")}
    assert len(names) == 4
    for name in names:
        FolderShelf(tmp_path / "shelf", source="a").report(f"mirror.{name}", b"{}")


# Sources


def test_a_mirror_distinguishes_a_quiet_source_from_a_gone_one(source: EventLog, mirror: EventLog) -> None:
    """A shipper that ends reports it, and a killed one only becomes silent. The mirror keeps the last report of each."""
    shelf = MemoryShelf("quiet")
    record(source, "one", 3)
    began_ns = time.time_ns()
    with shipping_to(source, shelf):
        wait_until(lambda: "source.quiet" in shelf.reports())
        send(shelf.of("killed"), SourceReport("killed", began_ns - 10**12, left=7))
        Puller(mirror, shelf.of("reader"), name="m").run()
        kept = kept_by(mirror)
        assert {name: heard.is_gone for name, heard in kept.sources.items()} == {"quiet": False, "killed": True}
        assert kept.sources["killed"].report.left == 7
        assert kept.shelves["memory"] >= kept.sources["quiet"].report.at_ns >= began_ns
    assert reports_on(shelf)[-1] == SourceReport("quiet", reports_on(shelf)[-1].at_ns, 0, ended=True)


def shipping_to(log: EventLog, shelf: Shelf) -> Any:
    """Ship a log to a shelf during the block."""

    class Block:
        def __enter__(self) -> None:
            self.shipper = BackgroundShipper(log, shelf, on_trouble=lambda _: None)
            self.shipper.start()

        def __exit__(self, *_: object) -> None:
            self.shipper.leave()
            assert self.shipper.join(30)
            self.shipper.ended()

    return Block()


class SilentShelf(MemoryShelf):
    """A shelf that accepts pages, but no report."""

    fault: type[Exception] = Refused

    def report(self, key: str, text: bytes) -> None:
        """Refuse the report."""
        raise self.fault(f"{key} is not for you ({len(text)}).")

    def reports(self) -> dict[str, bytes]:
        """Refuse to list reports."""
        raise self.fault("reports are not for you.")


@pytest.mark.parametrize("fault", [Refused, Unreachable])
def test_a_shelf_without_reports_accepts_pages(source: EventLog, mirror: EventLog, fault: type[Exception]) -> None:
    """The shipper continues silently, except for erasures. The puller gets the reason."""
    shelf = SilentShelf("a")
    shelf.fault = fault
    record(source, "one", 3, text="Alice")
    assert erasure_lines(shipper_of(source, shelf).ended()) == []
    erase(source, plan_text(source, "Alice"), why="asked", by="me")
    assert "are unknown: reports are not for you." in erasure_lines(shipper_of(source, shelf).ended())[0]
    puller = Puller(mirror, shelf, name="m")
    if fault is Refused:
        assert puller.run().events > 0
        assert str(puller.fault).startswith("mirror.m is not for you")
    else:
        with pytest.raises(Unreachable):
            puller.run()
    assert_equal(mirror, source)


def test_ls_of_a_mirror_shows_the_last_report_of_a_source(mirror: EventLog) -> None:
    """Open runs are shown as alive with remaining events, gone, or ended. An ended run is complete."""
    shelf, now_ns = FolderShelf("shelf", source="a"), time.time_ns()
    ages = {"alive": (3, 0, False), "late": (5, 7, False), "gone": (7_300, 0, False), "ended": (9_000, 0, True)}
    writers = []
    for name, (seconds, left, ended) in ages.items():
        log = EventLog(f"{name}.db")
        record(log, f"{name}-1", 1)
        writers.append(log.start(name=f"{name}-2", mode="live"))
        ship_open(log, FolderShelf("shelf", source=name))
        send(shelf, SourceReport(name, now_ns - seconds * 10**9, left, ended))
    Puller(mirror, FolderShelf("shelf", source="reader"), name="m").run()
    done = in_this_process("ls", "--db", mirror.path)
    heard = {}
    for line in done.stdout.splitlines()[1:]:
        cells = line.rsplit(maxsplit=1)
        heard[cells[1]] = cells[0].partition(cells[1].partition("-")[0])[2].strip()
    assert re.fullmatch(r"\d s ago", heard["alive-2"])
    assert re.fullmatch(r"\d+ s ago, 7 left", heard["late-2"])
    assert (heard["gone-2"], heard["ended-2"]) == ("gone, 2 h ago", "ended 2 h ago")
    assert {heard[f"{name}-1"] for name in ages} == {""}
    assert re.search(r"retold: pulled from shelf \d+ s ago", done.stderr)
    listed = {each["name"]: each for each in json.loads(in_this_process("ls", "--db", mirror.path, "--json").stdout)}
    assert (listed["late-2"]["left"], listed["gone-2"]["source_gone"], listed["ended-2"]["source_ended"]) == (7, True, True)
    assert listed["late-2"]["pulled"] > listed["late-2"]["heard"]
    assert "a mirror of shelf, pulled 20" in in_this_process("doctor", "--db", mirror.path).stdout
    for writer in writers:
        writer.end()


def ship_open(log: EventLog, shelf: Shelf) -> None:
    """Ship a log with an open run."""
    shipper = Shipper(log, shelf)
    shipper.leave()
    shipper.run()


# Erasures


def test_mirrors_that_have_not_pulled_an_erasure_are_named(source: EventLog, mirror: EventLog, tmp_path: Path) -> None:
    """A mirror that pulled it is not named. A mirror that pulled only a part is, because it has no cursor."""
    shelf = MemoryShelf("a")
    run = record(source, "one", 3, text="Alice")
    assert mirrors_behind(source, shelf) == []
    ship(source, shelf)
    part = EventLog(tmp_path / "part.db")
    for name, log, only in (("whole", mirror, None), ("away", EventLog(tmp_path / "away.db"), None), ("part", part, run)):
        Puller(log, shelf.of("reader"), name=name, only=only).run()
    assert erasure_lines(shipper_of(source, shelf).ended()) == []
    erase(source, plan_text(source, "Alice"), why="asked", by="me")
    assert [each.mirror for each in mirrors_behind(source, shelf)] == ["away", "part", "whole"]  # it is not shipped yet
    ship(source, shelf)
    Puller(mirror, shelf.of("reader"), name="whole").run()
    assert [(each.mirror, each.erasures) for each in mirrors_behind(source, shelf)] == [("away", 1), ("part", 1)]
    named = erasure_lines(shipper_of(source, shelf).ended())
    assert named[0].startswith("mirror away has not pulled 1 erasure yet; it reported last ")
    assert mirrors_behind(mirror, shelf) == []  # the erasures of another log are not its own


def test_a_shipper_waits_for_a_following_mirror(source: EventLog, mirror: EventLog) -> None:
    """The mirror reports as soon as it has erased, so the shipper need not name it."""
    shelf = MemoryShelf("a")
    record(source, "one", 3, text="Alice")
    ship(source, shelf)
    with running(Puller(mirror, shelf.of("reader"), name="m"), follow=True):
        wait_until(lambda: "mirror.m" in shelf.reports())
        erase(source, plan_text(source, "Alice"), why="asked", by="me")
        assert erasure_lines(shipper_of(source, shelf).ended()) == []
    assert_equal(mirror, source)


def test_commands_that_erase_ship_and_name_the_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    """These are `erase --ship`, and `redact` and `prune` with the environment. `doctor` reports the mirrors as a problem."""
    monkeypatch.setenv("RETOLD_SOURCE", "a")
    monkeypatch.setattr("retold.fleet.background.MOMENT_S", 0.1)
    with EventLog() as log:
        record(log, "one", 3, text="Alice")
        record(log, "two", 3, text="Bob")
    assert in_this_process("ship", "--to", "shelf", "--until-done").returncode == 0
    assert in_this_process("pull", "shelf", "--db", "mirror.db").returncode == 0
    done = in_this_process("erase", "--text", "Alice", "--why", "asked", "--yes", "--ship", "shelf")
    assert done.returncode == 0, done.stderr
    assert "has not pulled 1 erasure yet" in done.stderr
    monkeypatch.setenv("RETOLD_SHIP", "shelf")
    done = in_this_process("redact", "--pattern", "Bob", "--why", "asked", "--yes")
    assert "has not pulled 2 erasures yet" in done.stderr, done.stderr
    found = json.loads(in_this_process("doctor", "--json").stdout)
    assert [(each["source"], each["ended"]) for each in found["shelf"]["sources"]] == [("a", True)]
    assert [each["erasures_left"] for each in found["shelf"]["mirrors"]] == [2]
    assert "has not pulled 2 erasures yet" in found["problems"][0]
    assert in_this_process("pull", "shelf", "--db", "mirror.db").returncode == 0
    assert json.loads(in_this_process("doctor", "--json").stdout)["problems"] == []
    assert "mirror a-mirror-" in in_this_process("doctor").stdout
    assert [path for path in Path().rglob("*") if path.is_file() and b"Alice" in path.read_bytes()] == []


# Lost pages


def lose_one(shelf: MemoryShelf, number: int) -> None:
    """Lose the page with this number, like a server with a damaged file."""
    shelf._kept.arrived[number] = None


def test_a_lost_page_is_named_until_it_is_shipped_again(source: EventLog, mirror: EventLog) -> None:
    """Each pull names the missing event, also a pull without new pages. Then the next shipper repairs the run."""
    shelf = MemoryShelf("a")
    run = record(source, "one", 700)
    ship(source, shelf)
    lose_one(shelf, 1)
    lose_one(shelf, 2)
    assert gaps_of(shelf, run) == [(200, 599)]
    for _ in range(2):
        pulled = Puller(mirror, shelf.of("reader"), name="m").run()
        assert (pulled.held, lines(source, run).startswith(lines(mirror, run))) == ({run: 200}, True)
    shipped = shipper_of(source, shelf).ended().shipped
    assert (shipped.pages, shipped.events, gaps_of(shelf, run)) == (2, 400, [])
    assert Puller(mirror, shelf.of("reader"), name="m").run().held == {}
    assert_equal(mirror, source)


def test_a_following_puller_takes_the_pages_after_a_repaired_one(source: EventLog, mirror: EventLog) -> None:
    """It skipped them while the event before them was missing."""
    shelf = MemoryShelf("a")
    run = record(source, "one", 700)
    ship(source, shelf)
    lose_one(shelf, 1)
    with running(Puller(mirror, shelf.of("reader"), name="m"), follow=True):
        wait_until(lambda: run in json.loads(shelf.reports().get("mirror.m", b'{"held":{}}'))["held"])
        shipper_of(source, shelf)
        wait_until(lambda: mirror.find("one").status == "completed")
    assert_equal(mirror, source)


def test_doctor_names_a_lost_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the mirror, the run and the way out."""
    log = EventLog("a.db")
    run = record(log, "one", 300)
    ship(log, FolderShelf("shelf", source="a"))
    next(Path("shelf").rglob("000000000000.jsonl")).unlink()
    assert in_this_process("pull", "shelf", "--db", "mirror.db").returncode == 1
    monkeypatch.setenv("RETOLD_SHIP", "shelf")
    (problem,) = json.loads(in_this_process("doctor", "--json").stdout)["problems"]
    assert f"waits for event 0 of run {run}, which is not on the shelf. `retold ship`" in problem
    assert in_this_process("ship", "--until-done", "--source", "a", "--db", "a.db").returncode == 0
    assert in_this_process("pull", "shelf", "--db", "mirror.db").returncode == 0
    assert_equal(EventLog("mirror.db"), log)
