"""Saving a cassette loses nothing: not with other writers, not through links. It keeps the mode, and refuses a damaged file."""

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import retold
from tests.clients import ask, prompts_of, record, serve
from tests.exchanges import exchange
from tests.suites import Suite

pytest_plugins = ["pytester"]

CASSETTE = Path("c.yaml")
RECORDING = ("new_episodes", "refresh", "all", "rewrite")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Several writers


@pytest.mark.parametrize("mode", RECORDING)
@pytest.mark.parametrize("had", [(), ("old",)])
def test_threads_that_record_into_one_cassette_keep_the_exchanges_of_all(mode: str, had: tuple[str, ...]) -> None:
    """Every block begins before the first one ends."""
    if had:
        record(CASSETTE, *had)
    together, names = threading.Barrier(4, timeout=20), ("a", "b", "c", "d")

    def use(name: str, url: str) -> None:
        with retold.use_cassette(CASSETTE, record_mode=mode):
            together.wait()
            ask(name, url)

    with serve() as server:
        threads = [threading.Thread(target=use, args=(name, server.url)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(prompts_of(CASSETTE)) == sorted([*names, *(had if mode not in ("rewrite", "refresh") else ())])


@pytest.mark.parametrize("mode", RECORDING)
def test_nested_blocks_of_one_cassette_keep_the_exchanges_of_all(mode: str) -> None:
    with serve() as server, retold.use_cassette(CASSETTE, record_mode=mode):
        ask("outer", server.url)
        with retold.use_cassette(CASSETTE, record_mode=mode):
            ask("inner", server.url)
        ask("outer again", server.url)
    assert prompts_of(CASSETTE) == ["inner", "outer", "outer again"]


def test_mode_all_replaces_only_exchanges_from_before_the_block() -> None:
    """If another block records the same question meanwhile, that recording stays."""
    record(CASSETTE, "same", "other")
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="all"):
        ask("same", server.url)
        with retold.use_cassette(CASSETTE, record_mode="new_episodes"):
            ask("same", server.url)
            ask("same", server.url)
    assert prompts_of(CASSETTE) == ["other", "same", "same"]


def test_a_later_block_replaces_the_recordings_of_an_earlier_one() -> None:
    """Outside pytest, each block of mode rewrite begins with an empty cassette."""
    record(CASSETTE, "first")
    assert prompts_of(record(CASSETTE, "second")) == ["second"]


def test_retries_stay_with_their_call_beside_the_calls_of_others() -> None:
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="once"):
        ask("outer", server.url)
        record(CASSETTE, "one", "two")
    assert [(e.place.call, e.place.attempt) for e in retold.read_cassette(CASSETTE).exchanges] == [(1, 1), (2, 1), (3, 1)]


# Mode refresh


def refresh(*prompts: str) -> None:
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="refresh"):
        for prompt in prompts:
            ask(prompt, server.url)


def test_a_refreshed_cassette_has_played_and_recorded_exchanges_only() -> None:
    """Of equal recordings, as many remain as were played. If all were played, the file keeps its bytes."""
    record(CASSETTE, "a", "b", "same")
    same = retold.read_cassette(CASSETTE).exchanges[2]
    retold.write_cassette(CASSETTE, [*retold.read_cassette(CASSETTE).exchanges, same])
    refresh("same", "b")
    assert prompts_of(CASSETTE) == ["b", "same"]
    before = CASSETTE.read_bytes()
    refresh("same", "b")
    assert CASSETTE.read_bytes() == before
    refresh("b", "new")
    assert prompts_of(CASSETTE) == ["b", "new"]


def test_a_failed_block_removes_nothing() -> None:
    before = record(CASSETTE, "a", "b").read_bytes()
    with contextlib.suppress(KeyError), retold.use_cassette(CASSETTE, record_mode="refresh"):
        ask("a")
        raise KeyError
    assert CASSETTE.read_bytes() == before
    with retold.use_cassette("none.yaml", record_mode="refresh"):
        pass
    assert not Path("none.yaml").exists()


