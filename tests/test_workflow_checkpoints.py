"""A run that broke off is continued. Changed steps are run again, and finished runs are not continued."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import retold
from tests.children import Folder, wait_until
from tests.e2e import run_live, run_mock, step, write_workflow
from tests.messages_server import MessagesServer, Reply, Request, text


@pytest.fixture
def here() -> Iterator[Folder]:
    """Change to the test's working directory."""
    folder = Folder(Path.cwd())
    yield folder
    folder.close()


def three_steps(**keys: Any) -> Path:
    """Return a workflow with checkpoints and three steps. Each quotes the previous one."""
    steps = [step("first", "one"), step("second", "two: {{steps.first.text}}"), step("third", "three: {{steps.second.text}}")]
    return write_workflow("w.yaml", *steps, checkpoint_enabled=True, **keys)


class Counting:
    """A server script that answers `<prompt>!` and can hang or fail at a given prompt."""

    def __init__(self, **bad: Reply) -> None:
        self.bad = bad
        self.asked: list[str] = []

    def __call__(self, request: Request) -> Reply:
        prompt = request.json["messages"][0]["content"]
        self.asked.append(prompt.partition(":")[0])
        return self.bad.get(self.asked[-1]) or Reply([text(f"{self.asked[-1]}!")])


FAILING = Reply(status=400, error=("invalid_request_error", "no"))


def checkpoints() -> list[str]:
    return sorted(path.name for path in Path(".retold/checkpoints").iterdir())


