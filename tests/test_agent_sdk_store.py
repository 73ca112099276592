"""The SDK's session store over the log."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import retold
from tests.e2e import in_this_process

sdk: Any = pytest.importorskip("claude_agent_sdk")

KEY = {"project_key": "project", "session_id": "4f1c2d3e"}
ENTRIES = [{"type": "user", "uuid": "a", "timestamp": "2026-11-28T12:00:00.000Z"}, {"type": "title", "text": "Ünïcode"}]


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Any]:
    """Return a function that creates a new log."""
    with ExitStack() as stack:
        numbers = count()
        yield lambda: stack.enter_context(retold.EventLog(tmp_path / f"{next(numbers)}.db"))


def test_the_store_satisfies_the_contracts_of_the_sdk(logs: Any) -> None:
    from claude_agent_sdk.testing import run_session_store_conformance

    stores: list[Any] = []

    def store() -> Any:
        stores.append(retold.session_store(logs()))
        return stores[-1]

    asyncio.run(run_session_store_conformance(store))
    assert len(stores) >= 14
    for each in stores:
        each.close()


def test_a_session_is_loaded_from_a_copy_of_the_log(logs: Any, tmp_path: Path) -> None:
    log = logs()
    store = retold.session_store(log)
    asyncio.run(store.append(KEY, ENTRIES))
    asyncio.run(store.append(KEY, ENTRIES[:1]))  # the SDK repeats a batch that may not have arrived
    store.close()
    log.close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(log.path, elsewhere / "log.db")
    with retold.EventLog(elsewhere / "log.db") as copy:
        continue_elsewhere(copy)


def continue_elsewhere(log: retold.EventLog) -> None:
    """Load the session from another log, and continue it there."""
    store = retold.session_store(log)
    assert asyncio.run(store.load(KEY)) == ENTRIES
    assert [each["session_id"] for each in asyncio.run(store.list_sessions(KEY["project_key"]))] == [KEY["session_id"]]
    asyncio.run(store.append(KEY, [{"type": "user", "uuid": "b"}]))
    assert [entry.get("uuid") for entry in asyncio.run(store.load(KEY))] == ["a", None, "b"]
    store.close()


def test_a_session_continues_in_a_mirror(logs: Any, tmp_path: Path) -> None:
    """The mirror receives the session from a shelf while its writer still runs, and later entries too."""
    log, shelf, mirror = logs(), f"{tmp_path}/shelf", tmp_path / "mirror.db"
    store = retold.session_store(log)
    asyncio.run(store.append(KEY, ENTRIES))

    def passed_on() -> None:
        with retold.shipping(log, shelf, source="pod-a"):
            pass
        assert in_this_process("pull", shelf, "--db", mirror).returncode == 0

    passed_on()
    with retold.EventLog(mirror) as copy:
        continue_elsewhere(copy)
    asyncio.run(store.append(KEY, [{"type": "user", "uuid": "c"}]))
    store.close()
    passed_on()
    with retold.EventLog(mirror) as copy:
        assert [entry.get("uuid") for entry in asyncio.run(retold.session_store(copy).load(KEY))] == ["a", None, "b", "c"]
    assert in_this_process("verify", "--db", mirror).returncode == 0
