"""`retold pin` looks for secrets and personal data before it writes, and removes them on request."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import retold
from retold.experiments.pinning.people import people_in
from retold.recorder.cassette.format import read_cassette
from retold.recorder.cassette.transfer import exchanges_of, import_exchanges
from retold.recorder.folders import Folders
from tests.clients import body, client
from tests.e2e import in_this_process, refused, tree
from tests.exchanges import answer, exchange
from tests.messages_server import MessagesServer, Reply, text, tool_use
from tests.pinning import replayed

EMAIL, PHONE, HOME = "jane.doe@shop.io", "+49 170 1234567", "/home/jane"


@pytest.fixture
def recorded() -> str:
    """Record a run with personal data in its prompt, its tool call and its answer, the answer in pieces of a few characters."""
    replies = [
        Reply([text(f"I write to {EMAIL}."), tool_use("mail", {"to": EMAIL, "file": f"{HOME}/bill.pdf"}, id="toolu_1")]),
        Reply([text(f"Sent. Her number is {PHONE}.")]),
    ]
    with MessagesServer(replies) as server, retold.record("support"), client(server.url) as asking:
        question = body(f"Send {EMAIL} the bill.")
        with asking.messages.stream(**question) as stream:
            stream.until_done()
        said = [{"type": "tool_use", "id": "toolu_1", "name": "mail", "input": {"to": EMAIL, "file": f"{HOME}/bill.pdf"}}]
        result = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sent"}]
        messages = [*question["messages"], {"role": "assistant", "content": said}, {"role": "user", "content": result}]
        with asking.messages.stream(**{**question, "messages": messages}) as stream:
            stream.until_done()
    return "support"


def test_personal_data_is_refused_until_it_is_removed_or_kept(recorded: str) -> None:
    """The error lists the data, its places, and the options that remove it. With these options the written test passes."""
    said = refused(in_this_process("pin", recorded))
    assert said.splitlines()[0] == "retold: the run holds data about people (3 texts); nothing was written:"
    assert f"  {EMAIL}  e-mail address, " in said
    assert ", first in request 1" in said
    assert not Path("tests").exists()
    options = [EMAIL.replace(".", r"\."), r"\+49[ \d]+", HOME]
    assert refused(in_this_process("pin", recorded, "--redact", options[0])).count("\n  ") == 2
    done = in_this_process("pin", recorded, *(part for each in options for part in ("--redact", each)))
    assert (done.returncode, "3 texts replaced by REDACTED" in done.stderr) == (0, True), done.stderr
    written = "".join(Path("tests", name).read_text() for name in tree("tests"))
    assert [each for each in (EMAIL, "jane", PHONE, "170 123") if each in written] == []
    assert '"input": {"to": "REDACTED", "file": "REDACTED/bill.pdf"}' in written
    assert replayed("support").all_played


def test_a_program_may_still_send_a_removed_text(recorded: str) -> None:
    """REDACTED in a recorded request matches any text, so that code under test needs no change."""
    assert in_this_process("pin", recorded, "--redact", r"[\w.]+@[\w.]+", "--keep", ".").returncode == 0
    path = Path("tests/test_support.py")
    path.write_text(path.read_text().replace("Send REDACTED the bill.", f"Send {EMAIL} the bill."))
    assert replayed("support").all_played


def test_kept_data_stays(recorded: str) -> None:
    assert in_this_process("pin", recorded, "--keep", "@shop.io$", "--keep", r"^\+49", "--keep", "^/home/jane$").returncode == 0
    assert EMAIL in Path("tests/test_support.py").read_text()


def test_a_pattern_without_a_match_is_refused(recorded: str) -> None:
    """It is usually a typing error, and the text that it should remove would be published."""
    said = refused(in_this_process("pin", recorded, "--redact", "jame@", "--keep", "."))
    assert "--redact 'jame@' matches nothing in the run; nothing was written" in said
    assert "matches the empty text" in refused(in_this_process("pin", recorded, "--keep", ".*"))
    assert "--redact: " in refused(in_this_process("pin", recorded, "--redact", "("))


def test_a_secret_in_the_log_is_removed(monkeypatch: pytest.MonkeyPatch, recorded: str) -> None:
    """The environment may contain a secret now that it did not contain during the recording."""
    monkeypatch.setenv("SHOP_TOKEN", f"{PHONE[-4:]}bill.pdf-x9")
    monkeypatch.setenv("MAIL_API_KEY", "jane.doe@shop.io")
    done = in_this_process("pin", recorded, "--keep", ".", "--json")
    assert json.loads(done.stdout)["secrets"] > 0
    assert not any(EMAIL in Path("tests", name).read_text() for name in tree("tests"))
    assert replayed("support").all_played


def test_the_home_of_a_recorded_program_is_replaced() -> None:
    """A command names its folders in its requests. The cassette has neutral names, which a replay maps to its own folders."""
    folders = Folders("/home/jane/shop", "/home/jane", "/tmp")
    frames = [b'data: {"delta": {"text": "See /home/ja"}}\n\n', b'data: {"delta": {"text": "ne/shop/a.txt."}}\n\n']
    held = exchange(answer(*frames), json.dumps(body("/home/jane/shop/a.txt and /home/jane/b")).encode())
    held = replace(held, request=replace(held.request, folders=folders))
    with retold.EventLog() as log:
        import_exchanges(log, [held], name="own", source="x", data={"command": ["python", "/home/jane/shop/ask.py"]})
    assert "home folder, 1 place, first in the command" in refused(in_this_process("pin", "own"))
    with retold.EventLog() as log:
        import_exchanges(log, [held], name="own", source="x", data={"command": ["python", "ask.py"]})
    assert in_this_process("pin", "own").returncode == 0
    (held,) = read_cassette("tests/cassettes/own.yaml").exchanges
    assert json.loads(held.request.body)["messages"][0]["content"] == "/retold/cwd/a.txt and /retold/home/b"
    assert held.request.folders == Folders("/retold/cwd", "/retold/home", "/tmp")
    assert held.response is not None
    assert b"See /retold/cwd" in held.response.body
    assert b"jane" not in Path("tests/cassettes/own.yaml").read_bytes()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("write to Jane.Doe+x@mail.co.uk now", ["e-mail address"]),
        ("git@github.com noreply@anthropic.com a@example.com me@host.test user@localhost x@y", []),
        ("https://u:p@host.io/path and npm i @scope/pkg@1.2.3", []),
        ("call +1 (415) 867-5309 or 415-867-5309", ["phone number", "phone number"]),
        ("+49 30 901820, +442079460000", ["phone number", "phone number"]),
        ("call 212-555-0123; 2026-11-29, 10.0.0.1, 1234567890123, 3.14159265358979, toolu_01234567890", []),
        ("in /home/jane/src and /Users/john.smith/x and C:\\Users\\ann\\y", ["home folder"] * 3),
        ("/home/user/x /Users/runner/y /home/ubuntu /homepage/jane /root/x /retold/home/a", []),
        ("card 4111 1111 1111 1111 or 4111-1111-1111-1112", ["card number"]),
        ("DE89 3704 0044 0532 0130 00, GB00 0000 0000 0000 0000 00", ["bank account"]),
        ("SSN 078-05-1120, 000-12-3456, 123-45-67890", ["social security number"]),
    ],
)
def test_personal_data_is_recognised(text: str, found: list[str]) -> None:
    """Only unambiguous forms count. Addresses of documentation and of services are not personal data."""
    assert [each.kind for each in people_in([(text, "here")])] == found


def test_a_compressed_answer_is_unpacked_for_removal() -> None:
    """A text in compressed bytes cannot be replaced, so the cassette has them unpacked."""
    reply = Reply([text(f"Ask {EMAIL} about it.")], encoding="gzip")
    with MessagesServer([reply]) as server, retold.record("packed"), client(server.url) as asking:
        for _ in asking.messages.create(**body("Who?"), stream=True):
            pass
    assert in_this_process("pin", "packed", "--redact", EMAIL).returncode == 0
    assert "Ask REDACTED about it." in Path("tests/test_packed.py").read_text()
    assert replayed("packed").all_played


def test_patterns_find_texts_in_the_command(recorded: str) -> None:
    """The written test contains the arguments of the command."""
    with retold.EventLog() as log:
        exchanges = exchanges_of(log, log.find(recorded).run)
        data = {"command": ["python", "ask.py", f"--to={EMAIL}"]}
        import_exchanges(log, exchanges, name="mailer", source="x", data=data)
    assert f"{EMAIL}  e-mail address" in refused(in_this_process("pin", "mailer"))
