"""Cassettes are compared without a log: they are redacted like their import, and conversations are found among many."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.comparing.continuing import Conversations, key_of_tail
from retold.comparing.conversations import ConversationBuilder, Label
from retold.comparing.reading import Side, read_exchanges, read_run
from retold.recorder.cassette.format import Cassette
from retold.recorder.cassette.transfer import import_exchanges
from retold.recorder.http.exchange import Exchange
from retold.recorder.log.log import EventLog
from retold.recorder.log.memory import MemoryStore
from tests.talk import asked, packed, text, tool_result, tool_use, turn, unstreamed
from tests.test_redact_frames import KEY

SAID = text(f"The key is {KEY}, keep it.")

SECRETS: dict[str, list[Exchange]] = {
    "split over deltas": [turn(asked("a"), SAID)],
    "an input split over deltas": [turn(asked("a"), tool_use("Write", "toolu_1", content=f"key={KEY}"))],
    "JSON": [unstreamed(asked("a"), SAID)],
    "compressed": [packed(turn(asked("a"), SAID))],
    "a request": [turn(asked(f"Use {KEY}."), text("ok"))],
    "a tool result": [turn(asked("a"), tool_use("Read", "toolu_1"), tool_results=(tool_result("toolu_1", KEY),))],
    "a URL": [replace(turn(asked("a"), text("ok")), request=replace(turn(asked("a")).request, uri=f"http://h/v1/x?key={KEY}"))],
    "a step": [replace(made, place=replace(made.place, step=f"use {KEY}")) for made in [turn(asked("a"), text("ok"))]],
    "an error": [unstreamed(asked("a"), SAID, ending="error_event")],
}


def items(side: Side) -> list[Any]:
    return [(stream.label, [(item.kind, item.value, item.turn) for item in stream.items]) for stream in side.streams]


@pytest.mark.parametrize("place", SECRETS)
def test_a_difference_shows_no_secret(place: str, tmp_path: Path) -> None:
    """Cassettes of other programs may contain keys. Both sides are read like their imports, which are redacted."""
    exchanges = SECRETS[place]
    with EventLog(store=MemoryStore()) as log:
        imported = read_run(log, import_exchanges(log, exchanges, name="i", source="s"))
    # An import writes frame by frame. It may write the first character of a key before it has read the rest.
    found_items, expected = (repr(items(side)) for side in (read_exchanges(exchanges, title="c"), imported))
    assert found_items.replace("sREDACTED", "REDACTED") == expected.replace("sREDACTED", "REDACTED")
    other = Cassette(tmp_path / "b.yaml", [turn(asked("something else"), text("no"))])
    found = retold.compare(Cassette(tmp_path / "a.yaml", exchanges), other, volatile=True)
    assert not found.same
    assert KEY not in repr(found.as_dict())


def test_the_numbers_of_items_are_those_of_the_import() -> None:
    exchanges = [turn(asked("a"), text("one two"), started_ns=0), unstreamed(asked("b"), text("three"), started_ns=10**9)]
    with EventLog(store=MemoryStore()) as log:
        imported = read_run(log, import_exchanges(log, exchanges, name="i", source="s"))
    sides = [
        [item.seq for stream in side.streams for item in stream.items]
        for side in (imported, read_exchanges(exchanges, title="c"))
    ]
    assert sides[0] == sides[1]


# Conversations among many


def search(
    all_: list[ConversationBuilder], failed: set[ConversationBuilder], label: Label, root: str, messages: list[Any], again: bool
) -> ConversationBuilder | None:
    """Return the conversation that a request continues, by testing each of them."""
    found = []
    for conversation in reversed(all_):
        if conversation.label != label:
            continue
        repeated = len(messages) == conversation.asked and (again or conversation in failed)
        if conversation.root == root and (len(messages) > conversation.asked or repeated):
            found.append(conversation)
        elif not conversation.root and not found:
            return conversation
    same = [each for each in found if each.tail == messages[max(0, each.asked - 1) : each.asked]]
    return next(iter(same or found), None)


@pytest.mark.parametrize("seed", range(40))
def test_an_index_finds_the_same_conversation_as_a_search(seed: int) -> None:
    chance, known, failed = random.Random(seed), Conversations(), set[ConversationBuilder]()
    for _ in range(60):
        label, root = Label(chance.choice("ab")), chance.choice("rs")
        if chance.random() < 0.1:
            known.new(label)
        messages = [{"role": "user", "content": chance.choice("xy")} for _ in range(chance.randrange(1, 5))]
        again = chance.random() < 0.2
        expected = search(known.all, failed, label, root, messages, again)
        found = known.continued(label, root, messages, again=again)
        assert found is expected
        conversation = found or known.new(label, root)
        assert conversation.root == root
        conversation.asked, conversation.tail = len(messages), messages[-1:]
        known.asked(conversation)
        fails = chance.random() < 0.3
        known.ended(conversation, failed=fails)
        (failed.add if fails else failed.discard)(conversation)


def test_a_result_belongs_to_the_newest_conversation_with_its_tool_use() -> None:
    known = Conversations()
    first, second, third = (known.new(Label("a"), root) for root in "xyz")
    for conversation, use in ((second, "1"), (first, "1"), (first, "2")):
        conversation.block(conversation.next_turn(), {"type": "tool_use", "id": use}, incomplete=False, seq=None, t_ns=None)
    assert known.of_result(Label("a"), {"1"}) is second
    assert known.of_result(Label("a"), {"2", "9"}) is first
    assert known.of_result(Label("a"), {"9"}) is third
    assert known.of_result(Label("b"), {"1"}) is None
    assert key_of_tail([]) != key_of_tail([{}])
