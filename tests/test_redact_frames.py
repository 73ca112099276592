"""Redaction finds a secret split over the pieces of a body. All other bytes stay the same, in the same order."""

import itertools
import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retold.recorder.events import encode
from retold.recorder.http.sse import Classified, FrameParser, Piece, plain_deltas
from retold.recorder.secrets import shapes
from retold.recorder.secrets.redactor import Redactor
from retold.recorder.secrets.streams import FrameRedactor

KEY = "sk-ant-api03-Ab_9-Cd8efGhIjKlMnOpQrSt"
SECRET = "hunter2-correct-horse"


def frame(index: int, piece: str, field: str = "text") -> bytes:
    kind = {"text": "text_delta", "thinking": "thinking_delta", "partial_json": "input_json_delta"}[field]
    event = {"type": "content_block_delta", "index": index, "delta": {"type": kind, field: piece}}
    return b"event: content_block_delta\ndata: " + encode(event) + b"\n\n"


PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def scrubbed(frames: list[bytes], redactor: Redactor) -> list[bytes]:
    scrub = FrameRedactor(redactor)
    return [piece.data for f in frames for piece in scrub.feed(Piece(f, True))] + [piece.data for piece in scrub.flush()]


def texts(frames: list[bytes], index: int = 0) -> str:
    """Return the text of one block, joined from its frames."""
    events = [json.loads(f.partition(b"data: ")[2]) for f in frames]
    deltas = [event["delta"] for event in events if event.get("index") == index and "delta" in event]
    return "".join(value for delta in deltas for key, value in delta.items() if key != "type")


def cut(whole: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(whole), *(min(place, len(whole)) for place in places)})
    return [whole[a:b] for a, b in itertools.pairwise(edges)]


def leaked(secret: str, said: str) -> list[str]:
    """Return the remaining parts of a secret after its first three characters."""
    return [part for start in range(3, len(secret) - 4) if (part := secret[start : start + 5]) in said]


cuts = st.lists(st.integers(0, 70), max_size=12)


@settings(deadline=None, max_examples=100)
@given(cuts, st.sampled_from([KEY, SECRET]), st.text("ask- \n\"é", max_size=8), st.text(" .\n\"é", min_size=1, max_size=8),
       st.sampled_from(["text", "thinking", "partial_json"]), st.booleans())  # fmt: skip
@example(places=[], secret=KEY, before="sk-", after="é", field="text", with_pings=False)
@example(places=[5], secret=KEY, before="sk-sk-", after=" ", field="text", with_pings=True)
def test_a_secret_split_over_any_deltas_is_removed(
    places: list[int], secret: str, before: str, after: str, field: str, with_pings: bool
) -> None:
    """It is split over 2, 3 or n pieces, with pings between them. At most its first three characters remain."""
    frames = [frame(0, piece, field) for piece in cut(before + secret + after, places)]
    if with_pings:
        frames = [f for pair in zip(frames, [PING] * len(frames), strict=True) for f in pair]
    clean = scrubbed(frames, Redactor({"MY_TOKEN": SECRET}))
    said = texts(clean)
    assert leaked(secret, said) == []
    assert secret[:4] not in said[len(before) :]
    assert said.startswith(before)
    assert said.endswith(after)
    assert "REDACTED" in said
    assert len(clean) == len(frames)


parts = st.tuples(st.integers(0, 1), st.sampled_from(["s", "sk", "sk-", "sk-a", "k-ant", "-ant-", "hun", "ter2", " ", "x"]))


@settings(deadline=None, max_examples=100)
@given(st.lists(parts, max_size=12))
def test_streams_without_a_secret_are_unchanged_byte_for_byte(said: list[tuple[int, str]]) -> None:
    """Text that only looks like the beginning of a secret is written unchanged and in order, also in interleaved blocks."""
    frames = [f for index, piece in said for f in (frame(index, piece), PING)]
    redactor = Redactor({"MY_TOKEN": SECRET})
    if any(redactor.search("".join(piece for i, piece in said if i == index).encode()) for index in (0, 1)):
        return
    assert scrubbed(frames, redactor) == frames


@settings(deadline=None, max_examples=50)
@example([3], [6])
@given(cuts, cuts)
def test_secrets_in_interleaved_blocks_are_removed(one: list[int], other: list[int]) -> None:
    """Two blocks stream in turn, each with its own secret."""
    pairs = itertools.zip_longest(cut(f"a {KEY} b", one), cut(f"c {SECRET} d", other))
    frames = [frame(index, piece) for pair in pairs for index, piece in enumerate(pair) if piece is not None]
    clean = scrubbed(frames, Redactor({"MY_TOKEN": SECRET}))
    for index, secret in enumerate((KEY, SECRET)):
        assert leaked(secret, texts(clean, index)) == []


def test_text_directly_after_a_known_secret_is_kept() -> None:
    """Only a key recognised by its shape has no known end. A value of the environment ends where it ends, however it was cut."""
    redactor = Redactor({"MY_TOKEN": SECRET})
    for pieces in ([SECRET + "shoe"], [SECRET, "shoe"], [SECRET[:9], SECRET[9:] + "shoe"], [SECRET[:9], SECRET[9:], "shoe"]):
        assert texts(scrubbed([frame(0, piece) for piece in pieces], redactor)) == "REDACTEDshoe"


