"""Wrong or damaged cassettes, logs and APIs cause one clear error with its exit code, and no file is harmed."""

import shutil
import socket
import sqlite3
from pathlib import Path

import pytest

import retold
from retold.recorder.log.sqlite.opening import VERSION
from tests.conftest import ROOT, Cli
from tests.e2e import CASSETTE, NUMBERS, in_this_process, normalised, refused, run_live, run_mock, step, tree, write_workflow
from tests.messages_server import MessagesServer, Reply, http_error, text


def damaged(name: str, old: str, new: str) -> Path:
    """Return the cassette of the numbers with one change."""
    path = Path(name)
    whole = CASSETTE.read_text()
    assert old in whole
    path.write_text(whole.replace(old, new))
    return path


# Cassettes in mock


def test_mock_without_a_cassette_prints_the_record_command() -> None:
    """The error of an unrecorded workflow names the command that records it."""
    write_workflow("flows/hello.yaml")
    error = refused(in_this_process("run", "flows/hello.yaml"))
    assert error == "retold: no recording at flows/cassettes/hello.yaml. Record it with: retold run flows/hello.yaml --live\n"
    assert tree() == ["flows/hello.yaml"]


def test_the_record_command_names_the_requested_cassette() -> None:
    """The printed command records the missing cassette, not another one."""
    write_workflow("hello.yaml")
    assert refused(in_this_process("run", "hello.yaml", "--cassette", "my.yaml")).endswith(
        "retold run hello.yaml --live --cassette my.yaml\n"
    )


def test_a_changed_prompt_is_a_miss_that_shows_the_difference(cli: Cli) -> None:
    """A prompt that changed since the recording exits with code 3, the difference, and the command to record again."""
    Path("w.yaml").write_text(NUMBERS.read_text().replace("Count from 1 to 10", "Count from 1 to 12"))
    error = refused(cli("run", "w.yaml", "--json", "--cassette", CASSETTE), code=3)
    assert error.replace(str(ROOT), "ROOT") == (
        "retold: step 'count': no recorded exchange answers call 1, POST /v1/messages, in "
        "ROOT/cassettes/clean_streaming_numbers.yaml.\n"
        "Nearest is recorded exchange 1; it differs in:\n"
        '  messages[0].content: recorded "Count from 1 to 10, one number per line, and nothing else.", '
        'now "Count from 1 to 12, one number per line, and nothing else."\n'
        "Record it again with: retold run w.yaml --live --cassette ROOT/cassettes/clean_streaming_numbers.yaml\n"
    )


def test_a_changed_model_is_a_miss_that_names_it() -> None:
    """Another model is another request, and the miss names both models."""
    Path("w.yaml").write_text(NUMBERS.read_text().replace("sonnet", "opus"))
    error = refused(in_this_process("run", "w.yaml", "--json", "--cassette", CASSETTE), code=3)
    assert '\n  model: recorded "claude-sonnet-5-5", now "claude-opus-5-5"\n' in error


def test_a_miss_is_a_failed_run_in_the_log() -> None:
    """The log records the miss, and shows it again."""
    Path("w.yaml").write_text(NUMBERS.read_text().replace("sonnet", "opus"))
    with pytest.raises(retold.MissError):
        run_mock(Path("w.yaml"), cassette=CASSETTE)
    done = in_this_process("show", "last", "--handler", "simple")
    assert done.stdout.startswith("\n✗ Stream error: no recorded exchange answers call 1, POST /v1/messages, in ")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ("      code: 200", "      code: [200", ":38", "did not find expected ',' or ']'"),
        ("code: 200", "code: abc", ":5", "interaction 1 is damaged: invalid literal for int() with base 10: 'abc'"),
        ("method: POST", "mehtod: POST", ":5", "interaction 1 is damaged: missing key 'method'"),
        ("ending: complete", "ending: compleet", ":5", "interaction 1 is damaged: unknown ending 'compleet'"),
        ("  format: 2", "  format: 3", "", "was written by a newer retold (cassette format 3, this one reads up to 2)"),
    ],
)
def test_a_damaged_cassette_is_reported_with_file_and_line(old: str, new: str, place: str, what: str) -> None:
    """A damaged cassette is an error with its place, never an empty cassette. It stays unchanged."""
    path = damaged("bad.yaml", old, new)
    before = path.read_bytes()
    error = refused(in_this_process("run", NUMBERS, "--cassette", path))
    assert error.startswith(f"retold: bad.yaml{place}")
    assert what in error
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", ["cost_usd: lots", "tool_results: [5]"])
def test_a_damaged_field_is_found_before_anything_runs(value: str) -> None:
    """Reading a cassette checks every field."""
    path = damaged("bad.yaml", "cost_usd: 0.000346", value)
    assert refused(in_this_process("run", NUMBERS, "--cassette", path)).startswith("retold: bad.yaml:5: interaction 1 is damaged")


