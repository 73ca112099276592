"""Undoing a content encoding (gzip, deflate, br, zstd), piece by piece and bounded.

Everything that looks into a compressed body decodes it here: capture, folding, comparing, searching, erasing. A few kilobytes
can stand for gigabytes, so a decoder yields at most `MAX_DECODED_BYTES`. After that, `exceeded` is set and it yields nothing
more. The recorded wire bytes are not affected.
"""

import importlib
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from .exchange import content_encoding

MAX_DECODED_BYTES = 32 * 1024 * 1024
"""How much one body may decompress to. The longest answers of the API are a fifth of that as event streams."""

MAX_STREAMS = 10_000
"""How many compressed streams (gzip members, zstd frames) may follow each other in one body. Each costs a new decompressor."""

_SLICE = 4096
"""Compressed bytes given at once: each end of a member (gzip) or frame (zstd) copies the rest of what was given."""

_SMALL_SLICE = 16
"""The same for a decompressor that cannot limit its output, whose next few bytes may stand for megabytes."""


class Decoder:
    """Returns bodies as they are: the encoding `identity`."""

    exceeded = False
    """Whether the body holds more than the decoder may yield."""

    def decode(self, data: bytes) -> bytes:
        """Return the content that these bytes complete; empty if they complete none, or cannot be read."""
        return data


class _Unreadable(Decoder):
    """An encoding that this Python has no decoder for. The wire bytes are kept and nobody looks into them."""

    def decode(self, data: bytes) -> bytes:  # noqa: ARG002 - as every decoder
        return b""


class _Bounded(Decoder):
    """A decompressor. Broken data yields nothing more, and no error: the client may not care about it.

    Where a compressed stream ends another may follow (gzip's members, zstd's frames), for which `make` makes the next.
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
    """A decompressor that knows no output limit, in the words of zlib's."""

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
    """Brotli's decompressor in the words of zlib's."""

    eof = False
    unused_data = b""

    def __init__(self, package: Any) -> None:
        self._process = package.Decompressor().process

    def decompress(self, data: bytes, limit: int) -> bytes:
        content: bytes = self._process(data, output_buffer_limit=limit)
        return content


def decoder_for(headers: Iterable[tuple[str, str]], *, limit: int = MAX_DECODED_BYTES) -> Decoder:
    """Return a decoder for the body that comes with these headers. It yields at most `limit` bytes of a compressed one."""
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
"""Packages that undo an encoding, in the order in which httpx2 and httpx look for them."""


def _optional(encoding: str, limit: int) -> Decoder:
    """A decoder made of a package that the HTTP clients use: if none is installed, no client asks for the encoding."""
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
