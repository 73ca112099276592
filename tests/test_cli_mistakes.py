"""The most common mistakes: one line describes the error and the correct form, with exit code 2."""

import shutil
import socket
from pathlib import Path

import pytest

from tests.e2e import CASSETTE, NUMBERS, in_this_process, refused, run_mock, write_workflow

NO_LOG = "no log at .retold/log.db. Record or replay something first (retold run …), or name a log with --db FILE."
NO_REQUEST = "Does the program read ANTHROPIC_BASE_URL?"
A_WORKFLOW = "flow.yaml is a workflow, not a cassette. Its recording is beside it; retold run flow.yaml plays it."
A_CASSETTE = "hello.yaml:1:1: this is a cassette, which `retold play` shows; a workflow file holds a key `workflow`."
A_FILE = "hello.yaml is a file, not a run. `retold play` shows a cassette; `retold import` takes it into the log."
A_FOLDER = "folder is a folder, not a run. Name a run (`retold ls` lists them), or a file."
NO_CASSETTE = (
    "it has no list `interactions`. It was left as it is. Restore it from version control, or delete it and record again."
)
NOT_TEXT = "it is not text (byte 1 is not UTF-8)."
SQLITE = "it is an SQLite file; name a log with --db."
HANDLERS = "there are simple, console, debug, file, buffer, callback."
TIMINGS = "give instant, original, or a factor such as 2x (twice as fast) or 0.5x."
MODES = "there are none, once, new_episodes, refresh, all, rewrite, verify."

WITHOUT_A_LOG = {
    "rnu flow.yaml": "No such command 'rnu'. Did you mean 'run'?",
    "flow.yaml": "No such command 'flow.yaml'. To run a workflow: retold run flow.yaml",
    "cassette prune": "Only a session of your tests shows which recordings they play. To remove the others: pytest "
    "--retold-prune",
    "run": "Missing argument 'WORKFLOW'.",
    "run flow.yaml --lvie": "No such option: --lvie (Possible options: --live)",
    "run flow.yaml --handler debgu": "unknown handler 'debgu'; did you mean 'debug'?",
    "run flow.yaml --handler loud": f"unknown handler 'loud'; {HANDLERS}",
    "run flow.yaml --handler console:partail=true": "handler 'console' has no option 'partail'; did you mean 'partial'?",
    "run flow.yaml --live": "live mode needs a key: set ANTHROPIC_API_KEY, or run without --live (and without TEST_MODE=live) to "
    "replay the recording.",
    "run folw.yaml": "no workflow file folw.yaml; did you mean flow.yaml?",
    "run flow": "no workflow file flow; did you mean flow.yaml?",
    "run flow.yaml": "no recording at cassettes/flow.yaml. Record it with: retold run flow.yaml --live",
    "run hello.yaml": A_CASSETTE,
    "run empty.yaml": "empty.yaml: the workflow is empty.",
    "run noise.yaml": f"cannot read the workflow noise.yaml: {NOT_TEXT}",
    "run folder": "cannot read the workflow folder: it is a folder; name a file in it.",
    "validate hello.yaml": A_CASSETTE,
    "play flow.yaml": A_WORKFLOW,
    "diff flow.yaml hello.yaml": A_WORKFLOW,
    "import flow.yaml": A_WORKFLOW,
    "serve flow.yaml": A_WORKFLOW,
    "replay flow.yaml -- true": A_WORKFLOW,
    "play helo.yaml": "no cassette at helo.yaml; did you mean hello.yaml?",
    "play empty.yaml": f"empty.yaml is not a cassette: {NO_CASSETTE}",
    "import noise.yaml": f"cannot read the cassette noise.yaml: {NOT_TEXT}",
    "import folder": "cannot read the cassette folder: it is a folder; name a file in it.",
    "play folder": A_FOLDER,
    "show hello.yaml": A_FILE,
    "show last": NO_LOG,
    "ls": NO_LOG,
    "ls --db hello.yaml": "cannot read the log hello.yaml: file is not a database. Name another one with --db FILE or RETOLD_DB.",
    "play hello.yaml --timing fast": f"unknown timing 'fast': {TIMINGS}",
    "play hello.yaml --idle-limit soon": "unknown duration 'soon': give for example 2s, 500ms or 1.5m.",
    "record -o new.yaml --mode always -- true": f"unknown record mode 'always'; {MODES}",
    "record -o folder -- true": "cannot write the cassette folder: it is a folder.",
    "record -- nosuchprogram": "cannot run nosuchprogram: No such file or directory.",
    "replay hello.yaml": "Missing argument 'CMD...'.",
}

