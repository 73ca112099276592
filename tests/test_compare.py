"""Comparing two recordings: the differences that count, the ones that do not, and their display."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import retold
from retold.comparing.compare import Comparison, Difference, compare_sides
from retold.comparing.conversations import Item, Label, Stream
from retold.comparing.focus import Focus
from retold.comparing.markdown import as_markdown
from retold.comparing.reading import Side, named_path, read_exchanges, read_run
from retold.comparing.text import as_text
from retold.comparing.value_diff import changes
from retold.pages.diff_page import diff_data
from retold.recorder.errors import InputError
from retold.recorder.http.exchange import Exchange
from tests.conftest import ROOT
from tests.messages_server import Reply, http_error, text, thinking, tool_use
from tests.talks import recorded, talk

READ = tool_use("Read", {"path": "a.txt", "lines": [1, 2]})
WEATHER = tool_use("get_weather", {"city": "Paris"})
TOOLS = [text("Let me look."), READ, WEATHER]
REPLIES = (Reply(TOOLS, "tool_use"), Reply([thinking("Simple."), text("The file says alpha, and it rains in Paris today.")]))
RESULTS = ("alpha", "rain")


def side(exchanges: list[Exchange], title: str) -> Side:
    log, run = recorded(exchanges)
    with log:
        return read_run(log, run, title=title)


def compared(a: list[Exchange], b: list[Exchange], **options: Any) -> Comparison:
    return retold.compare(side(a, "before"), side(b, "after"), **options)


def base(**options: Any) -> list[Exchange]:
    return talk(*REPLIES, **({"results": RESULTS} | options))


def body_of(comparison: Comparison) -> str:
    """Return the text of a comparison from its first divergence to its totals."""
    text = as_text(comparison).partition("\n\n")[2]
    return text.partition("\n\ntotals ")[0]


def words(comparison: Comparison) -> list[tuple[str, str]]:
    return [(difference.kind, difference.what) for difference in comparison.differences]


# Golden differences


def test_runs_with_other_ids_and_times_are_the_same() -> None:
    """Ids of messages and tools, signatures and durations do not count. They are listed on request."""
    a, b = base(), base(seed=1, step_ns=9_000_000)
    found = compared(a, b)
    assert found.same
    assert found.differences == ()
    assert as_text(found) == "A  before\nB  after\n\nno difference: 11 items the same"
    shown = compared(a, b, volatile=True)
    assert shown.same
    assert ("volatile", "tool_use") in words(shown)
    assert "turn 1, tool call Read, differs in volatile values\n    id: [-toolu_" in as_text(shown)


def test_one_changed_word_is_shown_between_its_neighbours() -> None:
    """The changed word is shown between its neighbours. All other items are equal."""
    b = talk(REPLIES[0], Reply([thinking("Simple."), text("The file says alpha, and it snows in Paris today.")]), results=RESULTS)
    found = compared(base(), b)
    assert body_of(found) == (
        "first divergence: turn 2, text, changed\n\n"
        "turn 2, text, changed\n"
        "    The file says alpha, and it [-rains-]{+snows+} in Paris today."
    )
    assert found.as_dict()["differences"] == [
        {
            "kind": "changed",
            "what": "text",
            "stream": "",
            "a": {"turn": 2, "seq": found.differences[0].a.seq},  # type: ignore[union-attr]
            "b": {"turn": 2, "seq": found.differences[0].b.seq},  # type: ignore[union-attr]
            "changes": [
                {
                    "path": "text",
                    "kind": "changed",
                    "a": "The file says alpha, and it rains in Paris today.",
                    "b": "The file says alpha, and it snows in Paris today.",
                }
            ],
        }
    ]
    assert (
        "**turn 2, text, changed**\n\n"
        "```diff\n"
        "- The file says alpha, and it rains in Paris today.\n"
        "+ The file says alpha, and it snows in Paris today.\n"
        "```" in as_markdown(found)
    )


def test_an_extra_tool_call_is_added() -> None:
    extra = Reply([*TOOLS, tool_use("Bash", {"command": "ls"})], "tool_use")
    found = compared(base(), talk(extra, REPLIES[1], results=[*RESULTS, "a.txt"]), ignore=["totals"])
    assert body_of(found).partition("\n\n")[2] == (
        'turn 1, tool call Bash, added\n    {+{"command": "ls"}+}\n\nturn 1, tool result, added\n    {+a.txt+}'
    )
    assert words(found) == [("added", "tool_use"), ("added", "tool_result")]


def test_a_swapped_order_of_parallel_tools() -> None:
    """A tool call at another position has moved. Its result follows it and is not reported again."""
    swapped = Reply([TOOLS[0], WEATHER, READ], "tool_use")
    found = compared(base(), talk(swapped, REPLIES[1], results=RESULTS[::-1]))
    assert words(found) == [("moved", "tool_use")]
    assert "turn 1, tool call" in body_of(found)
    for ignored in ("order", "tool_use"):
        left_out = compared(base(), talk(swapped, REPLIES[1], results=RESULTS[::-1]), ignore=[ignored, "tool_result"])
        assert left_out.same
        assert left_out.pairs[0].counted["ignored"] == 4
    assert words(compared(base(), talk(swapped, REPLIES[1], results=RESULTS[::-1]), only=["tool_use"])) == [("moved", "tool_use")]


def test_results_in_another_order_are_the_same() -> None:
    """Tools run in parallel, and may begin while the answer streams, so results are compared in the order of the calls."""

    def call(number: int) -> dict[str, Any]:
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": "Read", "input": {"path": f"{number}.txt"}}
        return {"type": "assistant", "message": {"id": "msg_1", "content": [block]}}

    def result(number: int, content: str = "text") -> dict[str, Any]:
        block = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": f"{content} {number}"}
        return {"type": "user", "message": {"content": [block]}}

    one = [call(0), call(1), call(2), result(0), result(1), result(2)]
    assert retold.compare(one, [call(0), result(0), call(1), call(2), result(2), result(1)]).same
    other = [call(0), call(1), result(1, "other"), call(2), result(0), result(2)]
    assert words(retold.compare(one, other)) == [("changed", "tool_result")]


def test_a_different_model_is_reported_once() -> None:
    """The request and the first answer contain it. Later answers only repeat the difference."""
    found = compared(base(), base(model="claude-other"))
    assert body_of(found) == (
        "first divergence: turn 1, request, changed\n\n"
        "turn 1, request, changed\n"
        "    model: claude-[-test-]{+other+}\n\n"
        "turn 1, end of answer, changed\n"
        "    model: claude-[-test-]{+other+}\n"
        "    (and 1 more like it)"
    )


def test_a_stream_cut_at_frame_7() -> None:
    long = Reply([text("one two three four five six seven eight nine ten", pieces=5)])
    found = compared(talk(long), talk(replace(long, cut_after=7)), ignore=["totals"])
    assert body_of(found).startswith(
        "first divergence: turn 1, text, changed\n\n"
        "turn 1, text, changed\n"
        "    one two three four [-five six seven eight nine ten-]{+f+}\n"
        "    incomplete: {+true+}\n\n"
        "turn 1, end of answer, changed\n"
        '    stop_reason: [-"end_turn"-]{+null+}\n'
        "    ending: [-complete-]{+cut+}"
    )


def test_an_error_instead_of_an_end() -> None:
    long = Reply([text("one two three four five six seven eight nine ten", pieces=5)])
    found = compared(talk(long), talk(replace(long, error_event_after=len(long.frames(long.message({}, 1))) - 1)))
    assert "turn 1, end of answer, changed" in body_of(found)
    assert "    ending: [-complete-]{+error_event+}" in body_of(found)
    assert '    error: {+{"type": "overloaded_error", "message": "Overloaded"}+}' in body_of(found)


def test_an_additional_failed_attempt_is_a_difference() -> None:
    """The answer before the retry ended in an error."""
    overloaded = talk(http_error(529))
    again = [
        replace(exchange, place=replace(exchange.place, call=1, attempt=2), started_ns=10**9, ended_ns=2 * 10**9)
        for exchange in talk(REPLIES[1])
    ]
    found = compared(talk(REPLIES[1]), overloaded + again, ignore=["totals"])
    assert words(found) == [("added", "answer")]
    assert "status 529" in body_of(found)


def test_a_changed_system_prompt() -> None:
    found = compared(base(system="You are a terse assistant."), base(system="You are a kind assistant."))
    assert body_of(found) == (
        "first divergence: turn 1, request, changed\n\n"
        "turn 1, request, changed\n"
        "    system: You are a [-terse-]{+kind+} assistant."
    )
    schema = {"name": "Read", "input_schema": {"type": "object", "properties": {"id": {"type": "string"}}}}
    other = {"name": "Read", "input_schema": {"type": "object", "properties": {"id": {"type": "number"}}}}
    (difference,) = compared(base(tools=[schema]), base(tools=[other])).differences
    assert [change.path for change in difference.changes] == ["tools[0].input_schema.properties.id.type"]


def test_a_tool_input_is_compared_by_path() -> None:
    other = Reply([TOOLS[0], tool_use("Read", {"path": "b.txt", "lines": [1, 3], "deep": True}), WEATHER], "tool_use")
    found = compared(base(), talk(other, REPLIES[1], results=RESULTS), ignore=["totals"])
    (difference,) = found.differences
    assert [(change.path, change.kind) for change in difference.changes] == [
        ("input.path", "changed"),
        ("input.lines[1]", "changed"),
        ("input.deep", "added"),
    ]


def test_an_additional_list_element_is_one_change() -> None:
    """Elements of lists are paired by equality, then by name, then by position."""
    tools = [{"name": name, "description": f"The tool {name}"} for name in ("Bash", "Edit", "Read", "Write")]
    other = [{"name": "Ask", "description": "Asks"}, tools[0], {**tools[1], "description": "Edits"}, tools[2]]
    assert [(change.path, change.kind) for change in changes({"tools": tools}, {"tools": other})] == [
        ("tools[0]", "added"),
        ("tools[1].description", "changed"),
        ("tools[3]", "removed"),
    ]
    assert [(c.path, c.kind, c.a, c.b) for c in changes(["a", "b"], ["a", "c", "d"])] == [
        ("[1]", "changed", "b", "c"),
        ("[2]", "added", None, "d"),
    ]


def lines(count: int, edits: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
    """Return messages of stream-json. A share of the texts differs, and all ids depend on the seed."""
    chance = random.Random(7)
    found = []
    for number in range(count):
        word = "quick" if chance.random() >= edits else "slow"
        content = [{"type": "text", "text": f"Step {number}: the {word} brown fox jumps over the lazy dog"}]
        found.append(
            {"type": "assistant", "uuid": f"{seed}/{number}", "message": {"id": f"msg_{seed}_{number}", "content": content}}
        )
    return found


def test_a_thousand_messages_with_one_percent_of_edits() -> None:
    """Each edit is one changed word, and there are no other differences."""
    found = retold.compare(lines(1_000), lines(1_000, 0.01, seed=1))
    changed = [difference for difference in found.differences if difference.kind == "changed"]
    assert len(changed) == len(found.differences) == 12
    assert all("the [-quick-]{+slow+} brown fox" in part for part in body_of(found).split("\n\n")[1:-1])
    assert as_text(found).endswith("12 differences: 12 changed; 988 items the same")
    assert found.as_dict()["streams"] == [
        {"stream": "", "equal": 988, "changed": 12, "added": 0, "removed": 0, "moved": 0, "ignored": 0}
    ]
    rows = diff_data(found)["streams"][0]["rows"]
    assert [row["k"] for row in rows if row["k"] != "equal"] == ["changed"] * 12


def test_session_files_are_compared_by_their_messages() -> None:
    """Claude Code's files contain other lines too. The messages of a subagent are a separate stream."""

    def session(name: str) -> list[dict[str, Any]]:
        common = {"sessionId": name, "uuid": name, "timestamp": name, "gitBranch": name}
        content = [{"type": "text", "text": "Hello"}]
        return [
            {"type": "file-history-snapshot", "snapshot": name, **common},
            {"type": "user", "message": {"role": "user", "content": "Hi"}, **common},
            {"type": "assistant", "isSidechain": True, "agentId": name, "message": {"id": "m1", "content": content}, **common},
            {"type": "assistant", "message": {"id": "m2", "content": content}, **common},
        ]

    found = retold.compare(session("one"), session("two"))
    assert found.same
    assert [pair.label for pair in found.pairs] == ["", "agent 1"]
    assert [len(pair.rows) for pair in found.pairs] == [2, 1]


