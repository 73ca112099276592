"""One function each reads messages and JSON objects of any shape from outside."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retold.recorder.messages import blocks_of, content_blocks
from retold.recorder.strict_json import object_in, object_or_empty

TEXT = {"type": "text", "text": "Hi"}


@pytest.mark.parametrize(
    ("content", "blocks"),
    [
        ("Hi", [TEXT]),
        ("", [{"type": "text", "text": ""}]),
        ([TEXT, {"type": "new"}], [TEXT, {"type": "new"}]),
        ([TEXT, None, "Hi", 3, [TEXT]], [TEXT]),
        ([], []),
        (None, []),
        (TEXT, []),
        (3, []),
    ],
)
def test_blocks_of_a_content(content: Any, blocks: list[dict[str, Any]]) -> None:
    """A string is one text block. In a list only objects count. Any other content has no blocks."""
    assert list(content_blocks(content)) == blocks
    assert list(blocks_of({"message": {"content": content}})) == blocks


@pytest.mark.parametrize("message", [{}, {"message": None}, {"message": "Hi"}, {"message": [TEXT]}, {"message": {}}])
def test_a_message_without_content_has_no_blocks(message: dict[str, Any]) -> None:
    """A message of another shape is not an error."""
    assert list(blocks_of(message)) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(JSON)
def test_any_json_value_is_an_object_or_empty(value: Any) -> None:
    """The function returns an object unchanged, and an empty object for every other value."""
    assert object_or_empty(value) == (value if isinstance(value, dict) else {})


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", b"\xff", "[" * 100_000, 3, None])
def test_a_text_without_an_object_gives_an_empty_one(text: Any) -> None:
    """Damaged cells of a log are not an error here, because their digests show the damage."""
    assert object_in(text) == {}


def test_an_object_is_read_from_text_and_bytes() -> None:
    """Payloads are bytes, and cells of SQLite are text."""
    assert object_in('{"a": 1}') == object_in(b'{"a": 1}') == {"a": 1}
