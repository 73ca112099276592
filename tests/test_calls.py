"""The calls of a recording that runs for days: numbered, distinguished from retries, and forgotten afterwards."""

import gc
import weakref

from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Place, Request
from retold.recorder.log.log import EventLog
from retold.testing.calls import MAX_FAILED, Calls

REQUEST = Request("POST", "https://api.anthropic.com/v1/messages", (), b"{}")


def begin(calls: Calls, log: EventLog, key: str, retry: str = "0") -> Capture:
    calls.settle()
    call, attempt = calls.place(key, retry)
    capture = Capture(log.start(name="one", mode="live"), REQUEST, place=Place(call=call, attempt=attempt))
    calls.add(key, capture)
    return capture


def fail(capture: Capture) -> None:
    capture.response(529, "", ())
    capture.end("complete")


def test_a_retry_belongs_to_the_first_call_with_as_many_failures() -> None:
    """Two identical calls fail. Each retry is the next attempt of one of them, and a success ends the counting."""
    with EventLog("log.db") as log:
        calls = Calls()
        one, two = begin(calls, log, "a"), begin(calls, log, "a")
        fail(one)
        fail(two)
        again = [begin(calls, log, "a", "1"), begin(calls, log, "a", "1")]
        assert [(c.place.call, c.place.attempt) for c in (one, two, *again)] == [(1, 1), (2, 1), (1, 2), (2, 2)]
        again[0].end("complete")
        assert begin(calls, log, "a", "2").place.call == 3


def test_a_finished_exchange_is_forgotten() -> None:
    """Only numbers stay, so a proxy's memory does not grow with its calls."""
    with EventLog("log.db") as log:
        calls = Calls()
        ended = []
        for number in range(3):
            capture = begin(calls, log, str(number))
            capture.response(200, "OK", ())
            capture.end("complete")
            ended.append(weakref.ref(capture))
            del capture
        assert calls.tally.endings == {"complete": 3}
        gc.collect()
        assert [each() for each in ended] == [None, None, None]
        assert (calls.count, calls.open) == (3, [])


def test_failures_without_a_retry_are_bounded() -> None:
    """An SDK that gives up leaves its last attempt behind."""
    with EventLog("log.db") as log:
        calls = Calls()
        capture = begin(calls, log, "a")
        for number in range(MAX_FAILED + 5):
            calls._failed[str(number)] = {number: 1}
        fail(capture)
        calls.settle()
        assert len(calls._failed) == MAX_FAILED