@pytest.mark.parametrize("new", [(), ("new",)])
def test_concurrent_blocks_that_refresh_one_cassette_keep_all_played_exchanges(new: tuple[str, ...]) -> None:
    """The first one to end removes a recording that the second one has played. The second one restores it."""
    record(CASSETTE, "one", "two", "both", "unplayed")
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="refresh"):
        for prompt in ("two", "both"):
            ask(prompt)
        with retold.use_cassette(CASSETTE, record_mode="refresh"):
            for prompt in ("one", "both", *new):
                ask(prompt, server.url)
    assert sorted(prompts_of(CASSETTE)) == sorted(["both", "one", "two", *new])


def test_a_block_that_removed_nothing_still_protects_its_played_exchanges() -> None:
    record(CASSETTE, "one", "two")
    with retold.use_cassette(CASSETTE, record_mode="refresh"):
        ask("two")
        with retold.use_cassette(CASSETTE, record_mode="refresh"):
            ask("one")
            ask("two")
    assert prompts_of(CASSETTE) == ["one", "two"]


SHARED = """
@pytest.mark.retold("shared.yaml")
def test_one():
    ask("one")
    ask("both")
    ask("both")

@pytest.mark.retold("shared.yaml")
def test_two():
    ask("two")
    ask("both")
"""
FILE = "cassettes/test_chat/shared.yaml"


def test_tests_that_share_a_missing_cassette_record_it_together(suite: Suite) -> None:
    """With `once`, a cassette is missing if it did not exist when the session began. Afterwards a new request is a miss."""
    suite.write(SHARED)
    with serve() as server:
        suite.run("--retold-mode=once", server=server).assert_outcomes(passed=2)
        assert server.calls == 4  # the second test replays "both"
        suite.write(SHARED.replace('"two"', '"new"'))
        suite.run("--retold-mode=once", server=server).assert_outcomes(passed=1, failed=1)
        assert server.calls == 4
    assert prompts_of(suite.folder / FILE) == ["one", "both", "both", "two"]


@pytest.mark.parametrize("mode", ["rewrite", "all"])
def test_tests_that_share_a_cassette_record_it_again_together(suite: Suite, mode: str) -> None:
    """A session empties the file once, and removes an old exchange once. Afterwards each test finds its own calls."""
    suite.write(SHARED)
    for _ in range(2):
        with serve() as server:
            suite.run(f"--retold-mode={mode}", server=server).assert_outcomes(passed=2)
        assert sorted(prompts_of(suite.folder / FILE)) == ["both", "both", "both", "one", "two"]
    suite.run().assert_outcomes(passed=2)


# The file


@pytest.mark.parametrize("mode", RECORDING)
def test_exchanges_added_by_hand_during_the_block_stay(mode: str) -> None:
    record(CASSETTE, "old")
    with serve() as server, retold.use_cassette(CASSETTE, record_mode=mode):
        ask("new", server.url)
        retold.write_cassette(
            CASSETTE, [*retold.read_cassette(CASSETTE).exchanges, exchange(body=b'{"messages":[{"content":"x"}]}')]
        )
    assert prompts_of(CASSETTE) == [*(["old"] if mode != "rewrite" else []), "x", "new"]


def test_a_cassette_that_is_damaged_during_the_block_is_not_overwritten() -> None:
    """The error names the recording in the log."""
    record(CASSETTE, "old")
    block = retold.use_cassette(CASSETTE, record_mode="new_episodes")
    cassette = block.__enter__()
    with serve() as server:
        ask("new", server.url)
    CASSETTE.write_text("interactions: [")
    with pytest.raises(retold.CassetteError, match=r"damaged.* The recording is in the log: retold export \w{8} -o CASSETTE\."):
        block.__exit__(None, None, None)
    assert CASSETTE.read_text() == "interactions: ["
    assert retold.EventLog().find(cassette.run or "").exchanges == 1


def test_a_cassette_that_is_deleted_during_the_block_is_written_in_full() -> None:
    record(CASSETTE, "old")
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="new_episodes"):
        ask("new", server.url)
        CASSETTE.unlink()
    assert prompts_of(CASSETTE) == ["old", "new"]


