"""The profile claude-code ignores the parts of Claude Code's requests that change from run to run. All other parts count."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

import retold
from retold.recorder.errors import InputError
from retold.recorder.http.exchange import Headers, Request
from retold.replay.matching.matcher import Matcher
from retold.replay.matching.profiles import check_profile, profile_of
from retold.replay.matching.rules import Rules
from retold.testing.session import CassetteSession
from tests.exchanges import JSON, URL, answer, exchange

CLAUDE_CODE: Headers = (
    ("content-type", "application/json"),
    ("X-Claude-Code-Session-Id", "0f8e3a56-0000-4000-8000-000000000000"),
)


def asked(
    cwd: str = "/home/ann/work", home: str = "/home/ann", date: str = "2026-11-22", version: str = "2.1.330.572",
    agent: str = "a31b219ac95394a3b", duration: int = 435, commits: str = "d3c9e14 one\n",
    machine: str = "Linux 6.18.44", prompt: str = "Say hello",
    **fields: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return a request of Claude Code 2.1.330 after its agent has reported, reduced to the changing parts."""
    project = cwd.replace("/", "-")
    output = f"/tmp/claude-1000/{project}/b52be4d0-baf5-4f01-8320-d8aba2844866/tasks/{agent}.output"
    report = (
        f"<task-notification>\n<task-id>{agent}</task-id>\n<output-file>{output}</output-file>\n"
        f"<usage><duration_ms>{duration}</duration_ms></usage>\n</task-notification>"
    )
    git = (
        "# gitStatus\nThis is the git status at the start of the conversation. It will not update.\n\nCurrent branch: main\n\n"
        f"Git user: ann\n\nStatus:\n(clean)\n\nRecent commits:\n{commits}\nClaude Code attached this."
    )
    surroundings = (
        f"# Environment\n - Primary working directory: {cwd}\n - Platform: linux\n - Shell: bash\n - OS Version: {machine}\n"
        f"\nToday's date is {date}."
    )
    return {
        "model": "claude-opus-5-5",
        "system": [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version={version}; cc_entrypoint=sdk-cli;"},
            {"type": "text", "text": f"You have a memory at `{home}/.claude/projects/{project}/memory/`. Write to it."},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": git}, {"type": "text", "text": prompt}]},
            {"role": "system", "content": surroundings},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "pwd"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": f"{cwd}/src"}]},
            {"role": "user", "content": [{"type": "text", "text": f"agentId: {agent}\n{report}"}]},
        ],
        **fields,
    }


def request(body: dict[str, Any]) -> Request:
    return Request("POST", URL, CLAUDE_CODE, json.dumps(body).encode())


def matches(body: dict[str, Any], rules: Rules = Rules(profile="claude-code")) -> bool:  # noqa: B008
    recorded = exchange(answer(b"data: 1\n\n"), json.dumps(asked()).encode())
    return Matcher([recorded], rules=rules).matches(request(body))


CHANGES = {
    "home": asked(home="/root"),
    "working directory": asked(cwd="/srv/build-7"),
    "home and directory in it": asked(cwd="/root/work", home="/root"),
    "date": asked(date="2027-01-31"),
    "version stamp": asked(version="2.1.330.cd5"),
    "agent": asked(agent="a649c2e6f9bbc0439"),
    "duration": asked(duration=1234),
    "commits": asked(commits="e6e58bc two\nd3c9e14 one\n"),
    "machine": asked(machine="Darwin 27.1.0"),
    "user": asked(metadata={"user_id": '{"session_id": "other"}'}),
}


@pytest.mark.trap(34)
@pytest.mark.parametrize("body", CHANGES.values(), ids=CHANGES)
def test_parts_that_change_every_run_are_not_a_difference(body: dict[str, Any]) -> None:
    """Without the profile these parts are differences, except for the user's id."""
    assert matches(body)
    assert matches(body, Rules()) is ("metadata" in body)


def test_a_block_matches_claude_code_by_its_profile(tmp_path: Path) -> None:
    """A test may start it in another folder than the recording did. A recording of an SDK is matched unchanged."""
    for headers, profile in ((CLAUDE_CODE, "claude-code"), (JSON, "api")):
        sent = replace(request(asked()), headers=headers)
        retold.write_cassette(tmp_path / "c.yaml", [replace(exchange(answer(b"{}", headers=JSON)), request=sent)])
        with retold.use_cassette(tmp_path / "c.yaml") as cassette:
            assert Matcher(cassette.exchanges, rules=Rules(profile=cast(CassetteSession, cassette).profile)).matches(
                request(asked(cwd="/srv/build-7"))
            ) is (profile == "claude-code")


def test_a_text_equals_a_block_of_text() -> None:
    """The client sends one or the other, depending on the position of the cache mark."""
    body = asked()
    marked = {"type": "text", "text": body["messages"][1]["content"], "cache_control": {"type": "ephemeral"}}
    body["messages"][1]["content"] = [marked]
    assert matches(body)


DIFFERENCES = {
    "prompt": asked(prompt="Say bye"),
    "model": asked(model="claude-haiku-4-5"),
    "another version": asked(version="2.2.0.572"),
    "a path elsewhere": asked() | {"messages": [{"role": "user", "content": "/home/bob/work"}]},
    "tools": asked(tools=[{"name": "Bash"}]),
}


@pytest.mark.parametrize("body", DIFFERENCES.values(), ids=DIFFERENCES)
def test_every_other_change_is_a_difference(body: dict[str, Any]) -> None:
    assert not matches(body)


def test_only_a_whole_directory_name_is_replaced() -> None:
    """/home/ann is not part of /home/annabel."""
    body = asked()
    body["messages"][3]["content"][0]["content"] = "/home/annabel/src"
    assert not matches(body)


def test_the_profile_of_a_recording_is_found() -> None:
    plain = exchange(answer(b"data: 1\n\n"))
    assert profile_of([plain]) == "api"
    made_by_claude_code = exchange(answer(b"data: 1\n\n"))
    object.__setattr__(made_by_claude_code, "request", request(asked()))
    assert profile_of([plain, made_by_claude_code]) == "claude-code"


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(InputError, match="unknown profile 'claude'"):
        check_profile("claude")
