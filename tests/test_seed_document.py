"""The YAML of the user's document, verbatim: fragments are refused with their missing keys, and run once these are added.

Each completed fragment runs on both engines, with the same lines of the handlers. A fake replaces Claude Code (engine_cli.py).
"""

import json
import re
from pathlib import Path
from textwrap import indent

import pytest

import retold
from tests import engine_cli
from tests.conftest import SHARED
from tests.e2e import Ran, in_this_process, normalised, refused, run_live, run_mock, tree
from tests.messages_server import MessagesServer, Reply, Request, text

SEED = SHARED / "SEED.md"
SNIPPETS = re.findall(r"```yaml\n(.*?)```", SEED.read_text(), re.DOTALL) if SEED.exists() else []

pytestmark = pytest.mark.skipif(not SNIPPETS, reason="the document is not beside this clone")

LIST = "this is a list of steps; a workflow file has them below `workflow:` with a `name` and `steps:`."
OPTIONS = [
    "1:1: the key 'workflow' is missing.",
    "1:1: unknown key 'claude_options'; it is a key of a step, one of those below `workflow:` and its `steps:`.",
]
SAID = {
    "migration": [f"2:1: {LIST}", "9:3: two steps have the name 'analysis'."],
    "simple": OPTIONS,
    "console": OPTIONS,
    "debug": OPTIONS,
    "file": OPTIONS,
    "buffer": OPTIONS,
    "callback": OPTIONS,
    "development": ["8:7: step 'implement_feature': the key 'prompt' is missing."],
    "production": ["8:7: step 'process_request': the key 'prompt' is missing."],
    "enhanced": [
        f"2:1: {LIST}",
        "2:3: step 'interactive_session': the key 'prompt' is missing.",
        "11:3: step 'batch_process': the key 'tasks' is missing.",
    ],
}
"""The errors of the validator for each snippet, in the order of the document."""


def snippet(name: str) -> str:
    return str(SNIPPETS[list(SAID).index(name)])


def test_every_snippet_of_the_document_is_tested() -> None:
    """Adding a snippet to the document fails this test."""
    assert len(SNIPPETS) == len(SAID)


@pytest.mark.parametrize("name", SAID)
def test_the_errors_of_a_snippet_list_its_missing_keys(name: str) -> None:
    """Each fragment is pasted into a file. Its errors list every key that a workflow needs, with the line. Nothing runs."""
    Path("w.yaml").write_text(snippet(name))
    said = refused(in_this_process("run", "w.yaml"))
    head = f"retold: {len(SAID[name])} errors in the workflow:\n" if len(SAID[name]) > 1 else "retold: "
    assert said == head + "".join(f"w.yaml:{line}\n" for line in SAID[name])
    assert tree() == ["w.yaml"]


# Completed snippets

HELLO = "[HH:MM:SS] ASSISTANT: Hello.\n\n✓ Stream completed: 3 messages (1 shown) in N.Ns\n"


def hello(request: Request) -> Reply:
    """Return an answer, which takes a little longer for the second task than for the first."""
    return Reply([text("Hello.")], first_gap_s=0.2 if request.json["messages"][0]["content"] == "Ho" else 0.0)