def test_a_total_rewrite_is_removed_and_added() -> None:
    """Texts without a common part are not one changed text."""
    a, b = lines(40), [{"type": "assistant", "message": {"id": f"m{i}", "content": f"Nothing alike {i * i}"}} for i in range(30)]
    found = retold.compare(a, b)
    assert {difference.kind for difference in found.differences} == {"removed", "added"}
    assert len(found.differences) == 70


def test_parallel_conversations_are_paired_by_their_questions() -> None:
    """The answers of six parallel calls may come in any order."""

    def all_six(order: list[int], seed: int) -> list[Exchange]:
        talks = {i: talk(Reply([text(f"Answer {i}")]), prompt=f"Question {i}", seed=seed + i) for i in range(6)}
        return [replace(talks[i][0], started_ns=at * 1000, ended_ns=10**9 - at) for at, i in enumerate(order)]

    found = compared(all_six([0, 1, 2, 3, 4, 5], 0), all_six([5, 2, 0, 4, 1, 3], 50))
    assert found.same
    assert len(found.pairs) == 6


# Each golden file has the text, the page's rows and the JSON of a case


def _long(**fields: Any) -> Reply:
    return replace(Reply([text("one two three four five six seven eight nine ten", pieces=5)]), **fields)


GOLDEN: dict[str, tuple[list[Exchange], list[Exchange]]] = {
    "ids_and_times": (base(), base(seed=1, step_ns=9_000_000)),
    "changed_word": (talk(Reply([text("It rains in Paris.")])), talk(Reply([text("It snows in Paris.")]), seed=1)),
    "extra_tool_call": (
        base(),
        talk(Reply([*TOOLS, tool_use("Bash", {"command": "ls"})], "tool_use"), REPLIES[1], results=[*RESULTS, "a.txt"]),
    ),
    "swapped_tools": (base(), talk(Reply([TOOLS[0], WEATHER, READ], "tool_use"), REPLIES[1], results=RESULTS[::-1], seed=1)),
    "other_model": (base(), base(model="claude-other")),
    "cut_at_frame_7": (talk(_long()), talk(_long(cut_after=7))),
    "error_instead_of_an_end": (talk(_long()), talk(_long(error_event_after=12))),
    "changed_system_prompt": (base(system="You are a terse assistant."), base(system="You are a kind assistant.")),
}


