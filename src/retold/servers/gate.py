"""Access to a server: for programs of this machine, clients with its token, and web pages that the user named."""

import hmac
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..recorder.errors import InputError
from ..recorder.proxy.http_messages import Asked, Refusal

TOKEN_HEADER = "x-retold-token"
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")


@dataclass(frozen=True)
class Gate:
    """`token`: the value of the header x-retold-token that every request must carry; None if only this machine can connect.
    `origins`: the web pages that may send requests, such as `http://localhost:5173`."""

    token: str | None = None
    origins: frozenset[str] = frozenset()

    @classmethod
    def make(cls, host: str, *, allow_remote: bool, token: str | None, origins: Sequence[str] = ()) -> "Gate":
        """Return the gate of a server that listens on `host`. Raise InputError if any machine could use it."""
        if not (allow_remote or is_loopback(host)):
            raise InputError(f"--host {host} is open to other machines: pass --allow-remote and --token.")
        if allow_remote and (not token or len(token) < 16):
            raise InputError("--allow-remote needs a --token of at least 16 characters; clients send it as x-retold-token.")
        if origins and token is not None:
            raise InputError("--allow-origin and --token exclude each other: a browser asks for leave without the token.")
        return cls(token, origins_of(origins))

    def refuses(self, asked: Asked) -> Refusal | None:
        """Return the refusal of a request, None for a request that may pass. The body plays no part.

        1. A token, if there is one, must be right.
        2. Without a token the Host header must name this machine: a web page that rebound its own name to 127.0.0.1 sends
           another one.
        3. Any page in a browser of this machine reaches 127.0.0.1, and a simple request of it carries the right Host. The
           browser names the page in `Origin` or marks the request in `Sec-Fetch-Site`; programs send neither.
        """
        if self.token is not None:
            given = asked.header(TOKEN_HEADER) or ""
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return Refusal(403, "permission_error", f"this server asks for its token in the header {TOKEN_HEADER}")
        else:
            name = host_of(asked.header("host") or "")
            if name not in _LOOPBACK_NAMES:
                whose = name or "a request without a host"
                return Refusal(421, "permission_error", f"this server answers for localhost only, not for {whose!r}")
        page = foreign_page(asked.header, self.origins)
        if page is not None:
            way = "" if self.token is not None else "; allow an origin with --allow-origin"
            return Refusal(403, "permission_error", f"this server does not answer web pages, such as {page}{way}")
        return None

    def leave(self, asked: Asked) -> list[tuple[str, str]]:
        """Return the headers that answer the preflight request of an allowed page; none for other requests."""
        origin, method = asked.header("origin"), asked.header("access-control-request-method")
        if origin is None or method is None or origin.strip().lower() not in self.origins:
            return []
        headers = asked.header("access-control-request-headers") or "*"
        return [
            ("access-control-allow-origin", origin), ("access-control-allow-methods", method),
            ("access-control-allow-headers", headers), ("vary", "Origin"),
        ]  # fmt: skip


def origins_of(named: Sequence[str]) -> frozenset[str]:
    """Return web origins as browsers send them. Raises InputError for a text that is none."""
    found = frozenset(origin.lower().rstrip("/") for origin in named)
    for origin in sorted(found):
        if not _ORIGIN.fullmatch(origin):
            raise InputError(f"{origin!r} is no web origin; give scheme, host and port, such as http://localhost:5173.")
    return found


def foreign_page(header: Callable[[str], str | None], allowed: frozenset[str] = frozenset()) -> str | None:
    """Return the origin of the web page that sent a request, None if no page, one of this server or an allowed one did.

    `header` returns the value of a request header. An address that a person typed or opened has the site `none`.
    """
    origin, site = header("origin"), (header("sec-fetch-site") or "none").strip().lower()
    if origin is not None:
        origin = origin.strip().lower()
        own = (header("host") or "").strip().lower()
        if origin in allowed:
            return None
        if origin not in (f"http://{own}", f"https://{own}"):
            return repr(origin)
    return None if site in ("none", "same-origin") else f"one of another site (sec-fetch-site: {site!r})"


def host_of(authority: str) -> str:
    """Return the host of a Host header, lower case, without its port."""
    bare = authority.strip().lower()
    if bare.startswith("["):
        return bare.partition("]")[0] + "]"
    return bare.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
