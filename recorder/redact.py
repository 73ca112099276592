"""One scrubber for log, cassette, matcher and error text: what it removes is never written anywhere.

It removes, in this order of certainty: the values of credential headers, whatever is shaped like an Anthropic key, and the
value of every secret that the environment holds (variables whose names say so). Recording and matching use the same
function, so what was recorded always matches itself.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit, urlunsplit

from . import strict_json
from .exchange import Request

REDACTED = "REDACTED"

SECRET_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "api-key",
        "cookie",
        "set-cookie",
        "anthropic-organization-id",
        "x-goog-api-key",
        "x-amz-security-token",
    }
)

_KEY_SHAPES = rb"sk-ant-[A-Za-z0-9_\-]{8,}"
_SECRET_NAMES = re.compile(r"(API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|PRIVATE_?KEY)", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(r"(?:.*[-_])?(?:api[-_]?key|key|token|secret|password|signature)", re.IGNORECASE)
MIN_CREDENTIAL_CHARS = 16
"""A shorter one that a client sends (`test-key`, `dummy`) is none, and may well be a word of the text."""

MIN_SECRET_CHARS = 8
"""A shorter value (`1`, `true`, `test`) would tear holes into ordinary text."""


def secrets_in(environ: Mapping[str, str]) -> list[str]:
    """The values in an environment whose variable's name says that they are secret; the path of a key file is none."""
    return sorted(
        {
            value
            for name, value in environ.items()
            if _SECRET_NAMES.search(name) and len(value) >= MIN_SECRET_CHARS and not _is_path(value)
        },
        key=len,
        reverse=True,
    )


def _escaped(value: str) -> set[bytes]:
    """A value as it stands inside JSON, and inside JSON that is itself a string of JSON (the input of a tool)."""
    forms = set()
    for ascii_only in (True, False):
        once = strict_json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        twice = strict_json.dumps(once, ensure_ascii=ascii_only)[1:-1]
        forms |= {text.encode("utf-8", "surrogatepass") for text in (once, twice)}
    return forms


def _quoted(value: str) -> set[bytes]:
    """A value as it stands in a URL."""
    return {quote(value, safe="", errors="surrogatepass").encode(), quote_plus(value, errors="surrogatepass").encode()}


def _is_path(value: str) -> bool:
    """A key's file is no secret. A key may begin like a path too (AWS, 40 characters), so a long one must be there."""
    return value.startswith(("/", "~")) and (len(value) < 40 or os.path.exists(value))


def credentials_of(request: Request) -> set[str]:
    """The keys and tokens that a request carries in headers and parameters made for them."""
    found = {value.split(" ")[-1] for name, value in request.headers if name.lower() in SECRET_HEADERS - {"cookie", "set-cookie"}}
    found |= {value for name, value in parse_qsl(urlsplit(request.uri).query) if _SECRET_PARAMETER.fullmatch(name)}
    return {value for value in found if len(value) >= MIN_CREDENTIAL_CHARS}


class Redactor:
    """Removes secrets from bytes, text, headers and URLs. `extra` are further secret values."""

    def __init__(self, environ: Mapping[str, str] | None = None, extra: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._compile({*secrets_in(os.environ if environ is None else environ), *filter(None, extra)})

    def learn(self, request: Request) -> None:
        """Know from now on what this request is authorised by, wherever else it stands."""
        found = credentials_of(request)
        if not found <= self._values:
            self._compile(self._values | found)

    def _compile(self, values: set[str]) -> None:
        self._values = values
        values = {value for value in values if value not in REDACTED}  # what is part of the mark cannot be told from it
        # A secret in a body usually stands inside a JSON string, one in a URL is quoted: some characters are escaped.
        forms = {form for value in values for form in _escaped(value) | _quoted(value)}
        self.secrets: list[bytes] = sorted(forms, key=len, reverse=True)
        # Outside JSON (headers, errors, command lines) a value stands as it is.
        plain = {value.encode("utf-8", "surrogatepass") for value in values} | forms
        self._plain = re.compile(b"|".join([*map(re.escape, sorted(plain, key=len, reverse=True)), _KEY_SHAPES]))
        self._pattern = re.compile(b"|".join([*map(re.escape, self.secrets), b"(?P<shape>%b)" % _KEY_SHAPES]))

    def search(self, data: bytes, start: int = 0) -> re.Match[bytes] | None:
        """The first secret in `data` from `start` on; its group `shape` is set where only its shape is known."""
        return self._pattern.search(data, start)

    def json(self, data: bytes) -> bytes:
        """JSON, or text with JSON in it, without secrets, and JSON still; the same object where there is nothing to remove."""
        return data if self._pattern.search(data) is None else self._pattern.sub(REDACTED.encode(), data)

    def data(self, data: bytes) -> bytes:
        """Bytes of any other kind without secrets; the same object where there is nothing to remove."""
        return data if self._plain.search(data) is None else self._plain.sub(REDACTED.encode(), data)

    def text(self, text: str) -> str:
        """Text without secrets."""
        return self.data(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def headers(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Header pairs with the values of credential headers replaced; names keep their case and order."""
        return [(name, REDACTED if name.lower() in SECRET_HEADERS else self.text(value)) for name, value in headers]

    def url(self, url: str) -> str:
        """A URL without user info and without the values of credential parameters."""
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
        query = parts.query
        pairs = parse_qsl(query, keep_blank_values=True)
        if any(_SECRET_PARAMETER.fullmatch(name) for name, _ in pairs):
            query = urlencode([(name, REDACTED if _SECRET_PARAMETER.fullmatch(name) else value) for name, value in pairs])
        return self.text(urlunsplit(parts._replace(netloc=netloc, query=query)))

    def request(self, request: Request) -> Request:
        """A request without secrets, as it is recorded and as it is matched."""
        headers = tuple(self.headers(request.headers))
        scrub = self.json if request.body.lstrip()[:1] in (b"{", b"[") else self.data
        return replace(request, uri=self.url(request.uri), headers=headers, body=scrub(request.body))
