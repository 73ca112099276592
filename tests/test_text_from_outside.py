"""Text from outside is read and written by the rules of its format: JSON, Markdown, YAML, lines, templates and characters."""

import ast
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retold.recorder import strict_json
from retold.recorder.errors import RunError, WorkflowError
from retold.recorder.events import encode
from retold.recorder.http.fold import Fold
from retold.recorder.log.log import EventLog
from retold.recorder.messages import Session
from retold.workflow.extraction import json_in, plain_text, structure_of, summary_of
from retold.workflow.load import load_workflow
from retold.workflow.source import scalar
from retold.workflow.templates import Known, holds, problem_in_condition, render
from tests.e2e import in_this_process, refusal_of, run_live, run_mock, step, write_workflow
from tests.messages_server import MessagesServer, Reply, text, tool_use

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("src/retold", "recorder", "replay", "handlers") for path in sorted((ROOT / folder).rglob("*.py"))]
NOT_A_LINE_END = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
FENCE = "`" * 3

VARIABLES: dict[str, Any] = {"steps": {"a": {"cost_usd": None, "text": "yes", "status": "completed"}}, "global_vars": {"n": 3}}


@functools.cache
def calls_in(path: Path) -> set[str]:
    """Return the methods and module functions that a source file calls: `splitlines`, `json.dumps`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            found |= {node.func.attr, f"{owner}.{node.func.attr}"}
    return found


def test_no_source_cuts_data_with_splitlines() -> None:
    """`splitlines` also cuts at U+2028, U+0085 and seven more, which occur in lines of JSON, Markdown and server-sent events."""
    assert [path.name for path in SOURCES if "splitlines" in calls_in(path)] == []


def test_only_one_module_writes_json() -> None:
    """Python's own writer makes NaN and Infinity, which other parsers refuse."""
    wrong = {"json.dumps", "json.dump", "json.JSONEncoder"}
    in_an_error = "explain.py"  # shows a value to a user
    byte_exact = {"entry.py"}  # restores any recorded body
    in_keys = {"conversations.py"}  # compares items by them, and shows none
    assert {path.name for path in SOURCES if wrong & calls_in(path)} == {in_an_error, *byte_exact, *in_keys, "strict_json.py"}


# JSON


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_number_without_a_json_form_is_null(number: float) -> None:
    """This is the rule of JSON.stringify, at every depth."""
    value = {"a": [1.5, {"b": number}], "c": (number,)}
    assert json.loads(strict_json.dumps(value)) == json.loads(encode(value)) == {"a": [1.5, {"b": None}], "c": [None]}


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_imported_message_is_written_as_strict_json(number: str) -> None:
    """Every output of a message parses with a strict parser."""
    use = '{"type": "tool_use", "id": "t", "name": "F", "input": {"x": NUMBER}}'.replace("NUMBER", number)
    Path("s.jsonl").write_text(f'{{"type": "assistant", "message": {{"id": "m", "role": "assistant", "content": [{use}]}}}}\n')
    assert in_this_process("import", "s.jsonl").returncode == 0
    outputs = [
        in_this_process("show", "last", "--json").stdout,
        in_this_process("export", "last", "--format", "stream-json").stdout,
    ]
    in_this_process("show", "last", "--handler", "file:file_path=o.json,format=json")
    for each in (*outputs, Path("o.json").read_text().replace("\n", "")):
        assert '"x": null' in json.dumps(json.loads(each, parse_constant=pytest.fail))


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (f'Code:\n{FENCE}python\nprint(1)\n{FENCE}\nJSON:\n{FENCE}json\n{{"a": 1}}\n{FENCE}', {"a": 1}),
        (f'{FENCE}json\n{{"md": "use {FENCE}bash{FENCE} here"}}\n{FENCE}', {"md": f"use {FENCE}bash{FENCE} here"}),
        (f"{FENCE}JSON\n[1]\n{FENCE}", [1]),
        ("~~~json\n[1]\n~~~", [1]),
        (f"{FENCE}`json\n[1]\n{FENCE}`", [1]),
        (f"{FENCE}json title=x\n[1]\n{FENCE}", [1]),
        (f"- item\n\n  {FENCE}json\n  [1]\n  {FENCE}", [1]),
        (f"{FENCE}\n[1]\n{FENCE}", [1]),
        (f"{FENCE}json\n[1]", [1]),
        (f'"use {FENCE}json\\n[2]\\n{FENCE}"', f"use {FENCE}json\n[2]\n{FENCE}"),
        ('"a\u2028b"', "a\u2028b"),
    ],
)
def test_json_of_an_answer_is_found_by_its_markdown(answer: str, value: Any) -> None:
    """It is the whole answer, or the fence that is marked json, or an unmarked fence."""
    assert json_in(answer) == value


