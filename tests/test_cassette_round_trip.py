"""A cassette reads back as written, and a person can read it too."""

import io
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retold.recorder.cassette import writing
from retold.recorder.cassette.format import read_cassette, write_cassette
from retold.recorder.errors import CassetteError
from retold.recorder.http.exchange import Exchange, Failure, Request
from tests.exchanges import GZIP, JSON, SSE, answer, exchange, exchanges

SUFFIXES = (".yaml", ".json")


def round_trip(folder: Path, suffix: str, *written: Exchange) -> Sequence[Exchange]:
    path = folder / f"cassette{suffix}"
    write_cassette(path, written)
    return read_cassette(path).exchanges


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cassettes")


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, max_examples=25)
@given(exchanges(), exchanges())
@example(exchange(answer(b"\xff\x00\xfe", headers=JSON), body=b"\x80"), exchange(answer(headers=SSE)))
def test_reading_returns_the_written_exchanges(folder: Path, suffix: str, one: Exchange, other: Exchange) -> None:
    """Bytes, headers, endings, times to the microsecond, variables and tool results are equal, in YAML and in JSON."""
    assert round_trip(folder, suffix, one, other) == (one, other)


AWKWARD = {
    "CRLF": b"event: a\r\ndata: 1\r\n\r\n",
    "CR": b"event: a\rdata: 1\r\r",
    "trailing spaces": b"data: 1  \n\ndata: 2\t\n\n",
    "emoji": "data: 😀 é\n\n".encode(),
    "U+2028 and U+0085": "data: a\u2028b\u2029c\u0085d\n\n".encode(),
    "BOM": "\ufeffdata: 1\n\ndata: \ufeff\n\n".encode(),
    "NUL": b"data: a\0b\n\n",
    "no final blank line": b"data: 1\n\ndata: 2",
    "leading blank lines": b"\n\n\n data: 1\n\n",
    "trailing blank lines": b"data: 1\n\n\n\n\n",
    "leading space": b"  data: 1\n\n",
    "YAML's own marks": b"---\ndata: 1\n...\n\n# no comment\n\n- a: &x *y !!z\n\n",
    "empty": b"",
}


TEXTS = st.text(st.sampled_from("ab \n\t:#-é😀\u2028\U0010ffff'\"|"), max_size=12) | st.text(st.sampled_from("a\n é"), max_size=9)
VALUES = st.recursive(TEXTS, lambda held: st.lists(held, max_size=3) | st.dictionaries(st.sampled_from("abc"), held, max_size=3))


@settings(deadline=None, max_examples=300)
@given(VALUES)
@example(["a\n\nb\n\n\nc\n\n", {"a": "a\n\n\n\n:"}])
def test_a_long_block_is_written_as_a_short_one(value: object) -> None:
    """The file is the same to the byte, although a long block is put into it past the writer of YAML."""

    def written(long: int) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writing, "LONG", long)
            writing.dump([value], file := io.StringIO())
        return file.getvalue()

    assert written(1) == written(10**9)
    assert yaml.safe_load(written(1)) == [value]


@pytest.mark.trap(25)
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("body", AWKWARD.values(), ids=AWKWARD.keys())
def test_awkward_bytes_read_back_unchanged(tmp_path: Path, suffix: str, body: bytes) -> None:
    """YAML normalises many characters in a block. Bodies with such characters are quoted."""
    written = exchange(answer(*([body] if body else [])), body=body)
    (read,) = round_trip(tmp_path, suffix, written)
    assert read.response is not None
    assert (read.response.body, read.request.body) == (body, body)


@pytest.mark.parametrize("headers", [JSON, GZIP], ids=["JSON", "gzip"])
def test_pieces_that_are_not_frames_keep_their_sizes(tmp_path: Path, headers: object) -> None:
    """JSON and compressed bodies read back in their recorded pieces."""
    pieces = (b"\x1f\x8b\x08", b"\x00" * 5, b"x")
    response = answer(*pieces, headers=GZIP if headers == GZIP else JSON)
    (read,) = round_trip(tmp_path, ".yaml", exchange(response))
    assert read.response == response


