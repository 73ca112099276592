"""`retold run` offline, as a user sees it: its output, the files it writes, and the files it does not touch."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import retold
from tests.conftest import ROOT, Cli
from tests.e2e import CASSETTE, FILE_OPERATIONS, NUMBERS, Ran, in_this_process, normalised, run_mock, tree

COUNTED = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10"

CONSOLE_NUMBERS = """\
=== clean_streaming_numbers: count ===
mock run RUN, HH:MM:SS
[HH:MM:SS] 1
           2
           3
           4
           5
           6
           7
           8
           9
           10
=== Stream completed ===
Messages               3 (1 shown)
Tokens                 28 in, 29 out
Cost                   $0.0003
Duration               N.Ns
Average per message    N ms
Time to first message  N ms
"""

SIMPLE_NUMBERS = """\
[HH:MM:SS] ASSISTANT: 1
           2
           3
           4
           5
           6
           7
           8
           9
           10

✓ Stream completed: 3 messages (1 shown) in N.Ns
"""

SIMPLE_FILE_OPERATIONS = """\
[HH:MM:SS] ASSISTANT: I'll write test_file.txt with the two lines.
[HH:MM:SS] TOOL USE: Write
[HH:MM:SS] TOOL RESULT: wrote 11 bytes to test_file.txt
[HH:MM:SS] ASSISTANT: Now I'll read it back.
[HH:MM:SS] TOOL USE: Read
[HH:MM:SS] TOOL RESULT: alpha
           beta
[HH:MM:SS] ASSISTANT: Both lines are there. I'll change "beta" to "gamma".
[HH:MM:SS] TOOL USE: Edit
[HH:MM:SS] TOOL RESULT: edited test_file.txt (1 replacement(s))
[HH:MM:SS] ASSISTANT: Finally I'll count the lines.
[HH:MM:SS] TOOL USE: Bash
[HH:MM:SS] TOOL RESULT: 2 test_file.txt
[HH:MM:SS] ASSISTANT: I wrote test_file.txt, read it, changed "beta" to "gamma", and it has 2 lines.

✓ Stream completed: 16 messages (13 shown) in N.Ns
"""


# The output


def test_numbers_are_shown_by_the_console(cli: Cli) -> None:
    """The smallest example prints its header, the numbers and the statistics, without a key and without a network."""
    done = cli("run", NUMBERS)
    assert normalised(done.stdout) == CONSOLE_NUMBERS
    expected = f"retold: run RUN completed: 1 step, 3 messages, replayed from {CASSETTE}\n"
    assert normalised(done.stderr) == expected
    assert done.returncode == 0


def test_file_operations_are_shown_in_their_order() -> None:
    """Texts, tool uses and tool results come in the order they happened. The footer counts all messages and the shown ones."""
    done = in_this_process("run", FILE_OPERATIONS)
    assert normalised(done.stdout) == SIMPLE_FILE_OPERATIONS
    assert done.returncode == 0


def test_no_tool_runs_in_mock() -> None:
    """The recorded Write, Edit and Bash create no file: the working directory contains only the log."""
    ran = run_mock(FILE_OPERATIONS)
    assert ran.result.ok
    assert tree() == []
    assert sorted(os.listdir()) == [".retold"]


def test_handler_option_replaces_the_handler_of_the_file() -> None:
    """`--handler` shows the run through another handler than that of the workflow."""
    assert normalised(in_this_process("run", NUMBERS, "--handler", "simple").stdout) == SIMPLE_NUMBERS


def test_several_handlers_each_show_everything() -> None:
    """Two handlers read the same stream, each to its end."""
    ran = run_mock(NUMBERS, handlers=[("simple", {}), ("console", {})])
    lines = normalised(ran.output).splitlines()
    assert sorted(lines) == sorted(SIMPLE_NUMBERS.splitlines() + CONSOLE_NUMBERS.splitlines())


def test_json_prints_only_the_result(cli: Cli) -> None:
    """`--json` prints only the run's result on stdout."""
    done = cli("run", NUMBERS, "--json")
    (recorded,) = retold.read_cassette(CASSETTE).exchanges
    assert recorded.response is not None
    expected: dict[str, object] = {
        "run": "RUN",
        "name": "clean_streaming_numbers",
        "mode": "mock",
        "status": "completed",
        "steps": [
            {
                "name": "count",
                "type": "claude",
                "status": "completed",
                "text": COUNTED,
                "error": None,
                "turns": 1,
                "messages": 3,
                "stop_reason": "end_turn",
                "usage": {
                    "input_tokens": 28,
                    "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 0,
                    "output_tokens": 29,
                },
                "cost_usd": 0.000346,
                "duration_ms": round((recorded.ended_ns - recorded.started_ns) / 1e6),
                "time_to_first_message_ms": round(recorded.response.pieces[0].offset_ns / 1e6),
                "session_id": "UUID",
                "attempts": 1,
                "fallback": None,
                "streamed": False,
                "resumed": False,
                "tasks": [],
                "handler_results": [],
            }
        ],
        "log": ".retold/log.db",
        "cassette": str(CASSETTE),
        "error": None,
        "notes": [],
        "handler_errors": [],
    }
    assert json.loads(normalised(done.stdout)) == expected


