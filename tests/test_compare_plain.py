"""The short ways of a comparison give the results of the long ways: for a plain text, a usual line, a shared interaction."""

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import retold
from retold.comparing import lines
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


def line(id_: str, text: str = "", **more: Any) -> str:
    message = {"id": id_, "content": [{"type": "text", "text": text or id_}]}
    return json.dumps({"type": "assistant", "message": message} | more)


MORE: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"usage": st.sampled_from([0, 1, -2.5, 10**400, "many", None]), "model": TEXTS}
) | st.just({})
PLAIN_LINES = st.builds(lambda id_, text, more: line(id_, text, **more), st.sampled_from(["msg_1", "msg_2", '"']), TEXTS, MORE)
LINES = PLAIN_LINES | st.one_of(ANSWERS, st.builds(lambda m: {"run": "r", "seq": 1, **m}, ANSWERS)).map(json.dumps)
ADDED = st.sampled_from(["", '"', "\\", "0", "٣", "e", "\n", "\t", " ", ",", "}", '"type":"user",'])
EDITS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3), ADDED), max_size=3)


def edited(line: str, edits: list[tuple[int, int, str]]) -> str:
    for at, removed, added in edits:
        line = line[:at] + added + line[at + removed :]
    return line


@given(st.lists(LINES, min_size=1, max_size=12), st.sampled_from([1, 100, 1_000]))
def test_lines_of_one_shape_are_read_as_json_reads_them(written: list[str], piece: int) -> None:
    """A shape is made as early as possible, and from many lines."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lines, "PIECE", piece)
        patched.setattr(lines, "ENOUGH", 1)
        found = read_messages(lines.messages_in(io.StringIO("\n".join(written)), "a.jsonl"), title="t")
    messages = [json.loads(each) for each in written]
    assert found == long_way([message.get("message", message) if "run" in message else message for message in messages])


@given(PLAIN_LINES, PLAIN_LINES, EDITS)
def test_a_shape_reads_lines_as_json_does(sample: str, other: str, edits: list[tuple[int, int, str]]) -> None:
    shape = lines.shape_of(sample + "\n")
    assert shape is not None
    for each in (sample, edited(sample, edits), other, edited(other, edits)):
        found = shape.findall(each + "\n")
        assert len(found) == each.count("\n") + 1
        for written, (id_, said, unlike) in zip(each.split("\n"), found, strict=True):
            assert unlike == written + "\n" or (id_, json.loads(f'"{said}"')) == lines.said_in(json.loads(written))


@pytest.mark.parametrize(
    ("sample", "other"),
    [
        ('{"n":1,', '{"n":20.5,'),
        ('{"n":"a","n":"b",', '{"n":"c","n":"",'),
        ('{"type":"user",', '{"type":"assistant",'),
        ('{"usage":{"input":[1,2]},"uuid":"x",', '{"usage":{"input":[30,0]},"uuid":"y z",'),
    ],
)
def test_strings_and_numbers_without_meaning_may_differ_in_a_shape(sample: str, other: str) -> None:
    one, two = (start + line("one")[1:] + "\n" for start in (sample, other))
    shape = lines.shape_of(one)
    assert shape is not None
    assert shape.findall(two.replace('"id": "one"', '"id": "two"')) == [("two", "one", "")]


@pytest.mark.parametrize(
    "unlike",
    ['{"n":null,', '{"m":1,', '{"n":01,', '{"n":٣,', '{"n":1e5,', '{"n":-,', '{"n":1 ,', '{"n":"1",', '{"run":1,'],
)  # fmt: skip
def test_a_line_with_another_key_or_another_type_has_another_shape(unlike: str) -> None:
    shape = lines.shape_of('{"n":1,' + line("one")[1:] + "\n")
    assert shape is not None
    assert shape.findall(unlike + line("one")[1:] + "\n")[0][2] == unlike + line("one")[1:] + "\n"


WITHOUT_ID = '{"type":"assistant","message":{"content":[{"type":"text","text":"a"}]}}'


@pytest.mark.parametrize(
    "bad",
    [
        "[]",
        '{"type": "assistant"}',
        WITHOUT_ID,
        WITHOUT_ID.replace('"content"', '"id":7,"content"'),
        '{"type":"assistant","message":{"content":[{"type":"text","text":"a"}],"id":"after"}}',
        WITHOUT_ID.replace('"message"', f'"long":"{"x" * lines.LONGEST}","message"'),
    ],
    ids=["a list", "no text", "no id", "the id is a number", "the id comes after the text", "too long"],
)  # fmt: skip
def test_other_lines_have_no_shape(bad: str) -> None:
    assert lines.shape_of(bad + "\n") is None


def test_a_line_that_is_bad_among_lines_of_one_shape_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text((line("one") + "\n") * 5_000 + line("two")[:-2] + "\n" + (line("one") + "\n") * 10)
    with pytest.raises(InputError, match=r"long\.jsonl:5001: not a line of JSON"):
        retold.compare(path, path)


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


@settings(max_examples=25, deadline=None)
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
