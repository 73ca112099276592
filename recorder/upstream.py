"""The way to the API that a recording proxy forwards to: its URL, TLS, and the proxy of the environment where there is one."""

import asyncio
import base64
import re
import ssl
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from .errors import InputError

READ_BYTES = 256 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Upstream:
    """The API at `url`: scheme, host, port, and a path that stands before every request's own."""

    url: str
    is_tls: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> "Upstream":
        """Raises InputError for what is no http or https URL of a host."""
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
        """What the Host header says: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    async def connect(self) -> Streams:
        """A connection, through the environment's proxy where it names one for TLS. Raises OSError."""
        context = _context() if self.is_tls else None
        proxy = getproxies().get("https") if self.is_tls and not proxy_bypass(self.host) else None
        if proxy is None:
            return await asyncio.open_connection(
                self.host, self.port, ssl=context, server_hostname=self.host if self.is_tls else None, limit=READ_BYTES
            )
        reader, writer = await self._tunnel(proxy)
        assert context is not None
        await writer.start_tls(context, server_hostname=self.host)
        return reader, writer

    async def _tunnel(self, proxy: str) -> Streams:
        """CONNECT through an HTTP proxy (RFC 9110, 9.3.6)."""
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConnectionError(f"the proxy of the environment, of scheme {parts.scheme!r}, is not one of HTTP")
        context = _context() if parts.scheme == "https" else None
        reader, writer = await asyncio.open_connection(
            parts.hostname, parts.port or (443 if context else 80), ssl=context, limit=READ_BYTES
        )
        asks = [f"CONNECT {self.host}:{self.port} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        if parts.username:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            asks.append(f"Proxy-Authorization: Basic {base64.b64encode(user).decode()}")
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


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
