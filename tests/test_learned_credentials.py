"""Redaction finds many learned credentials in every text and spelling, at a cost that does not grow with their number."""

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.http.exchange import Request
from retold.recorder.http.sse import Piece
from retold.recorder.secrets import learned
from retold.recorder.secrets.learned import MAX_LEARNED, Learned
from retold.recorder.secrets.redactor import MAX_COMPILED, Redactor
from retold.recorder.secrets.streams import FrameRedactor

PLAIN = string.ascii_letters + string.digits + "_-.~+/=:,;@"


def keyed(value: str) -> Request:
    return Request("POST", "https://api.anthropic.com/v1/messages", (("x-api-key", value),), b"{}")


def key(number: int) -> str:
    return f"{number * 7919 % 1000:03}k{number:05}-QzT{number * 31 % 97:02}xW9v"


def taught(count: int) -> Redactor:
    redactor = Redactor({})
    for number in range(count):
        redactor.learn(keyed(key(number)))
    return redactor


def frames(text: str, size: int) -> list[Piece]:
    cuts = [text[at : at + size] for at in range(0, len(text), size)]
    deltas = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": cut}} for cut in cuts]
    return [Piece(f"event: content_block_delta\ndata: {json.dumps(delta)}\n\n".encode(), True) for delta in deltas]


def streamed(redactor: Redactor, pieces: list[Piece]) -> list[bytes]:
    scrub = FrameRedactor(redactor)
    return [piece.data for given_piece in pieces for piece in scrub.feed(given_piece)] + [p.data for p in scrub.flush()]


@settings(max_examples=30)
@given(
    values=st.lists(st.text(PLAIN, min_size=16, max_size=60), min_size=MAX_COMPILED + 1, max_size=MAX_COMPILED + 12),
    parts=st.lists(st.one_of(st.integers(0, 30), st.text(max_size=12), st.sampled_from(["\\", "\\\\", "%25", "\n"])), max_size=8),
    spelling=st.sampled_from(["as it is", "json", "json twice", "php", "escaped", "percent"]),
    size=st.integers(1, 40),
)
def test_learned_credentials_are_removed_like_credentials_of_the_environment(
    values: list[str], parts: list[int | str], spelling: str, size: int
) -> None:
    many = Redactor({})
    for value in values:
        many.learn(keyed(value))
    learned = set() if many._learned is None else many._learned._forms.keys()
    reference = Redactor({}, extra=many._few.keys() | learned)
    text = "".join(values[part % len(values)] if isinstance(part, int) else part for part in parts)
    spelt = {
        "as it is": text,
        "json": json.dumps(text),
        "json twice": json.dumps(json.dumps(text)),
        "php": json.dumps(text).replace("/", "\\/"),
        "escaped": "".join(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else char for char in text),
        "percent": "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass")),
    }[spelling].encode("utf-8", "surrogatepass")
    assert many.data(spelt) == reference.data(spelt)
    assert many.is_open(spelt) == reference.is_open(spelt)
    assert streamed(many, frames(text, size)) == streamed(reference, frames(text, size))


def test_a_credential_is_found_at_any_offset_of_a_text() -> None:
    redactor = taught(200)
    for offset in range(17):
        for number in (0, MAX_COMPILED, 100, 199):
            text = b"x" * offset + b" " + key(number).encode() + b" and more"
            assert redactor.data(text) == b"x" * offset + b" REDACTED and more"


def test_a_credential_split_over_frames_is_removed_however_many_are_known() -> None:
    """The credentials have more than MAX_STARTS different beginnings."""
    redactor = taught(300)
    assert redactor._learned is not None
    assert redactor._learned.starts is None
    for size in (1, 3, 7, 20):
        written = b"".join(streamed(redactor, frames(f"the key {key(250)} is of no use", size)))
        assert key(250)[:8].encode() not in written
        assert b"REDACTED" in written


def test_the_newest_credentials_are_kept_and_memory_does_not_grow() -> None:
    held = Learned(4)
    values = [key(number) for number in range(MAX_LEARNED + 50)]
    for value in values[:-1]:
        held.add(value)
        assert not held.add(values[0]), "a credential in use is never forgotten"
    held.add(values[-1])
    assert len(held) == MAX_LEARNED
    assert list(held.spans(values[0].encode())) == list(held.spans(values[-1].encode())) == [(0, len(values[0]))]
    assert not list(held.spans(values[1].encode()))
    assert len(held._groups) <= 8 * MAX_LEARNED
    assert sum(map(len, held._groups.values())) <= 8 * MAX_LEARNED
    assert sum(map(len, held._by_start.values())) == MAX_LEARNED


def test_learning_another_credential_compiles_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier, each credential compiled a pattern of all credentials: 76 ms a request with 600 keys, and 69 KB each."""
    redactor = taught(learned.MAX_STARTS * 3)
    patterns = redactor.beginning, redactor._pattern
    monkeypatch.delattr("re.compile")
    for number in range(300, 320):
        redactor.learn(keyed(key(number)))
        assert redactor.data(key(number).encode()) == b"REDACTED"
    assert (redactor.beginning, redactor._pattern) == patterns


def test_credentials_that_need_a_pattern_do_not_accumulate() -> None:
    redactor = Redactor({})
    for number in range(50):
        redactor.learn(keyed(f'"odd key {number}"-Zq8Rt5Wv"{number:04}"'.replace(" ", "")))
        redactor.learn(keyed(key(number)))
    assert len(redactor._few) == MAX_COMPILED
    assert redactor.data(key(0).encode()) == b"REDACTED", "plain ones make room and stay known"