@pytest.mark.parametrize("answer", ["NaN", '{"a": Infinity}', f"{FENCE}json\n[NaN]\n{FENCE}", f"{FENCE}python\n[1]\n{FENCE}", ""])
def test_answer_without_strict_json_is_an_error(answer: str) -> None:
    """NaN is not JSON, and a fence of another language does not count."""
    with pytest.raises(RunError, match="the answer holds no JSON"):
        json_in(answer)


# Markdown


def test_sections_are_cut_at_the_lines_of_the_parser() -> None:
    """Characters that only look like line ends stay inside the text. CR, LF and CRLF end a line."""
    parts = structure_of(f"intro\r\n\r\n# A\nx{NOT_A_LINE_END}y\n\nB\n-\ntext b\r\rC\r===\rtext c\n\n> # quoted\n")
    assert [(s["heading"], s["text"]) for s in parts["sections"]] == [
        (None, "intro"), ("A", f"x{NOT_A_LINE_END}y"), ("B", "text b"), ("C", "text c\n\n> # quoted"),
    ]  # fmt: skip


def test_table_is_read_as_rows_of_cells() -> None:
    """Tables are part of the Markdown that models write."""
    answer = "| a | b |\n|---|:-:|\n| 1 | x \\| y |\n\nafter"
    assert structure_of(answer)["tables"] == [[["a", "b"], ["1", "x \\| y"]]] or structure_of(answer)["tables"] == [
        [["a", "b"], ["1", "x | y"]]
    ]
    assert plain_text(answer) == "a\tb\n1\tx | y\nafter"


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("<answer>\nForty-two.\n</answer>", "Forty-two."),
        ("<answer>Forty-two.</answer>", "Forty-two."),
        ("<answer>\n\n**Forty**-two.\n\n</answer>", "Forty-two."),
        ("<answer>\n**Forty**-two.\n</answer>", "Forty-two."),
        ("A <b class='x'>bold</b> word", "A bold word"),
        ("Use Vec<T> and `<b></b>`", "Use Vec<T> and <b></b>"),
    ],
)
def test_tags_in_pairs_are_marks_and_other_tags_are_text(answer: str, plain: str) -> None:
    """A prompt may ask for an answer in tags. A type parameter is not a tag."""
    assert plain_text(answer).strip() == summary_of(answer, 100) == plain


# YAML


@pytest.mark.parametrize(
    "written",
    ["12:30", "NO", "no", "on", "Off", "y", "1_000", "190:20:30", "2026-11-22", "0123", "1.10", "0o17", "0x1F", "+5", "1e3", "-0",
     "0.0", "5", "true", ".5", "="],
)  # fmt: skip
def test_scalar_of_a_workflow_keeps_its_spelling(written: str) -> None:
    """Plain scalars follow YAML 1.2, and numbers keep their spelling, so that a template inserts the text of the file."""
    version = written if written != "true" else "1"
    steps = "[{name: a, type: claude, prompt: x}]"
    file = f"workflow:\n  name: w\n  version: {version}\n  global_vars: {{x: {written}}}\n  steps: {steps}\n"
    Path("w.yaml").write_text(file)
    workflow = load_workflow("w.yaml").workflow
    filled = render("{{ v }} {{ x | string }}", {"v": workflow.version, "x": workflow.global_vars["x"]}, "w")
    assert filled == f"{version} {written.replace('true', 'True')}"


