"""`retold pin` of sessions of the Agent SDK: options, prompts, requests and callbacks of every kind."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import retold
from tests import agent_cli
from tests.e2e import in_this_process, refused
from tests.pinning import replayed

sdk: Any = pytest.importorskip("claude_agent_sdk")
scenes: Any = pytest.importorskip("tests.test_agent_sdk")


@pytest.fixture
def cli(tmp_path: Path) -> str:
    return agent_cli.installed(tmp_path / "bin")


IN_EVERY_RUN = ("tool of the program",)
SCENES = [pytest.param(name, marks=() if name in IN_EVERY_RUN else pytest.mark.stress) for name in scenes.SCENES]


@pytest.mark.parametrize("name", SCENES)
def test_a_pinned_session_passes(name: str, cli: str) -> None:
    """The sessions have text, tools, callbacks, several prompts, requests of the program, an interrupt and an API error."""
    with retold.record("scene"):
        asyncio.run(scenes.SCENES[name](cli))
    done = in_this_process("pin", "scene")
    assert done.returncode == 0, done.stderr
    assert replayed("scene").all_played


@pytest.mark.parametrize("closed", [False, pytest.param(True, marks=pytest.mark.stress)])
def test_a_session_with_all_options_passes(closed: bool, cli: str, tmp_path: Path) -> None:
    """Each option is read from the command line, with paths in folders of this machine. The program may stop early."""
    steps = [
        *scenes.steps(scenes.assistant_text("One"), scenes.assistant_text("Two")),
        *scenes.steps(scenes.RESULT),
        {"d": "close"},
    ]
    script = agent_cli.written(tmp_path / "script.jsonl", *steps)
    options = scenes.options(
        script, cli, system_prompt={"type": "preset", "preset": "claude_code", "append": "Be short."}, tools=["Read", "Bash"],
        allowed_tools=["Read"], disallowed_tools=["Write"], max_turns=3, max_budget_usd=0.5, model="haiku",
        permission_mode="plan",
        mcp_servers={"files": {"command": "files", "args": [str(Path.cwd())]}}, add_dirs=[Path.cwd() / "data"], betas=["b-1"],
        thinking={"type": "enabled", "budget_tokens": 2000, "display": "summarized"}, effort="low", extra_args={"debug": None},
        output_format={"type": "json_schema", "schema": {"type": "object"}}, include_partial_messages=True,
        agents={"critic": sdk.AgentDefinition(description="Judge", prompt="Judge it.", tools=["Read"])},
    )  # fmt: skip

    async def run() -> None:
        async for message in sdk.query(prompt=f"Count the files of {Path.cwd()}", options=options):
            if closed and isinstance(message, sdk.AssistantMessage):
                break

    with retold.record("scene"):
        asyncio.run(run())
    assert in_this_process("pin", "scene").returncode == 0
    assert str(Path.cwd()) not in Path("tests/test_scene.py").read_text()
    assert replayed("scene").all_played


@pytest.mark.stress
@pytest.mark.parametrize(("end", "code"), [({"d": "raise", "exit_code": 3}, 3), ({"d": "kill"}, -9)])
def test_a_failed_session_passes_as_a_failure(end: dict[str, Any], code: int, cli: str, tmp_path: Path) -> None:
    script = agent_cli.written(tmp_path / "script.jsonl", *scenes.steps(scenes.assistant_text("Half")), end)
    with retold.record("scene"):
        asyncio.run(scenes.scene(script)(cli))
    assert in_this_process("pin", "scene").returncode == 0
    assert f'match="exit code: {code}"' in Path("tests/test_scene.py").read_text()
    assert replayed("scene").all_played


@pytest.mark.stress
def test_a_session_with_another_transport_is_refused(cli: str, tmp_path: Path) -> None:
    """Its options are unknown, because the SDK made no command line of them."""
    tape = tmp_path / "tape.jsonl"
    with retold.record("scene"):
        asyncio.run(scenes.SCENES["text"](cli))
    assert in_this_process("export", "scene", "--format", "agent-cassette", "-o", tape).returncode == 0
    assert in_this_process("import", tape, "--name", "tape").returncode == 0
    assert "session 1 used a transport of its own" in refused(in_this_process("pin", "tape"))
    assert not Path("tests").exists()
