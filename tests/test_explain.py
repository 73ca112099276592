"""`retold explain cache` and `retold stats --reprice`: misses of the prompt cache, and prices of other models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.audit.stats import StatsLine, repriced
from retold.experiments.cache import NO_CAUSE, Explained, explain_cache
from retold.experiments.prefix import Prefix
from retold.recorder.cassette.format import write_cassette
from retold.recorder.http.exchange import Exchange, timestamp
from retold.workflow.pricing import price
from tests.e2e import FILE_OPERATIONS, Done, in_this_process, refused, run_mock
from tests.exchanges import JSON, answer, exchange

MODEL = "claude-sonnet-4-5"
BEGAN_NS = 1_790_000_000 * 10**9
EPHEMERAL = {"type": "ephemeral"}


def tools(text: str = "Read a file") -> list[dict[str, Any]]:
    schema = {"type": "object", "properties": {"path": {"type": "string"}}}
    made: list[dict[str, Any]] = [{"name": f"tool{n}", "description": "Do", "input_schema": schema} for n in range(5)]
    made[3] |= {"name": "Read", "description": text}
    return made


def asking(turn: int, **fields: Any) -> dict[str, Any]:
    """Return the request of a turn, with a mark on its last message."""
    messages: list[dict[str, Any]] = []
    for each in range(1, turn):
        messages += [{"role": "user", "content": f"q{each}"}, {"role": "assistant", "content": f"a{each}"}]
    messages.append({"role": "user", "content": [{"type": "text", "text": f"q{turn}", "cache_control": EPHEMERAL}]})
    return {"model": MODEL, "max_tokens": 9, "tools": tools(), "system": "Be brief.", "messages": messages} | fields


def call(
    number: int, body: dict[str, Any], read: int | None, written: int = 0, *, at_s: float | None = None, **fields: Any
) -> Exchange:  # fmt: skip
    """Return the exchange of a request. Without `read` its answer has no usage."""
    usage = {"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": read, "cache_creation_input_tokens": written}
    message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": body["model"], "stop_reason": "end_turn"}
    message |= {"content": [{"type": "text", "text": f"a{number}"}], "usage": {} if read is None else usage} | fields
    at_ns = int((10.0 * number if at_s is None else at_s) * 10**9)
    return exchange(
        answer(json.dumps(message).encode(), headers=JSON), json.dumps(body).encode(), call=number, started_ns=at_ns,
        ended_ns=at_ns + 10**9, recorded_at=timestamp(BEGAN_NS + at_ns),
    )  # fmt: skip


def cassette(*exchanges: Exchange) -> str:
    write_cassette(Path("c.yaml"), exchanges)
    return "c.yaml"


def explained(*exchanges: Exchange) -> list[Explained]:
    return explain_cache(cassette(*exchanges), None, price)


def thirty() -> list[Exchange]:
    """Record thirty turns. The description of a tool changes at turn 12, so turn 12 writes the whole cache again."""
    made = []
    for turn in range(1, 31):
        body = asking(turn, tools=tools("Read a file" if turn < 12 else "Read one file"))
        everything = 5000 + 100 * turn
        fresh = turn in (1, 12)
        reason = {"type": "tools_changed", "cache_missed_input_tokens": 6000}
        more: dict[str, Any] = {"diagnostics": {"cache_miss_reason": reason}} if turn == 12 else {}
        made.append(call(turn, body, 0 if fresh else everything - 100, everything if fresh else 100, **more))
    return made


def test_a_changed_tool_is_the_only_miss_of_thirty_turns() -> None:
    """The table, the paragraph about the miss and the JSON name the path, the turn, the tokens and their cost."""
    source = cassette(*thirty())
    done = in_this_process("explain", "cache", source)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    paid = (6100 * 3.75 - 6100 * 0.3) / 1e6
    assert "talk 1, turn 12: 6,100 tokens, $0.0210 more" in done.stdout
    assert "  cause: tools[3].description (Read) changed\n" in done.stdout
    assert "  the API: tools_changed, about 6,000 tokens\n" in done.stdout
    assert done.stdout.endswith("1 of 29 requests missed the cache: 6,100 tokens, $0.0210 more\n")
    found = json.loads(in_this_process("explain", "cache", source, "--json").stdout)
    assert [each["turn"] for each in found] == list(range(2, 31))
    missed = [each for each in found if each["outcome"] != "hit"]
    assert [(each["turn"], each["difference"]["path"], each["same"], each["missed_tokens"]) for each in missed] == [
        (12, "tools[3].description", [], 6100)
    ]
    assert missed[0]["missed_usd"] == pytest.approx(paid)
    assert (missed[0]["gap_s"], missed[0]["lifetime_s"]) == (10, 300)


def test_a_run_is_explained_like_its_cassette() -> None:
    """An import has the same misses."""
    source = cassette(*thirty()[9:14])
    assert in_this_process("import", source, "--db", "log.db").returncode == 0
    done = in_this_process("explain", "cache", "last", "--json", "--db", "log.db")
    expected = [[each.missed_tokens, each.causes, each.cache_miss_reason] for each in explain_cache(source, None, price)]
    assert [[each["missed_tokens"], each["causes"], each["cache_miss_reason"]] for each in json.loads(done.stdout)] == expected


def test_the_times_of_a_replay_prove_nothing() -> None:
    """Its usage is that of the recording, but its requests came at other times, so each gap is unknown."""
    run_mock(FILE_OPERATIONS)
    found = explain_cache("last", None, price)
    assert {each.gap_s for each in found} == {None}
    assert all(each.read_tokens is not None for each in found)


def test_a_thread_has_the_prefix_of_its_whole_history() -> None:
    """A turn repeats neither tools nor messages, which is not a difference.

    A thread of another recording has an unknown prefix.
    """
    first = asking(1, thread={"type": "create"})
    going_on = {"type": "continue", "previous_message_id": "msg_1"}
    second = {"model": MODEL, "max_tokens": 9, "messages": asking(1)["messages"], "thread": going_on}
    (found,) = explained(call(1, first, 0, 5000), call(2, second, 0, 5100))
    assert (found.turn, found.outcome, found.difference, found.causes) == (2, "missed", None, [NO_CAUSE])
    with pytest.raises(retold.InputError, match="no request of the Messages API with its whole history"):
        explained(call(2, second, 0, 5100))


MISSES: dict[str, tuple[dict[str, Any], float, list[str]]] = {
    "nothing": ({}, 10, [NO_CAUSE]),
    "system": ({"system": "Be long."}, 10, ["system changed"]),
    "no system": ({"system": []}, 10, ["system removed"]),
    "another tool": ({"tools": [*tools(), {"name": "New"}]}, 10, ["tools[5] (New) added"]),
    "the model": ({"model": "claude-opus-4-5"}, 10, [f"model changed from {MODEL} to claude-opus-4-5"]),
    "a choice": ({"tool_choice": {"type": "any"}}, 10, ["tool_choice changed, which concerns messages only"]),
    "thinking": ({"thinking": {"type": "disabled"}}, 10, ["thinking changed, which concerns messages only"]),
    "late": ({}, 301.5, ["the lifetime of 5 minutes was over"]),
    "nearly late": ({}, 300.5, ["the lifetime of 5 minutes may have been over"]),
    "unmarked": ({"messages": [*asking(2)["messages"][:2], {"role": "user", "content": "q2"}]}, 10,
                 ["the request has no cache_control"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISSES)
def test_a_miss_has_the_causes_that_its_requests_prove(name: str) -> None:
    """All of them are listed. Without any, the result names no cause."""
    fields, at_s, causes = MISSES[name]
    (found,) = explained(call(1, asking(1), 0, 5000, at_s=0), call(2, asking(2) | fields, 0, 5100, at_s=at_s))
    assert (found.outcome, found.missed_tokens, found.causes) == ("missed", 5000, causes)


def test_requests_that_lose_nothing_are_not_misses() -> None:
    """Examples are a changed but still cached prefix, another conversation, a refused call, and requests without any cache."""
    changed = asking(2, tools=tools("Other"))
    (read,) = explained(call(1, asking(1), 0, 5000), call(2, changed, 5000, 100))
    assert (read.outcome, read.causes) == ("hit", [])
    other = asking(1)
    other["messages"] = [{"role": "user", "content": "another talk"}]
    assert explained(call(1, asking(1), 0, 5000), call(2, other, 0, 5000)) == []
    (plain,) = explained(call(1, asking(1), 0), call(2, asking(2, system="Else"), 0))
    assert (plain.outcome, plain.missed_tokens) == ("nothing cached", 0)
    (unknown,) = explained(call(1, asking(1), 0, 5000), call(2, asking(2), None))
    assert (unknown.outcome, unknown.missed_tokens, unknown.cost_usd) == ("unknown", None, None)


def test_the_cost_of_a_miss_is_unknown_without_a_price_or_with_two_lifetimes() -> None:
    """It is None, never 0."""
    nameless = [asking(turn, model="my-own") for turn in (1, 2)]
    (found,) = explained(call(1, nameless[0], 0, 5000), call(2, nameless[1], 0, 5100))
    assert (found.missed_tokens, found.missed_usd, found.cost_usd) == (5000, None, None)
    split = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 5000}
    usage = {"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 5100}
    two = call(2, asking(2), 0, 5100, usage=usage | {"cache_creation": split})
    (found,) = explained(call(1, asking(1), 0, 5000), two)
    assert found.missed_usd is None
    assert found.cost_usd == pytest.approx((7 * 3 + 3 * 15 + 100 * 3.75 + 5000 * 6) / 1e6)


def place(before: dict[str, Any], after: dict[str, Any]) -> str:
    return str(Prefix(before).difference(Prefix(after)))


def test_marks_and_equivalent_forms_are_not_differences() -> None:
    """Examples are a moved mark, a text as a block, and the order of the keys of a block.

    The order of the keys of an input counts.
    """
    assert place(asking(1), asking(2)) == "None"
    assert place({"system": "x"}, {"system": [{"text": "x", "type": "text", "cache_control": EPHEMERAL}]}) == "None"
    inputs: list[dict[str, Any]] = [{"a": 1, "b": 2}, {"b": 2, "a": 1}]
    one, other = ({"role": "assistant", "content": [{"type": "tool_use", "input": value}]} for value in inputs)
    assert place({"messages": [one]}, {"messages": [other]}) == "messages[0].content[0].input: keys in another order"
    first, more = ({"messages": [{"role": "user", "content": ["x"] * n}, one]} for n in (1, 2))
    assert place(first, more) == "messages[0].content[1] added"
    assert place(more, first) == "messages[0].content[1] removed"
    assert place({"system": [{"type": "text", "text": "x", "n": True}]}, {"system": [{"type": "text", "text": "x", "n": 1}]}) == (
        "system[0].n changed"
    )


def test_a_difference_after_the_marked_part_is_not_cached() -> None:
    """Only the part up to the last mark was cached, for the lifetime that the mark requests."""
    marked = [{"type": "text", "text": "x", "cache_control": EPHEMERAL | {"ttl": "1h"}}]
    before = Prefix({"system": marked, "messages": [{"role": "user", "content": "a"}]})
    found = before.difference(Prefix({"system": marked, "messages": [{"role": "user", "content": "b"}]}))
    assert found is not None
    assert (found.path, found.cached, before.lifetime_s) == ("messages[0].content", False, 3600)
    whole = Prefix({"cache_control": EPHEMERAL, "messages": [{"role": "user", "content": "a"}]})
    assert whole.difference(Prefix({"messages": []})) is not None
    assert (whole.has_marked_messages, whole.lifetime_s) == (True, 300)


BAD = {
    "no run": (["explain", "cache", "nope"], "nope"),
    "no file": (["explain", "cache", "nope.yaml"], "nope.yaml"),
    "no usage": (["explain", "cache", "c.yaml"], "no answer in c.yaml has a usage"),
    "no prices": (["stats", "--reprice", "my-own"], "the table of prices (genai-prices) has no such model"),
    "a typing error": (["stats", "--reprice", "opsu"], "has no such model of Anthropic; did you mean 'opus'?"),
    "a page": (["stats", "--reprice", MODEL, "--format", "html"], "--reprice has no place"),
    "tools": (["stats", "--reprice", MODEL, "--by", "tool"], "tools have none"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_error(name: str) -> None:
    """The exit code is 2, and one line names the way out."""
    with retold.EventLog(".retold/log.db") as log:
        log.start(mode="live", name="w").end("completed")
    cassette(call(1, asking(1), None), call(2, asking(2), None))
    arguments, text = BAD[name]
    assert text in refused(in_this_process(*arguments))


@pytest.fixture
def stats() -> Callable[..., Done]:
    cassette(call(1, asking(1), 0, 5000), call(2, asking(2), None))
    assert in_this_process("import", "c.yaml").returncode == 0

    def run(*arguments: str) -> Done:
        return in_this_process("stats", *arguments)

    return run


def test_traffic_is_repriced_as_a_range(stats: Callable[..., Done]) -> None:
    """Tokens differ by 35 % either way, a cache is written for 5 minutes or 1 hour, and one call has no usage."""
    done = stats("--reprice", "claude-opus-4-5", "--json")
    (line,) = json.loads(done.stdout)
    rest = 7 * 5 + 3 * 25
    assert line["without_usage"] == 1
    assert line["repriced_low_usd"] == pytest.approx((5000 * 6.25 + rest) / 1e6 / 1.35, abs=1e-6)
    assert line["repriced_high_usd"] == pytest.approx((5000 * 10 + rest) / 1e6 * 1.35, abs=1e-6)
    table = stats("--reprice", "claude-opus-4-5")
    assert "The same traffic with claude-opus-4-5" in table.stdout
    assert table.stdout.splitlines()[-1].endswith("$0.0232+  $0.0676+")
    assert "1 exchange without a usage cannot be priced" in table.stderr
    assert "The same traffic with claude-opus-5-5" in stats("--reprice", "opus").stdout
    assert "repriced_low_usd" in stats("--reprice", "claude-opus-4-5", "--csv").stdout


def test_unknown_tokens_and_the_recorded_model_are_repriced_exactly() -> None:
    """Unknown tokens stay unknown, and the recorded model has its own token counts."""
    assert repriced(StatsLine((MODEL,), exchanges=1, without_usage=1), MODEL, price).low_usd is None
    line = StatsLine((MODEL,), exchanges=1, input_tokens=10_000)
    same = repriced(line, MODEL, price, is_same_model=True)
    assert same.low_usd == same.high_usd == pytest.approx(0.03)