def test_json_keeps_a_handler_off_stdout() -> None:
    """With `--json` a handler writes to stderr, so that stdout remains JSON."""
    done = in_this_process("run", NUMBERS, "--json", "--handler", "simple")
    assert json.loads(done.stdout)["steps"][0]["streamed"] is True
    assert normalised(done.stderr).startswith(SIMPLE_NUMBERS)


def test_step_without_streaming_prints_its_text() -> None:
    """A step without streaming prints its text at the end."""
    workflow = NUMBERS.read_text()
    for line in ("        async_streaming: true\n", '        stream_handler: "console"\n'):
        workflow = workflow.replace(line, "")
    Path("quiet.yaml").write_text(workflow)
    assert in_this_process("run", "quiet.yaml", "--cassette", CASSETTE).stdout == COUNTED + "\n"


def test_unplayed_exchanges_are_noted() -> None:
    """A recording with more exchanges than the workflow requests is replayed, and a note counts the rest."""
    text = CASSETTE.read_text()
    entry = text[text.index("- request:") : text.index("\nretold_end:")]
    Path("two.yaml").write_text(text.replace(entry, f"{entry}\n{entry.replace('step: count', 'step: old')}"))
    ran = run_mock(NUMBERS, cassette="two.yaml")
    assert ran.result.notes == ["1 recorded exchange not played (of step old) in two.yaml"]
    assert ran.result.ok


# Timing


def lasted_ms(ran: Ran) -> float:
    """Return the end of the last exchange of a run, in ms of the run."""
    events = list(retold.EventLog().events(ran.result.run, kinds=("exchange.ended",)))
    return events[-1].t_ns / 1e6


def times_ms(cassette: Path) -> list[float]:
    """Return all recorded times of a cassette, in ms from the beginning of its run."""
    times = [0.0]
    for exchange in retold.read_cassette(cassette).exchanges:
        assert exchange.response is not None
        offsets = [0, exchange.response.first_ns, *(piece.offset_ns for piece in exchange.response.pieces)]
        times += [(exchange.started_ns + offset) / 1e6 for offset in offsets]
        times.append(exchange.ended_ns / 1e6)
    return sorted(times)


def test_original_timing_takes_as_long_as_the_recording() -> None:
    """Five exchanges, 90 frames and the pauses between them end within 1 % of the recorded time, and not before it."""
    recorded_ms = times_ms(ROOT / "cassettes" / FILE_OPERATIONS.name)[-1]
    ran = run_mock(FILE_OPERATIONS, timing="original")
    assert normalised(ran.output) == SIMPLE_FILE_OPERATIONS
    assert recorded_ms <= lasted_ms(ran) <= recorded_ms * 1.01


def test_twice_as_fast_takes_half_the_time() -> None:
    """`2x` halves the recorded time."""
    recorded_ms = times_ms(CASSETTE)[-1]
    assert recorded_ms / 2 <= lasted_ms(run_mock(NUMBERS, timing="2x")) < recorded_ms