WITH_A_LOG = {
    "show nope": "no run 'nope' in the log log.db. `retold ls` lists them; `last` is the newest.",
    "show last~9": "no run 'last~9': the log log.db holds 1 run.",
    "view hello.yaml": A_FILE,
    "show last --step sya": "no step 'sya' in the run; there are count.",
    "show last --type assitant": "no message of type 'assitant' in the run; did you mean 'assistant'?",
    "play log.db": f"cannot read the cassette log.db: {SQLITE}",
    "run log.db": f"cannot read the workflow log.db: {SQLITE}",
    "export last --format yml": "unknown format 'yml': one of cassette, jsonl, stream-json, agent-cassette, transcript, "
    "session-trace, otlp, atif, markdown, html, parquet.",
    "export last -o folder -f": "folder is a folder; name a file in it.",
    "stats --by modle": "--by 'modle': name one of model, day, hour, name, step, tool, error, status, or one of them and day, "
    "such as model,day.",
    "diff last": "Missing argument 'B'.",
}


@pytest.fixture(autouse=True)
def files() -> None:
    """Create one file of each kind."""
    write_workflow("flow.yaml")
    shutil.copy(CASSETTE, "hello.yaml")
    Path("empty.yaml").touch()
    Path("noise.yaml").write_bytes(bytes(range(255, 0, -1)))
    Path("folder").mkdir()


def error_of(command: str) -> str:
    """Return the error of a mistaken command, without the prefix or the usage before it."""
    error = refused(in_this_process(*command.split()))
    line = error if error.startswith("retold: ") else error.splitlines()[-1]
    return line.removeprefix("retold: ").removeprefix("Error: ").rstrip("\n")


def test_mistakes_without_a_log() -> None:
    """Commands, options, names and kinds of files are wrong. A mistake writes nothing."""
    before = sorted(Path().rglob("*"))
    assert {command: error_of(command) for command in WITHOUT_A_LOG} == WITHOUT_A_LOG
    assert [path for path in sorted(Path().rglob("*")) if ".retold" not in path.parts] == before


def test_mistakes_with_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are missing, or files take their place."""
    monkeypatch.setenv("RETOLD_DB", "log.db")
    run_mock(NUMBERS, handlers=[])
    assert {command: error_of(command) for command in WITH_A_LOG} == WITH_A_LOG


@pytest.mark.parametrize("command", ["serve hello.yaml", "proxy"])
def test_a_port_in_use_is_reported_with_the_way_to_a_free_one(command: str) -> None:
    """The error appears once, without asyncio's own message."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expected = f"cannot listen on 127.0.0.1 port {port}: it is in use. --port 0 takes a free one."
        assert error_of(f"{command} --port {port}") == expected


def test_a_program_without_requests_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording of nothing fails, and so does a replay of nothing. A missing key may be the reason."""
    recorded = in_this_process("record", "--", "true")
    assert recorded.returncode == 1
    assert recorded.stderr == (
        f"retold: nothing was recorded: no request came. {NO_REQUEST}\n"
        "retold: ANTHROPIC_API_KEY is not set, and without a key most programs send no request.\n"
    )
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    assert in_this_process("record", "--", "true").stderr.count("\n") == 1
    replayed = in_this_process("replay", "hello.yaml", "--", "true")
    assert (replayed.returncode, replayed.stderr.splitlines()[-1]) == (
        1, f"retold: nothing was replayed: no request came. {NO_REQUEST}",
    )  # fmt: skip