def test_numbers_of_yaml_1_2_stay_numbers() -> None:
    """The value keeps its spelling, and options that need a number get one."""
    assert [scalar(each) for each in ("0o17", "0x1F", "0123", "1.10", "1e3", ".inf", "~", "", "True")] == [
        15, 31, 123, 1.1, 1000.0, float("inf"), None, None, True,
    ]  # fmt: skip
    assert scalar("0123") + 1 == 124
    assert json.dumps([scalar("0123"), scalar("1.10")]) == "[123, 1.1]"


# Templates and conditions


@pytest.mark.parametrize("kept", ["{#if x}hi{/if}", "{# a note #}", "#}", "{{'{'}}#", "a {#", "# line", "## x"])
def test_no_part_of_a_prompt_is_a_comment(kept: str) -> None:
    """The model must get the prompt that the user wrote, so the template drops nothing."""
    assert render(kept + " {{ steps.a.text }}", VARIABLES, "w") == kept.replace("{{'{'}}", "{") + " yes"


@pytest.mark.parametrize(
    ("condition", "true"),
    [
        ("steps.a.text == 'yes'", True),
        ("{{ steps.a.text == 'yes' }}", True),
        ("{{- steps.a.text -}}", True),
        (" 'yes' in steps.a.text ", True),
        ("steps.a.cost_usd > 0.01", False),
        ("steps.a.cost_usd <= 0.01", False),
        ("0 < steps.a.cost_usd < 1", False),
        ("not steps.a.cost_usd > 1", True),
        ("steps.a.cost_usd > 1 or steps.a.text == 'yes'", True),
        ("steps.a.cost_usd is none", True),
        ("steps.a.cost_usd == none", True),
        ("1 < global_vars.n <= 3", True),
        ("{'x': {'y': 1}}.x.y == 1", True),
        ("'{{' in steps.a.text", False),
        ("'false'", False),
        ("none", False),
        ("[]", False),
        ("0.0", False),
    ],
)
def test_condition_is_an_expression(condition: str, true: bool) -> None:
    """An unknown cost is neither above nor below a limit."""
    assert problem_in_condition(condition, Known({"a": []}, ["a"], ["n"])) is None
    assert holds(condition, VARIABLES, "w") is true


@pytest.mark.parametrize(
    "condition",
    ["cost: {{ steps.a.text }}", "{{ steps.a.text }} == 'yes'", "{{ 1 }}{{ 2 }}", "{% if 1 %}x{% endif %}", "1 }} x {{ 2"],
)
def test_condition_with_text_around_is_refused(condition: str) -> None:
    """The text would make the condition true for every value of the expression."""
    said = refusal_of(f'workflow:\n  name: w\n  steps:\n    - {{name: a, type: claude, condition: "{condition}", prompt: x}}\n')
    assert said.startswith("retold: w.yaml:4:31: a condition is one expression")


@pytest.mark.parametrize(
    "expression", ["1 / 0", "steps.a.text > 3", "steps.a.text.missing.x", "'%d' % 'x'", "steps.a.cost_usd + 1"]
)
def test_condition_that_cannot_be_evaluated_is_one_error(expression: str) -> None:
    """If a filter or an operator raises an error, retold names the file, the step and the condition."""
    with pytest.raises(WorkflowError, match=r"^w\.yaml:4:5: step 'a', condition: "):
        holds(expression, VARIABLES, "w.yaml:4:5: step 'a'")


