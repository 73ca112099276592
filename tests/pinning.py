"""Recorded runs of every kind, for the tests of `retold pin`: programs that ask a scripted API on this machine."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import retold
from tests import agent_cli
from tests.clients import body, client
from tests.conftest import ROOT
from tests.e2e import FILE_OPERATIONS, in_this_process
from tests.messages_server import MessagesServer, Reply, Request, http_error, text, tool_use
from tests.threads_server import ThreadsServer

PRICE = {"name": "price", "description": "The price of an item.", "input_schema": {"type": "object"}}

AGENT = '''\
"""Ask for a price, with a tool of its own."""

import json
import os
import urllib.request

TOOL = {"name": "price", "description": "The price of an item.", "input_schema": {"type": "object"}}
CURRENCY = "EUR"


def ask(messages):
    asked = {"model": "claude-sonnet-5-5", "max_tokens": 100, "tools": [TOOL], "messages": messages}
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01", "x-api-key": "none"}
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(asked).encode(), headers)) as answer:
        return json.load(answer)["content"]


messages = [{"role": "user", "content": "What is the lamp?"}]
while True:
    content = ask(messages)
    messages.append({"role": "assistant", "content": content})
    used = [block for block in content if block["type"] == "tool_use"]
    if not used:
        break
    results = [{"type": "tool_result", "tool_use_id": each["id"], "content": f"12 {CURRENCY}"} for each in used]
    messages.append({"role": "user", "content": results})
print(messages[-1]["content"][0]["text"])
'''


def selling(request: Request) -> Reply:
    """Return the API of a shop: a tool call, and then a sentence about its result."""
    last = request.json["messages"][-1]["content"]
    if isinstance(last, str):
        return Reply([text("Let me look."), tool_use("price", {"item": "lamp", "shop": "Berlin"}, id="toolu_lamp")])
    return Reply([text(f"The lamp `A-7` costs {last[0]['content']}.")])


def record_workflow() -> str:
    """Record a workflow with four tool calls."""
    Path("examples").mkdir()
    Path("cassettes").mkdir()
    for name in (FILE_OPERATIONS, ROOT / "cassettes" / FILE_OPERATIONS.name):
        Path(name.parent.name, name.name).write_bytes(name.read_bytes())
    assert retold.run_workflow(f"examples/{FILE_OPERATIONS.name}", show=False).ok
    return FILE_OPERATIONS.stem


def record_batch() -> str:
    """Record a workflow that asks one question about many files."""
    name = "batch_reviews"
    for folder, file in (("examples", f"{name}.yaml"), ("cassettes", f"{name}.yaml")):
        Path(folder, file).write_bytes((ROOT / folder / file).read_bytes())
    Path("examples/data").mkdir()
    for path in (ROOT / "examples" / "data").glob("review_*"):
        Path("examples/data", path.name).write_bytes(path.read_bytes())
    assert retold.run_workflow(f"examples/{name}.yaml", show=False).ok
    return name


def record_command() -> str:
    """Record a program with its own tool, without an SDK."""
    Path("agent.py").write_text(AGENT)
    with MessagesServer(selling) as server:
        options = ("--upstream", server.url, "--name", "agent")
        done = in_this_process("record", *options, "--", sys.executable, "-S", "-E", "agent.py")
    assert done.returncode == 0, done.stderr
    return "agent"


def record_test() -> str:
    """Record a test that has a conversation with a tool, named as the pytest plugin names its run."""
    name = "tests/test_shop.py::test_lamp"
    cassette = retold.use_cassette("lamp.yaml", record_mode="once", name=name)
    with MessagesServer(selling) as server, cassette, client(server.url) as asking:
        question = body("What is the lamp?", tools=[PRICE])
        message = asking.messages.create(**question)
        use = message.content[-1]
        result = [{"type": "tool_result", "tool_use_id": use.id, "content": "12 EUR"}]
        content = [
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": use.id, "name": "price", "input": use.input},
        ]
        messages = [*question["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": result}]
        with asking.messages.stream(**{**question, "messages": messages}) as stream:
            stream.until_done()
    return name


def record_import() -> str:
    """Import a cassette of another project."""
    cassette = retold.use_cassette("foreign.yaml", record_mode="once")
    with MessagesServer([Reply([text("It has 42 pages.")])]) as server, cassette, client(server.url) as asking:
        asking.messages.create(**body("How long is it?", system="You are a librarian. " * 12))
    assert in_this_process("import", "foreign.yaml", "--name", "library").returncode == 0
    return "library"


def record_threads() -> str:
    """Record a conversation with its history kept by the API."""
    with ThreadsServer() as server, retold.record("threads"), client(server.url) as asking:
        thread = asking.beta.messages.thread(model="claude-sonnet-5-5", max_tokens=64)
        for prompt in ("My name is Ada.", "What is it?"):
            thread.send({"role": "user", "content": prompt})
    return "threads"


def record_errors() -> str:
    """Record an API that is overloaded, refuses a request, and ends a stream with an error."""
    replies = [
        http_error(529, headers={"retry-after-ms": "1"}), Reply([text("At last.")]), http_error(400),
        Reply([text("Half")], error_event_after=3),
    ]  # fmt: skip
    with MessagesServer(replies) as server, retold.record("errors"), client(server.url) as asking:
        asking.messages.create(**body("Again?"))
        for ask in (lambda: asking.messages.create(**body("Well?")), lambda: _streamed(asking, "So?")):
            try:
                ask()
            except Exception as error:
                assert "Error" in type(error).__name__  # noqa: PT017
    return "errors"


def record_cut() -> str:
    """Record a stream that breaks, and a stream that its program closes early."""
    replies = [
        Reply([text("A long answer that is cut.")], cut_after=4),
        Reply([text("A long answer that is left.")], hang_after=5),
    ]
    with MessagesServer(replies) as server, retold.record("cut"), client(server.url) as asking:
        try:
            _streamed(asking, "Cut?")
        except Exception as error:
            assert "peer closed" in str(error)  # noqa: PT017
        with asking.messages.create(**body("Left?"), stream=True) as stream:
            next(iter(stream))
    return "cut"


def _streamed(asking: Any, prompt: str) -> None:
    with asking.messages.stream(**body(prompt)) as stream:
        stream.until_done()


def record_session() -> str:
    """Record a session of the Agent SDK with a permission callback, a hook and its own tool."""
    from tests import test_agent_sdk as scenes

    cli = agent_cli.installed(Path("bin").absolute())
    with retold.record("session"):
        asyncio.run(scenes.scene("tool", "Write note.txt, read it, count lines", **scenes.callbacks())(cli))
    return "session"


def record_fork() -> str:
    """Record a fork of the recorded program with another model."""
    with MessagesServer([Reply([text("It costs nothing.")])]) as server:
        options = ("--at", "2", "--model", "claude-opus-5-5", "--upstream", server.url, "--name", "forked")
        done = in_this_process("fork", "agent", *options, "--", sys.executable, "-S", "-E", "agent.py")
    assert done.returncode == 0, done.stderr
    return "forked"


RECORDERS = (
    record_workflow, record_batch, record_command, record_test, record_import, record_threads, record_errors, record_cut,
    record_session, record_fork,
)  # fmt: skip


def replayed(name: str, folder: str = "tests") -> retold.UsedCassette:
    """Run a written test of requests or sessions in this process, as the pytest plugin does."""
    names: dict[str, Any] = {}
    exec(Path(folder, f"test_{name}.py").read_text().replace("@pytest.mark.retold", "#"), names)
    with retold.use_cassette(f"{folder}/cassettes/test_{name}/test_{name}.yaml") as cassette:
        names[f"test_{name}"](cassette)
    return cassette
