"""`retold view` serves runs, search, differences and the live page, and only to this machine."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import uvicorn

from retold.recorder.cassette.transfer import import_exchanges
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Place
from retold.recorder.http.exchange import Request as Asked
from retold.recorder.log.log import EventLog
from retold.view.app import application
from retold.view.serve import TimedConnection
from tests.browser import CHROMIUM, Browser
from tests.e2e import in_this_process, refused
from tests.exchanges import JSON, SSE, URL
from tests.messages_server import Reply, text
from tests.talks import talk

urlopen = build_opener(ProxyHandler({})).open  # ignores any proxy of the environment, because the server is on loopback


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def data(self) -> Any:
        """Return the data that the page shows."""
        return json.loads(self.text.partition('id="data">')[2].partition("</script>")[0])


def get(url: str, **headers: str) -> Answer:
    try:
        with urlopen(Request(url, headers=headers), timeout=10) as answer:
            return Answer(answer.status, dict(answer.headers), answer.read().decode())
    except HTTPError as error:
        return Answer(error.code, dict(error.headers), error.read().decode())


@contextmanager
def viewing(log: EventLog, **options: Any) -> Iterator[str]:
    """Serve the application in a thread of this process."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server: uvicorn.Server = uvicorn.Server(
            uvicorn.Config(
                lambda: application(log, "/secret/", lambda: server.should_exit),
                factory=True,
                log_level="error",
                lifespan="off",
                http=TimedConnection,
                **options,
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/secret"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def log() -> Iterator[EventLog]:
    with EventLog() as log:
        import_exchanges(log, talk(Reply([text("It rains in Paris.")]), prompt="How is it?"), name="rain", source="test")
        import_exchanges(log, talk(Reply([text("It snows in Paris.")]), prompt="How is it?"), name="snow <b>", source="test")
        yield log


def test_runs_search_and_differences_are_served(log: EventLog) -> None:
    """The list begins with the newest run, the search finds messages, and comparing two runs gives the page of `diff`."""
    with viewing(log) as url:
        listed = get(f"{url}/").data
        assert [(run["name"], run["status"]) for run in listed["runs"]] == [("snow <b>", "completed"), ("rain", "completed")]
        assert [run["name"] for run in get(f"{url}/?n=1").data["runs"]] == ["snow <b>"]
        (hit,) = get(f"{url}/?q=rains").data["hits"]
        assert (hit["name"], [part for part in hit["parts"] if part[0]]) == ("rain", [[1, "rains"]])
        assert [hit["name"] for hit in get(f"{url}/?q=%22rains").data["hits"]] == [
            "rain"
        ]  # a quotation mark alone is not an error
        page = get(f"{url}/run/rain")
        assert [message["kind"] for message in page.data["messages"]] == ["request", "prompt", "text"]
        assert "live" not in page.data
        assert "turn 1, text, changed" in get(f"{url}/diff?a=rain&b=last").data["first"]


def test_only_this_machine_is_answered(log: EventLog) -> None:
    """A foreign name that was rebound to 127.0.0.1 is refused. No other page may frame, load or cache the pages."""
    with viewing(log) as url:
        assert get(f"{url}/", Host="evil.example").status == 400
        assert get(f"{url}/", Host="localhost:80").status == 200
        headers = {name.lower(): value for name, value in get(f"{url}/").headers.items()}
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"] == "frame-ancestors 'none'"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("page", "status"),
    [
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ({}, 200),
    ],
)
def test_other_web_pages_may_only_link_to_a_page(log: EventLog, page: dict[str, str], status: int) -> None:
    with viewing(log) as url:
        assert get(f"{url}/", **page).status == status


