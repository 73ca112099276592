"""Assertions about the trajectory of a run, in tests and in `retold check`: tool calls, turns, tokens, cost, texts and ends."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

import retold
from tests import talk as exchanges
from tests.conftest import ROOT
from tests.e2e import in_this_process
from tests.messages_server import MessagesServer, Reply, text, tool_use
from tests.test_agent_sdk_files import session

Call = tuple[str, dict[str, Any]]


def _messages(*turns: list[Call], said: str = "All done.", end: str = "success") -> list[dict[str, Any]]:
    """Return a run of stream-json: one answer for each list of calls, with their results, then a text and a result."""
    found: list[dict[str, Any]] = [{"type": "user", "message": {"role": "user", "content": "Go."}}]
    for turn, calls in enumerate(turns):
        uses = [{"type": "tool_use", "id": f"t{turn}{n}", "name": name, "input": given} for n, (name, given) in enumerate(calls)]
        found.append({"type": "assistant", "message": {"id": f"m{turn}", "role": "assistant", "content": uses}})
        results = [{"type": "tool_result", "tool_use_id": use["id"], "content": "ok"} for use in uses]
        found.append({"type": "user", "message": {"role": "user", "content": results}})
    last = {"id": "last", "role": "assistant", "content": [{"type": "text", "text": said}]}
    return [*found, {"type": "assistant", "message": last}, {"type": "result", "subtype": end, "is_error": False}]


READ_A, READ_B = ("Read", {"path": "a.py"}), ("Read", {"path": "b.py", "limit": 5})
EDIT = ("Edit", {"path": "a.py", "edits": [{"old": "x", "new": "y"}, {"old": "p", "new": "q"}]})
RUN = _messages([READ_A, READ_B], [EDIT])


def _failures(run: list[dict[str, Any]], **expected: Any) -> str:
    """Return the lines of the failures, or an empty text if there are none."""
    try:
        retold.trajectory(run).expect(**expected)
    except AssertionError as error:
        head, *lines = str(error).split("\n\n")[0].splitlines()
        assert "expectations failed" in head
        return "\n".join(line.strip() for line in lines)
    return ""


@pytest.mark.parametrize(
    ("expected", "failure"),
    [
        ({"tools": ["Read", "Edit"]}, ""),
        ({"tools": ["Edit", "Read"]}, ""),
        ({"tools": ["Read", "Read", "Edit"], "no_others": True}, ""),
        (
            {"tools": ["Read", "Edit"], "no_others": True},
            'no_others: Read {"path": "b.py", "limit": 5} in turn 1 is not expected',
        ),
        ({"tools": ["Read", "Read", "Read"]}, "tools[2]: expected 1 of Read, found 0"),
        ({"tools": ["Read", {"name": "Read", "input": {"path": "a.py"}}], "no_others": False}, ""),
        ({"tools": ["Raed"]}, "tools[0]: expected 1 of Raed, found 0; did you mean 'Read'?"),
        ({"tools": ["Bash"]}, "tools[0]: expected 1 of Bash, found 0; called: Read ×2, Edit"),
        ({"tools": [{"name": "Read", "times": 2}, "Edit"], "in_order": True, "no_others": True}, ""),
        ({"tools": [{"name": "Read", "times": 1}]}, "tools[0]: expected exactly 1 of Read, found 2"),
        ({"tools": [{"name": "Read", "times": 3}]}, "tools[0]: expected exactly 3 of Read, found 2"),
        ({"tools": [{"name": "Read", "at_least": 1}, "Edit"], "no_others": True}, ""),
        ({"tools": [{"name": "Read", "at_least": 1}, "Edit"], "no_others": True, "in_order": True}, ""),
        ({"tools": [{"name": "Read", "at_least": 3}]}, "tools[0]: expected at least 3 of Read, found 2"),
        ({"tools": [{"name": "Read", "at_most": 1}]}, "tools[0]: expected at most 1 of Read, found 2"),
        ({"tools": [{"name": "Bash", "at_most": 1}]}, ""),
        ({"tools": [{"name": "*", "times": 3}]}, ""),
        ({"tools": ["Edit", "Read"], "in_order": True}, "tools[1]: Read was called in turn 1, before the tools above it"),
        ({"tools": ["Read", "Edit"], "in_order": True}, ""),
        (
            {"tools": ["Read", "Edit"], "in_order": True, "no_others": True},
            'tools[1]: expected Edit next, found Read {"path": "b.py", "limit": 5} in turn 1: the tool is Read',
        ),
        (
            {"tools": ["Read", "Read", "Edit", "Edit"], "in_order": True, "no_others": True},
            "tools[3]: expected 1 of Edit, the calls end before it",
        ),
        (
            {"tools": ["Read", "Read"], "in_order": True, "no_others": True},
            "no_others: Edit {…} in turn 2 is not expected",
        ),
        ({"tools": [], "no_others": True}, 'no_others: Read {"path": "a.py"} in turn 1 is not expected'),
        ({"never": ["Bash", "mcp__*"]}, ""),
        ({"never": ["Ed*"]}, "never[0]: Ed* was called once, first in turn 2"),
        ({"never": [{"name": "Read", "input": {"path": "b.py"}}]}, 'never[0]: Read {"path": "b.py"} was called once, …'),
        ({"max_turns": 3}, ""),
        ({"max_turns": 2}, "max_turns: 3 turns, at most 2"),
        ({"text_contains": "done", "text_matches": ["^All", r"done\.$"]}, ""),
        ({"text_contains": ["done", "Done"]}, 'text_contains[1]: no answer contains "Done"'),
        ({"text_matches": "^done"}, "text_matches[0]: no answer matches /^done/"),
        ({"ended": "success"}, ""),
        ({"ended": ["end_turn", "success"]}, ""),
        ({"ended": "sucess"}, "ended: ended as success, expected sucess; did you mean 'success'?"),
        ({"max_tokens": 10_000}, "max_tokens: the tokens of the run are unknown: no answer in it has a usage"),
        ({"max_cost_usd": 1}, "max_cost_usd: the cost of the run is unknown: an answer has no usage, …"),
    ],
)
def test_each_expectation_passes_or_fails_with_one_line(expected: dict[str, Any], failure: str) -> None:
    """`…` in the expected line means any text."""
    found = _failures(RUN, **expected)
    begin, dots, end = failure.partition("…")
    assert (found.startswith(begin) and found.endswith(end)) if dots else found == failure, found


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"input": {"path": "b.py"}}, None),
        ({"input": {"path": "b.py"}, "exact": True}, "input.limit is 5, expected none"),
        ({"input": {"path": "b.py", "limit": 5}, "exact": True}, None),
        ({"input": {"path": "b.py", "limit": 5, "offset": 1}, "exact": True}, "it has no input.offset"),
        ({"input": {"limit": True}}, "input.limit is 5, expected true"),
        ({"input": {"limit": 5.0}}, None),
        ({"input": {"offset": 1}}, "input has no offset"),
        ({"input_matches": {"path": r"^\w\.py$", "limit": "5"}}, None),
        ({"input_matches": {"path": "^c"}}, 'input.path is "b.py", expected /^c/'),
        ({"input_matches": {"file": "x"}}, "the input has no file"),
    ],
)
def test_the_input_of_a_call_is_compared(entry: dict[str, Any], why: str | None) -> None:
    """An input has at least the given values, exactly those, or values that match. True is not 1."""
    found = _failures(_messages([READ_B]), tools=[{"name": "Read", **entry}])
    assert (found == "") if why is None else found.endswith(f"found 0; in turn 1 {why}"), found


def test_inner_values_of_an_input() -> None:
    """Inner mappings are subsets, lists have the same length, and a pattern with `*` must match at every place."""
    assert _failures(RUN, tools=[{"name": "Edit", "input": {"edits": [{"old": "x"}, {}]}}]) == ""
    assert "input.edits[1].new" in _failures(RUN, tools=[{"name": "Edit", "input": {"edits": [{}, {"new": "z"}]}}])
    assert "input.edits is" in _failures(RUN, tools=[{"name": "Edit", "input": {"edits": [{}]}}])
    assert _failures(RUN, tools=[{"name": "Edit", "input_matches": {"edits[*].new": "^[yq]$"}}]) == ""
    assert "expected /^y$/" in _failures(RUN, tools=[{"name": "Edit", "input_matches": {"edits[*].new": "^y$"}}])


def test_each_entry_needs_a_separate_call() -> None:
    """The wide entry leaves a call for the narrow entry, which no other call fits, in any order of the entries."""
    entries = [{"name": "Read"}, {"name": "Read", "input": {"path": "a.py"}}, {"name": "*", "input": {"limit": 5}}]
    assert "found 0" in _failures(_messages([READ_A, READ_B]), tools=entries)
    for some in (entries[:2], entries[1:], entries[::2], entries[:2][::-1]):
        assert _failures(_messages([READ_A, READ_B]), tools=some, no_others=True) == ""


def test_a_failure_shows_the_run_and_marks_the_first_offence() -> None:
    """It marks one row: the first that any failure names. It shows control characters of a model by their numbers."""
    run = _messages([READ_A], [("Bash", {"command": "rm \x1b[31m"})], said="x" * 300)
    with pytest.raises(AssertionError) as failed:
        retold.trajectory(run).expect(never=["Bash"], max_turns=2, ended="error")
    lines = str(failed.value).splitlines()
    marked = [line for line in lines if line.startswith(">")]
    assert [line.split()[1:5] for line in marked] == [["2", "tool", "call", "Bash"]]
    assert "\x1b" not in str(failed.value)
    assert max(map(len, lines[5:])) <= 120
    assert lines[-1].split(maxsplit=1) == ["end", "success; 3 turns, unknown tokens, unknown cost"]


def test_a_long_run_is_shown_around_the_offence() -> None:
    """The report counts rows far from the offence, and always has the last row."""
    run = _messages(*[[READ_A]] * 60)
    with pytest.raises(AssertionError) as failed:
        retold.trajectory(run).expect(max_turns=30)
    lines = str(failed.value).splitlines()
    assert len(lines) < 32
    assert any("rows before" in line for line in lines)
    assert lines[-1].split()[0] == "end"


def test_an_impossible_expectation_is_refused() -> None:
    """The error lists every mistake with its place."""
    run = retold.trajectory(RUN)
    for expected, said in (
        ({}, "it expects nothing"),
        ({"in_order": True, "max_turns": 1}, "in_order: it needs 'tools'"),
        ({"tools": []}, "'tools' should have at least 1 tool; to expect no call at all, add 'no_others: true'"),
        ({"never": []}, "'never' should have at least 1 tool"),
        ({"tools": ["Read"], "max_turns": 0}, "'max_turns' should be a whole number from 1, and is 0"),
        ({"tools": "Read"}, "'tools' should be a list of tools, and is 'Read'"),
        ({"tools": [{"name": "Read", "tmes": 1}]}, "tools[0].tmes: unknown key 'tmes'; did you mean 'times'?"),
        ({"tools": [{"name": "Read", "times": 0}]}, "to forbid a call, use 'never'"),
        ({"tools": [{"name": "Read", "times": 1, "at_most": 2}]}, "tools[0].times: it excludes"),
        ({"tools": [{"name": "Read", "at_least": 3, "at_most": 2}]}, "it is greater than 'at_most'"),
        ({"tools": [{"name": "Read", "exact": True}]}, "tools[0].exact: it needs 'input'"),
        ({"tools": [{"input": {}}]}, "tools[0]: the name of the tool is missing"),
        ({"never": [{"name": "Read", "times": 1}]}, "'times' is for 'tools'"),
        ({"text_matches": ["a", "("]}, "text_matches[1]: '(' is no regular expression"),
        ({"text_contains": ""}, "none of them empty"),
        ({"ended": []}, "'ended' should be a text"),
        ({"max_cost_usd": True}, "'max_cost_usd' should be a number of US dollars, and is True"),
    ):
        with pytest.raises(retold.InputError) as refused:
            run.expect(**expected)
        assert said in str(refused.value)


# Recordings


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """Return a cassette of two turns with a tool, and the program that requests them."""
    path = tmp_path_factory.mktemp("talk") / "talk.yaml"
    replies = [Reply([text("Looking."), tool_use("Read", {"path": "a.py"})], stop_reason="tool_use"), Reply([text("Done.")])]

    def ask(*, further: bool = False) -> None:
        client = anthropic.Anthropic(api_key="k", base_url=server.url, max_retries=0)
        messages: list[Any] = [{"role": "user", "content": "Look."}]
        answer = client.messages.create(model="claude-sonnet-5-5", max_tokens=10, messages=messages)
        result = [{"type": "tool_result", "tool_use_id": answer.content[-1].id, "content": "x = 1"}]  # type: ignore[union-attr]
        messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": result}]
        client.messages.create(model="claude-sonnet-5-5", max_tokens=10, messages=messages)
        if further:
            client.messages.create(model="claude-sonnet-5-5", max_tokens=10, messages=[{"role": "user", "content": "More."}])

    with MessagesServer([*replies, Reply([text("More.")], stop_reason="max_tokens")]) as server:
        with retold.use_cassette(path, record_mode="all", log=path.with_suffix(".db")) as used:
            ask()
            retold.trajectory(used).expect(tools=["Read"], no_others=True, max_turns=2, ended="end_turn")  # in the block
        retold.trajectory(used).expect(tools=["Read"], max_turns=2, max_tokens=1_000, max_cost_usd=1)  # after the block
        yield path, ask


def test_the_trajectory_of_a_cassette_in_use_has_its_played_exchanges(talk: tuple[Path, Any]) -> None:
    """A replay without a log has a trajectory from the first request on. It may include recorded requests, too."""
    path, ask = talk
    with retold.use_cassette(path) as used:
        with pytest.raises(retold.InputError, match="nothing so far"):
            retold.trajectory(used)
        ask()
        found = retold.trajectory(used)
    assert [(call.name, call.input, call.turn, call.result) for call in found.calls] == [("Read", {"path": "a.py"}, 1, "x = 1")]
    assert (found.turns, found.texts, found.text, found.ended) == (2, ("Looking.", "Done."), "Done.", ("end_turn",))
    same = retold.trajectory(path)
    assert (found.tokens, found.cost_usd, found.calls) == (same.tokens, same.cost_usd, same.calls)
    assert found.cost_usd is not None


def test_played_and_recorded_exchanges_of_one_block_form_one_trajectory(talk: tuple[Path, Any], tmp_path: Path) -> None:
    """In mode new_episodes a block plays some exchanges and records others. Its trajectory has both."""
    path, ask = talk
    copy = tmp_path / "copy.yaml"
    copy.write_bytes(path.read_bytes())
    with retold.use_cassette(copy, record_mode="new_episodes", log=tmp_path / "log.db") as used:
        ask(further=True)
        found = retold.trajectory(used)
    assert (used.play_count, used.recorded) == (2, 1)
    found.expect(tools=["Read"], no_others=True, max_turns=3, text_contains=["Done.", "More."], ended=["end_turn", "max_tokens"])
    with pytest.raises(AssertionError, match="a conversation ended as max_tokens, expected end_turn"):
        found.expect(ended="end_turn")


def test_the_result_of_a_workflow_has_a_trajectory_for_each_step() -> None:
    """A result, its run in the log and its steps have the same trajectory. Sums are only known for the whole run."""
    result = retold.run_workflow(ROOT / "examples" / "conditions_and_variables.yaml", show=False)
    found = retold.trajectory(result)
    found.expect(ended="completed", max_cost_usd=10)
    assert retold.trajectory(result.run, log=result.log).calls == found.calls
    name = next(step.name for step in result.steps if step.status == "completed")
    step = found.step(name)
    assert 0 < step.turns <= found.turns
    step.expect(max_turns=step.turns)
    with pytest.raises(AssertionError, match="a step has no sums of its own"):
        step.expect(max_tokens=10_000)
    with pytest.raises(retold.InputError, match="no step 'x'"):
        found.step("x")


def test_a_stream_that_ended_early_has_unknown_sums(tmp_path: Path) -> None:
    """The client closed the stream, so the API reported no final usage. No limit can be verified."""
    half = Reply([text("A long answer. " * 20)], hang_after=4)
    with MessagesServer([half]) as server, retold.EventLog(tmp_path / "log.db") as log:
        client = anthropic.Anthropic(api_key="k", base_url=server.url)
        with (
            retold.use_cassette(tmp_path / "c.yaml", record_mode="all", log=log) as used,
            client.messages.create(
                model="claude-sonnet-5-5", max_tokens=10, messages=[{"role": "user", "content": "Hi."}], stream=True
            ) as stream,
        ):
            next(iter(stream))
        with pytest.raises(AssertionError, match="ended early") as failed:
            retold.trajectory(used).expect(max_tokens=100_000, ended="closed")
    assert "ended:" not in str(failed.value)


def test_sessions_beside_requests_have_unknown_sums(tmp_path: Path) -> None:
    """The trajectory has the tool calls of both. Their usages may overlap, so no limit can be verified."""
    retold.write_cassette(
        tmp_path / "both.yaml", [exchanges.turn(exchanges.asked("Hi"), exchanges.text("Hello"))], [session("tool")]
    )
    retold.write_cassette(tmp_path / "session.yaml", [], [session("tool")])
    alone = retold.trajectory(tmp_path / "session.yaml").expect(ended="success", max_tokens=1_000_000)
    both = retold.trajectory(tmp_path / "both.yaml")
    assert both.calls == alone.calls != ()
    assert both.turns == alone.turns + 1
    with pytest.raises(AssertionError, match="sessions of the Agent SDK beside requests"):
        both.expect(max_tokens=1_000_000)


# retold check


EXPECTED = """\
tools:
  - name: Write
    input: {file_path: test_file.txt}
    times: 1
  - Read
  - {name: Edit, input_matches: {new_string: ^gam}}