def test_unknown_cost_in_a_condition_skips_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of a model without a price is unknown. The run continues and is recorded."""
    steps = [step(claude_options={"model": "claude-zeta-9"}), step("dear", condition="steps.say.cost_usd > 0.01")]
    workflow = write_workflow("w.yaml", *steps)
    with MessagesServer([Reply([text("Hi.")])]) as server:
        live = run_live(monkeypatch, server, workflow)
    assert [done.status for done in live.result.steps] == ["completed", "skipped"]
    assert [done.status for done in run_mock(workflow).result.steps] == ["completed", "skipped"]


# Turns and characters


def test_turn_without_content_is_not_sent_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API would refuse an empty turn or a blank text block for the rest of the session."""
    session = {"type": "claude_session", "session_config": {"session_name": "s", "persist": True}}
    workflow = write_workflow("w.yaml", step("a", "one", **session), step("b", "two", **session))
    with MessagesServer([Reply([]), Reply([text("ok")]), Reply([text("again")]), Reply([text("end")])]) as server:
        run_live(monkeypatch, server, workflow)
        run_live(monkeypatch, server, workflow)
    turns = [[message["role"] for message in request.json["messages"]] for request in server.requests]
    assert turns == [["user"], ["user", "user"], ["user", "user", "assistant", "user"],
                     ["user", "user", "assistant", "user", "assistant", "user"]]  # fmt: skip
    assert all(message["content"] for request in server.requests for message in request.json["messages"])
    assert run_mock(workflow).result.status == "completed"


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_blank_text_block_is_not_sent_back(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    """Models open a text block before a tool use and may leave it blank."""
    workflow = write_workflow("w.yaml", step(claude_options={"allowed_tools": ["Glob"]}))
    replies = [Reply([text(blank), tool_use("Glob", {"pattern": "*.x"})], stop_reason="tool_use"), Reply([text("ok")])]
    with MessagesServer(replies) as server:
        run_live(monkeypatch, server, workflow)
    assert [block["type"] for block in server.requests[1].json["messages"][1]["content"]] == ["tool_use"]
    assert run_mock(workflow).result.status == "completed"


@pytest.mark.parametrize(("pieces", "whole"), [
    (["smile \\ud83d", "\\ude00 done"], "smile \U0001f600 done"),
    (["\\ud83d", "", "\\ude00\\ud83d", "\\ude00"], "\U0001f600\U0001f600"),
    (["half \\ud83d", " a"], "half \ud83d a"),
])  # fmt: skip
def test_halves_of_a_character_in_two_deltas_are_joined(pieces: list[str], whole: str) -> None:
    """Each delta is separate JSON, so a cut between two escapes leaves half a character on either side."""
    fold = Fold(Session("s"))
    frames = ['{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}']
    delta = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"PIECE"}}'
    frames += [delta.replace("PIECE", piece) for piece in pieces]
    for body in [*frames, '{"type":"content_block_stop","index":0}']:
        fold.feed(f"event: {json.loads(body)['type']}\ndata: {body}\n\n".encode())
    assert fold.text == whole


def test_strict_readers_can_read_the_log_of_an_import() -> None:
    """A message is stored as strict JSON, which SQLite and every other tool can read."""
    Path("s.jsonl").write_text('{"type":"result","is_error":true,"result":"x","n":NaN}\n')
    in_this_process("import", "s.jsonl")
    log = EventLog()
    assert [m.data["n"] for m in log.messages(log.find("last").run)] == [None]


def read(reader: Callable[[bytes], Any], data: bytes) -> str:
    try:
        return repr(reader(data))
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
WRITTEN = st.builds("{}{}{}".format, st.sampled_from(["", " "]), JSON.map(json.dumps), st.text(" \n]x", max_size=2))


@given(
    WRITTEN.map(str.encode) | st.builds(str.encode, WRITTEN, st.sampled_from(["utf-8-sig", "utf-16", "utf-32-le"])) | st.binary()
)
@example(b'"\xed\xa0\xbd"')
@example(b"[" * 100_000)
def test_bytes_are_read_as_json_loads_reads_them(data: bytes) -> None:
    """A changed log may hold any bytes: other encodings, halves of characters, deep nesting."""
    assert read(strict_json.loads, data) == read(json.loads, data)
