"""Undo a content encoding (gzip, deflate, br, zstd), piece by piece and bounded.

Every part of retold that reads a compressed body decodes it here: capture, folding, comparing, searching, erasing. A few
kilobytes can decompress to gigabytes, so a decoder yields at most `MAX_DECODED_BYTES`. After that, `exceeded` is set and it
yields nothing more. The recorded wire bytes are not affected.
"""

import importlib
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from .exchange import content_encoding

MAX_DECODED_BYTES = 32 * 1024 * 1024
"""The limit for one decompressed body. The longest answers of the API, as event streams, have a fifth of that."""

MAX_STREAMS = 10_000
"""The limit of compressed streams (gzip members, zstd frames) in one body. Each costs a new decompressor."""

_SLICE = 4096
"""Compressed bytes per call: each end of a member (gzip) or frame (zstd) copies the rest of the call's bytes."""

_SMALL_SLICE = 16
"""The same for a decompressor that cannot limit its output, because a few bytes may decompress to megabytes."""


class Decoder:
    """Returns bodies unchanged: the encoding `identity`."""

    exceeded = False
    """Whether the body holds more than the decoder may yield."""

    def decode(self, data: bytes) -> bytes:
        """Return the content that these bytes complete; empty if they complete none, or are damaged."""
        return data


class _Unreadable(Decoder):
    """An encoding without a decoder in this Python. The wire bytes are kept, and retold does not read their content."""

    def decode(self, data: bytes) -> bytes:  # noqa: ARG002 - as every decoder
        return b""


class _Bounded(Decoder):
    """A decompressor with a limit. Damaged data yields nothing more, and no error, because the client may ignore the damage.

    Another compressed stream may follow a complete one (gzip's members, zstd's frames). `make` makes its decompressor.
    """

    def __init__(self, make: Callable[[], Any], error: type[Exception], limit: int) -> None:
        self._make = make
        self._error = error
        self._left = limit
        self._one = make()
        self._slice = getattr(self._one, "slice", _SLICE)
        self._streams = 0
        self._broken = False

    def decode(self, data: bytes) -> bytes:
        found = []
        for start in range(0, len(data), self._slice):
            if self._broken:
                break
            found += self._decoded(data[start : start + self._slice])
        return b"".join(found)

    def _decoded(self, data: bytes) -> list[bytes]:
        found = []
        while data and not self._broken:
            try:
                if self._one.eof:
                    self._streams += 1
                    if self._streams == MAX_STREAMS:
                        self.exceeded = self._broken = True
                        break
                    self._one = self._make()
                content = self._one.decompress(data, self._left + 1)
            except self._error:
                self._broken = True
                break
            if len(content) > self._left:
                content, self.exceeded, self._broken = content[: self._left], True, True
            self._left -= len(content)
            found.append(content)
            data = self._one.unused_data if self._one.eof else b""
        return found


class _Unlimited:
    """A decompressor without an output limit, behind the interface of zlib's."""

    slice = _SMALL_SLICE

    def __init__(self, one: Any, decompress: Callable[[bytes], bytes]) -> None:
        self._one = one
        self._decompress = decompress

    @property
    def eof(self) -> bool:
        return bool(getattr(self._one, "eof", False))

    @property
    def unused_data(self) -> bytes:
        return bytes(getattr(self._one, "unused_data", b""))

    def decompress(self, data: bytes, _: int) -> bytes:
        return self._decompress(data)


class _Brotli:
    """Brotli's decompressor behind the interface of zlib's."""

    eof = False
    unused_data = b""

    def __init__(self, package: Any) -> None:
        self._process = package.Decompressor().process

    def decompress(self, data: bytes, limit: int) -> bytes:
        content: bytes = self._process(data, output_buffer_limit=limit)
        return content


def decoder_for(headers: Iterable[tuple[str, str]], *, limit: int = MAX_DECODED_BYTES) -> Decoder:
    """Return a decoder for the body of these headers. It yields at most `limit` bytes of a compressed body."""
    match content_encoding(headers):
        case "":
            return Decoder()
        case "gzip" | "x-gzip":
            return _Bounded(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), zlib.error, limit)
        case "deflate":
            return _Bounded(zlib.decompressobj, zlib.error, limit)
        case "br" | "zstd" as encoding:
            return _optional(encoding, limit)
        case _:
            return _Unreadable()


_OPTIONAL = {"br": ("brotli", "brotlicffi"), "zstd": ("compression.zstd", "backports.zstd", "zstandard")}
"""Packages that undo an encoding, in the order in which httpx2 and httpx try them."""


def _optional(encoding: str, limit: int) -> Decoder:
    """Return a decoder from a package that the HTTP clients use. If none is installed, no client requests the encoding."""
    for name in _OPTIONAL[encoding]:
        try:
            package = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        make, error = _MAKERS[name](package)
        return _Bounded(make, error, limit)
    return _Unreadable()


def _brotli(package: Any) -> tuple[Callable[[], Any], type[Exception]]:
    try:
        package.Decompressor().process(b"", output_buffer_limit=1)
    except TypeError:  # brotli before 1.2
        return lambda: _unlimited_brotli(package.Decompressor()), package.error
    return lambda: _Brotli(package), package.error


def _unlimited_brotli(one: Any) -> _Unlimited:
    return _Unlimited(one, one.process)


def _zstd(package: Any) -> tuple[Callable[[], Any], type[Exception]]:
    return package.ZstdDecompressor, package.ZstdError


def _zstandard(package: Any) -> tuple[Callable[[], Any], type[Exception]]:
    def make() -> _Unlimited:
        one = package.ZstdDecompressor().decompressobj()
        return _Unlimited(one, one.decompress)

    return make, package.ZstdError


_MAKERS = {
    "brotli": _brotli,
    "brotlicffi": _brotli,
    "compression.zstd": _zstd,
    "backports.zstd": _zstd,
    "zstandard": _zstandard,
}
