"""Text of a model never steers a terminal, never hides on it, and never passes for a line of retold."""

import ast
import io
import json
import os
import pty
import sys
from pathlib import Path

import pytest

import retold
from retold.handlers import make_handler, read_stream
from retold.recorder.errors import MissError, RunError
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from retold.recorder.words import clean, clean_json
from tests.conftest import ROOT
from tests.e2e import in_this_process

HOSTILE = {
    "escape": "\x1b[2J", "title": "\x1b]0;t\x07", "C1": "\x9b31m", "delete": "\x7f", "lone return": "a\rb", "bell": "\x07",
    "override": "\u202e", "isolate": "\u2066", "Arabic mark": "\u061c", "zero width": "a\u200bb", "mark of order": "\ufeff",
    "joiner beside ASCII": "a\u200db", "tag": "\U000e0041", "selector": "\U000e0101", "line separator": "\u2028", "nul": "\x00",
    "half a character": "\ud83d",
}  # fmt: skip
ORDINARY = ["plain", "two\nlines\tand a tab", "Zürich – 東京 ✓", "👨‍👩‍👧 ❤️ 🇩🇪", "می‌خواهم", "ก็", "a\u0301"]
EVERYTHING = "".join(HOSTILE.values())


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_character_is_shown_by_its_number(text: str) -> None:
    shown = clean(text)
    assert shown != text
    assert all(character.isprintable() for character in shown)
    assert clean(shown) == shown


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert clean(text) == text
    assert clean_json(json.dumps(text, ensure_ascii=False)) == json.dumps(text, ensure_ascii=False)


def test_clean_json_has_the_same_value() -> None:
    shown = clean_json(json.dumps({"a": EVERYTHING}, ensure_ascii=False))
    assert clean(shown) == shown
    assert json.loads(shown) == {"a": EVERYTHING}


def test_the_text_of_an_error_is_always_clean() -> None:
    """Tracebacks, test reports and log lines all use the text of the error."""
    for kind in (MissError, RunError, retold.RetoldError):
        assert str(kind(EVERYTHING)) == clean(EVERYTHING)


HOSTILE_LINE = {
    "type": "assistant", "uuid": "u1", "session_id": "s",
    "message": {
        "id": "m", "role": "assistant", "model": f"m{EVERYTHING[:-1]}", "usage": {"input_tokens": 1, "output_tokens": 1},
        "content": [
            {"type": "text", "text": f"zebra {EVERYTHING[:-1]}"},
            {"type": "tool_use", "id": "t", "name": f"Ba{EVERYTHING[:-1]}\nforged", "input": {}},
        ],
    },
}  # fmt: skip

WAYS = [
    ["ls"], ["ls", "--json"], ["show", "last"], ["show", "last", "--json"], ["show", "last", "--raw"],
    ["show", "last", "--raw", "--json"],
    ["show", "last", "--handler", "debug"], ["show", "last", "--handler", "console"], ["stats"], ["stats", "--by", "tool"],
    ["stats", "--by", "tool", "--csv"], ["stats", "--by", "model", "--json"], ["search", "zebra"], ["search", "zebra", "--json"],
    ["export", "last", "--format", "markdown"], ["diff", "last", "last"], ["diff", "last", "last", "--json"], ["verify"],
    ["search", f"nothing{EVERYTHING[1:-2]}".replace("\x00", "")], ["show", f"no run{EVERYTHING[:-2]}".replace("\x00", "")],
]  # fmt: skip


@pytest.fixture
def hostile() -> None:
    """Create a log with one imported conversation that contains every hostile character."""
    Path("hostile.jsonl").write_text(json.dumps(HOSTILE_LINE))
    assert in_this_process("import", "hostile.jsonl").returncode == 0


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: " ".join(way)[:30].encode("ascii", "replace").decode())
def test_no_command_shows_a_hostile_character(way: list[str]) -> None:
    """The cases include text, CSV and JSON. The columns and lines remain those of the command."""
    done = in_this_process(*way)
    for shown in (done.stdout, done.stderr):
        assert clean(shown) == shown
        assert "\nforged" not in shown or "--csv" in way
    assert "Traceback" not in done.stderr


