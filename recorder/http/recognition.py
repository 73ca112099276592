"""Read the request of a client, and recognise those of the Anthropic API by host, headers, path or body.

Clients reach the API through gateways, Bedrock and Vertex, so the host alone does not identify it. A request belongs to the
API in any of these cases:

1. The host is anthropic.com or a subdomain.
2. A header `anthropic-version` or `anthropic-beta` is present, or the body is JSON with `anthropic_version`.
3. The user agent is that of an Anthropic SDK (`Anthropic/Python …`, `AsyncAnthropicBedrock/Python …`).
4. The path is `/v1/messages` or below, and a header of an SDK (`x-stainless-…`) or of the API (`x-api-key`) is present.
5. The path is a Bedrock or Vertex path of a Claude model, as the SDK's clients build it.

httpx2 is a fork of httpx with the same names. Neither is imported before a client does; the type of a request shows its library.
"""

import re
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from .exchange import Request
from .platforms import model_path

LIBRARIES = ("httpx2", "httpx")

MODEL_HOSTS = (
    "anthropic.com", "*.anthropic.com", "bedrock-runtime*.amazonaws.com", "bedrock-runtime*.amazonaws.com.cn",
    "bedrock-mantle.*.api.aws", "aws-external-anthropic.*.api.aws", "*aiplatform.googleapis.com",
    "aiplatform.*.rep.googleapis.com", "claude.googleapis.com", "*.services.ai.azure.com",
)  # fmt: skip
"""Hosts that serve Claude models, as patterns. A client that retold does not patch must not reach them during a replay."""

BASE_URL_VARIABLES = (
    "ANTHROPIC_BASE_URL", "ANTHROPIC_BEDROCK_BASE_URL", "ANTHROPIC_VERTEX_BASE_URL", "ANTHROPIC_FOUNDRY_BASE_URL",
    "ANTHROPIC_AWS_BASE_URL", "ANTHROPIC_BEDROCK_MANTLE_BASE_URL", "ANTHROPIC_GOOGLE_CLOUD_BASE_URL",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
)  # fmt: skip
"""Environment variables from which SDK clients, boto3 and Claude Code take the API's address."""

REFUSED_HEADER = "x-retold-refused"
"""The header that names the error in a refusal by one of retold's servers: `miss`."""

_SDK_AGENT = re.compile(r"(Async)?Anthropic\w*/", re.ASCII)
_MESSAGES_PATH = re.compile(r"/v1/(messages|complete)(/|$)")


_UNVERSIONED = re.compile(r"/(?:messages|complete|models|files|skills)(?:[/?].*)?")


def versioned(target: str) -> str:
    """Return the target of a request to the API with its version.

    A client whose base URL is to end in `/v1`, such as the Vercel AI SDK, asks for `/messages` at a base URL without it.
    """
    return f"/v1{target}" if _UNVERSIONED.fullmatch(target) else target


class Outgoing(NamedTuple):
    """A request before it is sent. `headers` finds names in any case; `body` is None if it is not in memory."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{self.method} {parts.scheme}://{host}{parts.path}"

    @property
    def host(self) -> str:
        """The host, lower case, without its port."""
        return urlsplit(self.url).hostname or ""


def is_api(asked: Outgoing) -> bool:
    """Return whether a request belongs to the Anthropic API, on any host."""
    headers = asked.headers
    if "anthropic-version" in headers or "anthropic-beta" in headers:
        return True
    if is_anthropic(asked.host):
        return True
    if _SDK_AGENT.match(headers.get("user-agent") or ""):
        return True
    path = unquote(urlsplit(asked.url).path)
    if _MESSAGES_PATH.search(path):
        return any(name in headers for name in ("x-stainless-lang", "x-api-key"))
    if model_path(asked.url) is not None:
        return True
    return asked.body is not None and b'"anthropic_version"' in asked.body[-65536:] + asked.body[:65536]


def is_anthropic(host: str) -> bool:
    """Return whether a host is one of Anthropic's own, in lower case."""
    return host == "anthropic.com" or host.endswith(".anthropic.com")


def is_model_host(host: str) -> bool:
    """Return whether a host is known to serve Claude models."""
    return any(fnmatch(host.lower().rstrip("."), pattern) for pattern in MODEL_HOSTS)


def library_of(value: object) -> Any:
    """Return the library, httpx2 or httpx, of a request, a response or a stream."""
    for kind in type(value).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in LIBRARIES:
            return sys.modules[name]
    raise TypeError(f"{type(value).__name__} belongs to neither of {', '.join(LIBRARIES)}")


def with_content(request: Any, content: bytes) -> Any:
    """Return a request of the same client with another body."""
    framing = (b"content-length", b"transfer-encoding")
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in framing]
    return library_of(request).Request(
        request.method, request.url, headers=headers, content=content, extensions=request.extensions
    )  # fmt: skip


def to_request(request: Any) -> Request:
    """Return a client's request, which was already read, as it is recorded."""
    return Request(request.method, str(request.url), pairs(request.headers), request.content)


def pairs(headers: Any) -> tuple[tuple[str, str], ...]:
    """Return headers as pairs of text, in order and with their case on the wire."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.raw)
