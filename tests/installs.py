"""Install retold beside the pinned packages of other projects, without moving a version, then record, replay and run the plugin.

    python -m tests.installs [NAME…]     # prints the table of docs/installing.md; exits with 1 if a row is wrong

Each row is a virtual environment with a project's packages, into which the wheel of this checkout is installed. It needs uv.
The API is the scripted server of the tests, on this machine.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.messages_server import MessagesServer, Reply, text
from tests.wheel import build_wheel

PROJECTS: dict[str, tuple[str, ...]] = {
    "anthropic 0.48, httpx 0.27": ("anthropic==0.48.0", "httpx==0.27.2"),
    "anthropic 0.86": ("anthropic==0.86.0",),
    "anthropic 1.0": ("anthropic==1.0.0",),
    "anthropic 2.0": ("anthropic==2.0.0",),
    "anthropic, newest": ("anthropic",),
    "pydantic 2.5, rich 13.0, typer 0.12": ("pydantic==2.5.3", "rich==13.0.1", "typer==0.12.5", "click==8.1.7"),
    "typer 0.23, rich 14.1": ("typer==0.23.0", "rich==14.1.0"),
    "langchain-anthropic": ("langchain-anthropic",),
    "pydantic-ai": ("pydantic-ai-slim[anthropic]",),
    "litellm": ("litellm",),
    "instructor": ("instructor", "anthropic"),
    "claude-agent-sdk": ("claude-agent-sdk",),
    "fastapi": ("fastapi[standard]",),
}

SMOKE = """
import asyncio, json, os, time
import retold, anthropic

ASKED = dict(model="claude-haiku-4-5", max_tokens=9)

def messages_of(text):
    return [{"role": "user", "content": text}]

def ask(text="hi"):
    with anthropic.Anthropic() as client, client.messages.stream(messages=messages_of(text), **ASKED) as stream:
        return "".join(stream.text_stream)

async def ask_async(text="hi async"):
    async with anthropic.AsyncAnthropic() as client:
        return (await client.messages.create(messages=messages_of(text), **ASKED)).content[0].text

def both():
    return ask(), asyncio.run(ask_async())

with retold.use_cassette("c.yaml", record_mode="once") as tape:
    recorded = both()
assert tape.recorded == 2, tape
os.environ["ANTHROPIC_BASE_URL"] = "http://127.0.0.1:9"
with retold.use_cassette("c.yaml") as tape:
    assert both() == recorded
    assert tape.all_played
    began_s = time.monotonic()
    for call in (lambda: ask("other"), lambda: asyncio.run(ask_async("other"))):
        try:
            call()
        except retold.MissError as miss:
            assert "other" in str(miss), miss
        else:
            raise AssertionError("no miss")
    assert len(tape.misses) == 2, tape.misses
"""

SUITE = """
import anthropic, pytest

@pytest.mark.retold
def test_it():
    message = anthropic.Anthropic().messages.create(
        model="claude-haiku-4-5", max_tokens=9, messages=[{"role": "user", "content": "from a test"}]
    )
    assert message.content[0].text
"""


@dataclass(frozen=True)
class Row:
    """One environment: moved versions, added packages, and the first failure, if any."""

    name: str
    moved: list[str]
    added: list[str]
    failure: str | None

    def __str__(self) -> str:
        moved = ", ".join(self.moved) or "none"
        return f"| {self.name} | {moved} | {len(self.added)} | {self.failure or 'records, replays, misses; the plugin too'} |"


def main(names: list[str]) -> int:
    """Print one line per environment. Return 1 if a version moved or a step failed."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        print("tests.installs needs uv, which is among the packages of the extra `test`: make installs", file=sys.stderr)
        return 2
    is_right = True
    print("| beside | versions moved | packages added | works |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, MessagesServer(lambda _: Reply([text("Hello")])) as server:
        wheel = build_wheel(Path(folder))
        for name, packages in PROJECTS.items():
            if names and not any(each in name for each in names):
                continue
            row = _try(uv, wheel, Path(tempfile.mkdtemp(dir=folder)), name, packages, server.url)
            is_right &= not row.moved and row.failure is None
            print(row, flush=True)
    return 0 if is_right else 1


def _try(uv: str, wheel: Path, folder: Path, name: str, packages: tuple[str, ...], url: str) -> Row:
    python = folder / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv")], check=True)

    def install(*what: str) -> None:
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *what], check=True)

    def versions() -> dict[str, str]:
        asked = [uv, "pip", "list", "--format", "json", "--python", str(python)]
        found = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
        return {package["name"]: package["version"] for package in found}

    install("pytest", *packages)
    before = versions()
    install(str(wheel))
    after = versions()
    moved = [f"{each} {version} → {after.get(each)}" for each, version in before.items() if after.get(each) != version]
    added = [f"{each} {version}" for each, version in after.items() if each not in before]
    return Row(name, moved, added, _failure(python, folder, url))


def _failure(python: Path, folder: Path, url: str) -> str | None:
    """Run the smoke script, then a marked test, recording and offline. Return the last line of the first that fails."""
    (folder / "smoke.py").write_text(SMOKE)
    (folder / "test_suite.py").write_text(SUITE)
    home = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONWARNINGS": "ignore"}
    live = home | {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "test-key"}
    offline = home | {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
    plugin = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_suite.py"]
    for command, environment in (
        (["smoke.py"], live),
        ([*plugin, "--retold-mode=once"], live),
        (plugin, offline),
        (["-m", "retold", "ls"], home),
    ):
        done = subprocess.run(
            [str(python), *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            return f"{' '.join(command)}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
