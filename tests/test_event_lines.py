"""An event as a line of JSON, and back: single events and many at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retold.recorder import strict_json
from retold.recorder.event_lines import event_of, events_of, line_of, values_of
from retold.recorder.events import Event

NUMBERS = st.integers(-(2**63), 2**63 - 1)
EVENTS = st.builds(
    Event, run=st.text(), seq=NUMBERS, t_ns=NUMBERS, wall_ns=NUMBERS, kind=st.sampled_from(["frame", "step.é", "\ud800"]),
    step=st.text(), task=st.text(st.characters()), exchange=st.none() | NUMBERS, payload=st.binary() | st.text().map(str.encode),
    digest=st.binary(min_size=32, max_size=32), hash=st.binary(min_size=32, max_size=32), schema=st.integers(1, 9),
)  # fmt: skip


@given(st.lists(EVENTS, max_size=5))
def test_events_read_back_from_their_lines(events: list[Event]) -> None:
    """They are read one by one and all at once, and each line is the JSON of its values."""
    lines = [line_of(event) for event in events]
    assert [event_of(line) for line in lines] == events
    assert events_of(b"".join(lines)) == events_of(b"\n".join(lines)) == events
    assert lines == [
        strict_json.dumps(values_of(event), separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n" for event in events
    ]


ONE = line_of(Event("run", 0, 1, 2, "frame", "", "", None, b"data: 1\n\n", bytes(32), bytes(32)))


@pytest.mark.parametrize(
    "lines",
    [
        ONE[:-1] + b"," + ONE,
        ONE + b"\xff\n",
        ONE + b"[]\n",
        ONE.replace(b'"seq":0', b'"seq":9223372036854775808') + ONE,
        ONE.replace(b'"seq":0', b'"seq":true') + ONE,
        ONE.replace(b'"seq":0,', b""),
        ONE.replace(b'"kind":"frame"', b'"kind":"run.ended"'),
        ONE + b"[" * 100_000,
        ONE[:-1] + b"]\n[" + ONE,
    ],
)
def test_lines_in_another_form_are_refused(lines: bytes) -> None:
    """Both readers refuse two events in one line, invalid text, another value, a wrong type and a deep list."""
    with pytest.raises(ValueError, match=r"\S"):
        events_of(lines)


def test_empty_lines_are_skipped() -> None:
    """They may be at the end and between two lines."""
    assert events_of(ONE + b"\n\n" + ONE + b"\n") == [event_of(ONE)] * 2
    assert events_of(b"") == []
