"""Who may ask a server: clients that mean it, and, where it listens for other machines, only those that hold its token."""

import hmac
import ipaddress
from dataclasses import dataclass

from ..recorder.errors import InputError
from ..recorder.exchange import header
from ..recorder.http1 import Asked

TOKEN_HEADER = "x-retold-token"
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True)
class Gate:
    """`token`: what every request must carry in the header x-retold-token; None where only this machine can ask."""

    token: str | None = None

    @classmethod
    def make(cls, host: str, *, allow_remote: bool, token: str | None) -> "Gate":
        """The gate of a server that listens on `host`. Raises InputError for one that would be open to everybody."""
        if is_loopback(host) and not allow_remote:
            return cls(token)
        if not allow_remote:
            raise InputError(f"--host {host} is open to other machines; say so with --allow-remote, and give a --token.")
        if not token or len(token) < 16:
            raise InputError("--allow-remote needs a --token of at least 16 characters; clients send it as x-retold-token.")
        return cls(token)

    def refuses(self, asked: Asked) -> tuple[int, str] | None:
        """Status and reason of a refusal, None for a request that may pass.

        Without a token the Host header must name this machine: a page in a browser, whose own name was bound anew to
        127.0.0.1, sends another one.
        """
        if self.token is not None:
            given = asked.header(TOKEN_HEADER) or ""
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return 403, f"this server asks for its token in the header {TOKEN_HEADER}"
            return None
        name = host_of(header(asked.headers, "host") or "")
        if name not in _LOOPBACK_NAMES:
            return 421, f"this server answers for localhost only, not for {name or 'a request without a host'!r}"
        return None


def host_of(authority: str) -> str:
    """The host of a Host header, lower case, without its port."""
    bare = authority.strip().lower()
    if bare.startswith("["):
        return bare.partition("]")[0] + "]"
    return bare.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
