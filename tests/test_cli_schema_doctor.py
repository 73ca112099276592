"""`retold schema` describes workflows for editors, and `retold doctor` reports problems of the environment."""

import json
import sqlite3
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from retold.handlers import HANDLERS
from retold.recorder.cassette import format as cassette_format
from retold.recorder.cassette.format import read_cassette, write_cassette
from tests.conftest import ROOT, Cli
from tests.e2e import CASSETTE, NUMBERS, in_this_process, run_mock, step
from tests.matrix import write_matrix

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """Return the output of `retold schema` as a validator."""
    whole = json.loads(in_this_process("schema").stdout)
    Draft202012Validator.check_schema(whole)
    return Draft202012Validator(whole)


def errors_of(schema: Draft202012Validator, workflow: Any) -> list[str]:
    return [error.message for error in schema.iter_errors(workflow)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_schema_accepts_every_example(schema: Draft202012Validator, path: Path) -> None:
    """An editor does not underline a valid workflow."""
    assert errors_of(schema, yaml.safe_load(path.read_text())) == []


def test_the_schema_accepts_every_step_type_and_handler(schema: Draft202012Validator) -> None:
    """It accepts seven step types, handlers by name and by list, options inside and beside them, and sizes as bytes or text."""
    handlers: list[Any] = [*HANDLERS, {"file": {"file_path": "x", "max_file_size": "10MB"}}, {"buffer": None}]
    path = write_matrix(Path("m"), handlers, max_size=3, module="notes", function="note", file_path="y", max_file_size=9)
    assert errors_of(schema, yaml.safe_load(path.read_text())) == []


def test_the_schema_describes_every_key(schema: Draft202012Validator) -> None:
    """An editor shows the meaning of each key of a workflow, of a step and of its options, beside its completion."""
    definitions: Any = schema.schema["$defs"]  # type: ignore[index]
    assert schema.schema["$id"] == "retold-workflow.schema.json"  # type: ignore[index]
    common = ("name", "type", "prompt", "claude_options", "engine", "condition", "output_to_file", "description")
    for name, model in definitions.items():
        if name in ("Workflow", "ClaudeOptions", "Environment", "Defaults") or name.endswith("Step"):
            keys = [key for key in model["properties"] if not name.endswith("Step") or key in common]
            if name == "Workflow":  # the keys inside these two have descriptions
                keys = [key for key in keys if key not in ("environment", "defaults")]
            assert keys
            assert [key for key in keys if not model["properties"][key].get("description")] == [], name


def a_step(**keys: Any) -> Any:
    return {"workflow": {"name": "w", "steps": [step(**keys)]}}


def streaming(**options: Any) -> Any:
    return a_step(claude_options={"async_streaming": True, **options})


BAD = {
    "no name": {"workflow": {"steps": [step()]}},
    "no steps": {"workflow": {"name": "w", "steps": []}},
    "a key too many": a_step(promt="x"),
    "an unknown type": a_step(type="cluade"),
    "no prompt": {"workflow": {"name": "w", "steps": [{"name": "a", "type": "claude"}]}},
    "a blank prompt": a_step(prompt=" "),
    "a number in quotes": a_step(claude_options={"max_turns": "10"}),
    "a truth value for a number": a_step(claude_options={"max_turns": True}),
    "an unknown tool": a_step(claude_options={"allowed_tools": ["Raed"]}),
    "an unknown preset": a_step(type="claude_smart", preset="prod"),
    "a session without a name": a_step(type="claude_session", session_config={"persist": True}),
    "a batch without tasks": a_step(type="claude_batch"),
    "a misspelt key of a task": a_step(type="claude_batch", tasks=[{"promt": "x"}]),
    "an unknown condition of retries": a_step(type="claude_robust", retry_config={"retry_conditions": ["rate"]}),
    "an unknown handler": streaming(stream_handler="smple"),
    "an unknown handler in a list": streaming(stream_handler=["simple", {"smple": {}}]),
    "an unknown option of a handler": streaming(stream_handler={"console": {"partail": True}}),
    "an option of no handler": streaming(stream_handler="simple", stream_handler_opts={"show_time": True}),
    "an option of the wrong type": streaming(stream_handler="simple", stream_handler_opts={"show_tool_use": "yes"}),
}


@pytest.mark.parametrize("name", BAD)
def test_the_schema_refuses_the_same_mistakes_as_validate(schema: Draft202012Validator, name: str) -> None:
    """An editor shows every mistake that the file alone reveals."""
    Path("w.yaml").write_text(yaml.safe_dump(BAD[name]))
    assert errors_of(schema, BAD[name]) != []
    assert in_this_process("validate", "w.yaml").returncode == 2


# retold doctor


def test_doctor_reports_the_environment(cli: Cli) -> None:
    """It reports versions, log, cassettes, and the settings of a live run. The exit code is 0 if there is no problem."""
    run_mock(NUMBERS, handlers=[])
    Path("cassettes").mkdir()
    Path("cassettes/numbers.yaml").write_bytes(CASSETTE.read_bytes())
    for skipped in ("node_modules/a", ".hidden"):  # and a file that is not a cassette
        Path(skipped).mkdir(parents=True)
        Path(skipped, "numbers.yaml").write_bytes(CASSETTE.read_bytes())
    Path("settings.yaml").write_text("name: a\n")
    done = cli("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    size = Path(".retold/log.db").stat().st_size / 1e6
    expected = f"""\
        Log
          .retold/log.db: 1 run, {size:.1f} MB

        Cassettes
          cassettes/numbers.yaml: 1 exchange

        Live runs
          key           not set
          API           https://api.anthropic.com (the default)
          TEST_MODE     mock

        Problems
          none
        """
    versions, _, rest = done.stdout.partition("\n\n")
    assert rest == dedent(expected)
    assert versions.splitlines()[:2] == ["Versions", f"  retold            {version('retold')}"]
    assert f"  anthropic         {version('anthropic')}" in versions.splitlines()
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_doctor_creates_nothing_in_an_empty_folder() -> None:
    """It names the first steps, and leaves the folder empty."""
    done = in_this_process("doctor")
    assert done.returncode == 0
    assert "  .retold/log.db: not there yet; the first run makes it\n" in done.stdout
    assert "Cassettes\n  none below this folder\n" in done.stdout
    assert not Path(".retold").exists()


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_doctor_reads_a_long_cassette_to_its_end(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test reads the interactions of a long file when it needs them. The doctor reports damage in the last of them."""
    monkeypatch.setattr(cassette_format, "LAZY_BYTES", 0)
    path = Path(f"numbers.{suffix}")
    write_cassette(path, list(read_cassette(CASSETTE).exchanges) * 3)
    good, bad = ("code: 200", "code: two") if suffix == "yaml" else ('"code": 200', '"code": "two"')
    before, found, after = path.read_text().rpartition(good)
    assert found
    path.write_text(before + bad + after)
    done = in_this_process("doctor")
    assert done.returncode == 1
    assert "interaction 3 is damaged" in done.stdout


@pytest.mark.parametrize("path", ["c/numbers.yaml", "tests/deep/down/numbers.yml", "numbers.json"])
def test_doctor_finds_cassettes_in_any_folder(path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_cassette(path, read_cassette(CASSETTE).exchanges)
    assert f"Cassettes\n  {path}: 1 exchange\n" in in_this_process("doctor").stdout


def test_doctor_never_shows_a_key(cli: Cli) -> None:
    """It reports only whether a key is set. It prints no part of it, nor the password in a URL."""
    secret = "sk-ant-api03-very-secret"
    env = {"ANTHROPIC_API_KEY": secret, "ANTHROPIC_BASE_URL": "http://user:hunter2@127.0.0.1:9/v1", "TEST_MODE": "live"}
    for arguments in (["doctor"], ["doctor", "--json"]):
        done = cli(*arguments, env=env)
        assert done.returncode == 0
        assert "set (ANTHROPIC_API_KEY)" in done.stdout
        for hidden in (secret, secret[-6:], "hunter2"):
            assert hidden not in done.stdout + done.stderr
    assert json.loads(done.stdout)["live"]["mode"] == "live"


def test_doctor_names_each_problem() -> None:
    """Problems are a damaged cassette with its line, a log of a newer version and an unknown TEST_MODE. The exit code is 1."""
    run_mock(NUMBERS, handlers=[])
    with sqlite3.connect(".retold/log.db") as database:
        database.execute("PRAGMA user_version = 999")
    database.close()
    Path("cassettes").mkdir()
    Path("cassettes/torn.yaml").write_text("version: 1\ninteractions: [\n")
    Path("cassettes/numbers.yaml").write_bytes(CASSETTE.read_bytes())
    done = in_this_process("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert [(each["path"], each["exchanges"], each["sessions"]) for each in found["cassettes"]] == [
        ("cassettes/numbers.yaml", 1, 0),
        ("cassettes/torn.yaml", None, None),
    ]
    newer, torn = found["problems"]
    assert newer.startswith("the log .retold/log.db was written by a newer retold")
    assert torn.startswith("cassettes/torn.yaml:")
    text = in_this_process("doctor").stdout
    assert f"Problems\n  {newer}\n  {torn}\n" in text
    assert "  cassettes/torn.yaml: damaged\n" in text


def test_doctor_names_an_unknown_test_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run would refuse it, so it is a problem here."""
    monkeypatch.setenv("TEST_MODE", "prod")
    done = in_this_process("doctor", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["problems"] == [
        "unknown TEST_MODE 'prod': set it to mock (the default, offline) or live, or unset it."
    ]
