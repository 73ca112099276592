"""A secret that the model writes in pieces is in no written file, with any characters. The client gets it in full."""

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import retold
from retold.recorder.http.sse import Piece
from retold.recorder.secrets.redactor import Redactor
from retold.recorder.secrets.streams import FrameRedactor
from tests.clients import ASKING, ask
from tests.messages_server import MessagesServer, Reply, text, thinking, tool_use

KEY = "sk-ant-api03-Ab_9-Cd8efGhIjKlMnOpQrSt"
AWKWARD = [
    'quote"back\\slash-pass',
    "pässwörd-ünïcode",
    "tab\tand\nline-secret",
    "😀secret😀of😀emoji",
    "end\\slash\\",
    "a.b*c(d)[e]^f$|g",
]
"""Values of secret variables that JSON escapes, or that a regular expression would interpret."""

FIELDS = {"text": "text_delta", "thinking": "thinking_delta", "partial_json": "input_json_delta"}
PING = b'event: ping\ndata: {"type": "ping"}\n\n'

redactors = {secret: Redactor({"MY_SECRET": secret}) for secret in AWKWARD} | {KEY: Redactor({})}


def frame(piece: str, field: str = "text", *, ascii_only: bool = False) -> bytes:
    """Return a delta in the spelling of the API, or of a server that escapes every character beyond ASCII."""
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": FIELDS[field], field: piece}}
    return b"event: content_block_delta\ndata: " + json.dumps(event, ensure_ascii=ascii_only).encode() + b"\n\n"


def scrubbed(frames: list[bytes], redactor: Redactor) -> list[bytes]:
    """Return the bytes written for these frames."""
    scrub = FrameRedactor(redactor)
    pieces = [piece for data in frames for piece in scrub.feed(Piece(data, True))] + scrub.flush()
    return [piece.data for piece in pieces]


def text_of(frames: list[bytes]) -> str:
    """Return the texts of the deltas in these frames, joined."""
    events = [json.loads(data.partition(b"data: ")[2]) for data in frames]
    deltas = [event["delta"] for event in events if "delta" in event]
    return "".join(value for delta in deltas for key, value in delta.items() if key != "type")


