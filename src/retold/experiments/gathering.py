"""Read the facts of a run from a side of a comparison, so every recording that `compare` reads has them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..comparing.conversations import Item, Stream
from ..comparing.reading import Side
from ..comparing.text import NOUN, amount
from ..comparing.totals import TOKENS
from ..recorder import strict_json
from ..recorder.words import plural
from .facts import Facts, TableRow, ToolCall

CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")
"""The kinds of blocks that call a tool."""

UNFINISHED = ("closed", "cut", "error_event", "interrupted")
"""Endings of an answer whose usage may be incomplete."""

OF_A_STEP = "a step has no sums of its own; expect them of the whole run"


def facts_of(side: Side) -> Facts:
    """Return the facts of a recording, with those of its steps."""
    whole = _of_streams(side.title, side.streams)
    whole = replace(whole, run_ended=(side.status,) if side.status else ())
    names = dict.fromkeys(stream.label.step for stream in side.streams if stream.label.step)
    steps = {name: _of_step(name, side) for name in names}
    known = [int(count) for name in TOKENS if (count := side.totals.get(name)) is not None]
    tokens, cost = sum(known) if known else None, side.totals.get("cost_usd")
    sums = [f"{amount('tokens', tokens)} tokens", "unknown cost" if cost is None else amount("cost_usd", cost)]
    whole = replace(whole, tokens=tokens, cost_usd=cost, unknown=_incomplete(side), steps=steps)
    return _with_end(whole, sums)


def _of_step(name: str, side: Side) -> Facts:
    found = _of_streams(f"step {name} of {side.title}", [each for each in side.streams if each.label.step == name])
    return _with_end(replace(found, unknown=OF_A_STEP))


def _with_end(facts: Facts, sums: Iterable[str] = ()) -> Facts:
    """Return the facts with a last row for the end."""
    said = f"{', '.join(facts.ended) or 'unknown'}; {', '.join([plural(facts.turns, 'turn'), *sums])}"
    return replace(facts, rows=(*facts.rows, TableRow("", 0, "end", said, None)))


def _of_streams(title: str, streams: Iterable[Stream]) -> Facts:
    rows: list[TableRow] = []
    calls: list[ToolCall] = []
    texts: list[str] = []
    turns = 0
    conversations: list[tuple[str, tuple[str, ...]]] = []
    for stream in streams:
        place = str(stream.label)
        results = {item.volatile.get("tool_use_id"): item for item in stream.items if item.kind == "tool_result"}
        answers: dict[int, list[str]] = {}
        for item in stream.items:
            if item.kind in CALLS and not item.value.get("incomplete"):
                calls.append(_call(item, place, len(rows), results.get(item.volatile.get("id"))))
            if item.kind in (*CALLS, "text", "thinking") or (item.kind == "answer" and item.value.get("model")):
                answers.setdefault(item.turn, [])
            if item.kind == "text":
                answers[item.turn].append(item.text)
            if (row := _row(item, place)) is not None:
                rows.append(row)
        turns += len(answers)
        texts += ["\n".join(found) for found in answers.values() if found]
        if words := tuple(_endings(stream)):
            conversations.append((place, words))
    return Facts(title, tuple(calls), turns, tuple(texts), tuple(conversations), tuple(rows))


def _call(item: Item, place: str, row: int, result: Item | None) -> ToolCall:
    given = item.value.get("input")
    return ToolCall(
        str(item.value.get("name", "")), given if isinstance(given, dict) else {}, item.turn, place, row,
        None if result is None else result.text, None if result is None else bool(result.value.get("is_error")),
    )  # fmt: skip


def _endings(stream: Stream) -> Iterator[str]:
    """Yield the words for the end of a conversation: of its last answer, and of its last result.

    An answer that is no message, such as a count of tokens, ends no conversation.
    """
    last = {item.kind: item.value for item in stream.items if item.kind in ("answer", "result")}
    answer, result = last.get("answer"), last.get("result")
    if answer is not None and "body_sha256" not in answer:
        ending = str(answer.get("ending"))
        yield str(answer.get("stop_reason") or ending) if ending == "complete" else ending
        error = answer.get("error")
        if isinstance(error, dict) and error.get("type"):
            yield str(error["type"])
    if result is not None:
        subtype = str(result.get("subtype") or "success")
        # Claude Code reports a failed call as `success` with `is_error`.
        yield "error" if result.get("is_error") and subtype == "success" else subtype


def _incomplete(side: Side) -> str:
    """Return why the usage of a recording is incomplete, or an empty text."""
    if {"session", "request"} <= side.kinds:
        return "it holds sessions of the Agent SDK beside requests, and its sums are those of the requests only"
    for item in (item for stream in side.streams for item in stream.items):
        if item.kind == "answer" and item.value.get("ending") in UNFINISHED and item.value.get("stop_reason") is None:
            return f"the answer of turn {item.turn} ended early ({item.value['ending']}), so its usage is incomplete"
    return ""


def _row(item: Item, place: str) -> TableRow | None:
    """Return the row of an item; None for the options of requests, and for answers and sessions that ended well."""
    what = NOUN.get(item.kind, item.kind)
    match item.kind:
        case "request" | "init" | "session" | "system":
            return None
        case "answer":
            told = {key: value for key, value in item.value.items() if key != "model" and value is not None}
            if told.get("ending") == "complete" and told.get("stop_reason") in ("end_turn", "tool_use", None):
                return None
            return TableRow(place, item.turn, what, strict_json.dumps(told), item.seq)
        case "result":
            told = {key: item.value[key] for key in ("subtype", "is_error", "errors") if item.value.get(key)}
            return None if told == {"subtype": "success"} else TableRow(place, item.turn, what, strict_json.dumps(told), item.seq)
        case "tool_result" if item.value.get("is_error"):
            what = "tool error"
        case kind if kind in CALLS:
            what = "tool call"
    text = f"{item.value.get('name')} {strict_json.dumps(item.value.get('input'))}" if what == "tool call" else item.text
    return TableRow(place, item.turn, what, text + (" (incomplete)" if item.value.get("incomplete") else ""), item.seq)