in_order: true
max_turns: 5
max_cost_usd: 0.1
ended: completed
steps:
  file_operations:
    never: [Grep]
"""


@pytest.fixture
def recorded(cli: Any) -> None:
    del cli
    retold.run_workflow(ROOT / "examples" / "streaming_file_operations.yaml", show=False)


@pytest.mark.usefixtures("recorded")
def test_check_works_on_the_command_line() -> None:
    """The exit code is 0 if every expectation passes, otherwise 1 with a table. --json has each failure with its place."""
    file = Path("expected.yaml")
    file.write_text(EXPECTED)
    done = in_this_process("check", "last", "--expect", "expected.yaml")
    assert (done.returncode, done.stdout.endswith("8 of 8 expectations hold\n")) == (0, True), done.stdout
    file.write_text(EXPECTED.replace("Grep", "Bash").replace("max_turns: 5", "max_turns: 4"))
    done = in_this_process("check", "last", "--expect", "expected.yaml")
    assert (done.returncode, done.stdout.count("\n> ")) == (1, 1)
    assert "  steps.file_operations.never[0]: Bash was called once, first in turn 4" in done.stdout
    marked = next(line for line in done.stdout.splitlines() if line.startswith(">"))
    assert "tool call    Bash" in marked
    found = json.loads(in_this_process("check", "last", "--expect", "expected.yaml", "--json").stdout)
    assert (found["ok"], found["turns"], found["expectations"]) == (False, 5, 8)
    places = [(each["expectation"], each["line"], each["column"], each["turn"]) for each in found["failures"]]
    assert places == [("max_turns", 8, 1, 5), ("steps.file_operations.never[0]", 13, 13, 4)]
    file.write_text("steps: {file_operation: {max_turns: 1}}")
    done = in_this_process("check", "last", "--expect", "expected.yaml")
    assert "the run has no step 'file_operation'; did you mean 'file_operations'?" in done.stdout


@pytest.mark.usefixtures("cli")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("tolls: [Read]\n", "e.yaml:1:1: unknown key 'tolls'; did you mean 'tools'?"),
        ("max_turns: 3\ntools:\n  - name: Read\n    inputs: {}\n", "e.yaml:4:5: unknown key 'inputs'; did you mean 'input'?"),
        ("max_turns:\n", "e.yaml:1:1: 'max_turns' should be a whole number from 1, and is empty."),
        ("max_turns: 1\nmax_turns: 2\n", "e.yaml:2:1: the key 'max_turns' is there twice."),
        ("steps:\n  a:\n    max_tokens: 5\n", "e.yaml:3:5: 'max_tokens' is about the whole run"),
        ("steps:\n", "e.yaml:1:1: 'steps' should be a mapping"),
        ("- Read\n", "e.yaml:1:1: an expectation is a mapping"),
        ("tools: [\n", "not valid YAML"),
        ("version: 1\ninteractions: []\n", "e.yaml:1:1: this is a cassette; give it as the recording"),
        ("", "the expectation is empty"),
        ("{}\n", "it expects nothing"),
        ("text_matches: (\nnever: Bash\n", "2 errors in the expectation:\ne.yaml:1:1: '(' is no regular expression"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(content: str, message: str) -> None:
    """The exit code is 2. Each mistake has one line with file, line and column."""
    Path("e.yaml").write_text(content)
    done = in_this_process("check", "last", "--expect", "e.yaml")
    assert (done.returncode, message in done.stderr, done.stdout) == (2, True, ""), done.stderr


@pytest.mark.usefixtures("recorded")
def test_check_refuses_an_unreadable_recording() -> None:
    """A missing file and a missing run are exit code 2, with the nearest name."""
    Path("expected.yaml").write_text("max_turns: 5\n")
    for arguments, said in (
        (("check", "last", "--expect", "expecte.yaml"), "no expectation file expecte.yaml; did you mean expected.yaml?"),
        (("check", "nothing", "--expect", "expected.yaml"), "nothing"),
        (("check", "last"), "--expect"),
    ):
        done = in_this_process(*arguments)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
