"""A point of a run is named by a turn, by a step and a turn, or by the number of an event."""

import json
from typing import Any

import pytest

from retold.experiments.point import Point, point_of
from retold.recorder.cassette.transfer import import_exchanges
from retold.recorder.errors import InputError
from retold.recorder.http.exchange import Exchange
from retold.recorder.log.log import EventLog
from retold.recorder.log.origin import Origin, origin_of
from tests.exchanges import answer, exchange

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()


def exchange_of(number: int, uri: str = "https://api.anthropic.com/v1/messages", **fields: Any) -> Exchange:
    """Record one exchange with two frames, a second after the previous exchange."""
    made = exchange(answer(b"data: 1\n\n", b"data: 2\n\n"), body=BODY, uri=uri, **fields)
    return Exchange(**{name: getattr(made, name) for name in made.__slots__} | {"started_ns": number * 10**9})


def recorded(*exchanges: Exchange) -> tuple[EventLog, str]:
    log = EventLog("log.db")
    return log, import_exchanges(log, exchanges, name="talk", source="test")


def find(log: EventLog, run: str, text: str) -> Point:
    return point_of(log, log.find(run), text)


def started(log: EventLog, run: str) -> list[int]:
    return [event.seq for event in log.events(run, kinds=("exchange.started",))]


def test_a_turn_is_a_call_of_the_messages_api() -> None:
    """Retries, token counts and probes are not turns. The point is the event before the request."""
    count = exchange_of(1, "https://api.anthropic.com/v1/messages/count_tokens")
    log, run = recorded(
        exchange_of(0, call=1), count, exchange_of(2, call=2), exchange_of(3, call=2, attempt=2), exchange_of(4, call=3)
    )
    seqs = started(log, run)
    assert [find(log, run, text) for text in "123"] == [
        Point("1", seqs[0] - 1, after=seqs[0]),
        Point("2", seqs[2] - 1, after=seqs[2]),
        Point("3", seqs[4] - 1, after=seqs[4]),
    ]


def test_a_step_and_a_task_count_their_own_turns() -> None:
    """The name of a step may contain dots."""
    log, run = recorded(
        exchange_of(0, step="a.b"),
        exchange_of(1, step="sum", task="x"),
        exchange_of(2, step="sum", task="y"),
        exchange_of(3, step="sum", task="x"),
    )
    seqs = started(log, run)
    found = {text: find(log, run, text).after for text in ("a.b.1", "sum/x.2", "sum.2", "sum/y.1", "4")}
    assert found == {"a.b.1": seqs[0], "sum/x.2": seqs[3], "sum.2": seqs[2], "sum/y.1": seqs[2], "4": seqs[3]}


def test_an_event_inside_an_answer_is_a_cut() -> None:
    """The last piece of an answer cuts nothing. A request belongs to the part after its point."""
    log, run = recorded(exchange_of(0), exchange_of(1))
    first, second = started(log, run)
    frames = [event.seq for event in log.events(run, kinds=("frame",))]
    assert find(log, run, f"seq:{frames[0]}") == Point(f"seq:{frames[0]}", frames[0], cut=first, after=second)
    assert find(log, run, f"seq:{first + 1}").cut == first  # the head of the response
    assert find(log, run, f"seq:{frames[1]}") == Point(f"seq:{frames[1]}", frames[1], after=second)
    assert find(log, run, f"seq:{second}") == Point(f"seq:{second}", second - 1, after=second)
    last = log.last(run)
    assert last is not None
    assert find(log, run, f"seq:{last.seq}").after is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", "has no turn 3: it has 2 turns: 1 (event 1), 2 (event "),
        ("0", "has no turn 0"),
        ("gret.1", "did you mean greet"),
        ("other.1", "its steps with turns are greet, sum"),
        ("greet.2", "has no turn greet.2: greet has 1 turn: greet.1 (event 1)."),
        ("seq:999", "has no event 999: its events are 0 to "),
        ("two", "names no point of a run"),
        ("seq:-1", "names no point of a run"),
        ("", "names no point of a run"),
    ],
)
def test_a_point_outside_the_run_is_bad_input(text: str, expected: str) -> None:
    """The error lists the existing points."""
    log, run = recorded(exchange_of(0, step="greet"), exchange_of(1, step="sum"))
    with pytest.raises(InputError) as caught:
        find(log, run, text)
    assert expected in str(caught.value)


def test_an_origin_is_read_from_the_first_event() -> None:
    """A run without an origin, or with another value in its place, is not a fork."""
    with EventLog("log.db") as log:
        origin = Origin("ab", 3, bytes(range(32)))
        fork = log.start(name="fork", mode="live", data={"fork": origin.as_dict()})
        plain = log.start(name="plain", mode="live")
        assert (origin_of(log, fork.run), origin_of(log, plain.run)) == (origin, None)
    others: list[Any] = [None, [], {}, {"parent": 1, "seq": 2, "hash": ""}, {"parent": "a", "seq": 2, "hash": "xyz"}]
    assert [Origin.of({"fork": other}) for other in others] == [None] * len(others)