def test_idle_limit_shortens_long_pauses_only() -> None:
    """With `--idle-limit 50ms` every pause above it lasts 50 ms and the others as long as recorded."""
    recorded = times_ms(CASSETTE)
    shortened_ms = sum(min(after - before, 50) for before, after in pairwise(recorded))
    assert shortened_ms < recorded[-1] - 200
    in_this_process("run", NUMBERS, "--timing", "original", "--idle-limit", "50ms")
    run = retold.EventLog().find("last").run
    ended_ms = list(retold.EventLog().events(run, kinds=("exchange.ended",)))[-1].t_ns / 1e6
    assert shortened_ms <= ended_ms < recorded[-1]


# The run in the log


def test_show_equals_the_output_of_the_run(cli: Cli) -> None:
    """A handler prints the same for a past run as it did during the run."""
    shown = cli("run", FILE_OPERATIONS, "--handler", "debug").stdout
    assert shown.startswith("=== DEBUG STREAM START: streaming_file_operations: file_operations (run ")
    assert cli("show", "last", "--handler", "debug").stdout == shown


def test_show_json_prints_one_line_for_each_message() -> None:
    """`show --json` prints each message as one JSON object with its place in the log."""
    run = run_mock(NUMBERS, handlers=[]).result.run
    lines = [json.loads(line) for line in in_this_process("show", run[:6], "--json").stdout.splitlines()]
    assert [list(line) for line in lines] == [["run", "seq", "time", "t_ms", "step", "task", "type", "subtype", "message"]] * 3
    assert [(line["run"], line["step"], line["type"], line["subtype"]) for line in lines] == [
        (run, "count", "system", "init"),
        (run, "count", "assistant", None),
        (run, "count", "result", "success"),
    ]
    assert lines[1]["message"]["message"]["content"] == [{"type": "text", "text": COUNTED}]


def test_ls_lists_the_runs_newest_first() -> None:
    """A listing has one line for each run, with its counts."""
    run_mock(NUMBERS, handlers=[])
    run_mock(FILE_OPERATIONS, handlers=[])
    expected = """\
RUN       STARTED         MODE  STATUS     TOOK  MSGS  ERRORS  NAME
RUN  MM-DD HH:MM:SS  mock  completed  N.Ns    16          streaming_file_operations
RUN  MM-DD HH:MM:SS  mock  completed  N.Ns     3          clean_streaming_numbers
"""
    assert normalised(in_this_process("ls").stdout) == expected


def test_ls_json_has_every_field() -> None:
    """`ls --json` prints the fields of the listing with whole ids and ISO times."""
    run = run_mock(NUMBERS, handlers=[]).result.run
    (listed,) = json.loads(in_this_process("ls", "--json").stdout)
    assert listed.pop("started").endswith("Z")
    assert listed.pop("ended").endswith("Z")
    assert listed == {
        "run": run,
        "name": "clean_streaming_numbers",
        "mode": "mock",
        "status": "completed",
        "messages": 3,
        "exchanges": 1,
        "frames": 13,
        "error": None,
        "source": None,
        "fork": None,
        "models": ["claude-sonnet-5-5"],
        "tools": [],
        "cost_usd": 0.000346,
        "calls": 1,
        "failed_calls": 0,
        "healed_attempts": 0,
        "outcome": "completed",
        "copy_of": None,
    }


# Import and export of cassettes


def untimed(result: retold.StepResult) -> retold.StepResult:
    """Return a step's result without durations, because an instant run is exported as an instant run."""
    return replace(result, duration_ms=0, time_to_first_message_ms=None)


def test_exported_run_replays_like_the_original() -> None:
    """A cassette exported from a run replays that run."""
    first = run_mock(FILE_OPERATIONS)
    assert in_this_process("export", "last", "-o", "x.yaml").stdout == ""
    second = run_mock(FILE_OPERATIONS, cassette="x.yaml")
    assert normalised(second.output) == normalised(first.output)
    assert [untimed(s) for s in second.result.steps] == [untimed(s) for s in first.result.steps]


def test_export_without_a_file_goes_to_stdout() -> None:
    """Without `-o` stdout is exactly the content of the file."""
    run_mock(NUMBERS, handlers=[])
    in_this_process("export", "last", "-o", "x.yaml")
    assert in_this_process("export", "last").stdout == Path("x.yaml").read_text()


