"""`show` and `play` name the exchanges with hosts other than Claude's API."""

import json
from pathlib import Path

import pytest

from tests.e2e import in_this_process


def cassette(*uris: str) -> str:
    """Write a cassette of one exchange for each address."""
    body = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "yes"}],
        "usage": {},
    }
    entries = [
        {
            "request": {"method": "POST", "uri": uri, "headers": {"content-type": ["application/json"]}, "body": "{}"},
            "response": {
                "status": {"code": 200, "message": "OK"},
                "headers": {"content-type": ["application/json"]},
                "body": {
                    "string": json.dumps(body if "anthropic" in uri else {"object": "chat.completion", "text": "\u001b[2J"})
                },
            },
        }
        for uri in uris
    ]
    Path("c.json").write_text(json.dumps({"interactions": entries}))
    assert in_this_process("import", "c.json").returncode == 0
    return "c.json"


OPENAI = "https://api.openai.com/v1/chat/completions"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/g:generateContent"
CLAUDE = "https://api.anthropic.com/v1/messages"


@pytest.mark.parametrize("handler", ["simple", "console"])
@pytest.mark.parametrize("command", ["show", "play-run", "play-file"])
def test_a_run_with_only_other_hosts_has_no_footer(command: str, handler: str) -> None:
    path = cassette(OPENAI, OPENAI, OPENAI, GEMINI)
    words = {"show": ["show", "last"], "play-run": ["play", "last"], "play-file": ["play", path]}[command]
    done = in_this_process(*words, "--handler", handler)
    first, second = done.stdout.splitlines()
    assert first.startswith("3 exchanges with api.openai.com hold no Claude messages; ")
    assert first.endswith("--raw shows them")
    assert second.startswith("1 exchange with generativelanguage.googleapis.com holds no Claude messages; ")
    assert done.returncode == 0


def test_a_mixed_run_shows_both() -> None:
    cassette(CLAUDE, OPENAI)
    output = in_this_process("show", "last").stdout
    assert "1 exchange with api.openai.com holds no Claude messages; --raw shows them\n" in output
    assert "ASSISTANT: yes" in output
    assert "api.anthropic.com" not in output


def test_raw_shows_other_exchanges_cleaned_for_the_screen() -> None:
    cassette(OPENAI)
    output = in_this_process("show", "last", "--raw").stdout
    assert "chat.completion" in output
    assert "\x1b" not in output
