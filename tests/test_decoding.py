"""Compressed bodies are decoded as their pieces arrive, however they are split, and decoding never fails."""

import importlib
import sys
import zlib
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from retold.recorder.http.encodings import MAX_STREAMS, decoder_for

TEXT = "data: Hello there, é 😀\n\n".encode() * 20


def deflated(bits: int) -> Callable[[bytes], bytes]:
    def compress(data: bytes) -> bytes:
        packer = zlib.compressobj(wbits=bits)
        return packer.compress(data) + packer.flush()

    return compress


def zstd(data: bytes) -> bytes:
    package = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    packed: bytes = package.compress(data)
    return packed


def brotli(data: bytes) -> bytes:
    packed: bytes = importlib.import_module("brotli").compress(data)
    return packed


PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": deflated(31), "deflate": deflated(15), "br": brotli, "zstd": zstd}


def decoded(encoding: str, *chunks: bytes) -> bytes:
    decoder = decoder_for([("content-encoding", encoding)])
    return b"".join(decoder.decode(chunk) for chunk in chunks)


@pytest.mark.trap(25)
@pytest.mark.parametrize("encoding", PACK)
def test_a_compressed_body_is_decoded_in_any_pieces(encoding: str) -> None:
    """It is split into two pieces at every position, and byte by byte."""
    packed = PACK[encoding](TEXT)
    assert {decoded(encoding, packed[:at], packed[at:]) for at in range(len(packed) + 1)} == {TEXT}
    assert decoded(encoding, *(packed[at : at + 1] for at in range(len(packed)))) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_of_several_compressed_streams_is_decoded_completely(encoding: str) -> None:
    """Some servers compress each piece separately. The client reads them all, so redaction must too."""
    packed = PACK[encoding](b"one ") + PACK[encoding](b"two ") + PACK[encoding](b"three")
    assert {decoded(encoding, packed[:at], packed[at:]) for at in range(len(packed) + 1)} == {b"one two three"}


@pytest.mark.parametrize("encoding", PACK)
def test_an_uncompressed_rest_yields_nothing_and_no_error(encoding: str) -> None:
    """The client may ignore these bytes, so the recorder must not fail on them."""
    packed = PACK[encoding](TEXT)
    assert decoded(encoding, b"\x07\x08 not compressed", packed) == b""
    assert decoded(encoding, packed, b"garbage", b"more of it") == TEXT


@pytest.mark.parametrize("encoding", ["", "identity", "unheard-of"])
def test_a_missing_or_unknown_encoding(encoding: str) -> None:
    """A missing one returns the bytes, an unknown one returns nothing."""
    assert decoded(encoding, b"a", b"b") == (b"" if encoding == "unheard-of" else b"ab")


def bomb(encoding: str, mb: int) -> bytes:
    """Return a few kilobytes that decompress to `mb` megabytes of spaces."""
    return PACK[encoding](b" " * (mb << 20))


@pytest.mark.parametrize("encoding", PACK)
def test_a_body_yields_no_more_than_the_bound(encoding: str) -> None:
    """The decoder notes that there is more, and ends there. A body of exactly the bound is whole."""
    packed = bomb(encoding, 3)
    decoder = decoder_for([("content-encoding", encoding)], limit=1 << 20)
    assert sum(len(decoder.decode(packed[at : at + 100])) for at in range(0, len(packed), 100)) == 1 << 20
    assert decoder.exceeded
    whole = decoder_for([("content-encoding", encoding)], limit=3 << 20)
    assert (len(whole.decode(packed)), whole.exceeded) == (3 << 20, False)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_many_small_members_take_linear_time(encoding: str) -> None:
    """The rest is not copied for each member. Of more than the bound, the first ones are decoded."""
    assert decoded(encoding, PACK[encoding](b"x") * 9_000) == b"x" * 9_000
    decoder = decoder_for([("content-encoding", encoding)])
    assert len(decoder.decode(PACK[encoding](b"x") * 100_000)) == MAX_STREAMS
    assert decoder.exceeded


class Endless:
    """A decompressor of an old package without a limit of its output: every byte expands to 64 kB."""

    def process(self, data: bytes) -> bytes:
        return bytes(len(data) << 16)


def test_a_decompressor_without_a_limit_gets_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most the expansion of one input piece exceeds the bound."""
    package = SimpleNamespace(Decompressor=Endless, error=ValueError)
    monkeypatch.setitem(sys.modules, "brotli", package)
    decoder = decoder_for([("content-encoding", "br")], limit=1 << 20)
    assert len(decoder.decode(bytes(10_000))) == 1 << 20
    assert decoder.exceeded
