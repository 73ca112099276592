"""Damaged recordings and workflows raise one error of retold, never another exception."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retold.formats import jsonl, stream_json
from retold.recorder.cassette.format import read_cassette
from retold.recorder.errors import RetoldError
from retold.workflow.load import load_workflow
from tests.e2e import in_this_process

ROOT = Path(__file__).parent.parent
ODD = (
    ".inf", ".nan", "-1", "1e400", "9" * 400, "null", "true", "[]", "{}", "[[1]]", "{a: {b: 1}}", "'\\ud800'", '"\\u0000"',
    "!!binary x", "!!timestamp x", "2001-99-99", "*nobody", "&a [*a]", "'http://[::1/v1'", "{{ 1/0 }}", "0x" + "f" * 300,
)  # fmt: skip


def mutated(text: str, luck: random.Random) -> bytes:
    """Return the text with one change: a value, a line dropped, doubled or moved, a byte, a truncated end, or deep nesting."""
    lines = text.split("\n")
    at = luck.randrange(len(lines))
    match luck.randrange(7):
        case 0 | 1 if ":" in lines[at]:
            lines[at] = f"{lines[at].partition(':')[0]}: {luck.choice(ODD)}"
        case 2:
            del lines[at]
        case 3:
            lines.insert(at, luck.choice(lines))
        case 4:
            data = bytearray(text.encode())
            data[luck.randrange(len(data))] ^= 1 << luck.randrange(8)
            return bytes(data)
        case 5:
            return text.encode()[: luck.randrange(len(text))]
        case _:
            lines[at] += luck.choice(["[" * 300, " {{" * 50, "\n" + " " * luck.randrange(9) + "x: y", "\t", "\x00"])
    return "\n".join(lines).encode()


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.stress) for seed in range(4, 60))])
def test_a_mutated_file_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    """Each seed makes sixty mutations of cassettes, of workflows and of lines of JSON."""
    luck = random.Random(seed)
    cassettes = [p for p in sorted((ROOT / "cassettes").glob("*.yaml")) if p.stat().st_size < 20_000]
    workflows = sorted((ROOT / "examples").glob("*.yaml"))
    line = '{"type": "assistant", "message": {"id": "m", "content": [{"type": "text", "text": "hi"}]}, "session_id": "s"}'
    for number in range(60):
        for kind, read in (("yaml", read_cassette), ("wf.yaml", load_workflow), ("jsonl", None)):
            source = line if read is None else luck.choice(cassettes if read is read_cassette else workflows).read_text()
            path = tmp_path / f"{number}.{kind}"
            path.write_bytes(mutated(source, luck))
            try:
                if read is None:
                    list(stream_json.read(path))
                    list(jsonl.read(path))
                else:
                    read(path)
            except RetoldError:
                continue


LINE = '{"type": "assistant", "message": {"id": "m", "content": [{"type": "text", "text": "hi"}]}, "session_id": "s"}'
COMMANDS = {
    "yaml": [["play", "FILE", "--timing", "instant"], ["diff", "FILE", "FILE"], ["import", "FILE"]],
    "wf.yaml": [["validate", "FILE"]],
    "jsonl": [["import", "FILE"], ["export", "last"], ["search", "hi"], ["stats"], ["ls"], ["show", "last"], ["verify"]],
}
MAX_CPU_S = 2.0


@pytest.mark.parametrize(("seed", "rounds"), [(1, 15), *(pytest.param(n, 100, marks=pytest.mark.stress) for n in range(2, 4))])
def test_a_command_reads_a_mutated_file_or_refuses_it(
    seed: int, rounds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command has a documented exit code, prints no traceback, and takes at most two seconds of CPU time."""
    monkeypatch.chdir(tmp_path)
    luck = random.Random(seed)
    cassettes = [p for p in sorted((ROOT / "cassettes").glob("*.yaml")) if p.stat().st_size < 20_000]
    sources = {"yaml": cassettes, "wf.yaml": sorted((ROOT / "examples").glob("*.yaml")), "jsonl": []}
    for _ in range(rounds):
        for kind, files in sources.items():
            path = Path(f"m.{kind}")
            path.write_bytes(mutated(luck.choice(files).read_text() if files else LINE, luck))
            command = [str(path) if word == "FILE" else word for word in luck.choice(COMMANDS[kind])]
            began = time.process_time()
            done = in_this_process(*command)
            assert "Traceback" not in done.stderr, command
            assert done.returncode in (0, 1, 2, 3), command
            assert time.process_time() - began < MAX_CPU_S, command  # CPU time does not depend on the load of the machine


MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""
"""Print the peak memory of a command. A Linux process inherits the peak of its parent, so this small process starts it."""


@pytest.mark.stress
def test_mutated_files_are_read_in_little_memory() -> None:
    """Another process runs seeds of both tests above. Its peak memory is below 500 MB."""
    names = ("a_mutated_file_is_read_or_refused[17]", "a_command_reads_a_mutated_file_or_refuses_it[1-15]")
    chosen = [f"tests/test_mutations.py::test_{name}" for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-m", "stress or not stress", *chosen]
    done = subprocess.run([sys.executable, "-c", MEASURED, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout, done.stdout
    assert int(done.stdout.splitlines()[-1]) < 500 * 1024  # in kilobytes on Linux