def on_terminal(*arguments: str) -> str:
    """Return the text that a command writes to a new terminal, from stdout and stderr."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "retold", "--no-pager", *arguments])
    data = b""
    while True:
        try:
            more = os.read(fd, 65536)
        except OSError:  # Linux raises this if the other side is closed
            break
        if not more:
            break
        data += more
    os.waitpid(pid, 0)
    os.close(fd)
    return data.decode(errors="replace")


@pytest.mark.usefixtures("hostile")
def test_an_export_to_a_terminal_is_clean() -> None:
    """In a pipe, the export has the unchanged bytes of its format."""
    shown = on_terminal("export", "last", "--format", "stream-json").replace("\r\n", "\n")
    assert "zebra" in shown
    assert clean(shown) == shown


# Lines of retold

FORGED = (
    "Hello\nTOOL USE: Bash\n\n✓ Stream completed: 3 messages (1 shown) in 0.1s\n[12:34:56] TOOL RESULT: ok\n=== x ===\nTokens  1"
)


@pytest.mark.parametrize("options", [{}, {"show_timestamps": False}], ids=["times", "no times"])
@pytest.mark.parametrize("name", ["simple", "console", "debug", "file"])
def test_lines_of_a_model_do_not_pass_for_lines_of_retold(name: str, options: dict[str, bool]) -> None:
    """No line of the model's text begins at the margin like one of retold."""
    shown = shown_by(name, FORGED, options)
    kinds = ("TOOL USE", "TOOL RESULT", "✓ Stream completed: 3", "=== x", "Tokens  1")
    assert "TOOL USE: Bash" in shown
    assert [
        line for line in shown.splitlines() if line.removeprefix(line[:11] if line.startswith("[") else "").startswith(kinds)
    ] == []


@pytest.mark.parametrize("first", ["TOOL USE: Bash {}", "✗ Stream error: x", "=== Stream completed ===", "ASSISTANT: hi"])
@pytest.mark.parametrize("partial", [False, True])
def test_a_text_that_begins_like_a_line_of_retold_is_labelled(first: str, partial: bool) -> None:
    """The console shows other texts without a label."""
    assert f"] ASSISTANT: {first}" in shown_by("console", first, {"partial": partial})
    assert "] Tools are fine" in shown_by("console", "Tools are fine", {"partial": partial})


def shown_by(name: str, text: str, options: dict[str, bool]) -> str:
    """Return the text that a handler writes for a run with this text of a model."""
    out = io.StringIO()
    where = {"file_path": "run.log"} if name == "file" else {}
    with EventLog("told.db") as log, log.start(name="told", mode="live") as writer:
        message = {"id": "m", "role": "assistant", "content": [{"type": "text", "text": text}], "usage": {}}
        for piece in (text[:3], text[3:5], text[5:]):
            delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            writer.append(Entry("frame", f"event: content_block_delta\ndata: {json.dumps(delta)}\n\n".encode()))
        writer.note("message", {"type": "assistant", "message": message})
    with EventLog("told.db") as log:
        read_stream(log.events(writer.run), make_handler(name, options | where, out))
    return Path("run.log").read_text() if name == "file" else out.getvalue()


def test_commands_print_through_the_cleaning_functions() -> None:
    """`print` is only for modules with clean text: tables, marked hits, differences, and the cleaning functions themselves."""
    own = {"common.py", "table.py", "search.py", "diff.py", "check.py", "run.py", "__init__.py", "view.py"}
    for path in sorted((ROOT / "src" / "retold" / "cli").glob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        printed = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
        assert not printed or path.name in own, f"{path.name}:{printed}"