def test_imported_cassette_is_shown_like_a_run() -> None:
    """An imported cassette is a run: its messages and tool results come in true order."""
    done = in_this_process("import", ROOT / "cassettes" / FILE_OPERATIONS.name)
    assert normalised(done.stdout) == "RUN  streaming_file_operations  5 exchanges\n"
    body, _, footer = normalised(in_this_process("show", "last", "--handler", "simple").stdout).partition("\n\n")
    assert body == SIMPLE_FILE_OPERATIONS.partition("\n\n")[0]
    assert footer == "✓ Stream completed: 14 messages (13 shown) in N.Ns\n"


def test_play_shows_a_cassette_and_writes_nothing() -> None:
    """Playing a cassette creates no log."""
    shutil.copy(CASSETTE, "numbers.yaml")
    done = in_this_process("play", "numbers.yaml", "--timing", "instant")
    assert normalised(done.stdout) == SIMPLE_NUMBERS.replace("3 messages", "1 message")
    assert (done.stderr, done.returncode) == ("", 0)
    assert sorted(os.listdir()) == ["numbers.yaml"]


def test_statistics_of_an_imported_run_equal_those_of_the_recording() -> None:
    """A run without a result message still has its tokens and its cost, from the log."""
    done = in_this_process("play", CASSETTE, "--timing", "instant", "--handler", "console")
    assert "\nTokens                 28 in, 29 out\nCost                   $0.0003\n" in done.stdout


# The cost of a start


def imported(*args: str | Path, environment: dict[str, str]) -> set[str]:
    """Return the modules that a command of the CLI imports."""
    command = [sys.executable, "-X", "importtime", "-m", "retold", *map(str, args)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.needs("typer>=0.29")
def test_mock_run_imports_nothing_heavy(environment: dict[str, str]) -> None:
    """A mock run imports neither the SDK nor vcr nor a price table. Without templates it does not import jinja2 either."""
    modules = imported("run", NUMBERS, environment=environment)
    assert "retold.workflow.mock" in modules
    heavy = {
        "anthropic",
        "vcr",
        "httpx2",
        "httpx",
        "genai_prices",
        "jinja2",
        "retold.workflow.live",
        "rich.panel",
        "rich.console",
    }
    assert modules & heavy == set()


def test_second_mock_run_does_not_import_the_migrations(environment: dict[str, str]) -> None:
    """retold imports their module to create a log, not to use one."""
    assert "retold.recorder.log.sqlite.migrations" in imported("run", NUMBERS, environment=environment)
    assert "retold.recorder.log.sqlite.migrations" not in imported("run", NUMBERS, environment=environment)


@pytest.mark.needs("typer>=0.29")
def test_help_imports_almost_nothing(environment: dict[str, str]) -> None:
    """`--help` imports no more than typer itself needs."""
    modules = imported("--help", environment=environment)
    heavy = {"anthropic", "vcr", "httpx2", "httpx", "jinja2", "sqlite3", "yaml", "pydantic", "asyncio", "rich"}
    ours = {name for name in modules if name.startswith("retold.") and not name.startswith("retold.cli")}
    assert modules & heavy == set()
    small = {"retold.recorder.colour", "retold.recorder.words", "retold.recorder.strict_json"}  # need only re, difflib, json
    assert ours - small == {"retold.recorder", "retold.recorder.errors"}


# More than one step


def test_step_that_fails_ends_the_run_with_exit_code_1() -> None:
    """The replay of a recorded failure fails, too: the step is named, and later steps do not run."""
    text = CASSETTE.read_text().replace("ending: complete", "ending: cut")
    Path("cut.yaml").write_text(
        text.replace(text[text.index("        event: message_delta") : text.index("  retold:\n    rec")], "")
    )
    workflow = NUMBERS.read_text() + "    - {name: then, type: claude, prompt: '{{steps.count.text}}'}\n"
    Path("w.yaml").write_text(workflow)
    done = in_this_process("run", "w.yaml", "--cassette", "cut.yaml", "--handler", "simple")
    assert normalised(done.stdout).splitlines()[-1] == "✗ Stream error: the stream was cut after 3 messages"
    assert (
        normalised(done.stderr) == "retold: run RUN failed (mock; 1 step, 3 messages): step 'count' failed: the stream was cut\n"
    )
    assert done.returncode == 1


def test_mock_is_the_default_of_library_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the environment does not make a run live."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    assert run_mock(NUMBERS, handlers=[]).result.mode == "mock"
