"""`make fleet`: three nodes, two recorders and a mirror, which end by themselves and by Ctrl-C."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

DEMO = ROOT / "examples" / "fleet" / "demo.py"


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[str]"]:
    """Start the demo, with its files below the folder of the test."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, DEMO, "--timing", "instant"], stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as running:  # fmt: skip
        yield running
        running.kill()


def processes_in(folder: Path) -> list[str]:
    """Return the commands that run in a folder, except this process."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            if str((process / "cwd").readlink()).startswith(str(folder)):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return [command for command in found if "nats-server" in command or "retold" in command]


@pytest.mark.stress
def test_the_demo_shows_both_recorders_and_ends(demo: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """Every line of a run appears under the name of its source, and no process or file is left."""
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0
    for source, title in (("pod-a", "clean_streaming_numbers: count"), ("pod-b", "session_conversation: choose")):
        assert f"{source} | === {title} ===\n" in out
    assert out.endswith("the mirror showed 2 runs; every node, recorder and shipper has ended\n")
    assert list(tmp_path.glob("retold-fleet-*")) == []
    assert processes_in(tmp_path) == []


@pytest.mark.stress
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_at_a_signal(demo: "subprocess.Popen[str]", tmp_path: Path, number: signal.Signals) -> None:
    """Every process that it started ends too."""
    assert demo.stdout is not None
    assert "three nodes" in demo.stdout.readline()
    assert "pod-a" in demo.stdout.readline()
    demo.send_signal(number)
    demo.communicate(timeout=60)
    assert demo.returncode == (0 if number == signal.SIGINT else 128 + signal.SIGTERM)
    assert list(tmp_path.glob("retold-fleet-*")) == []
    assert processes_in(tmp_path) == []
