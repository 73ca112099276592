"""`retold.record(name)` records every client of a block into the log, without a cassette."""

import asyncio
import contextvars
from collections.abc import Iterator
from pathlib import Path

import pytest

import retold
from retold.recorder.cassette.transfer import exchanges_of
from tests.clients import ASKING, Ask, answer_text_async, ask, client_async, record, serve

SECRET = "sk-ant-api03-Ab_9-Cd8efGhIjKlMnOpQrSt"


@pytest.fixture
def log() -> Iterator[retold.EventLog]:
    with retold.EventLog("log.db") as opened:
        yield opened


def prompts(log: retold.EventLog) -> dict[str, list[str]]:
    """Return the recorded prompts of each run."""
    found: dict[str, list[str]] = {}
    for run in log.runs():
        bodies = [exchange.request.body.decode() for exchange in exchanges_of(log, run.run)]
        found[run.name] = [body.split('"content":"')[1].split('"')[0] for body in bodies]
    return found


@pytest.mark.parametrize("asking", ASKING.values(), ids=ASKING)
@pytest.mark.parametrize("mode", ["", "none"])
def test_each_client_of_a_block_is_recorded_into_one_run(
    monkeypatch: pytest.MonkeyPatch, log: retold.EventLog, asking: Ask, mode: str
) -> None:
    """The block writes only to the log, and settings of tests have no effect."""
    monkeypatch.setenv("RETOLD_RECORD_MODE", mode)
    monkeypatch.setenv("CI", "true")
    with serve() as server:
        asking("before", server.url)
        with retold.record("job-17", log=log) as recording:
            assert [asking(prompt, server.url) for prompt in ("one", "two", "two")][-1] == "You said two."
        asking("after", server.url)
    (run,) = log.runs()
    assert (run.run, run.name, run.mode, run.status) == (recording.run, "job-17", "live", "completed")
    assert (prompts(log), recording.recorded) == ({"job-17": ["one", "two", "two"]}, 3)
    assert not list(Path().rglob("*.yaml"))


def test_concurrent_and_nested_jobs_have_separate_runs(log: retold.EventLog) -> None:
    async def job(url: str, name: str, meeting: asyncio.Barrier) -> None:
        async with retold.record(name, log=log), client_async(url) as client:
            await meeting.wait()
            await answer_text_async(client, name)
            with retold.record(f"{name}, inner", log=log):
                await answer_text_async(client, "inner")
            await answer_text_async(client, "again")

    async def jobs(url: str) -> None:
        meeting = asyncio.Barrier(2)
        await asyncio.gather(job(url, "a", meeting), job(url, "b", meeting))

    with serve() as server:
        asyncio.run(jobs(server.url))
    assert prompts(log) == {
        "a": ["a", "again"], "b": ["b", "again"], "a, inner": ["inner"], "b, inner": ["inner"],
    }  # fmt: skip


def test_an_error_in_the_block_fails_its_run_without_its_secrets(log: retold.EventLog) -> None:
    def job(url: str) -> None:
        with retold.record("job", log=log):
            ask("hi", url)
            raise ValueError(f"bad key {SECRET}")

    with serve() as server, pytest.raises(ValueError, match="sk-ant"):
        job(server.url)
    (run,) = log.runs()
    assert (run.status, run.error) == ("failed", "ValueError: bad key REDACTED")


def test_a_block_without_a_request_leaves_no_run(log: retold.EventLog) -> None:
    with retold.record("job", log=log) as recording:
        pass
    assert (recording.run, log.runs()) == (None, [])


def test_in_a_replay_only_the_cassette_counts(tmp_path: Path) -> None:
    """The code under test never sends its requests, not even in a context that did not inherit the cassette."""
    cassette = record(tmp_path / "c.yaml", "hi", "hi")

    def production(prompt: str) -> str:
        with retold.record("job", log="production.db") as recording:
            try:
                return ask(prompt)
            finally:
                assert (recording.run, recording.recorded) == (None, 0)

    with retold.use_cassette(cassette) as used:
        assert production("hi") == "You said hi."
        assert contextvars.Context().run(production, "hi") == "You said hi."
        with pytest.raises(retold.MissError):
            production("something else")
    assert used.play_count == 2
    assert not Path("production.db").exists()


def test_a_log_that_cannot_be_opened_is_an_error_before_the_first_request() -> None:
    Path("file").touch()
    with pytest.raises(retold.LogError), retold.record("job", log="file/log.db"):
        pytest.fail("the block began")
