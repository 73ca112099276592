"""`retold diff` as a user runs it: its arguments, its output, and its exit codes, and `assert_same_stream`."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import retold
from retold.cli.diff import ReportFormat
from retold.recorder.cassette.format import read_cassette, write_cassette
from tests.conftest import Cli
from tests.e2e import CASSETTE, FILE_OPERATIONS, NUMBERS, in_this_process, refused, run_mock
from tests.messages_server import Reply, text
from tests.talks import recorded, talk

HOSTILE = "<script>alert(1)</script></style> \x1b[31mred\x1b[0m \u202egnp.exe\u202c ``` | *bold*"


@pytest.fixture
def two_runs() -> None:
    run_mock(NUMBERS)
    run_mock(NUMBERS)


def test_two_replays_of_a_cassette_are_the_same(cli: Cli, two_runs: None) -> None:  # noqa: ARG001
    """The exit code is 0, with one line. A run, a cassette, a log file and stream-json are compared alike."""
    done = cli("diff", "last~1", "last")
    assert (done.returncode, done.stderr) == (0, "")
    titles = r"A  clean_streaming_numbers \([0-9a-f]{8}, mock\)\nB  clean_streaming_numbers \([0-9a-f]{8}, mock\)\n"
    assert re.fullmatch(titles + r"\nno difference: 6 items the same\n", done.stdout)
    Path("stream.jsonl").write_text(in_this_process("show", "last", "--json").stdout)
    for form in ("jsonl", "stream-json"):
        assert in_this_process("export", "last", "--format", form, "-o", f"{form}.jsonl").returncode == 0
    for other in (
        str(CASSETTE),
        "jsonl.jsonl",
        "stream-json.jsonl",
        ".retold/log.db",
        ".retold/log.db:last~1",
        "stream.jsonl",
        "clean_streaming_numbers",
    ):
        done = in_this_process("diff", "last", other)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\nno difference: " in done.stdout


@pytest.mark.parametrize(
    ("name", "begins"), [("d.html", "<!doctype html>"), ("d.md", "### "), ("d.json", "{"), ("d.txt", "A  "), ("d", "A  ")]
)
@pytest.mark.usefixtures("two_runs")
def test_the_ending_of_the_file_chooses_the_format(name: str, begins: str) -> None:
    """It works as in `retold export`. --format takes precedence."""
    in_this_process("diff", "last", "last", "-o", name)
    assert Path(name).read_text().lower().lstrip().startswith(begins.lower())
    in_this_process("diff", "last", "last", "-o", name, "--format", "text")
    assert Path(name).read_text().startswith("A  ")


def test_different_runs_exit_with_1_in_every_format() -> None:
    run_mock(NUMBERS)
    run_mock(FILE_OPERATIONS)
    for form in ReportFormat:
        done = in_this_process("diff", "last~1", "last", "--format", form)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout
    found = json.loads(in_this_process("diff", "last~1", "last", "--json").stdout)
    assert found["same"] is False
    assert found["first"] == found["differences"][0]
    assert {total["name"] for total in found["totals"]} >= {"input_tokens", "cost_usd", "turns", "duration_ms", "ttft_ms"}
    few = in_this_process("diff", "last~1", "last", "--limit", "2", "-o", "few.txt")
    assert (few.returncode, few.stdout) == (1, "")
    assert "more; --limit 0 writes out all" in Path("few.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nope", "last"], "no run 'nope' in the log .retold/log.db"),
        (["nope.yaml", "last"], "no file nope.yaml. Give a file, or a run of the log .retold/log.db"),
        ([".", "last"], ". is a folder; name a cassette"),
        (["bad.jsonl", "last"], "bad.jsonl:2: not a line of JSON"),
        (["typeless.jsonl", "last"], "typeless.jsonl:1: not a message of stream-json"),
        (["empty.jsonl", "last"], "empty.jsonl holds no messages"),
        (["empty.yaml", "last"], "empty.yaml holds no interactions"),
        (["other.yaml", "last"], "other.yaml is not a cassette"),
        ([".retold/log.db:nope", "last"], "no run 'nope' in the log .retold/log.db"),
        (["last", "last", "--ignore", "nope"], "unknown item or place 'nope'; there are"),
        (["last", "last", "--tolerance", "duration"], "cannot read the tolerance 'duration'"),
    ],
)
def test_bad_input_exits_with_code_2(arguments: list[str], error: str) -> None:
    run_mock(NUMBERS)
    Path("bad.jsonl").write_text('{"type": "system"}\n{nope\n')
    Path("typeless.jsonl").write_text("{}\n")
    Path("empty.jsonl").write_text("\n")
    Path("empty.yaml").write_text("version: 1\ninteractions: []\n")
    Path("other.yaml").write_text("a: 1\n")
    assert error in refused(in_this_process("diff", *arguments))


def test_hostile_text_is_harmless_in_text_and_markdown() -> None:
    """No control character reaches a terminal, no markup leaves its fence, and a word of a megabyte is cut."""
    recorded(talk(Reply([text(HOSTILE)]), prompt="Same."), "calm | <b>")
    recorded(talk(Reply([text(HOSTILE.replace("red", "blue") + " " + "x" * 1_000_000, pieces=1_000_000)]), prompt="Same."))
    for form in ("text", "markdown"):
        done = in_this_process("diff", "last~1", "last", "--db", "talks.db", "--format", form)
        assert done.returncode == 1
        assert "\\x1b[" in done.stdout
        assert not {"\x1b", "\u202e", "\u202c"} & set(done.stdout)
        assert len(done.stdout) < 5_000
    fence = "````"
    outside = "".join(done.stdout.split(fence)[::2])
    assert "script" in done.stdout
    assert "<" not in outside.replace("\\<", "")


def test_assert_same_stream_fails_with_the_difference(tmp_path: Path) -> None:
    """A test fails with the output of `retold diff`. Runs, results of workflows and cassettes are accepted."""
    result = run_mock(NUMBERS).result
    retold.assert_same_stream(result, CASSETTE)
    golden = tmp_path / "golden.yaml"
    write_cassette(golden, talk(Reply([text("It rains.")])))
    log, run = recorded(talk(Reply([text("It snows.")]), seed=1))
    with pytest.raises(AssertionError) as failed, log:
        retold.assert_same_stream(run, golden, log=log)
    assert "turn 1, text, changed\n    It [-rains-]{+snows+}." in str(failed.value)
    retold.assert_same_stream(run, golden, log=log, ignore=["text", "totals"])


def test_run_check_fails_on_a_difference_from_the_golden_recording() -> None:
    """In CI the exit code is 0 with one line if the run equals the golden recording, otherwise 1 with the difference."""
    same = in_this_process("run", NUMBERS, "--check", CASSETTE)
    assert same.returncode == 0
    assert "no difference: 4 items the same" in same.stderr
    golden = read_cassette(CASSETTE)
    body = golden.exchanges[0].request.body.replace(b"nothing else", b"a word")
    write_cassette("golden.yaml", [replace(e, request=replace(e.request, body=body)) for e in golden.exchanges])
    other = in_this_process("run", NUMBERS, "--json", "--check", "golden.yaml")
    assert other.returncode == 1
    assert "[-a word-]{+nothing else+}" in other.stderr
    assert json.loads(other.stdout)["check"]["differences"][0]["what"] == "prompt"
    assert in_this_process("run", NUMBERS, "--check", "golden.yaml", "--check-ignore", "prompt").returncode == 0


def test_an_unreadable_golden_recording_is_reported_before_the_run() -> None:
    assert "no file nope.yaml" in refused(in_this_process("run", NUMBERS, "--check", "nope.yaml"))
    assert "unknown item or place 'nope'" in refused(
        in_this_process("run", NUMBERS, "--check", CASSETTE, "--check-ignore", "nope")
    )
    assert not Path(".retold").exists()


def test_a_run_is_exported_as_a_page() -> None:
    """`--format html`, or a file with that ending, gives the whole page of the run."""
    run_mock(NUMBERS)
    done = in_this_process("export", "last", "-o", "run.html")
    assert done.returncode == 0
    assert done.stderr.endswith("written to run.html\n")
    html = Path("run.html").read_text("utf-8")
    assert html.startswith("<!doctype html>")
    assert "Count from 1 to 10" in html
    assert in_this_process("export", "last", "--format", "html").stdout == html


def test_a_diff_imports_no_heavy_package(tmp_path: Path) -> None:
    """typer converts values by pydantic, an event loop brings ssl: together half of the time of a short diff."""
    (tmp_path / "a.jsonl").write_text('{"type": "assistant", "message": {"id": "1", "content": "Hi"}}\n')
    script = f"""if True:
        import sys
        from retold.cli import main
        sys.argv = ["retold", "diff", {str(tmp_path / "a.jsonl")!r}, {str(tmp_path / "a.jsonl")!r}, "--ignore", "text", "--quiet"]
        try:
            main()
        finally:
            print(sorted({{"anthropic", "asyncio", "jinja2", "pydantic", "rich"}} & sys.modules.keys()))
    """
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--limit", "x"], "'--limit'"),
        (["--limit", "-1"], "'--limit'"),
        (["--format", "odd"], "'--format'"),
        (["--color", "odd"], "'--color'"),
        (["--junit"], "--junit"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(arguments: list[str], said: str) -> None:
    done = in_this_process("diff", str(CASSETTE), str(CASSETTE), *arguments)
    assert done.returncode == 2
    assert said in done.stderr
