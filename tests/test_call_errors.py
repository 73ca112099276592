"""Handlers, listing, search, statistics and exports show each failed call as one line."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from retold.pages.run_page import run_page
from retold.recorder.cassette.transfer import import_exchanges
from retold.recorder.events import OWN_SEQ, Entry
from retold.recorder.http.call_errors import CallCounts, call_error
from retold.recorder.http.exchange import Place
from retold.recorder.log.log import EventLog
from tests.e2e import in_this_process
from tests.exchanges import URL
from tests.messages_server import Reply, http_error, text
from tests.talks import talk

BAD = http_error(400, "invalid_request_error", "max_tokens: too large")
LINE = "400 invalid_request_error: max_tokens: too large"


@pytest.mark.parametrize(
    ("ended", "line"),
    [
        ({"ending": "complete"}, None),
        ({"ending": "closed"}, None),
        ({"ending": "http_error", "status": 400}, "400"),  # recorded by retold 0.1
        ({"ending": "http_error", "status": 529, "api_error": {"type": "overloaded_error"}}, "529 overloaded_error"),
        (
            {"ending": "http_error", "status": 400, "api_error": {"type": "a", "message": "b", "request_id": "req_1"}},
            "400 a: b (req_1)",
        ),
        ({"ending": "http_error", "status": 403, "api_error": {"message": "of Bedrock"}}, "403 of Bedrock"),
        ({"ending": "error_event", "status": 200, "api_error": {"type": "a", "message": "b"}}, "a: b"),
        ({"ending": "error_event", "status": 200}, "the stream carried an error event"),
        ({"ending": "cut", "error": {"type": "httpx.ReadError", "message": ""}}, "the stream was cut: httpx.ReadError"),
        ({"ending": "no_response", "error": {"type": "T", "message": "refused"}}, "no response: T: refused"),
        ({"ending": "no_response", "error": None}, "no response"),
    ],
)
def test_a_failure_is_one_line(ended: dict[str, object], line: str | None) -> None:
    assert call_error(ended) == line


@pytest.mark.parametrize(
    ("endings", "counts"),
    [
        ([(1, "complete"), (2, "http_error")], (2, 1, 0)),
        ([(1, "http_error"), (1, "cut"), (1, "complete")], (1, 0, 2)),  # healed by a retry
        ([(1, "http_error"), (1, "http_error")], (1, 1, 0)),
        ([(0, "http_error"), (0, "complete")], (2, 1, 0)),  # calls without a number
        ([(None, "closed")], (1, 0, 0)),  # recorded by retold 0.1
    ],
)
def test_a_retried_call_fails_with_its_last_attempt(endings: list[tuple[int | None, str]], counts: tuple[int, int, int]) -> None:
    calls = CallCounts()
    for exchange, (call, ending) in enumerate(endings):
        calls.ended(exchange, "", "", {"ending": ending} | ({} if call is None else {"call": call}))
    assert (calls.count, calls.failed, calls.healed) == counts


def test_an_error_of_a_log_of_version_0_1_is_shown(tmp_path: Path) -> None:
    """Its events have no error of the API. The handlers show the status, and the page reads the error from the answer."""
    with EventLog(tmp_path / "old.db") as log, log.start(name="old", mode="live") as writer:
        body = json.dumps({"model": "claude-test", "messages": [{"role": "user", "content": "Hi"}]})
        started = {"method": "POST", "uri": URL, "headers": [], "body": body, "call": 1, "attempt": 1, "stamped": "pull"}
        number = writer.note("exchange.started", started | {"variables": {}, "recorded_at": ""}, exchange=OWN_SEQ).seq
        head = {"status": 400, "reason": "Bad Request", "headers": [["content-type", "application/json"]]}
        writer.note("response.started", head, exchange=number)
        writer.append(Entry("chunk", b'{"type": "error", "error": {"type": "a", "message": "b"}}', exchange=number))
        ended = {"ending": "http_error", "error": None, "status": 400, "frames": 0, "bytes": 60, "sha256": "", "message_id": None}
        writer.note(
            "exchange.ended", ended | {"model": None, "stop_reason": None, "usage": None, "cost_usd": None}, exchange=number
        )
    assert output(log, "show", "old") == "[T] USER: Hi\n[T] ERROR: 400\n\n✗ Stream error: 400 after 0 messages\n"
    assert "  1 of 1  old" in output(log, "ls")
    html = run_page(log, log.find("old"))
    assert '"kind":"error","text":"400 a: b"' in html
    assert "completed, 1 of 1 calls failed" in html


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    """Write a log with a run that failed in its second and third call, and a run with a healed retry."""
    with EventLog(tmp_path_factory.mktemp("errors") / "log.db") as log:
        import_exchanges(log, talk(Reply([text("hello")], model="claude-test"), BAD, BAD), name="failing", source="a test")
        failed, answered = talk(http_error(529, "overloaded_error", "Overloaded"), Reply([text("better")], model="claude-test"))
        places = (Place(call=1), Place(call=1, attempt=2))
        healed = [replace(exchange, place=place) for exchange, place in zip((failed, answered), places, strict=True)]
        import_exchanges(log, healed, name="healed", source="a test")
        yield log


def output(log: EventLog, *command: str) -> str:
    return re.sub(r"\(req_\w+\)|\d\d:\d\d:\d\d", "T", in_this_process(*command, "--db", str(log.path)).stdout)


@pytest.mark.parametrize(
    ("handler", "begins"), [("simple", "[T] ERROR: "), ("console", "[T] ERROR: "), ("debug", "[15] ERROR: ")]
)
def test_handlers_show_each_failed_call(log: EventLog, handler: str, begins: str) -> None:
    shown = output(log, "show", "failing", "--handler", handler)
    assert shown.count(f"ERROR: {LINE}") == 2
    assert f"\n{begins}{LINE}" in shown
    assert "2 of 3 calls failed" in shown
    assert "hello" in shown


def test_the_file_handler_writes_failed_calls(log: EventLog, tmp_path: Path) -> None:
    output(log, "show", "failing", "--handler", f"file:file_path={tmp_path / 'run.log'},show_timestamps=false")
    assert f"\nERROR: {LINE}\n" in (tmp_path / "run.log").read_text()


def test_a_healed_retry_does_not_fail_a_stream(log: EventLog) -> None:
    shown = output(log, "show", "healed")
    assert shown.startswith(
        "[T] USER: Please begin.\n[T] ERROR: 529 overloaded_error: Overloaded\n[T] ASSISTANT: better\n\n"
        "✓ Stream completed: 1 message "
    )


def test_ls_counts_failed_calls_apart_from_healed_retries(log: EventLog) -> None:
    lines = output(log, "ls").splitlines()
    assert [re.split(r"\s{2,}", line)[-2:] for line in lines] == [
        ["ERRORS", "NAME"],
        ["1 healed", "healed"],
        ["2 of 3", "failing"],
    ]
    listed = {run["name"]: run for run in json.loads(output(log, "ls", "--error", "--json"))}
    assert listed["failing"]["outcome"] == "completed, 2 of 3 calls failed"
    assert [listed["healed"][key] for key in ("calls", "failed_calls", "healed_attempts", "outcome")] == [1, 0, 1, "completed"]


def test_errors_can_be_searched_and_filtered(log: EventLog) -> None:
    def found(*options: str) -> list[str]:
        return [json.loads(line)["name"] for line in output(log, "search", *options, "--json").splitlines()]

    assert found("too large") == ["failing", "failing"]
    assert found("overloaded", "--type", "error", "--model", "claude-test") == ["healed"]
    assert found("begin", "--name", "heal*") == ["healed"]
    assert set(found("begin", "--error", "--status", "completed")) == {"failing", "healed"}
    assert found("begin", "--status", "failed") == []


def test_an_error_counts_for_the_requested_model(log: EventLog) -> None:
    (line,) = json.loads(output(log, "stats", "--mode", "import", "--json"))
    assert (line["model"], line["exchanges"], line["errors"], line["retries"]) == ("claude-test", 5, 3, 1)


def test_markdown_has_each_failed_call_and_the_outcome(log: EventLog) -> None:
    exported = output(log, "export", "failing", "--format", "markdown")
    assert ", completed, 2 of 3 calls failed, " in exported
    assert exported.count("**ERROR:** 400 invalid\\_request\\_error: max\\_tokens: too large") == 2


def test_the_page_shows_the_status_of_a_run_with_failed_calls_in_amber(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retold.cli.table.colours", lambda: True)
    healed, failing = output(log, "ls").splitlines()[1:]
    assert "\x1b[32mcompleted\x1b[0m" in healed
    assert "\x1b[33mcompleted\x1b[0m" in failing
    assert "\x1b[33m2 of 3" in failing