GOLDENS = ROOT / "tests" / "goldens" / "diff"


def in_every_format(case: str) -> str:
    """Return the text, the JSON and the rows of the page, without the random ids of the two runs."""
    found = compared(*GOLDEN[case])
    rows = [row for stream in diff_data(found)["streams"] for row in stream["rows"] if row["k"] != "equal"]
    parts = [as_text(found), json.dumps(found.as_dict(), indent=1), json.dumps(rows, indent=1)]
    return re.sub(r"talks\.db:[0-9a-f]{16}", "talks.db:RUN", "\n\n--------\n\n".join(parts)) + "\n"


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_difference(case: str) -> None:
    """`python -m tests.test_compare` writes the golden files. Review their changes."""
    assert in_every_format(case) == (GOLDENS / f"{case}.txt").read_text("utf-8")


# What counts


def test_ignore_omits_parts_and_only_keeps_the_named_ones() -> None:
    b = talk(REPLIES[0], Reply([thinking("Hard."), text("The file says beta.")]), results=RESULTS, system="Other.")
    assert {what for _, what in words(compared(base(), b))} == {"request", "thinking", "text", "totals"}
    assert {what for _, what in words(compared(base(), b, ignore=["thinking", "request.system", "totals"]))} == {"text"}
    assert {what for _, what in words(compared(base(), b, only=["thinking", "request.model"]))} == {"thinking"}
    assert compared(base(), b, ignore=["**.text", "**.thinking", "request", "totals"]).same


