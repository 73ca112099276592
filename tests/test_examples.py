"""The shipped examples run out of the box, offline, and their output matches their comments."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import retold
from tests.conftest import ROOT
from tests.e2e import in_this_process, normalised, tree
from tests.example_replies import REPLIES

EXAMPLES = ROOT / "examples"
FOOTER = "\n✓ Stream completed: {} messages ({} shown) in N.Ns\n"

DEVELOPMENT = """\
[HH:MM:SS] ASSISTANT: I'll begin with the function.
[HH:MM:SS] TOOL USE: Write
[HH:MM:SS] TOOL RESULT: wrote 173 bytes to slug.py
[HH:MM:SS] ASSISTANT: Now a test, with the cases that usually go wrong: punctuation, runs of spaces, nothing left.
[HH:MM:SS] TOOL USE: Write
[HH:MM:SS] TOOL RESULT: wrote 152 bytes to test_slug.py
[HH:MM:SS] ASSISTANT: Let me run it.
[HH:MM:SS] TOOL USE: Bash
[HH:MM:SS] TOOL RESULT: ok
[HH:MM:SS] ASSISTANT: slug.py holds slug(title), and test_slug.py passes. Letters with accents are dropped, \
not transliterated: say if titles in other languages matter to you.
""" + FOOTER.format(13, 10)

SESSION = """\
[HH:MM:SS] 1. again: short, and says what it does.
           2. persevere: it goes on where others give up.
           3. secondwind: friendly, and still free on the index.
=== Stream completed ===
Messages               3 (1 shown)
Tokens                 41 in, 52 out
Cost                   $0.00003
Duration               N.Ns
Average per message    N ms
Time to first message  N ms
[HH:MM:SS] persevere sends a failed HTTP request again, after a pause that grows, until it goes well or you say enough.
"""

TICKETS = """\
ASSISTANT: ```json
{"severity": "high", "topic": "empty exports"}
```

✓ Stream completed: 3 messages (1 shown) in N.Ns
ASSISTANT: Tidemark: exports have been empty since this morning, and a customer's report is due at noon.

✓ Stream completed: 3 messages (1 shown) in N.Ns
"""


CLAUDE_CODE = (
    """\