def test_killed_run_is_continued_by_the_next_run(here: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `kill -9` in step 2 of 3 the next run requests only steps 2 and 3, and its cassette replays all three."""
    flow, script = three_steps(), Counting(two=Reply([text("tw")], hang_after=4))
    with MessagesServer(script) as server:
        child = here.spawn("run", flow, "--live", url=server.url)
        wait_until(lambda: len(script.asked) == 2 and here.frames() > 7)
        child.kill()
        child.wait()
        assert (script.asked, checkpoints()) == (["one", "two"], ["w.live.json"])
        script.bad.clear()
        again = run_live(monkeypatch, server, flow)
        assert script.asked == ["one", "two", "two", "three"]
        assert checkpoints() == []
        assert [done.resumed for done in again.result.steps] == [True, False, False]
        assert again.result.notes == [f"took over 1 finished step from run {here.log.find('last~1').run[:8]}, which broke off"]
        assert server.requests[-1].json["messages"][0]["content"] == "three: two!"
        whole = run_mock(flow)
        assert [done.text for done in whole.result.steps] == ["one!", "two!", "three!"]
        assert [done.resumed for done in whole.result.steps] == [False, False, False]
        assert whole.result.notes == []
        run_live(monkeypatch, server, flow)
        assert script.asked[4:] == ["one", "two", "three"]


def test_changed_step_and_later_steps_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are reused up to the first changed one."""
    flow, script = three_steps(), Counting(three=FAILING)
    with MessagesServer(script) as server:
        assert run_live(monkeypatch, server, flow).result.status == "failed"
        flow.write_text(flow.read_text().replace("two: ", "two, again: "))
        assert run_live(monkeypatch, server, flow).result.status == "failed"
        assert script.asked == ["one", "two", "three", "two, again", "three"]
        script.bad.clear()
        flow.write_text(flow.read_text().replace("prompt: one", "prompt: uno"))
        assert run_live(monkeypatch, server, flow).result.ok
    assert script.asked[5:] == ["uno", "two, again", "three"]


def test_step_with_a_changed_file_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of a file is part of a step's identity. The name of the file is not enough."""
    Path("about.txt").write_text("cats")
    parts = [{"type": "static", "content": "one"}, {"type": "file", "path": "about.txt"}]
    flow = write_workflow("w.yaml", step("first", parts), step("second", "two"), checkpoint_enabled=True)
    script = Counting(two=FAILING)
    with MessagesServer(script) as server:
        for about in ("cats", "cats", "dogs"):
            Path("about.txt").write_text(about)
            run_live(monkeypatch, server, flow)
    assert script.asked == ["one\n\ncats", "two", "two", "one\n\ndogs", "two"]


def test_resumed_session_continues_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third run continues steps of one session that two earlier runs finished."""
    steps = [
        {"name": name, "type": "claude_session", "prompt": name, "session_config": {"session_name": "s"}}
        for name in ("one", "two", "three")
    ]
    flow = write_workflow("w.yaml", *steps, checkpoint_enabled=True)
    refused: list[str] = ["two", "three"]

    def script(request: Request) -> Reply:
        prompt = request.json["messages"][-1]["content"]
        if prompt in refused:
            refused.remove(prompt)
            return FAILING
        return Reply([text(f"{prompt}!")])

    with MessagesServer(script) as server:
        results = [run_live(monkeypatch, server, flow).result for _ in range(3)]
        assert [result.status for result in results] == ["failed", "failed", "completed"]
        contents = [message["content"] for message in server.requests[-1].json["messages"]]
        said = [content if isinstance(content, str) else content[0]["text"] for content in contents]
        assert said == ["one", "one!", "two", "two!", "three"]
        assert server.calls == 5
    whole = run_mock(flow).result
    assert [(done.text, done.resumed) for done in whole.steps] == [("one!", False), ("two!", False), ("three!", False)]
    assert whole.notes == []


def test_finished_run_does_not_make_later_runs_skip_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A successful run leaves no checkpoint. A mock run has its own checkpoint while it runs."""
    flow, script = three_steps(checkpoint_dir="points"), Counting()
    with MessagesServer(script) as server:
        for _ in range(2):
            run_live(monkeypatch, server, flow)
            assert not any(done.resumed for done in run_mock(flow).result.steps)
            assert list(Path("points").iterdir()) == []
    assert script.asked == ["one", "two", "three"] * 2


def test_resumed_run_that_breaks_off_again_is_continued_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reused steps are reused again, and the cassette has each step once."""
    flow, script = three_steps(), Counting(two=FAILING)
    with MessagesServer(script) as server:
        run_live(monkeypatch, server, flow)
        script.bad = {"three": FAILING}
        run_live(monkeypatch, server, flow)
        script.bad = {}
        assert run_live(monkeypatch, server, flow).result.ok
    assert script.asked == ["one", "two", "two", "three", "three"]
    assert [exchange.place.step for exchange in retold.read_cassette("cassettes/w.yaml").exchanges] == [
        "first",
        "second",
        "third",
    ]
    assert run_mock(flow).result.notes == []


def test_another_handler_is_not_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding a handler to find a problem does not repeat, and bill, the finished steps."""
    flow, script = three_steps(), Counting(two=FAILING)
    with MessagesServer(script) as server:
        run_live(monkeypatch, server, flow)
        shown = {"claude_options": {"async_streaming": True, "stream_handler": "debug"}}
        three_steps(defaults=shown)
        run_live(monkeypatch, server, flow)
    assert script.asked == ["one", "two", "two"]


def test_mock_run_reuses_nothing_from_another_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay that broke off does not reuse answers of an older cassette."""
    flow, answer = three_steps(), "old"

    def script(request: Request) -> Reply:
        return Reply([text(f"{answer} {request.json['messages'][0]['content']}")])

    with MessagesServer(script) as server:
        run_live(monkeypatch, server, flow)
        cassette = Path("cassettes/w.yaml")
        cassette.write_text(cassette.read_text().replace("three: ", "drei: "))
        for _ in range(2):
            with pytest.raises(retold.MissError):
                run_mock(flow)
        answer = "new"
        run_live(monkeypatch, server, flow)
    assert run_mock(flow).result.step("first").text == "new one"


def test_run_that_ends_keeps_the_checkpoint_of_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two concurrent runs to end keeps the checkpoint of the other, which may still break off."""
    flow = three_steps()
    path = Path(".retold/checkpoints/w.live.json")
    other = '{"run": "another", "cassette": null}'

    def script(_: Request) -> Reply:
        path.write_text(other)
        return Reply([text("!")])

    with MessagesServer(script) as server:
        assert run_live(monkeypatch, server, flow).result.ok
    assert path.read_text() == other