def test_a_tolerance_makes_times_count() -> None:
    a, b = base(), base(step_ns=1_100_000)
    assert compared(a, b, tolerance=["duration=20%"]).same
    found = compared(a, b, tolerance=["duration=5%"])
    assert words(found) == [("changed", "totals")]
    assert "first divergence: total duration, changed\n" in as_text(found)
    assert compared(a, b, tolerance=["ttft=10ms"]).same


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore": ["thinkin"]}, "unknown item or place 'thinkin'; did you mean 'thinking'?"),
        ({"only": ["request.", "nope.x"]}, "unknown item or place 'nope.x'; there are"),
        ({"tolerance": ["time=5%"]}, "unknown total 'time' in the tolerance 'time=5%'"),
        ({"tolerance": ["cost=5s"]}, "cannot read the tolerance 'cost=5s': give for example duration=20%"),
        ({"tolerance": ["duration"]}, "cannot read the tolerance 'duration'"),
    ],
)
def test_a_wrong_name_is_an_error_with_the_valid_names(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        retold.compare(lines(1), lines(1), **options)
    assert message in str(refused.value)


def test_a_deeply_nested_value_differs_as_a_whole() -> None:
    """A model may nest its input deeper than Python's recursion limit."""

    def nested(leaf: str) -> list[Exchange]:
        value: Any = leaf
        for _ in range(400):
            value = {"a": [value]}
        return talk(Reply([tool_use("Deep", {"in": value})], "tool_use"))

    assert compared(nested("x"), nested("x"), ignore=["**.b"]).same
    (difference,) = compared(nested("x"), nested("y"), ignore=["**.b", "totals"]).differences
    assert difference.what == "tool_use"
    assert difference.changes[0].path.count(".a[0]") < 100


# Properties

values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "b c"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)
items = st.builds(
    lambda kind, value: Item.of(kind, {kind: value} if kind in ("text", "thinking") else {"input": value, "name": "t"}, 1),
    st.sampled_from(["text", "thinking", "tool_use", "answer"]),
    values | st.sampled_from(["one two three four", "one two three five", "six seven"]),
)
sides = st.lists(st.lists(items, max_size=8), min_size=1, max_size=2).map(
    lambda streams: Side("s", tuple(Stream(Label(str(n)), "", tuple(s)) for n, s in enumerate(streams)), {"turns": 1})
)
names = st.lists(
    st.sampled_from(["text", "thinking", "tool_use.input.x", "tool_use.**", "order", "answer", "**.y", "tool_use.input[0]"]),
    max_size=3,
)