def scrubbed_chunks(chunks: list[bytes], redactor: Redactor) -> list[bytes]:
    """Return pieces that are not frames: JSON, or an oversized frame."""
    scrub = FrameRedactor(redactor)
    return [piece.data for chunk in chunks for piece in scrub.feed(Piece(chunk, False))] + [piece.data for piece in scrub.flush()]


@settings(deadline=None, max_examples=80)
@given(cuts, st.sampled_from([KEY, SECRET]), st.text('ask- \n"é', max_size=8), st.text(' .\n"é', min_size=1, max_size=8))
def test_a_secret_split_over_any_chunks_is_removed(places: list[int], secret: str, before: str, after: str) -> None:
    """The socket cuts a body that is not a stream."""
    chunks = [part.encode() for part in cut(before + secret + after, places)]
    clean = scrubbed_chunks(chunks, Redactor({"MY_TOKEN": SECRET}))
    said = b"".join(clean).decode()
    assert leaked(secret, said) == []
    assert secret[:4] not in said[len(before) :]
    assert said.startswith(before)
    assert said.endswith(after)
    assert len(clean) == len(chunks)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(
        st.one_of(st.binary(max_size=8), st.sampled_from([b"s", b"sk-", b"sk-a", b"sk-ant", b"-ant-", b"hunter2-"])), max_size=12
    )
)
def test_chunks_without_a_secret_are_unchanged_byte_for_byte(chunks: list[bytes]) -> None:
    """The pieces are the same, in the same order. None is joined, and none becomes empty."""
    redactor = Redactor({"MY_TOKEN": SECRET})
    if redactor.search(b"".join(chunks)) is None:
        assert scrubbed_chunks(chunks, redactor) == chunks


def test_a_frame_without_a_possible_secret_is_written_at_once() -> None:
    """Only a possible beginning of a secret waits, until it turns out not to be one."""
    scrub = FrameRedactor(Redactor({"MY_TOKEN": SECRET}))
    waits = [len(scrub.feed(Piece(frame(0, part), True))) for part in ("Hello", " task", " sk-a", "nt", "elope", " you")]
    assert waits == [1, 1, 0, 0, 0, 4]


def test_the_frames_after_a_waiting_one_wait_too() -> None:
    """The order in the log is the order on the wire."""
    scrub = FrameRedactor(Redactor({}))
    frames = [frame(0, "sk-ant-"), PING, frame(1, "other"), frame(0, "no key")]
    written = [[piece.data for piece in scrub.feed(Piece(f, True))] for f in frames]
    assert written == [[], [], [], frames]


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Fail a test that never ends, instead of blocking the suite."""

    def expire(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("secret", ["REDACTED", "xREDACTED", "REDACTEDx", "ACTEDRED"])
def test_a_secret_equal_to_its_replacement_does_not_hang_the_recording(secret: str) -> None:
    """An already scrubbed environment (`ANTHROPIC_API_KEY=REDACTED`) causes no endless search."""
    with time_limit(1):
        clean = scrubbed([frame(0, f"a {secret} b"), frame(0, secret)], Redactor({}, extra=[secret]))
    assert texts(clean).startswith("a REDACTED b")


def test_a_frame_is_matched_once_and_keeps_its_object() -> None:
    """Redaction returns the object of the parser, with the match that folding uses."""
    parser, scrub = FrameParser(), FrameRedactor(Redactor({}))
    (piece,) = parser.feed(frame(0, "hello"))
    (clean,) = scrub.feed(piece)
    assert clean is piece
    assert isinstance(clean, Classified)
    assert clean.delta == (b"0", b"text", b"hello")


@given(st.sets(st.binary(min_size=1, max_size=6), min_size=1, max_size=8), st.binary(max_size=60), st.integers(0, 60))
def test_a_search_by_the_rarest_character_finds_the_same_as_a_search_from_the_first(
    literals: set[bytes], text: bytes, place: int
) -> None:
    """Both find a literal at any place in a text, and after any other text."""
    text = text[:place] + min(literals) * (place % 2) + text[place:]
    found = re.search(shapes.by_rarest_character(literals), text, re.DOTALL)
    assert (found is not None) == any(literal in text for literal in literals)
    for literal in literals:
        assert re.compile(shapes.by_rarest_character(literals)).search(text + literal, len(text)) is not None


@settings(deadline=None, max_examples=200)
@given(cuts, cuts, st.sampled_from([KEY, SECRET, "no secret at all"]), st.text("ask- \n\"é\\", max_size=80),
       st.text(" .\n\"é\\", max_size=80))  # fmt: skip
@example([6], [8], KEY, "It is ", " indeed")
def test_frames_that_arrive_together_are_searched_together(
    places: list[int], groups: list[int], secret: str, before: str, after: str
) -> None:
    """The result is that of a search in each frame: frames pass together only if each would be written unchanged."""
    frames = [frame(0, piece) for piece in cut(before + secret + after, places)]
    redactor = Redactor({"MY_TOKEN": SECRET})
    scrub, written = FrameRedactor(redactor), list[bytes]()
    edges = sorted({0, len(frames), *(min(place, len(frames)) for place in groups)})
    for first, last in itertools.pairwise(edges):
        if (deltas := plain_deltas(b"".join(frames[first:last]))) is not None and scrub.passes(deltas):
            written += deltas.frames
        else:
            written += [piece.data for f in frames[first:last] for piece in scrub.feed(Piece(f, True))]
    assert written + [piece.data for piece in scrub.flush()] == scrubbed(frames, redactor)
