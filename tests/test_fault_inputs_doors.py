"""The inputs of ../shared/faults about servers and endings, run as their README describes. Skipped in a clone without them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retold.recorder.words import clean
from tests.conftest import ROOT, SHARED
from tests.e2e import in_this_process
from tests.fault_folder import check_script, copy_of
from tests.messages_server import MessagesServer, Reply, text

FAULTS = SHARED / "faults"
pytestmark = [pytest.mark.stress, pytest.mark.skipif(not FAULTS.is_dir(), reason="the inputs are not in this clone")]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Return stdout and stderr of a command that finds this retold first on its PATH."""
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(Path.cwd()), "LANG": "C.UTF-8"}
    done = subprocess.run(list(map(str, command)), env=env, cwd=cwd, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_a_cross_site_request_is_neither_answered_nor_forwarded() -> None:
    output = run(sys.executable, copy_of("core") / "04_cross_site_request_is_answered.py")
    assert "serve answers the page: b'HTTP/1.1 403 Forbidden'" in output
    assert "HEAD is answered with a body on a connection that goes on: False" in output
    assert "proxy forwarded it: False and recorded it: (0,)" in output


def test_a_closed_stream_is_closed_by_the_client_again() -> None:
    with MessagesServer([Reply([text("slow " * 8, pieces=2)], gap_s=0.2)]) as api:
        output = run("sh", FAULTS / "wire/closed_is_replayed_as_cut.sh", api.url)
    assert output.count("curl ends with 28") == 2


@pytest.mark.parametrize("answer", ["../../escaped", "/etc/passwd"])
def test_a_model_cannot_choose_a_path(answer: str) -> None:
    Path("w.yaml").write_text((FAULTS / "attack/13_model_chooses_path.yaml").read_text())
    with MessagesServer(lambda _: Reply([text(answer)])) as api:
        done = in_this_process("run", "w.yaml", "--live", url=api.url)
        assert len(api.requests) == 1
    assert (done.returncode, "leads out of" in done.stderr) == (2, True)


def test_no_text_controls_a_terminal() -> None:
    run(sys.executable, copy_of("attack") / "14_terminal.py")
    in_this_process("import", "terminal.jsonl")
    for way in (["stats", "--by", "tool", "--csv"], ["show", "last", "--json"], ["search", "zebra", "--json"], ["ls", "--json"]):
        done = in_this_process(*way)
        assert done.returncode == 0
        assert clean(done.stdout) == done.stdout


def test_text_of_the_model_on_a_terminal_is_distinguishable() -> None:
    output = run(sys.executable, check_script(), ROOT, "terminal_text", "forged_lines")
    assert "clean" in output.split("## forged_lines")[0]
    assert "\n  TOOL USE: Bash" in output
    assert "\nTOOL USE: Bash" not in output
