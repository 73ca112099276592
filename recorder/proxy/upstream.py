"""Connections to the API that a recording proxy forwards to: its URL, TLS, and the environment's proxies and certificates.

The recorded program reaches the API through the variables that its HTTP client reads. Its connection ends at retold, so retold
reads the same variables: HTTPS_PROXY, ALL_PROXY and NO_PROXY, and every variable that names trusted certificates.
"""

import asyncio
import base64
import contextlib
import functools
import os
import re
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, SupportsIndex
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import InputError
from ..http.guard import is_loopback

READ_BYTES = 256 * 1024

CA_VARIABLES = ("NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables of Node, requests and curl that name certificates; SSL_CERT_FILE and SSL_CERT_DIR are OpenSSL's own."""


class ApiReader(asyncio.StreamReader):
    """A reader that returns the bytes that arrived before the error that broke the connection, and raises the error then.

    An API may answer a request that is still being sent, and close. Its answer has arrived, and then writing fails.
    """

    _broken: Exception | None = None
    sink: Callable[[bytes], bool] | None = None
    """Is called with bytes as they arrive, unless others wait to be read. If it returns False, `read` returns them.

    Waking a task that reads costs more than the relay of a frame.
    """

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Take the bytes of one read of the socket."""
        waiting: bytearray = vars(self)["_buffer"]
        if self.sink is None or waiting or not self.sink(bytes(data)):
            super().feed_data(data)

    def set_exception(self, exc: Exception) -> None:
        """Keep the error until all bytes before it are read."""
        self._broken = exc
        self.feed_eof()

    async def read(self, n: int = -1) -> bytes:
        """Return the next bytes. Raise the error that broke the connection after the last of them."""
        data = await super().read(n)
        if not data and self._broken is not None:
            raise self._broken
        return data


Streams = tuple[ApiReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Upstream:
    """The API at `url`: scheme, host, port, and a path that prefixes the path of every request."""

    url: str
    is_tls: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> "Upstream":
        """Return the API at a URL. Raise InputError if it is not an http or https URL with a host."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
            shown = re.sub(r"//[^/]*@", "//", url)
            raise InputError(f"{shown!r} is no upstream: give the API's base URL, such as https://api.anthropic.com.")
        is_tls = parts.scheme == "https"
        path = parts.path.rstrip("/")
        return cls(f"{parts.scheme}://{parts.netloc}{path}", is_tls, parts.hostname, port or (443 if is_tls else 80), path)

    @property
    def authority(self) -> str:
        """The value of the Host header: without the port if it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        own_port = 443 if self.is_tls else 80
        return host if self.port == own_port else f"{host}:{self.port}"

    async def connect(self) -> Streams:
        """Connect, through the environment's proxy if there is one for this host. Raise OSError."""
        context = _context() if self.is_tls else None
        proxy = self._proxy()
        if proxy is None:
            return await _open(self.host, self.port, ssl=context, server_hostname=self.host if self.is_tls else None)
        if context is None:
            return await _to_proxy(proxy)
        reader, writer = await self._tunnel(proxy)
        await writer.start_tls(context, server_hostname=self.host)
        return reader, writer

    @property
    def forward_proxy(self) -> SplitResult | None:
        """The proxy that reads the requests itself; None if they reach the API directly or through a tunnel."""
        return None if self.is_tls else self._proxy()

    def opening(self, method: str, target: str, version: str, proxy: SplitResult | None = None) -> list[str]:
        """Return the first lines of a request: its request line, and credentials for the proxy that reads it."""
        if proxy is None:
            return [f"{method} {self.path}{target} HTTP/{version}"]
        return [f"{method} http://{self.authority}{self.path}{target} HTTP/{version}", *_credentials(proxy)]

    def _proxy(self) -> SplitResult | None:
        """Return the proxy for this host; None if there is none or NO_PROXY excepts the host."""
        if not self.is_tls and is_loopback(self.host):
            return None  # "localhost" would mean the proxy's own machine
        proxies = getproxies()
        proxy = proxies.get("https" if self.is_tls else "http") or proxies.get("all")
        if not proxy or proxy_bypass(f"{self.host}:{self.port}"):
            return None
        return urlsplit(proxy if "://" in proxy else f"http://{proxy}")

    async def _tunnel(self, parts: SplitResult) -> Streams:
        """CONNECT through an HTTP proxy (RFC 9110, 9.3.6)."""
        reader, writer = await _to_proxy(parts)
        asks = [f"CONNECT {self.host}:{self.port} HTTP/1.1", f"Host: {self.host}:{self.port}", *_credentials(parts)]
        writer.write(("\r\n".join(asks) + "\r\n\r\n").encode())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            writer.close()
            raise ConnectionError(f"the proxy {parts.hostname} did not answer CONNECT") from error
        status = head.split(b"\r\n", 1)[0].decode("latin-1")
        if status.split(" ")[1:2] != ["200"]:
            writer.close()
            raise ConnectionError(f"the proxy {parts.hostname} refused CONNECT: {status}")
        return reader, writer


async def _to_proxy(proxy: SplitResult) -> Streams:
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise ConnectionError(
            f"the environment's proxy has the scheme {proxy.scheme!r}; retold connects through HTTP proxies only"
        )
    context = _context() if proxy.scheme == "https" else None
    return await _open(proxy.hostname, proxy.port or (443 if context else 80), ssl=context)


def _credentials(proxy: SplitResult) -> list[str]:
    if not proxy.username:
        return []
    user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return [f"Proxy-Authorization: Basic {base64.b64encode(user).decode()}"]


def _context() -> ssl.SSLContext:
    """Return a context that trusts the system's certificates and all that the environment names for any client."""
    return _context_of(*(os.environ.get(name, "") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", *CA_VARIABLES)))


@functools.lru_cache(maxsize=4)
def _context_of(_file: str, _folder: str, *bundles: str) -> ssl.SSLContext:
    """Read the certificates once, because it takes 20 ms. An unreadable bundle adds nothing, as with Node."""
    context = ssl.create_default_context()
    for bundle in filter(None, bundles):
        with contextlib.suppress(OSError):  # ssl.SSLError among them
            context.load_verify_locations(**{"capath" if os.path.isdir(bundle) else "cafile": bundle})
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _open(host: str, port: int, **options: Any) -> Streams:
    """Connect like asyncio.open_connection, with `ApiReader`."""
    loop = asyncio.get_running_loop()
    reader = ApiReader(limit=READ_BYTES, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, **options)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
