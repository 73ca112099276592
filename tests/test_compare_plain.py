"""The short ways of a comparison give the results of the long ways: for a plain text, a usual line, a shared interaction."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import retold
from retold.comparing.conversations import Item, text_content
from retold.comparing.reading import Common, ItemReader, Side, read_messages
from retold.comparing.sources import read_side, read_sides
from retold.comparing.varying import Manner
from retold.recorder.cassette.format import write_cassette
from retold.recorder.cassette.kept import NOTHING_KEPT, Kept
from retold.recorder.errors import CassetteError, InputError
from tests.talk import asked, text, tool_use, turn, unstreamed

TEXTS = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(["ok", "Done.", '"\\\u2028', "\ud800"])
IDS = st.sampled_from(["msg_1", "msg_2", "msg_3", None, 7])
BLOCKS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}),
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS | st.integers(), "citations": st.just(None)}),
    st.fixed_dictionaries({"type": st.just("text"), "other": TEXTS}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXTS, "signature": TEXTS}),
    st.fixed_dictionaries(
        {
            "type": st.just("tool_use"),
            "id": st.sampled_from("xyz"),
            "name": TEXTS,
            "input": st.dictionaries(TEXTS, TEXTS, max_size=2),
        }
    ),
    TEXTS,
)  # fmt: skip
RESULTS = st.fixed_dictionaries({"type": st.just("tool_result"), "tool_use_id": st.sampled_from("xyzw"), "content": TEXTS})
EXTRAS = st.fixed_dictionaries(
    {},
    optional={
        "parent_tool_use_id": st.sampled_from([None, "", "x", "y"]),
        "isSidechain": st.booleans(),
        "agentId": st.sampled_from(["one", "two"]),
        "incomplete": st.booleans(),
        "sessionId": TEXTS,
        "uuid": TEXTS,
    },
)
ANSWERS = st.builds(
    lambda id_, content, extras: {"type": "assistant", "message": {"id": id_, "content": content}, **extras},
    IDS, st.lists(BLOCKS, max_size=2) | TEXTS, EXTRAS,
)  # fmt: skip
MESSAGES = st.lists(
    st.one_of(
        ANSWERS,
        st.builds(
            lambda content, extras: {"type": "user", "message": {"content": content}, **extras},
            st.lists(RESULTS | BLOCKS, max_size=2), EXTRAS,
        ),
        st.sampled_from(
            [
                {"type": "system", "subtype": "init", "model": "m"},
                {"type": "result", "usage": {"input_tokens": 3}, "num_turns": 2, "duration_ms": 5},
                {"type": "stream_event"},
                {"type": "assistant"},
                {"type": "assistant", "message": None},
                {"type": "assistant", "message": {"content": [{"type": "text", "text": "no id"}]}},
            ]
        ),
    ),
    max_size=12,
)  # fmt: skip


def long_way(messages: list[dict[str, Any]]) -> Side:
    reader = ItemReader()
    for message in messages:
        reader.message(message, None, None, None, "", "")
    return reader.side("t", "")


@given(MESSAGES)
def test_messages_become_the_same_items_on_both_ways(messages: list[dict[str, Any]]) -> None:
    assert read_messages(messages, title="t") == long_way(messages)


@given(MESSAGES, MESSAGES)
def test_a_second_side_shares_texts_and_is_the_same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    common = Common()
    sides = [read_messages(messages, title="t", common=common) for messages in (one, other, one)]
    assert sides == [long_way(one), long_way(other), long_way(one)]


@given(MESSAGES, MESSAGES)
def test_a_comparison_counts_every_row(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    found = retold.compare(one, other)
    for pair in found.pairs:
        kinds = [row.kind for row in pair.rows]
        assert {kind: kinds.count(kind) for kind in set(kinds)} == {k: n for k, n in pair.counted.items() if n}
        assert [row for row in pair.rows if row.kind != "equal"] == list(pair.differing)


@given(TEXTS)
def test_the_content_of_a_text_is_that_of_its_item(text: str) -> None:
    assert text_content(text) == Item.of("text", {"text": text}, 1)[:4]


def line(text: str) -> str:
    return json.dumps({"type": "assistant", "message": {"id": text, "content": [{"type": "text", "text": text}]}})


def compared(tmp_path: Path, data: bytes) -> retold.Comparison:
    path = tmp_path / "messages.jsonl"
    path.write_bytes(data)
    return retold.compare(path, [json.loads(line(text)) for text in ("one", "two")])


@pytest.mark.parametrize(
    "data",
    [
        f"{line('one')}\n{line('two')}",
        f"\ufeff{line('one')}\n\n \n{line('two')}\n",
        f"{line('one')}\r\n{line('two')}\r\n",
        f"  {line('one')} \t\n{line('two')}   ",
        f'{{"t":0,"d":"in","m":{line("one")}}}\n{line("two")}\n',
        f'{{"run":"r","seq":1,"type":"message","message":{line("one")}}}\n{line("two")}\n',
        f"{line('one')[:-1]},\"type\":\"assistant\"}}\n{line('two')}\n",
    ],
    ids=["no last newline", "mark and empty lines", "CRLF", "spaces", "wire of the SDK", "show --json", "a key twice"],
)  # fmt: skip
def test_odd_lines_are_read_as_json_reads_them(tmp_path: Path, data: str) -> None:
    assert compared(tmp_path, data.encode()).same


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (line("two") + line("three"), "not a line of JSON: Extra data"),
        (line("two")[:-1], "not a line of JSON: Expecting ',' delimiter"),
        ("[" * 100_000, "not a line of JSON"),
        (f"{line('two')} x", "not a line of JSON: Extra data"),
        ("[]", "it has no `type`"),
        ('{"type": 7}', "it has no `type`"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, bad: str, error: str) -> None:
    with pytest.raises(InputError) as raised:
        compared(tmp_path, f"{line('one')}\n\n{bad}\n{line('three')}\n".encode())
    assert "messages.jsonl:3: " in str(raised.value)
    assert error in str(raised.value)


EXCHANGES = [
    turn(asked("a"), text("one two")),
    turn(asked("b"), tool_use("Read", "toolu_1", path="x")),
    unstreamed(asked("c"), text("three")),
    turn(asked("d"), text("four")),
]


@settings(max_examples=25)
@given(st.data(), st.sampled_from([NOTHING_KEPT, Kept(("model",), ()), Kept((), ("o[a-z]e",))]))
def test_cassettes_that_share_interactions_are_the_same_as_read_alone(data: st.DataObject, kept: Kept) -> None:
    """Whole interactions of one are in the other, at any place and any number of times, with the rules of one of them."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("a.yaml", "b.yaml")]
        for path, rules in zip(paths, (NOTHING_KEPT, kept), strict=True):
            write_cassette(path, data.draw(st.lists(st.sampled_from(EXCHANGES), min_size=1, max_size=6)), kept=rules)
        one, other = read_sides(paths)
        manner = Manner(kept=kept)
        assert [one, other] == [read_side(path, manner=manner) for path in paths]


def test_a_damaged_interaction_beside_shared_ones_is_named(tmp_path: Path) -> None:
    write_cassette(tmp_path / "a.yaml", EXCHANGES)
    damaged = (tmp_path / "a.yaml").read_text().replace("    method: POST\n", "", 2)
    (tmp_path / "b.yaml").write_text(damaged)
    with pytest.raises(CassetteError, match=r"b\.yaml:\d+: interaction 1 is damaged: missing key 'method'"):
        retold.compare(tmp_path / "a.yaml", tmp_path / "b.yaml")