@pytest.mark.parametrize("log", [None, "own.db"])
def test_paths_are_relative_to_the_folder_at_the_beginning_of_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str | None
) -> None:
    """A later change of the working directory moves neither the cassette nor the log."""
    begun = Path.cwd()
    with serve() as server, retold.use_cassette("here/c.yaml", record_mode="new_episodes", log=log):
        monkeypatch.chdir(tmp_path)
        ask("hi", server.url)
        monkeypatch.chdir("/")
    assert prompts_of(begun / "here/c.yaml") == ["hi"]
    assert len(retold.EventLog(begun / (log or ".retold/log.db")).runs()) == 1
    assert [path for path in tmp_path.iterdir() if path.name not in ("home", "work")] == []


@pytest.mark.parametrize("mode", RECORDING)
def test_a_symbolic_link_stays_a_link(mode: str) -> None:
    """retold writes the target of the link, whether the target exists or not."""
    Path("shared").mkdir()
    CASSETTE.symlink_to("shared/real.yaml")
    record(CASSETTE, "old")
    with serve() as server, retold.use_cassette(CASSETTE, record_mode=mode):
        ask("new", server.url)
    assert CASSETTE.is_symlink()
    assert prompts_of(Path("shared/real.yaml")) == (["new"] if mode in ("refresh", "rewrite") else ["old", "new"])
    assert [path.name for path in Path("shared").iterdir()] == ["real.yaml"]


def test_a_new_cassette_follows_the_umask_and_an_existing_one_keeps_its_mode() -> None:
    for mask, mode in ((0o077, 0o600), (0o022, 0o644), (0o002, 0o664)):
        path = Path(f"{mask}.yaml")
        with umask(mask):
            record(path)
        assert mode_of(path) == mode
    CASSETTE.touch()
    CASSETTE.write_text(path.read_text())
    CASSETTE.chmod(0o640)
    assert mode_of(record(CASSETTE)) == 0o640


@pytest.mark.parametrize("name", ["x" * 240 + ".yaml", "日" * 80 + ".yaml"])
def test_a_name_of_the_greatest_length_of_the_file_system_can_be_written(name: str) -> None:
    assert prompts_of(record(Path(name))) == ["hi"]


def test_a_pipe_is_not_a_cassette() -> None:
    """Renaming a new file over the pipe would destroy it."""
    os.mkfifo(CASSETTE)
    with pytest.raises(retold.CassetteError, match="it is not a regular file"):
        retold.write_cassette(CASSETTE, [])
    assert stat.S_ISFIFO(CASSETTE.lstat().st_mode)


@pytest.mark.parametrize("mode", ["once", *RECORDING])
def test_an_unwritable_cassette_is_refused_before_the_first_request(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test replaces the answer of the system, because it may run as root, who can write everywhere."""
    monkeypatch.setattr(os, "access", lambda path, _: not os.path.isdir(path))
    refused = pytest.raises(retold.CassetteError, match=r"cannot write the cassette new/c\.yaml: .* not writable\. Nothing was")
    with serve() as server, refused, retold.use_cassette("new/c.yaml", record_mode=mode):
        ask("hi", server.url)
    assert server.requests == []
    assert not Path("new").exists()


# Age


def test_a_time_without_an_offset_is_utc_and_other_text_is_damage() -> None:
    for stamp in ("2026-01-01T00:00:00", "2026-01-01T00:00:00+02:00"):
        retold.write_cassette(CASSETTE, [exchange(recorded_at=stamp)])
        with pytest.warns(retold.ExpiredWarning, match="was recorded"), retold.use_cassette(CASSETTE, max_age="1d"):
            pass
    retold.write_cassette(CASSETTE, [exchange(recorded_at="yesterday")])
    with pytest.raises(retold.CassetteError, match=r"c\.yaml: recorded_at should be a time such as .*'yesterday'"):
        retold.use_cassette(CASSETTE, max_age="1d").__enter__()