def test_an_entry_of_another_kind_is_explained() -> None:
    """The error of an interaction that is not a mapping uses the terms of the format."""
    Path("bad.yaml").write_text("version: 1\ninteractions:\n- 5\n")
    assert "has no attribute" not in refused(in_this_process("run", NUMBERS, "--cassette", "bad.yaml"))


def test_a_live_run_does_not_replace_a_damaged_cassette(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run stops before it calls the API, and the file stays unchanged."""
    path = damaged("bad.yaml", "code: 200", "code: abc")
    before = path.read_bytes()
    with MessagesServer([Reply([text("Hello")])]) as server:
        with pytest.raises(retold.CassetteError, match=r"bad\.yaml:5: interaction 1 is damaged"):
            run_live(monkeypatch, server, write_workflow("hello.yaml"), cassette=path)
        assert server.requests == []
    assert path.read_bytes() == before
    assert not Path(".retold").exists()


# Import, export, play


def test_import_of_a_missing_file_is_refused() -> None:
    """The error names the missing cassette, and no log is created."""
    assert refused(in_this_process("import", "nope.yaml")) == "retold: no cassette at nope.yaml.\n"
    assert not Path(".retold").exists()


def test_import_of_another_kind_of_file_is_refused() -> None:
    """The error describes a cassette."""
    Path("w.yaml").write_text("other: things\n")
    error = refused(in_this_process("import", "w.yaml"))
    assert error.startswith("retold: w.yaml is not a cassette: it has no list `interactions`.")
    assert not Path(".retold").exists()


@pytest.mark.parametrize("command", ["import", "play", "diff"])
def test_the_error_of_a_workflow_in_place_of_a_cassette_does_not_advise_to_delete_it(command: str) -> None:
    """The error calls it a workflow, and does not advise to restore or delete a correct workflow."""
    path = write_workflow("./w.yaml")
    error = refused(in_this_process(command, path, *(["last"] if command == "diff" else [])))
    assert error == "retold: w.yaml is a workflow, not a cassette. Its recording is beside it; retold run w.yaml plays it.\n"


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_cassette_in_place_of_a_workflow_is_refused(command: str) -> None:
    """The error is one line, with the right command."""
    Path("c.yaml").write_text("version: 1\ninteractions: []\n")
    error = refused(in_this_process(command, "c.yaml"))
    assert error == "retold: c.yaml:1:1: this is a cassette, which `retold play` shows; a workflow file holds a key `workflow`.\n"


@pytest.mark.parametrize("command", ["show", "tail", "export", "verify"])
def test_a_file_in_place_of_a_run_is_refused(command: str) -> None:
    """The error names the commands that accept the file."""
    run_mock(NUMBERS, handlers=[])
    Path("c.yaml").write_text("version: 1\ninteractions: []\n")
    error = refused(in_this_process(command, "c.yaml"))
    assert (
        error == "retold: c.yaml is a file, not a run. `retold play` shows a cassette; `retold import` takes it into the log.\n"
    )


@pytest.mark.trap(44)
def test_import_of_an_empty_cassette_is_refused() -> None:
    """An import of nothing is not a success."""
    Path("empty.yaml").write_text("version: 1\ninteractions: []\n")
    error = refused(in_this_process("import", "empty.yaml"))
    assert error == "retold: empty.yaml holds no interactions; there is nothing to import.\n"
    assert not Path(".retold").exists()


@pytest.mark.trap(45)
def test_import_with_one_damaged_file_imports_none() -> None:
    """All files are read before the first is written."""
    path = damaged("bad.yaml", "code: 200", "code: abc")
    assert refused(in_this_process("import", CASSETTE, path)).startswith("retold: bad.yaml:5: interaction 1 is damaged")
    assert not Path(".retold").exists()


def test_export_does_not_replace_a_file_without_force() -> None:
    """An existing file stays unchanged without --force, and is replaced with it."""
    run_mock(NUMBERS, handlers=[])
    Path("x.yaml").write_text("mine\n")
    error = refused(in_this_process("export", "last", "-o", "x.yaml"))
    assert error == "retold: x.yaml exists already; name another file, or replace it with --force.\n"
    assert Path("x.yaml").read_text() == "mine\n"
    assert in_this_process("export", "last", "-o", "x.yaml", "--force").returncode == 0
    assert len(retold.read_cassette("x.yaml").exchanges) == 1


@pytest.mark.trap(44)
def test_play_of_a_missing_cassette_is_refused() -> None:
    """The error names the cassette. The log is not searched for it."""
    assert refused(in_this_process("play", "cassettes/nope.yaml")) == "retold: no cassette at cassettes/nope.yaml.\n"


@pytest.mark.trap(44)
def test_play_of_an_empty_cassette_fails() -> None:
    """An empty recording is a mistake, not a short recording."""
    Path("empty.yaml").write_text("version: 1\ninteractions: []\n")
    assert in_this_process("play", "empty.yaml").returncode != 0


# Logs


def test_a_log_of_a_newer_version_is_refused_and_kept() -> None:
    """retold neither reads nor writes a log of a newer retold. The error names the way out."""
    with retold.EventLog("log.db") as log:
        run_mock(NUMBERS, handlers=[], log=log)
    connection = sqlite3.connect("log.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = Path("log.db").read_bytes()
    expected = (
        f"retold: the log log.db was written by a newer retold (log version 99, this one reads up to {VERSION}). Update retold "
        "(pip install -U retold), or name another log with --db FILE.\n"
    )
    for command in (["run", NUMBERS], ["ls"], ["show", "last"]):
        assert refused(in_this_process(*command, "--db", "log.db")) == expected
    assert Path("log.db").read_bytes() == before


def test_a_file_that_is_not_a_database_is_refused_and_kept() -> None:
    """A file of another kind is not used as a log, and not written to."""
    Path("notes.txt").write_text("my notes\n" * 100)
    assert refused(in_this_process("run", NUMBERS, "--db", "notes.txt")) == (
        "retold: cannot write the log notes.txt: file is not a database. Name another one with --db FILE or RETOLD_DB.\n"
    )
    assert refused(in_this_process("ls", "--db", "notes.txt")).startswith(
        "retold: cannot read the log notes.txt: file is not a database."
    )
    assert Path("notes.txt").read_text() == "my notes\n" * 100


def test_a_database_of_another_program_is_refused_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SQLite file that is not a log gets no tables of retold."""
    connection = sqlite3.connect("other.db")
    connection.execute("CREATE TABLE mine (a)")
    connection.close()
    before = Path("other.db").read_bytes()
    expected = "retold: other.db is an SQLite file, but not a retold log. Name another one with --db FILE.\n"
    assert refused(in_this_process("ls", "--db", "other.db")) == expected
    monkeypatch.setenv("RETOLD_DB", "other.db")
    assert refused(in_this_process("run", NUMBERS)) == expected
    assert Path("other.db").read_bytes() == before


def test_a_refused_log_gets_no_lock_file() -> None:
    """A file of another program gets no companion file either."""
    Path("notes.txt").write_text("my notes\n" * 100)
    refused(in_this_process("run", NUMBERS, "--db", "notes.txt"))
    assert tree() == ["notes.txt"]


@pytest.mark.parametrize("path", ["notes.txt/log.db", "notes.txt/sub/log.db", "folder"])
def test_a_log_that_cannot_be_written_is_refused_before_anything_runs(path: str) -> None:
    """A folder, or a path below a file, is not a log. The error names it and the option that names another."""
    Path("notes.txt").write_text("my notes\n")
    Path("folder").mkdir()
    error = refused(in_this_process("run", NUMBERS, "--db", path))
    assert error.startswith(f"retold: cannot write the log {path}: ")
    assert error.endswith(". Name another one with --db FILE or RETOLD_DB.\n")
    assert Path("notes.txt").read_text() == "my notes\n"


def test_the_error_of_a_log_below_a_file_gives_the_right_reason() -> None:
    """The reason is not that the file exists."""
    Path("notes.txt").write_text("my notes\n")
    assert "File exists" not in refused(in_this_process("run", NUMBERS, "--db", "notes.txt/log.db"))


# The API


def test_a_live_run_without_a_key_names_the_way_to_get_one() -> None:
    """Live mode without credentials stops before anything is written. The error names the variable and the mode without a key."""
    write_workflow("hello.yaml")
    assert refused(in_this_process("run", "hello.yaml", "--live")) == (
        "retold: live mode needs a key: set ANTHROPIC_API_KEY, or run without --live (and without TEST_MODE=live) to replay "
        "the recording.\n"
    )
    assert tree() == ["hello.yaml"]
    assert not Path(".retold").exists()


def failing(url: str, retries: int = 0) -> tuple[str, str]:
    """Run a streamed step live against `url`. It must exit with code 1 and leave the cassette unchanged."""
    write_workflow("hello.yaml", step(claude_options={"async_streaming": True, "retry_config": {"max_retries": retries}}))
    Path("cassettes").mkdir()
    shutil.copy(CASSETTE, "cassettes/hello.yaml")
    done = in_this_process("run", "hello.yaml", "--live", url=url)
    assert done.returncode == 1
    assert Path("cassettes/hello.yaml").read_bytes() == CASSETTE.read_bytes()
    return normalised(done.stdout), normalised(done.stderr)


def test_a_refused_connection_is_a_failed_run() -> None:
    """An unreachable API fails the step and the run, in one line each. The old cassette stays."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shown, error = failing(f"http://127.0.0.1:{free.getsockname()[1]}")
    what = "no response from the API: All connection attempts failed (asked http://127.0.0.1:PORT)"
    assert shown == f"\n✗ Stream error: {what} after 2 messages\n"
    assert error == (
        f"retold: run RUN failed (live; 1 step, 2 messages): step 'say' failed: {what}\n"
        "retold: the cassette cassettes/hello.yaml was left as it was\n"
    )


def test_a_wrong_key_is_a_failed_run() -> None:
    """The error contains the API's message about the key, but not the key."""
    with MessagesServer([http_error(401, "authentication_error", "invalid x-api-key")]) as server:
        shown, error = failing(server.url, retries=3)
        assert len(server.requests) == 1
    what = "HTTP 401 authentication_error: invalid x-api-key (check the key)"
    assert shown == f"\n✗ Stream error: {what} after 2 messages\n"
    assert error == (
        f"retold: run RUN failed (live; 1 step, 2 messages): step 'say' failed: {what}\n"
        "retold: the cassette cassettes/hello.yaml was left as it was\n"
    )


def test_an_overloaded_api_is_a_failed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without retries a 529 is the step's error at once."""
    with MessagesServer([http_error(529)]) as server:
        workflow = write_workflow("hello.yaml", step(claude_options={"retry_config": {"max_retries": 0}}))
        ran = run_live(monkeypatch, server, workflow)
        assert len(server.requests) == 1
    assert (ran.result.status, ran.error) == (
        "failed",
        "HTTP 529 overloaded_error: Overloaded (try again later, raise retry_config.max_retries, or name a fallback_model)",
    )
    assert not Path("cassettes").exists()


def test_the_error_of_a_first_recording_mentions_no_old_cassette(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed first recording does not mention a file that does not exist."""
    with MessagesServer([http_error(400)]) as server:
        ran = run_live(monkeypatch, server, write_workflow("hello.yaml"))
    assert ran.result.notes == []


@pytest.mark.parametrize(
    ("model", "sent"), [("sonnet", "claude-sonnet-5-5"), ("opus", "claude-opus-5-5"), ("claude-next-9", "claude-next-9")]
)
def test_an_unknown_model_is_passed_through(monkeypatch: pytest.MonkeyPatch, model: str, sent: str) -> None:
    """Aliases are replaced by ids. The API decides about any other name."""
    with MessagesServer([Reply([text("Hello")])]) as server:
        ran = run_live(monkeypatch, server, write_workflow("hello.yaml", step(claude_options={"model": model})))
    assert ran.result.ok
    assert [request.json["model"] for request in server.requests] == [sent]
