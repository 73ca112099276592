"""One redactor for log, cassette, matcher and error text. Removed secrets are written nowhere.

It removes three kinds of secrets:

1. the values of credential headers and parameters;
2. everything with the shape of a key (shapes.py);
3. the secrets of the environment: values that look secret, in variables with names of secrets, such as `API_TOKEN`.

Each is found in every spelling of JSON and URLs (shapes.py). Recording and matching use the same redactor, so a recording
matches itself. The environment of another machine holds other secrets. Therefore an ordinary word is never a secret, even in a
variable with the name of one.
"""

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from urllib.parse import parse_qsl, unquote, urlsplit

from ..http.encodings import decoder_for
from ..http.exchange import Request, content_encoding
from . import shapes
from .learned import ANY_START, Learned
from .shapes import Folded, ends_in_half_an_escape, fold

REDACTED = "REDACTED"
MARK = REDACTED.encode()

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
"""Headers that are known to hold credentials; others are recognised by their words (`names_a_credential`)."""

MIN_CREDENTIAL_CHARS = 16
"""A shorter credential of a request (`test-key`, `dummy`) is not a secret, and may be an ordinary word of the text."""

MIN_SECRET_CHARS = 8
"""A shorter value of a variable (`1`, `true`, `test`) also occurs in ordinary text."""

MAX_COMPILED = 8
"""The number of learned credentials that are compiled into one pattern, which is faster as long as there are few."""

MAX_KEPT = 1000
"""The number of names, and of heads of frames, that are remembered."""

Span = tuple[int, int]
"""The start and the end of a secret."""

# An escape that may hide a character of a shape, or of a value without quotes, backslashes, controls and non-ASCII.
_SOME_BACKSLASHES = re.compile(rb"\\(?:u00[2-7]|/|x[2-7])")
_ANY_BACKSLASH = re.compile(rb"\\")
_SOME_PERCENT = re.compile(rb"%(?:25)*[2-7][0-9A-Fa-f]")
_ANY_PERCENT = re.compile(rb"%")
_SHAPES = re.compile(shapes.SHAPES)  # compiled once, because that takes longer than a request
_SLASHES = re.compile(rb"\\*")
_NEEDS_ANY = re.compile(r"[^ !#-\[\]-~]")  # a quote, a backslash, a control, and non-ASCII
_ID = re.compile(
    rb'"(?:id|(?:[a-z]+_){0,3}(?:message|request|tool_use|event|session|thread|start|batch)_id)\\*"\s*:\s*\\*"[A-Za-z0-9_\-.]*\Z'
    rb"|(?<![A-Za-z0-9_\-])(?:msg|msgbatch|toolu|srvtoolu|mcptoolu|req|sesn|sevt|sthr)_[A-Za-z0-9_\-]*\Z"
)
_ID_BYTES = 200
_USER_INFO = re.compile(r"(?<=://)[^/?#\s\"'<>]*@")
_PARAMETER = re.compile(r"(?<=[?&;#])([A-Za-z0-9_.\-\[\]]{1,64})=([^&;#\s\"'<>,]*)")


def secrets_in(environ: Mapping[str, str]) -> list[str]:
    """Return the secrets of an environment, longest first: values of variables named as secrets, and passwords in URLs."""
    found = set()
    for name, value in environ.items():
        if "://" in value:
            found |= _secrets_of_url(value)
        elif shapes.names_a_secret_variable(name) and len(value) >= MIN_SECRET_CHARS and not _is_path(value):
            found.add(value)
    return sorted(filter(shapes.looks_secret, found), key=len, reverse=True)


def _secrets_of_url(url: str) -> set[str]:
    try:
        parts = urlsplit(url)
        password = unquote(parts.password or "")
    except ValueError:
        return set()
    named = {value for name, value in parse_qsl(parts.query) if shapes.names_a_credential(name)}
    return {value for value in {password, *named} if len(value) >= MIN_SECRET_CHARS}


def _is_path(value: str) -> bool:
    """Return whether a value is a path, which is not a secret.

    Keys of AWS (40 characters) may begin like a path, so a long path must exist.
    """
    return value.startswith(("/", "~")) and (len(value) < 40 or os.path.exists(value))


@functools.lru_cache(MAX_KEPT)
def is_credential_header(name: str) -> bool:
    """Return whether the value of a header of this name is a credential."""
    return name.lower() in SECRET_HEADERS or shapes.names_a_credential(name)


def credentials_of(request: Request) -> set[str]:
    """Return the keys and tokens that a request carries in headers and parameters made for them."""
    found = {
        value.split(" ")[-1]
        for name, value in request.headers
        if is_credential_header(name) and name.lower() not in ("cookie", "set-cookie")
    }
    found |= {value for name, value in parse_qsl(urlsplit(request.uri).query) if shapes.names_a_credential(name)}
    return {value for value in found if len(value) >= MIN_CREDENTIAL_CHARS and shapes.looks_secret(value)}