@pytest.fixture(params=["messages_api", "claude_code"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return each engine in turn."""
    if request.param == "claude_code":
        pytest.importorskip("claude_agent_sdk")
        engine_cli.install(monkeypatch, tmp_path / "bin")
    return str(request.param)


def in_both_modes(monkeypatch: pytest.MonkeyPatch, engine: str, whole: str) -> Ran:
    """Run a completed snippet live and in mock, check that both outputs are equal, and return the mock run."""
    Path("w.yaml").write_text(whole.replace("workflow:\n", f"workflow:\n  engine: {engine}\n", 1))
    if engine == "claude_code":
        live = run_mock(Path("w.yaml"), mode="live")
    else:
        with MessagesServer(hello) as server:
            live = run_live(monkeypatch, server, Path("w.yaml"))
    mock = run_mock(Path("w.yaml"))
    assert live.result.ok, live.result
    assert mock.result.ok, mock.result
    assert normalised(mock.output) == normalised(live.output).replace("live run", "mock run").replace(", live)", ", mock)")
    assert [step.text for step in mock.result.steps] == [step.text for step in live.result.steps]
    return mock


def as_steps(steps: str) -> str:
    return "workflow:\n  name: w\n  steps:\n" + indent(steps, "    ")


def as_options(name: str) -> str:
    return as_steps('- name: "analysis"\n  type: "claude"\n  prompt: "Analyze this code..."\n' + indent(snippet(name), "  "))


@pytest.mark.parametrize(("part", "shown"), [(0, ""), (1, HELLO)], ids=["before", "after"])
def test_two_lines_turn_streaming_on(monkeypatch: pytest.MonkeyPatch, engine: str, part: int, shown: str) -> None:
    """The step before the migration runs without streaming. The step after it shows its messages. The answers are equal."""
    before, after = snippet("migration").split("# After")
    ran = in_both_modes(monkeypatch, engine, as_steps((before, f"# After{after}")[part]))
    assert (normalised(ran.output), ran.text) == (shown, "Hello.")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("simple", re.escape(HELLO)),
        ("console", r"=== w: analysis ===\nmock run RUN, HH:MM:SS\n\[HH:MM:SS\] Hello\.\n=== Stream completed ===\n(.+\n){6}"),
        (
            "debug",
            r"=== DEBUG STREAM START: w: analysis \(run RUN, mock\) ===\n(.+\n)+=== DEBUG STREAM END: 3 messages in N\.Ns ===\n",
        ),
    ],
)  # fmt: skip
def test_handler_of_the_document_shows_the_stream(monkeypatch: pytest.MonkeyPatch, engine: str, name: str, shown: str) -> None:
    """The handlers write to the screen, with the options of the document."""
    assert re.fullmatch(shown, normalised(in_both_modes(monkeypatch, engine, as_options(name)).output))


def test_file_handler_of_the_document_appends(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """`append: true` keeps the live run's lines before those of the mock run."""
    in_both_modes(monkeypatch, engine, as_options("file"))
    assert Path("logs/claude_stream.log").read_text().count("ASSISTANT: Hello.\n") == 2


def test_buffer_handler_of_the_document_is_read_from_the_result(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """The result has the messages in order."""
    (result,) = in_both_modes(monkeypatch, engine, as_options("buffer")).result.steps[0].handler_results
    assert [message["type"] for message in result["buffered"]] == ["system", "assistant", "result"]


CALLED = """\
def process_message(message):
    with open("seen.txt", "a") as file:
        file.write(message.type + "\\n")
"""


def test_the_callback_of_the_document_is_called(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """The dotted module of the document is beside the workflow."""
    Path("MyApp").mkdir()
    Path("MyApp/StreamHandler.py").write_text(CALLED)
    in_both_modes(monkeypatch, engine, as_options("callback"))
    assert Path("seen.txt").read_text().splitlines() == ["system", "assistant", "result"] * 2


def test_development_pipeline_of_the_document(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """With the missing prompt, the preset and the streaming work as written."""
    ran = in_both_modes(monkeypatch, engine, snippet("development") + '      prompt: "Implement it."\n')
    assert normalised(ran.output) == HELLO
    (asked,) = retold.EventLog().events(ran.result.run, kinds=("exchange.started", "session.started"))
    if engine == "claude_code":
        assert asked.data["options"]["allowed_tools"] == ["Write", "Edit", "Read", "Bash", "Glob", "Grep"]
        return
    assert [tool["name"] for tool in json.loads(asked.data["body"])["tools"]] == [
        "Read", "Write", "Edit", "Bash", "Glob", "Grep"
    ]  # fmt: skip


def test_production_pipeline_of_the_document(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """Each run has a separate file, named by its id."""
    ran = in_both_modes(monkeypatch, engine, snippet("production") + '      prompt: "Process it."\n')
    runs = sorted(info.run for info in retold.EventLog().runs())
    assert sorted(path.name for path in Path("logs").iterdir()) == [f"claude_{run}.log" for run in runs]
    assert "ASSISTANT: Hello.\n" in Path(f"logs/claude_{ran.result.run}.log").read_text()


def test_enhanced_steps_of_the_document(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """A session runs through console, and a batch through simple with the name of the task in each line."""
    session, batch = snippet("enhanced").split("# Claude Batch")
    later = {"messages_api": "Ho", "claude_code": "AFTER Hi"}[engine]
    tasks = f"tasks: [{{id: one, prompt: Hi}}, {{prompt: {later}}}]"
    steps = f"{session.rstrip()}\n  prompt: Hi.\n# Claude Batch{batch.rstrip()}\n  {tasks}\n"
    shown = normalised(in_both_modes(monkeypatch, engine, as_steps(steps)).output)
    console, simple = shown.split("[HH:MM:SS] [one]")
    assert "[HH:MM:SS] Hello.\n=== Stream completed ===\n" in console
    assert (
        simple
        == " ASSISTANT: Hello.\n[HH:MM:SS] [task-2] ASSISTANT: Hello.\n\n✓ Stream completed: 6 messages (2 shown) in N.Ns\n"
    )