def test_a_client_that_does_not_finish_its_head_is_disconnected(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends nothing is disconnected, too. A client in time is answered."""
    monkeypatch.setattr("retold.view.serve.HEAD_S", 0.2)
    with viewing(log) as url:
        port = int(url.removesuffix("/secret").rpartition(":")[2])
        for sent in (b"", b"GET /secret/ HTTP/1.1\r\nHost: local"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
                sock.sendall(sent)
                with suppress(ConnectionResetError):
                    assert sock.recv(100) == b""
        assert get(f"{url}/").status == 200


def test_connections_beyond_the_limit_are_answered_503(log: EventLog) -> None:
    with viewing(log, limit_concurrency=2) as url, ExitStack() as opened:
        port = int(url.removesuffix("/secret").rpartition(":")[2])
        for _ in range(2):
            opened.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"GET ")
        statuses = [get(f"{url}/").status for _ in range(2)]
    assert statuses[-1] == 503
    with viewing(log) as url:
        assert get(f"{url}/").status == 200


def test_every_answer_needs_the_secret(log: EventLog) -> None:
    """Only the owner may read the log and its pages. Other users can reach the port but cannot guess the address."""
    with viewing(log) as url:
        for path in ("/", "/run/last", "/diff?a=last&b=rain", "/secre/", "/secret/../run/last"):
            assert get(url.removesuffix("/secret") + path).status == 404


def test_missing_runs_are_not_found(log: EventLog) -> None:
    """Only runs of this log exist. A path never names a file, not even in a difference."""
    Path("secret.jsonl").write_text('{"type": "system"}\n')
    with viewing(log) as url:
        for path in ("/run/nope", "/run/nope/events", "/diff?a=last", "/diff?a=secret.jsonl&b=last", "/static/run.js"):
            assert get(url + path).status == 404
        assert get(f"{url}/run/nope").text.startswith("retold: no run 'nope' in the log")


def events_of(body: str) -> list[tuple[int, Any]]:
    """Return the events of a stream of server-sent events, each with its id."""
    found = []
    for part in body.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in part.splitlines())
        if "id" in fields:
            found.append((int(fields["id"]), json.loads(fields["data"])))
    return found


def test_a_run_in_progress_is_followed_from_the_end_of_the_page(log: EventLog) -> None:
    """Later additions come as events, and a browser that reconnects gets none twice."""
    with viewing(log) as url, log.start(name="live", mode="live") as writer:
        writer.note("message", {"type": "system", "subtype": "status", "status": "one"})
        page = get(f"{url}/run/live").data
        assert page["live"] == f"/secret/run/{writer.run}/events?after={writer.seq - 1}"
        writer.note("message", {"type": "system", "subtype": "status", "status": "two"})
        with urlopen(url.removesuffix("/secret") + page["live"], timeout=10) as stream:
            first = stream.readline().decode()
            assert first == f"id: {writer.seq - 1}\n"
            assert '"two\\' in stream.readline().decode()
            writer.end()
            assert '"status": "completed"' in stream.read().decode()
        again = get(url.removesuffix("/secret") + page["live"], **{"Last-Event-ID": str(writer.seq - 2)}).text
        (news,) = events_of(again)
        assert news[1]["messages"] == []
        assert again.endswith("event: end\ndata: \n\n")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_browser_shows_a_run_in_progress(log: EventLog) -> None:
    """Messages appear as they are recorded, lanes grow, and the status changes at the end. Two runs can be compared."""
    reply = Reply([text("Hello there.")])
    sent = reply.frames(reply.message({}, 1))
    with viewing(log) as url, Browser() as browser:
        writer = log.start(name="live", mode="live")
        tab = browser.open(f"{url}/run/live")
        assert tab.run("document.querySelector('header .chip').textContent") == "running"
        asked = Asked("POST", URL, JSON, json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode())
        capture = Capture(writer, asked, place=Place(step="greet"))
        tab.wait("document.querySelector('article.prompt')?.textContent.includes('Hi')")
        capture.response(200, "OK", SSE)
        for frame in sent:
            capture.data(frame)
        tab.wait("document.querySelector('article.text')?.textContent.includes('Hello there.')")
        capture.end("complete")
        writer.end()
        tab.wait("document.querySelector('header .chip').textContent === 'completed'")
        assert "end_turn after" in tab.run("document.querySelector('.lane').title")
        assert tab.complaints() == []
        tab = browser.open(f"{url}/")
        tab.run("document.querySelectorAll('tbody input').forEach((box, at) => { if (at) box.click() })")
        tab.run("document.querySelector('#compare').click()")
        tab.wait("document.querySelector('#verdict')?.textContent === '1 difference: 1 changed; 3 items the same'")
        tab.wait("document.querySelector('ins') !== null")
        assert [tab.run(f"document.querySelector('{tag}').textContent") for tag in ("del", "ins")] == ["rains", "snows"]


def test_the_command_prints_its_address_and_ends_on_a_signal(log: EventLog, environment: dict[str, str]) -> None:
    """Ctrl-C and SIGTERM end a viewer, also while a page follows a run."""
    writer = log.start(name="live", mode="live")
    for told in (signal.SIGINT, signal.SIGTERM):
        command = [sys.executable, "-m", "retold", "view", "live"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/[\w-]{{16}}/run/{writer.run}", address)
        writer.note("message", {"type": "system", "subtype": "status"})
        with urlopen(f"{address}/events", timeout=10) as stream:
            stream.readline()
            process.send_signal(told)
            out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "retold: Ctrl-C or SIGTERM ends it\n")
    writer.end()


def test_missing_runs_are_reported_before_serving(log: EventLog) -> None:
    assert "no run 'nope'" in refused(in_this_process("view", "nope"))
    assert "no log at nope.db" in refused(in_this_process("view", "--db", "nope.db"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(in_this_process("view", "--port", str(port), "--db", str(log.path)))
    assert said == f"retold: cannot listen on 127.0.0.1 port {port}: Address already in use. --port 0 takes a free one.\n"
