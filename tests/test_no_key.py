"""A replay needs no key, although SDK clients send nothing without one. A replay never removes an existing key."""

import asyncio
import os
from pathlib import Path

import anthropic
import pytest

import retold
from retold.testing.placeholder_key import STAND_IN, stand_in
from tests.clients import NOWHERE, answer_text, answer_text_async, ask, body, serve

CASSETTE = Path("c.yaml")


@pytest.fixture(autouse=True)
def _recorded() -> None:
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="once"):
        ask("hi", server.url)


def ask_without_a_key() -> str:
    """Return the answer to a client without a key."""
    with anthropic.Anthropic(base_url=NOWHERE).messages.stream(**body("hi")) as stream:
        return stream.get_final_text()


@pytest.mark.parametrize("mode", ["none", "once"])
def test_a_replay_needs_no_key(mode: str) -> None:
    """A client made in the block gets its answer. After the block the environment has no key again."""
    assert "ANTHROPIC_API_KEY" not in os.environ
    with retold.use_cassette(CASSETTE, record_mode=mode) as cassette:
        assert ask_without_a_key() == "You said hi."
    assert "ANTHROPIC_API_KEY" not in os.environ
    assert cassette.all_played


def test_a_recording_mode_needs_a_key() -> None:
    """The SDK itself refuses a request without a key. With a stand-in key, the API would have to refuse it."""
    with retold.use_cassette(CASSETTE, record_mode="new_episodes"):
        assert "ANTHROPIC_API_KEY" not in os.environ
        with pytest.raises(TypeError, match="authentication"):
            ask_without_a_key()


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_an_existing_key_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The stand-in is only for environments without a key. A key that is set in the block stays, too."""
    monkeypatch.setenv(name, "a-key-of-my-own")
    before = dict(os.environ)
    with retold.use_cassette(CASSETTE):
        assert dict(os.environ) == before
    monkeypatch.delenv(name)
    with retold.use_cassette(CASSETTE):
        monkeypatch.setenv("ANTHROPIC_API_KEY", "set-in-the-block")
        with retold.use_cassette(CASSETTE):
            assert os.environ["ANTHROPIC_API_KEY"] == "set-in-the-block"
    assert os.environ["ANTHROPIC_API_KEY"] == "set-in-the-block"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_client_that_was_made_before_the_block_needs_no_key(kind: str) -> None:
    """Applications make a client when a module is imported. Outside of replays the SDK refuses as it does without retold."""
    sync, other = anthropic.Anthropic(base_url=NOWHERE), anthropic.AsyncAnthropic(base_url=NOWHERE)

    def ask_again() -> str:
        return answer_text(sync, "hi") if kind == "sync" else asyncio.run(answer_text_async(other, "hi"))

    with retold.use_cassette(CASSETTE):
        assert ask_again() == "You said hi."
    for mode in ("new_episodes", "rewrite"):
        with retold.use_cassette(CASSETTE, record_mode=mode), pytest.raises(TypeError, match="authentication"):
            ask_again()
    with pytest.raises(TypeError, match="authentication"):
        ask_again()


def test_the_last_user_removes_the_placeholder() -> None:
    """Blocks in threads and tasks overlap in any order."""
    first, second = stand_in(), stand_in()
    with first:
        second.__enter__()
    assert os.environ["ANTHROPIC_API_KEY"] == STAND_IN
    second.__exit__(None, None, None)
    assert "ANTHROPIC_API_KEY" not in os.environ