def cut(whole: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(whole), *(min(place, len(whole)) for place in places)})
    return [whole[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.trap(41)
@settings(deadline=None, max_examples=150)
@example(AWKWARD[3], [2], "\\", ".", "text", True, False)
@given(
    secret=st.sampled_from([KEY, *AWKWARD]),
    places=st.lists(st.integers(0, 60), max_size=40),
    before=st.text('sk-"\\pä😀 t', max_size=6),
    after=st.text('."\\é😀 ', min_size=1, max_size=6),
    field=st.sampled_from(["text", "thinking"]),
    ascii_only=st.booleans(),
    pings=st.booleans(),
)
def test_a_secret_over_any_number_of_deltas_is_never_written(
    secret: str, places: list[int], before: str, after: str, field: str, ascii_only: bool, pings: bool
) -> None:
    """The pieces are the whole, halves or characters. At most three characters of the secret and all text around it remain."""
    frames = [frame(piece, field, ascii_only=ascii_only) for piece in cut(before + secret + after, places)]
    if pings:
        frames = [data for one in frames for data in (one, PING)]
    clean = scrubbed(frames, redactors[secret])
    left = text_of(clean)
    assert secret[3:] not in left
    assert re.fullmatch(f"{re.escape(before)}.{{0,3}}REDACTED.*", left, re.DOTALL)
    assert left.endswith(after)
    assert [data == PING for data in clean] == [data == PING for data in frames]


@settings(deadline=None, max_examples=80)
@given(st.sampled_from([KEY, *AWKWARD]), st.data())
def test_a_text_that_only_begins_like_a_secret_is_written_unchanged(secret: str, data: st.DataObject) -> None:
    """It is written in order, with pings, as soon as the next text or the end shows that it is not a secret."""
    size = data.draw(st.integers(1, 14 if secret == KEY else len(secret) - 1))
    rest = data.draw(st.sampled_from(["", " ", "!", "é", '"', "\n", "and so on"]))
    whole = secret[:size] + rest
    if redactors[secret].search(json.dumps(whole, ensure_ascii=False).encode()):
        return
    frames = [item for piece in cut(whole, data.draw(st.lists(st.integers(0, 20)))) for item in (frame(piece), PING)]
    assert scrubbed(frames, redactors[secret]) == frames


@settings(deadline=None, max_examples=100)
@example('quote"back\\slash-pass', [3, 6])
@given(st.sampled_from([KEY, *AWKWARD]), st.lists(st.integers(0, 60), max_size=20))
def test_a_secret_in_the_input_of_a_tool_is_never_written(secret: str, places: list[int]) -> None:
    """The input is JSON inside JSON, so it has double escapes."""
    whole = json.dumps({"command": f"export A={secret} B=1"}, ensure_ascii=False)
    left = text_of(scrubbed([frame(piece, "partial_json") for piece in cut(whole, places)], redactors[secret]))
    assert json.dumps(secret, ensure_ascii=False)[4:-1] not in left
    assert left.endswith(' B=1"}')


def test_a_scrubbed_frame_is_still_json() -> None:
    """A value that ends in a backslash is not half of an escaped quote."""
    assert text_of(scrubbed([frame('hunter2-secret" he said')], Redactor({"MY_SECRET": "hunter2-secret\\"}))) != ""


# While recording


def recorded(reply: Reply, kind: str) -> tuple[str, str]:
    """Return the client's text during the recording, and the text from the cassette afterwards."""
    with MessagesServer([reply]) as server, retold.use_cassette("c.yaml", record_mode="once"):
        whole = ASKING[kind]("hi", server.url)
    with retold.use_cassette("c.yaml"):
        return whole, ASKING[kind]("hi")


def stored() -> bytes:
    """Return every written byte."""
    return b"".join(path.read_bytes() for path in Path().rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ASKING)
@pytest.mark.parametrize("secret", [KEY, *AWKWARD])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_key_in_small_deltas_is_in_neither_log_nor_cassette(
    secret: str, size: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file has it, in one piece or in many, and the client gets it in full."""
    if secret != KEY:
        monkeypatch.setenv("MY_SECRET", secret)
    sentence = f"Your key is {secret}, keep it."
    whole, replayed = recorded(Reply([text(sentence, pieces=size)]), kind)
    assert whole == sentence
    assert re.fullmatch(r"Your key is .{0,3}REDACTED, keep it\.", replayed, re.DOTALL)
    (message,) = retold.EventLog().messages(retold.EventLog().find("last").run)
    assert next(message.blocks)["text"] == replayed
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        assert form.encode() not in stored()


def test_a_key_in_any_kind_of_block_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kinds are text, thinking and the input of a tool."""
    monkeypatch.setenv("MY_SECRET", AWKWARD[1])
    told = f"{KEY} and {AWKWARD[1]}."
    blocks = [thinking(told, pieces=3), text(told, pieces=3), tool_use("t", {"a": told}, pieces=3)]
    with MessagesServer([Reply(blocks, "tool_use")]) as server, retold.use_cassette("c.yaml", record_mode="once"):
        ask("hi", server.url)
    (exchange,) = retold.read_cassette("c.yaml").exchanges
    assert exchange.response is not None
    frames = [piece.data for piece in exchange.response.pieces]
    assert len(frames) == len(server.sent[0])
    for index in range(3):
        left = text_of([data for data in frames if b'"index":%d' % index in data])
        assert left.count("REDACTED") == 2
        assert (KEY[3:] in left, AWKWARD[1][3:] in left) == (False, False)


@pytest.mark.trap(41)
def test_a_recording_that_is_cut_inside_a_key_has_every_received_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redaction writes the delayed text at the end, because the beginning of a secret is not secret."""
    monkeypatch.setenv("MY_SECRET", "correct-horse-battery")
    frames = 3 + 5  # message_start, content_block_start and ping; then "Say correct-hor"
    reply = Reply([text("Say correct-horse-battery", pieces=3)], cut_after=frames)
    with (
        MessagesServer([reply]) as server,
        retold.use_cassette("c.yaml", record_mode="once"),
        pytest.raises(Exception, match="peer"),
    ):
        ask("hi", server.url)
    (exchange,) = retold.read_cassette("c.yaml").exchanges
    assert exchange.response is not None
    assert exchange.response.body == server.bodies[0]
    assert b"staple" not in stored()