def test_no_response_differs_from_an_empty_response(tmp_path: Path) -> None:
    """vcrpy's format needs a response. A missing one reads back as None."""
    failure = Failure("httpx2.ConnectError", "[Errno 111] Connection refused")
    lost = replace(exchange(), response=None, ending="no_response", failure=failure)
    empty = exchange(answer(status=204, reason="No Content", headers=()))
    assert round_trip(tmp_path, ".yaml", lost, empty) == (lost, empty)


def test_the_file_is_vcrpys_version_1_with_one_more_key(tmp_path: Path) -> None:
    """The file is plain YAML. Values that vcrpy knows are in vcrpy's places, the rest is under `retold`."""
    response = answer(b"data: 1\n\n", b"data: 2\n\n", status=529, reason="")
    write_cassette(tmp_path / "c.yaml", [exchange(response, call=1, step="ask", recorded_at="2026-11-22T14:29:35.123Z")])
    assert yaml.safe_load((tmp_path / "c.yaml").read_text()) == {
        "version": 1,
        "retold": {"format": 2},
        "retold_end": True,
        "interactions": [
            {
                "request": {
                    "method": "POST",
                    "uri": "https://api.anthropic.com/v1/messages",
                    "headers": {"content-type": ["application/json"]},
                    "body": '{"model":"m"}',
                },
                "response": {
                    "status": {"code": 529, "message": ""},
                    "headers": {"content-type": ["text/event-stream; charset=utf-8"]},
                    "body": {"string": "data: 1\n\ndata: 2\n\n"},
                },
                "retold": {
                    "recorded_at": "2026-11-22T14:29:35.123Z",
                    "step": "ask",
                    "call": 1,
                    "attempt": 1,
                    "stamped": "pull",
                    "ending": "complete",
                    "started_ms": 0.0,
                    "first_ms": 1.0,
                    "offsets_ms": "1 2",
                    "ended_ms": 2.0,
                },
            }
        ],
    }


@pytest.mark.parametrize("text", ["plain", "é", "😀"])
def test_an_event_stream_is_a_literal_block(tmp_path: Path, text: str) -> None:
    """A review in git shows the frames line by line, including characters beyond the BMP."""
    write_cassette(tmp_path / "c.yaml", [exchange(answer(f"event: a\ndata: {text}\n\n".encode(), b"data: 2\n\n"))])
    lines = (tmp_path / "c.yaml").read_text("utf-8").split("\n")
    start = next(number for number, line in enumerate(lines) if line.lstrip().startswith("string: |"))
    assert [line.strip() for line in lines[start + 1 : start + 6]] == ["event: a", f"data: {text}", "", "data: 2", ""]


def test_no_line_of_a_cassette_ends_in_a_space(tmp_path: Path) -> None:
    """Editors and hooks strip such spaces, so a body with them is quoted."""
    written = exchange(answer(b"event: a\ndata: 1 \n\n", b"data: 2\t\n\n"), body=b"a \nb")
    assert round_trip(tmp_path, ".yaml", written) == (written,)
    assert [line for line in (tmp_path / "cassette.yaml").read_text().split("\n") if line != line.rstrip()] == []


def test_frames_without_a_time_use_the_last_time(tmp_path: Path) -> None:
    """A cassette may be edited. A body with more frames than times is still played in order."""
    path = tmp_path / "c.yaml"
    write_cassette(path, [exchange(answer(b"data: 1\n\n", b"data: 2\n\n"))])
    text = path.read_text()
    path.write_text(text.replace("data: 1\n", "data: 0\n\n        data: 1\n"))
    (read,) = read_cassette(path).exchanges
    assert read.response is not None
    assert [(piece.data, piece.offset_ns) for piece in read.response.pieces] == [
        (b"data: 0\n\n", 1_000_000),
        (b"data: 1\n\n", 2_000_000),
        (b"data: 2\n\n", 2_000_000),
    ]


