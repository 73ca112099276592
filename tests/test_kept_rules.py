"""`--ignore` and `--mask` exclude the parts of requests that vary. The recording stores them, so a replay needs no option."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.formats.imports import import_files
from retold.recorder.cassette.format import read_cassette, to_yaml, write_cassette
from retold.recorder.cassette.kept import Kept
from retold.recorder.errors import CassetteError, InputError
from retold.recorder.http.exchange import Request
from retold.recorder.log.log import EventLog
from retold.replay.matching.matcher import Matcher
from retold.replay.matching.rules import Rules
from retold.servers.commands import recording_named
from tests.conftest import Cli
from tests.e2e import in_this_process, refused
from tests.exchanges import JSON, URL, answer, exchange
from tests.messages_server import MessagesServer, Reply, text
from tests.wire import asks, post, wire

pytest_plugins = ["pytester"]

KEPT = Kept(("messages[*].id",), (r"took \d+ ms", "at noon"))


def asked(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def matches(rules: Rules, recorded: bytes, now: bytes) -> bool:
    return Matcher([exchange(answer(b"data: 1\n\n"), recorded)], rules=rules).matches(Request("POST", URL, JSON, now))


HOOK = "the hook took 12 ms"


@pytest.mark.parametrize(
    ("mask", "now", "same"),
    [
        (r"took \d+ ms", "the hook took 3456 ms", True),
        (r"took \d+ ms", "the hook took no ms", False),
        (r"took \d+ ms", "the dog took 12 ms", False),
        ("(?s)hook.*", "the hook did\nnothing", True),
    ],
)
def test_a_masked_text_does_not_count(mask: str, now: str, same: bool) -> None:
    for content in ("system", "messages"):
        sides = [asked(**{content: [{"type": "text", "text": text}]}) for text in (HOOK, now)]
        assert matches(Rules(mask=(mask,)), *sides) is same
        assert not matches(Rules(), *sides)


def test_a_mask_covers_a_body_that_is_not_json_but_no_key() -> None:
    assert matches(Rules(mask=(r"\d+",)), b"took 12", b"took 3")
    assert not matches(Rules(mask=(r"\d+",)), asked(a1=1), asked(a2=1))


def test_a_mask_applies_to_the_text_that_a_miss_report_shows() -> None:
    """The mask applies after the profile."""
    rules = Rules(mask=(r"in \{\{cwd\}\}/\w+",), profile="claude-code")
    texts = [f"Primary working directory: {cwd}\n in {cwd}/{name}" for cwd, name in (("/home/ann", "a"), ("/root/b", "c"))]
    assert matches(rules, *(asked(system=text) for text in texts))


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--mask", "took (", "'took (' in mask is not a regular expression: missing ), unterminated subpattern"),
        ("--mask", r"\d*", r"'\\d*' in mask matches the empty text"),
        ("--ignore", "messages[", "'messages[' in ignore is not a path of a JSON body"),
        ("--ignore", "", "'' in ignore is not a path of a JSON body"),
    ],
)
def test_a_wrong_rule_is_one_error(option: str, value: str, why: str) -> None:
    """The error comes before the command runs. If a file stores the rule, the error names the file."""
    write_cassette("c.yaml", [exchange(answer(b"data: 1\n\n"))])
    for command in (["record", "--"], ["replay", "c.yaml", "--"], ["serve", "c.yaml"]):
        options = [option, value]
        at = command.index("--") if "--" in command else len(command)
        program = ["touch", "ran"] if "--" in command else []
        assert why in refused(in_this_process(*command[:at], *options, *command[at:], *program))
    assert not Path("ran").exists()
    write_cassette("c.yaml", [exchange(answer(b"data: 1\n\n"))], kept=Kept(**{option.strip("-"): (value,)}))
    assert f"c.yaml: {why}" in refused(in_this_process("replay", "c.yaml", "--", "touch", "ran"))


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_files_and_the_log_store_the_rules(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"c.{suffix}"
    write_cassette(path, [exchange(answer(b"data: 1\n\n"))], kept=KEPT)
    assert read_cassette(path).kept == KEPT
    with EventLog(tmp_path / "log.db") as log:
        run = import_files(log, [path])[0].run
        in_this_process("export", run, "-o", tmp_path / "again.yaml", "--db", tmp_path / "log.db")
    assert read_cassette(tmp_path / "again.yaml").kept == KEPT


def test_damaged_rules_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with path.open("w") as file:
        to_yaml([exchange(answer(b"data: 1\n\n"))], file, kept=KEPT)
    path.write_text(path.read_text().replace("  mask:\n  - took \\d+ ms\n  - at noon\n", "  mask: 7\n"))
    with pytest.raises(CassetteError, match=r"c\.yaml: the key `retold` at the top is damaged: `mask` should hold a list"):
        read_cassette(path)


@pytest.mark.needs("genai-prices")
def test_a_recording_with_rules_replays_without_options(cli: Cli) -> None:
    """This is true for the cassette and for the run. A new recording into the same file keeps the rules of the file."""
    kept = Kept(("max_tokens",), (r"\d+ ms",))
    with MessagesServer([Reply([text("Hello")]), Reply([text("Again")])]) as server:
        options = ["--mask", r"\d+ ms", "--ignore", "max_tokens", "--upstream", server.url]
        cli("record", "-o", "c.yaml", *options, "--", *asks("took 12 ms"))
        replayed = cli("replay", "c.yaml", "--", *asks("took 345 ms"))
        assert replayed.returncode == 0, replayed.stderr
        with EventLog() as log:
            assert recording_named("last", log)[2] == kept
        assert read_cassette("c.yaml").kept == kept
        with wire(server.url, path=Path("c.yaml")) as recording:
            post(recording.url, "took 6 ms")
    assert read_cassette("c.yaml").kept == kept


def test_a_block_combines_its_own_rules_with_those_of_its_cassette(tmp_path: Path) -> None:
    recorded = exchange(answer(b'{"id":"msg_1"}', headers=JSON), asked(system=HOOK, id=1))
    write_cassette(tmp_path / "c.yaml", [recorded], kept=Kept(mask=(r"\d+ ms",)))
    import httpx2

    def ask() -> int:
        return httpx2.post(URL, json={"model": "m", "system": "the hook took 9 ms", "id": 2}).status_code

    with pytest.raises(retold.MissError), retold.use_cassette(tmp_path / "c.yaml"):
        ask()
    with retold.use_cassette(tmp_path / "c.yaml", ignore=["id"]):
        assert ask() == 200
    with pytest.raises(InputError, match="in mask is not a regular expression"):
        retold.use_cassette(tmp_path / "c.yaml", mask="(")


def test_the_ini_adds_rules_for_every_test(pytester: pytest.Pytester) -> None:
    recorded = exchange(answer(b'{"id":"msg_1"}', headers=JSON), asked(system=HOOK, id=1))
    folder = pytester.path / "cassettes" / "test_it"
    folder.mkdir(parents=True)
    write_cassette(folder / "test_ask.yaml", [recorded])
    pytester.makeini("[pytest]\nretold_ignore =\n    id\nretold_mask =\n    \\d+ ms\n")
    pytester.makepyfile(
        test_it="import httpx2, pytest\n@pytest.mark.retold\ndef test_ask():\n"
        f"    httpx2.post({URL!r}, json={{'model': 'm', 'system': 'the hook took 9 ms', 'id': 2}}).raise_for_status()\n"
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio").assert_outcomes(passed=1)


def test_a_mask_that_takes_too_long_fails_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retold.recorder.patience.LIMIT_S", 0.2)
    write_cassette("c.yaml", [exchange(answer(b"data: 1\n\n"), asked(system="a" * 40 + "?"))])
    done = in_this_process("replay", "c.yaml", "--mask", "(a+)+$", "--", sys.executable, "-c", "")
    assert "takes more than 0.2 s" in refused(done)