class _Labels(dict[str, str]):
    """Names without secrets, by name. Names repeat with every event, so a redactor removes their secrets once."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__({"": ""})
        self._redact = redact

    def __missing__(self, name: str) -> str:
        clean = self._redact(name)
        if len(self) < MAX_KEPT:
            self[name] = clean
        return clean


class Redactor:
    """Removes secrets from bytes, text, headers and URLs. `extra` are further secret values, of any look."""

    def __init__(self, environ: Mapping[str, str] | None = None, extra: Iterable[str] = ()) -> None:
        self._clean: set[bytes] = set()
        self._learned: Learned | None = None  # made for the first credential without a pattern of its own
        self._given = {*secrets_in(os.environ if environ is None else environ), *filter(None, extra)}
        self._few: dict[str, None] = {}
        self._compile()

    def learn(self, request: Request) -> None:
        """Remove the credentials of this request from now on, in every place.

        Of credentials of plain characters, all but the first few are forgotten after MAX_LEARNED others.
        """
        for value in sorted(credentials_of(request) - self._given - self._few.keys()):
            if not Learned.takes(value) or len(self._few) < MAX_COMPILED:
                self._few[value] = None
                if len(self._few) > MAX_COMPILED:
                    self._make_room()
                self._compile()
            else:
                self._add(value)

    def _make_room(self) -> None:
        """Move the oldest compiled credential to the others. They take no odd ones, of which the oldest is forgotten."""
        oldest = next(filter(Learned.takes, self._few), next(iter(self._few)))
        del self._few[oldest]
        if Learned.takes(oldest):
            self._add(oldest)

    def _add(self, value: str) -> None:
        """Remember a credential without a pattern of its own, and look for its beginning, too."""
        if self._learned is None:
            self._learned = Learned(shapes.MIN_PREFIX)
        if self._learned.add(value):
            self._learn_beginnings(self._learned.starts)

    def _compile(self) -> None:
        values = {*self._given, *self._few}
        # `+` is a space in a query; a backslash that is escaped itself does not make its next letter an escape.
        texts = {form for value in values for form in (value, value.replace(" ", "+"), value.replace("\\", ""))}
        forms = {text.encode("utf-8", "surrogatepass") for text in texts}
        folds = {fold(form).data for form in forms}
        # A backslash before a value that begins with `n` or `t` reads like an escape, which eats the first letter.
        self._eaten = {fold(b"\\" + form).data for form in forms} - folds
        folds |= self._eaten
        # Folding drops the backslash at the end of a value; `find` removes it, too.
        self._backslashed = tuple(fold(value.encode("utf-8", "surrogatepass")).data for value in values if value.endswith("\\"))
        # A part of the mark cannot be distinguished from the mark.
        self.secrets: list[bytes] = sorted((value for value in folds if value and value not in MARK), key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self.secrets)))
        needs_any = any(map(_NEEDS_ANY.search, values))
        self._backslash, self._percent = (_ANY_BACKSLASH, _ANY_PERCENT) if needs_any else (_SOME_BACKSLASHES, _SOME_PERCENT)
        self._escapes = rb"[\\%]" if needs_any else rb"\\(?:u00|u0?\Z|\Z|[/x])|%"
        self._compile_beginnings(set() if self._learned is None else self._learned.starts)

    def _learn_beginnings(self, starts: set[bytes] | None) -> None:
        is_known = self._starts is None if starts is None else self._starts is not None and starts <= self._starts
        if is_known:
            self._forget_clean()
        else:
            self._compile_beginnings(starts)

    def _forget_clean(self) -> None:
        """Forget the texts that held no secret before a secret was learned."""
        self.labels, self._clean = _Labels(self.text), set()

    def _compile_beginnings(self, starts: set[bytes] | None) -> None:
        self._forget_clean()
        self._starts = starts
        beginnings = {*shapes.BEGINNINGS, *(secret[: shapes.MIN_PREFIX] for secret in self.secrets), *(starts or ())}
        known = shapes.by_rarest_character(beginnings) + b"|" + self._escapes
        self.beginning = re.compile(known if starts is not None else known + b"|" + ANY_START)
        """Finds something in every text in which a secret, or an escape that may hide one, begins."""

    @property
    def longest(self) -> int:
        """The size of the longest secret value, in bytes."""
        return max(0 if self._learned is None else self._learned.longest, *map(len, self.secrets), 0)

    def find(self, data: bytes) -> list[Span]:
        """Return the places of all secrets, in order."""
        found = list(self._spans(data)) if self._is_likely(data) else []
        if not self._has_escapes(data):
            return _merged(found) if found else found
        folded = fold(data)
        if self._is_likely(folded.data):
            found += [self._unfolded(data, folded, *span) for span in self._spans(folded.data)]
        return _merged(found)

    def _unfolded(self, data: bytes, folded: Folded, start: int, end: int) -> Span:
        low, high = folded.original(start, end)
        found = folded.data[start:end]
        is_eaten = found in self._eaten or (self._learned is not None and found in self._learned.eaten)
        if is_eaten and (slashes := _SLASHES.match(data, low)) is not None:
            low += len(slashes[0]) // 2 * 2  # the letter is the secret's, the backslashes are not
        if self._backslashed and folded.data.endswith(self._backslashed, start, end) and data.startswith(b"\\\\", high):
            high += 2
        return low, high

    def _has_escapes(self, data: bytes) -> bool:
        """Return whether a text may hold a secret in another spelling."""
        return self._backslash.search(data) is not None or self._percent.search(data) is not None

    def _is_likely(self, data: bytes) -> bool:
        """Return False if no shape and no secret is in a text. The answer costs far less than a search for the shapes."""
        for search in shapes.LIKELY:
            if search(data) is not None:
                return True
        for secret in self.secrets:
            if secret in data:
                return True
        return self._learned is not None and self._learned.may_be_in(data)

    def _spans(self, data: bytes) -> Iterable[Span]:
        if self.secrets:
            yield from (match.span() for match in self._pattern.finditer(data))
        if self._learned is not None:
            yield from self._learned.spans(data)
        at = 0
        while (match := _SHAPES.search(data, at)) is not None:
            kind = match.lastgroup
            start, end = match.span("inner") if kind == "inner" else match.span()
            at = end
            if _ID.search(data, max(0, start - _ID_BYTES), start) is not None:
                continue
            if kind == "look" and not shapes.looks_random(match[0]):
                at = start + 1  # a certain shape may begin inside: `sk-sk-ant-…`
                continue
            yield start, end

    def is_clean(self, head: bytes) -> bool:
        """Return whether the head of a frame holds no secret. Heads repeat with every frame, so the answer is kept."""
        if head in self._clean:
            return True
        if self.find(head):
            return False
        if len(self._clean) < MAX_KEPT:
            self._clean.add(head)
        return True

    def search(self, data: bytes) -> Span | None:
        """Return the place of the first secret."""
        return next(iter(self.find(data)), None)

    def is_open(self, data: bytes) -> bool:
        """Return whether `data` may end inside a secret that further bytes would complete or continue."""
        if ends_in_half_an_escape(data):
            return True
        text = fold(data).data if self._has_escapes(data) else data
        if self._backslashed and text.endswith(self._backslashed):
            return True
        if self._learned is not None and self._learned.is_open(text):
            return True
        return shapes.is_open(text) or any(
            text.endswith(secret[:size]) for secret in self.secrets for size in range(shapes.MIN_PREFIX, len(secret))
        )

    def data(self, data: bytes) -> bytes:
        """Return bytes without secrets, and JSON as JSON; the same object if there is nothing to remove."""
        spans = self.find(data)
        if not spans:
            return data
        parts: list[bytes] = []
        at = 0
        for start, end in spans:
            parts += (data[at:start], MARK)
            at = end
        return b"".join([*parts, data[at:]])

    json = data

    def text(self, text: str) -> str:
        """Return text without secrets."""
        return self.data(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def label(self, text: str) -> str:
        """Return a name (of a run, a step, a task) without secrets."""
        return self.labels[text]

    def headers(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return header pairs without credentials, also in values that are URLs; names keep their case and order."""
        return [(name, REDACTED if is_credential_header(name) else self.url(value)) for name, value in headers]

    def url(self, url: str) -> str:
        """Return a URL, or text with URLs in it, without user info and without the values of credential parameters."""
        if "://" in url:
            url = _USER_INFO.sub("", url)
        if "=" in url:
            url = _PARAMETER.sub(_without_credential, url)
        return self.text(url)

    def request(self, request: Request, *, with_headers: bool = True) -> Request:
        """Return a request without secrets, as it is recorded and as it is matched. A compressed body is unpacked.

        `with_headers=False` leaves the headers as they are, for a caller that reads none of them.
        """
        body, headers = request.body, request.headers
        if body and content_encoding(headers):
            decoder = decoder_for(headers)
            content = decoder.decode(body)
            if content and not decoder.exceeded:
                body = content
                headers = tuple(pair for pair in headers if pair[0].lower() not in ("content-encoding", "content-length"))
        headers = tuple(self.headers(headers)) if with_headers else headers
        return replace(request, uri=self.url(request.uri), headers=headers, body=self.data(body))


def _merged(spans: list[Span]) -> list[Span]:
    """Return the spans in order; overlapping ones are merged."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _without_credential(match: re.Match[str]) -> str:
    return f"{match[1]}={REDACTED}" if shapes.names_a_credential(match[1]) else match[0]