[HH:MM:SS] ASSISTANT: I'll write the file.
[HH:MM:SS] TOOL USE: Write
[HH:MM:SS] TOOL RESULT: File created successfully at: leap.py (file state ...
[HH:MM:SS] ASSISTANT: Now I'll run it.
[HH:MM:SS] TOOL USE: Bash
[HH:MM:SS] TOOL RESULT: 2100: False
[HH:MM:SS] ASSISTANT: leap.py prints `2100: False`: 2100 is not a leap year.
"""
    + FOOTER.format(9, 7)
    + "[HH:MM:SS] ASSISTANT: A year divisible by 100 is a leap year only if it is divisible by 400, too.\n"
    + FOOTER.format(3, 1)
    + "[HH:MM:SS] ASSISTANT: 2400: it is divisible by 400.\n"
    + FOOTER.format(3, 1)
)


def shown(name: str) -> str:
    """Return the output of an example."""
    return normalised(in_this_process("run", EXAMPLES / f"{name}.yaml").stdout)


def test_every_example_has_a_script_for_recording() -> None:
    """Each example has scripted answers of "Claude", and no other script exists."""
    assert sorted(path.stem for path in EXAMPLES.glob("*.yaml")) == sorted(REPLIES)


@pytest.mark.parametrize("name", REPLIES)
def test_an_example_runs_out_of_the_box(name: str) -> None:
    """It is valid, runs offline without a key, and plays all of its recordings."""
    path = EXAMPLES / f"{name}.yaml"
    assert in_this_process("validate", path).stdout == f"{path}: ok\n"
    done = in_this_process("run", path)
    assert done.returncode == 0
    assert re.match(rf"retold: run \w+ completed: .*, replayed from {re.escape(str(ROOT))}/cassettes/{name}.yaml\n", done.stderr)
    assert "played" not in done.stderr.partition("\n")[2]


def test_development_shows_each_message() -> None:
    """`claude_smart` with the preset for development shows text, tool uses and results, each on its line."""
    assert shown("development_pipeline") == DEVELOPMENT


def test_production_writes_a_file_for_each_run() -> None:
    """The file's name contains the id of the run. The screen gets only the answer."""
    texts = [shown("production_pipeline") for _ in range(2)]
    runs = sorted(info.run for info in retold.EventLog().runs())
    assert tree("logs") == [f"claude_{run}.log" for run in runs]
    written = Path("logs", f"claude_{runs[0]}.log").read_text()
    assert written.splitlines()[1].endswith(f"] ASSISTANT: {texts[0].rstrip()}")
    assert "(1 written)" in written


def test_a_session_continues_in_its_second_step() -> None:
    """The request of the second step contains the conversation of the first."""
    assert shown("session_conversation") == SESSION
    log = retold.EventLog()
    asked = [
        json.loads(event.data["body"])["messages"] for event in log.events(log.find("last").run, kinds=("exchange.started",))
    ]
    assert [len(messages) for messages in asked] == [1, 3]
    assert asked[1][1]["content"][0]["text"].startswith("1. again")


def test_replaying_its_steps_does_not_need_claude_code() -> None:
    """The lines of a session of Claude Code are shown like those of the Messages API."""
    assert shown("claude_code_steps") == CLAUDE_CODE


def test_batch_lines_name_their_task() -> None:
    """Each line begins with its task."""
    lines, footer = shown("batch_reviews").split("\n\n")
    assert sorted(line.partition(": ")[0] for line in lines.splitlines()) == [
        f"[HH:MM:SS] [{task}] ASSISTANT" for task in ("chair", "kettle", "lamp", "note")
    ]
    assert "\n" + footer == FOOTER.format(12, 4)


def test_extract_writes_data_and_prints_the_summary() -> None:
    """The Markdown of the first answer becomes data, with its cost. The second step's text is whole sentences."""
    assert shown("extract_structured").endswith("Exports can be limited by date, and cassettes may be gzipped. "
                                                "Times are local now. A read-only log can be read.\n")  # fmt: skip
    made = json.loads(Path("outputs/release_notes.json").read_text())
    assert [section["heading"] for section in made["data"]["sections"]] == ["Version 2.1", "New", "Fixed"]
    assert made["metadata"]["usage"]["output_tokens"] == 71
    assert len(Path("outputs/one_line.txt").read_text()) <= 120


def test_robust_shows_its_attempts() -> None:
    """The output has the failed attempt, its error, the pause after it, and the successful attempt."""
    output = shown("robust_retries")
    kinds = re.findall(r"^\[\d+\] (\S+)", output, re.MULTILINE)
    failed, retried, good = "result:error_during_execution", "system:step_retry", "result:success"
    assert kinds == ["system:init", "ERROR:", failed, retried, "system:init", "assistant", good]
    assert "HTTP 529 overloaded_error" in output


def test_parallel_writes_a_file_for_each_task() -> None:
    """Both tasks have a line and a file, and the request of the last step contains both."""
    output = shown("parallel_reviews")
    for task in ("speed", "safety"):
        assert f"[HH:MM:SS] [{task}] ASSISTANT: {Path(f'outputs/{task}.md').read_text()}" in output
    log = retold.EventLog()
    (asked,) = log.events(log.find("last").run, kinds=("exchange.started",), step="conclude")
    assert all(Path(f"outputs/{task}.md").read_text() in json.loads(asked.data["body"])["messages"][0]["content"]
               for task in ("speed", "safety"))  # fmt: skip


def test_a_callback_is_called() -> None:
    """The function beside the workflow is called for the messages of its types."""
    assert shown("callback_messages").splitlines()[0] == "haiku: assistant message with 11 words"


def test_each_of_several_handlers_gets_every_message() -> None:
    """Console, file and buffer handle one stream."""
    for _ in range(2):
        assert shown("several_handlers").startswith("That what was written once stays as it was")
    lines = [json.loads(line) for line in Path("logs/several_handlers.jsonl").read_text().splitlines()]
    assert [line["type"] for line in lines] == ["system", "assistant", "result"] * 2


def test_a_false_condition_is_reported() -> None:
    """A skipped step shows nothing, and stderr gives the reason."""
    done = in_this_process("run", EXAMPLES / "conditions_and_variables.yaml")
    assert normalised(done.stdout) == TICKETS
    assert done.stderr.splitlines()[-1] == (
        "retold: step 'reply' was skipped: global_vars.urgent not in steps.triage.text does not hold"
    )


def test_a_program_reads_the_buffer() -> None:
    """The Python example is a separate program."""
    command = [sys.executable, str(EXAMPLES / "buffer_messages.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.sub(r" +[\d.]+ ms  ", "", done.stdout) == (
        "system     init\nassistant  text\nassistant  tool_use\nuser       tool_result\nassistant  text\nresult     success\n"
        "6 messages, 0 dropped; 71 tokens out\nThere are no Python files in this folder.\n"
    )