def subject(difference: Difference) -> tuple[Any, ...]:
    """Return the stream of a difference and the items that it compares."""
    return (difference.stream, difference.what, *(item and item.key for item in (difference.a, difference.b)))


def differences_of(comparison: Comparison) -> list[Any]:
    """Return all single differences in a canonical order."""
    found = []
    for difference in comparison.differences:
        ends = tuple(None if item is None else item.key for item in (difference.a, difference.b))
        places = [(change.path, repr(change.a), repr(change.b)) for change in difference.changes] or [("", "", "")]
        found += [(difference.kind, difference.stream, ends, place) for place in places]
    return sorted(found, key=repr)


@given(sides)
@settings(deadline=None, max_examples=30)
def test_a_side_does_not_differ_from_itself(one: Side) -> None:
    assert compare_sides(one, one).differences == ()


def listed(value: list[Any]) -> Side:
    """Return a side with one tool call that has this input."""
    return Side("s", (Stream(Label("0"), "", (Item.of("tool_use", {"input": value, "name": "t"}, 1),)),), {"turns": 1})


def unnumbered(path: str) -> str:
    return re.sub(r"\[\d+\]", "[]", path)


MIRRORED = {"added": "removed", "removed": "added", "changed": "changed", "moved": "moved"}


@given(sides, sides)
@settings(deadline=None, max_examples=30)
@example(listed([None, [None], None]), listed([[None], []]))
def test_the_comparison_of_the_mirrored_pair_is_mirrored(a: Side, b: Side) -> None:
    """Added becomes removed, and every change is reversed. Elements have the indexes of the first side."""
    there = [(k, s, ends, (unnumbered(p), o, q)) for k, s, ends, (p, o, q) in differences_of(compare_sides(a, b))]
    back = [(MIRRORED[k], s, (y, x), (unnumbered(p), q, o)) for k, s, (x, y), (p, o, q) in differences_of(compare_sides(b, a))]
    assert sorted(back, key=repr) == sorted(there, key=repr)