def test_an_empty_cassette_has_no_exchanges(tmp_path: Path) -> None:
    """A cassette may have no recordings."""
    assert round_trip(tmp_path, ".yaml") == ()


def test_header_names_keep_their_case_and_repeated_headers_their_order(tmp_path: Path) -> None:
    """`set-cookie` occurs twice, and `X-A` and `x-a` stay two names."""
    headers = (("X-A", "1"), ("set-cookie", "b"), ("set-cookie", "a"), ("x-a", "2"))
    written = exchange(answer(b"x", headers=headers))
    assert round_trip(tmp_path, ".yaml", written) == (written,)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_lone_surrogates_in_tool_results_survive(tmp_path: Path, suffix: str) -> None:
    """A tool's output may contain half a character. The log keeps it as an escape, and so must the cassette."""
    written = exchange(tool_results=({"type": "tool_result", "content": "\ud83d x"},))
    assert round_trip(tmp_path, suffix, written) == (written,)


# Atomic writing


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_while_writing_leaves_the_old_cassette(tmp_path: Path, suffix: str) -> None:
    """The complete old cassette stays, and no partial file remains beside it."""
    path = tmp_path / "cassettes" / f"c{suffix}"
    write_cassette(path, [exchange()])
    before = path.read_bytes()
    with pytest.raises((yaml.YAMLError, TypeError)):
        write_cassette(path, [exchange(), exchange(tool_results=({"content": object()},))])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_disk_that_fails_is_a_cassette_error_and_leaves_the_old_cassette(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file replaces the old one only when it is safely on the disk."""
    path = tmp_path / "cassettes" / "c.yaml"
    write_cassette(path, [exchange()])
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CassetteError, match=rf"cannot write the cassette {path}: No space left on device\."):
        write_cassette(path, [exchange(), exchange()])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_cassette_has_normal_file_permissions(tmp_path: Path) -> None:
    """It goes into git. All users can read a new one, a rewritten one keeps its mode, and folders are created."""
    path = tmp_path / "new" / "folder" / "c.yaml"
    write_cassette(path, [exchange()])
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    os.chmod(path, 0o600)
    write_cassette(path, [exchange()])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_json_is_the_same_structure(tmp_path: Path) -> None:
    """`.json` is for speed, and has the same content as YAML."""
    written = [exchange(answer("data: é😀\n\n".encode())), exchange(replace(answer(), headers=()), body=b"")]
    for suffix in SUFFIXES:
        write_cassette(tmp_path / f"c{suffix}", written)
    assert yaml.safe_load((tmp_path / "c.yaml").read_text("utf-8")) == json.loads((tmp_path / "c.json").read_text("utf-8"))


def test_a_cassette_keeps_the_recorded_request(tmp_path: Path) -> None:
    """It has the method, the URL with its query, the headers and the body of the request."""
    request = Request("POST", "https://h/v1/messages?beta=true&x=%20", (("anthropic-version", "2023-06-01"),), b'{"a": 1}')
    (read,) = round_trip(tmp_path, ".yaml", replace(exchange(), request=request))
    assert read.request == request


@pytest.mark.parametrize("text", [r"\frac{a}{b} " * 60, "[a" * 60, "{" * 60 + "x", "- " * 120, "[[{ " * 60])
def test_a_prompt_full_of_brackets_is_read(text: str, tmp_path: Path) -> None:
    """It looks like deep nesting, but may be a formula. The second check must not take for ever."""
    path = tmp_path / "c.yaml"
    write_cassette(path, [Exchange(Request("POST", "http://h/v1/messages", (), text.encode()), None, ending="no_response")])
    assert read_cassette(path).exchanges[0].request.body == text.encode()