@given(sides, sides)
@settings(deadline=None, max_examples=30)
def test_the_rows_contain_every_item_of_both_sides_in_order(a: Side, b: Side) -> None:
    """Applying the alignment to A yields B. No item is lost, and every change of position is reported."""
    for pair, one, other in zip(compare_sides(a, b).pairs, a.streams, b.streams, strict=False):
        assert tuple(row.a for row in pair.rows if row.a) == one.items
        assert tuple(row.b for row in pair.rows if row.b) == other.items


@given(sides, sides, names, names)
@settings(deadline=None, max_examples=30)
@example(listed([]), listed([[None, None]]), [], ["tool_use.**"])
@example(listed([]), listed([[None, None]]), [], ["**.none"])
def test_ignoring_never_adds_a_difference(a: Side, b: Side, some: list[str], more: list[str]) -> None:
    """Ignoring more parts never creates a difference. Each remaining part of a change is a part of the whole change."""
    few = compare_sides(a, b, Focus(ignore=(*some, *more)))
    many = compare_sides(a, b, Focus(ignore=tuple(some)))
    assert len(few.differences) <= len(many.differences)
    for remaining in few.differences:
        wholes = [each for each in many.differences if subject(each) == subject(remaining)]
        places = [change.path for whole in wholes for change in whole.changes]
        assert wholes
        assert all(any(change.path.startswith(place) for place in places) for change in remaining.changes)


@given(values, values)
def test_there_are_changes_exactly_if_values_differ(a: Any, b: Any) -> None:
    """Two values without a change are the same JSON, and True is not 1."""
    assert bool(list(changes(a, b))) == (json.dumps(a, sort_keys=True) != json.dumps(b, sort_keys=True))


if __name__ == "__main__":
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for each in GOLDEN:
        (GOLDENS / f"{each}.txt").write_text(in_every_format(each), "utf-8")
    Path("talks.db").unlink()


def test_ids_in_the_path_of_a_request_do_not_count() -> None:
    """The API generates ids, with a digit after the prefix. A name in a path counts."""
    paths = [
        "/v1/files/file_011CNha",
        "/v1/messages/batches/msgbatch_01Ab/results",
        "/v1/skills/my_skill2",
        "/v1/messages/count_tokens",
    ]
    assert [*map(named_path, paths)] == [
        "/v1/files/{id}", "/v1/messages/batches/{id}/results", "/v1/skills/my_skill2", "/v1/messages/count_tokens",
    ]  # fmt: skip


def test_a_prompt_edited_after_a_failure_is_not_lost() -> None:
    """A request with as many messages as the failed one before it continues its conversation, and its new prompt is an item."""
    first, second = talk(http_error(400, "invalid_request_error", "bad"), Reply([text("Yes.")]))
    history = [{"role": "user", "content": "First"}, {"role": "assistant", "content": "Hello"}]

    def asking(exchange: Exchange, prompt: str) -> Exchange:
        body = json.loads(exchange.request.body) | {"messages": [*history, {"role": "user", "content": prompt}]}
        return replace(exchange, request=replace(exchange.request, body=json.dumps(body).encode()))

    side = read_exchanges([asking(first, "Second"), asking(second, "Second, edited")], title="edited")
    assert [item.text for item in side.streams[0].items if item.kind == "prompt"] == ["First", "Second", "Second, edited"]


def test_an_image_is_compared_by_its_digest_in_a_text() -> None:
    """Two images differ in the text of a prompt, which contains neither of them."""

    def prompt(data: str) -> list[dict[str, Any]]:
        source = {"type": "base64", "media_type": "image/png", "data": data}
        return [{"type": "image", "source": source}, {"type": "text", "text": "Look"}]

    sides = [read_exchanges(talk(Reply([text("Yes.")]), prompt=prompt(letter * 4000)), title="") for letter in "AB"]  # type: ignore[arg-type]
    (row,) = [row for row in diff_data(compare_sides(sides[0], sides[1]))["streams"][0]["rows"] if row["of"] == "prompt"]
    assert row["places"] == []
    words = "".join(stretch for _, stretch in row["woven"])
    assert "3,000 bytes, sha256" in words
    assert "AAAA" not in words
