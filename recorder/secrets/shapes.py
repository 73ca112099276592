"""Shapes and spellings of secrets.

A shape identifies a key, a token or a private key without its value; a name identifies a variable that holds a secret. The shapes
follow the formats that the issuers document. Each begins with a literal, so a text without any of them costs one search. A short
literal needs a boundary before it: a run of base64 (an image, a signature) may contain `AKIA` by chance.

A text has many spellings: JSON escapes of any depth and language, and percent-encoding. `A"b/` is `A\\"b/` to Python,
`A\\"b\\/` to PHP and `\\u0041\\u0022b\\u002F` to others. In a string of JSON in a string of JSON each backslash is doubled, in a
URL it is `A%22b%2F`. `fold` maps all of them to one text without backslashes, so one search finds a value. Two texts that differ
only in backslashes have the same fold; for a secret this is harmless.
"""

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_EDGE = rb"(?:(?<![A-Za-z0-9_\-])|(?<=\\[bfnrt]))"
_BASE64_EDGE = rb"(?:(?<![A-Za-z0-9_\-+/])|(?<=\\[bfnrt]))"
_END = rb"(?![A-Za-z0-9])"
_PEM_BODY = rb"(?:[A-Za-z0-9+/=\\\s:,.]|-(?!----))*+"

_CERTAIN = (
    rb"sk-ant-[A-Za-z0-9_\-]{8,}",
    _EDGE + rb"sk-(?:proj|svcacct|admin)-[A-Za-z0-9_\-]{20,}",  # OpenAI
    _EDGE + rb"sk-or-v1-[0-9a-f]{32,}",  # OpenRouter
    _EDGE + rb"sk-lf-[0-9a-f\-]{36}",  # Langfuse
    _EDGE + rb"gh[pousr]_[A-Za-z0-9]{30,}",  # GitHub
    _EDGE + rb"github_pat_[A-Za-z0-9_]{22,}",
    _EDGE + rb"glpat-[A-Za-z0-9_\-]{20,}",  # GitLab
    _EDGE + rb"xox[abeoprs]-[A-Za-z0-9\-]{10,}",  # Slack
    _EDGE + rb"xapp-\d-[A-Za-z0-9\-]{20,}",
    _EDGE + rb"hooks\.slack\.com/services/[A-Za-z0-9/+]{24,}",
    _EDGE + rb"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    _EDGE + rb"(?:sk|rk)_(?:live|test|prod)_[A-Za-z0-9]{10,}",  # Stripe
    _EDGE + rb"whsec_[A-Za-z0-9+/=]{24,}",
    _EDGE + rb"npm_[A-Za-z0-9]{36,}",
    _EDGE + rb"pypi-[A-Za-z0-9_\-]{50,}",
    _EDGE + rb"gsk_[A-Za-z0-9]{40,}",  # Groq
    _EDGE + rb"xai-[A-Za-z0-9]{40,}",
    _EDGE + rb"pplx-[A-Za-z0-9]{40,}",  # Perplexity
    _BASE64_EDGE + rb"(?:AKIA|ASIA)[A-Z0-9]{16}" + _END,  # AWS
    _BASE64_EDGE + rb"AIza[A-Za-z0-9_\-]{35}(?![A-Za-z0-9_\-])",  # Google
    _BASE64_EDGE + rb"GOCSPX-[A-Za-z0-9_\-]{24,}",
    _BASE64_EDGE + rb"ya29\.[A-Za-z0-9_\-.]{20,}",
    _BASE64_EDGE + rb"SG\.[A-Za-z0-9_\-]{20,24}\.[A-Za-z0-9_\-]{39,50}",  # SendGrid
    _BASE64_EDGE + rb"eyJ[A-Za-z0-9_\-]{8,}+\.eyJ[A-Za-z0-9_\-]{8,}+\.[A-Za-z0-9_\-]{8,}",  # JWT
    rb"-----BEGIN[ +][A-Z0-9 +]{0,20}PRIVATE[ +]KEY(?:[ +]BLOCK)?-----(?:" + _PEM_BODY + rb"-----END[ +][A-Z0-9 +]{1,40}-----"
    rb"|(?:[A-Za-z0-9+/=]{40,}+(?:\\+[nr]|\s)*+)*+)",
)  # fmt: skip
_BY_LOOK = _EDGE + rb"sk-[A-Za-z0-9_\-]{20,}"  # OpenAI's old keys and those of gateways
_AWS_NAME = rb"(?:[sS]ecret[_\-]?[aA]ccess[_\-]?[kK]ey|SECRET[_\-]?ACCESS[_\-]?KEY)[^A-Za-z0-9/+]{1,20}"

SHAPES = (
    rb"(?P<shape>" + rb"|".join(_CERTAIN) + rb")"
    rb"|(?P<look>" + _BY_LOOK + rb")"
    rb"|" + _AWS_NAME + rb"(?P<inner>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
)  # fmt: skip
"""Patterns of bytes: `shape` is a secret, `look` is one if `looks_random`, and of a match with `inner` that group is one."""

STARTS = (
    b"sk-", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"glpat-", b"xox", b"xapp-", b"hooks.slack.com/", b"hf_",
    b"sk_", b"rk_", b"whsec_", b"npm_", b"pypi-", b"gsk_", b"xai-", b"pplx-", b"AKIA", b"ASIA", b"AIza", b"GOCSPX-", b"ya29.",
    b"SG.", b"eyJ",
)  # fmt: skip
"""The literals that begin a shape of one run of characters."""

_PEM = b"-----BEGIN"
MIN_PREFIX = 4
"""A shorter beginning is too common: every `s` could begin a key."""

MAX_OPEN_BYTES = 16 * 1024
"""If a secret is longer than this and not complete, the received part is removed."""

BEGINNINGS = tuple(sorted({start[:MIN_PREFIX] for start in (*STARTS, _PEM, b"ecret", b"ECRET")}))
"""The first bytes of every shape, or of the name in front of it."""

_COMMON = b" etaoinsrhldcumfpgwybvkxjqz0123456789.,-_"
"""Characters of texts, the most frequent first; all others are rarer."""


def by_rarest_character(literals: Iterable[bytes]) -> bytes:
    """Return a pattern that finds the literals, each from its rarest character: `hook` as `k(?<=hook)`.

    The search stops at each character that may begin the pattern, so a pattern that begins with rare ones is twice as fast.
    """
    by_character: dict[bytes, list[bytes]] = {}
    for literal in sorted(literals):
        at = max(range(len(literal)), key=lambda place: _COMMON.find(literal[place]) % 256)  # not found: -1, the rarest
        before, character = literal[: at + 1], literal[at : at + 1]
        found = b"(?<=" + re.escape(before) + b")" if at else b""
        by_character.setdefault(character, []).append(found + re.escape(literal[at + 1 :]))
    return b"|".join(re.escape(each) + b"(?:" + b"|".join(rest) + b")" for each, rest in by_character.items())


# One search for a literal costs a fraction of a nanosecond a byte, a search for one of several about forty. A literal that begins
# with a rare character is found at half the cost of a common one.
LIKELY = tuple(
    re.compile(pattern).search
    for pattern in (
        rb"-(?:(?<=sk-)(?:ant-|(?<![A-Za-z0-9]sk-)|(?<=\\[bfnrt]sk-))|(?<=xox[abeoprs]-)|(?<=xapp-)|(?<=glpat-)|(?<=pypi-)"
        rb"|(?<=xai-)|(?<=pplx-)|(?<=GOCSPX-)|----BEGIN)",
        rb"_(?:(?<=gh[pousr]_)|(?<=github_)pat_|(?<=hf_)|(?<=[sr]k_)|(?<=whsec_)|(?<=npm_)|(?<=gsk_))",
        rb"A(?:KIA|SIA|Iza)",
        rb"J(?<=eyJ)",
        rb"SG\.",
        rb"ya29\.",
        rb"hooks\.slack",
        rb"ecret[_\-]?[aA]ccess",
        rb"ECRET[_\-]?ACCESS",
    )
)
"""Searches of which one finds something in every text that holds a shape."""


_TOKEN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.+/="
_OPEN = re.compile(rb"(?:" + _EDGE + rb"(?:" + rb"|".join(map(re.escape, STARTS)) + rb")|sk-ant-)")
_PARTS = tuple({start[:size] for start in (*STARTS, b"sk-ant-", _PEM) for size in range(MIN_PREFIX, len(start))})
_PEM_OPEN = re.compile(
    rb"-----BEGIN(?:[A-Z0-9 +]{0,40}-{0,4}"
    rb"|[A-Z0-9 +]{0,20}PRIVATE[ +]KEY(?:[ +]BLOCK)?-----" + _PEM_BODY + rb"(?:-{0,5}|-----END[A-Z0-9 +]{0,40}-{0,4}))\Z"
)  # fmt: skip
_AWS_OPEN = re.compile(_AWS_NAME.replace(b"{1,20}", b"{0,20}") + rb"[A-Za-z0-9/+]{0,40}\Z")
_AWS_OPEN_BYTES = 100


def is_open(text: bytes) -> bool:
    """Return whether a text ends with the beginning of a shape, or with a shape that may continue."""
    if text.endswith(_PARTS) or _AWS_OPEN.search(text, max(0, len(text) - _AWS_OPEN_BYTES)) is not None:
        return True
    first = max(0, len(text) - MAX_OPEN_BYTES)
    run = first + len(text[first:].rstrip(_TOKEN))
    if _OPEN.search(text, run) is not None:
        return True
    begin = text.rfind(_PEM, first)
    return begin >= 0 and _PEM_OPEN.match(text, begin) is not None


def looks_random(token: bytes) -> bool:
    """Return whether a token has a part of 16 letters and digits that no name has: both kinds, mixed, few repeated."""
    return any(
        len(part) >= 16
        and sum(byte in b"0123456789" for byte in part) >= 2
        and any(byte not in b"0123456789" for byte in part)
        and _bits(part) >= 3
        for part in re.split(rb"[_\-]", token)
    )


def _bits(text: bytes) -> float:
    """Shannon entropy per byte."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


# Names

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_LAST = re.compile(
    r"token|secrets?|passwords?|passwd|passphrase|pwd|pw|(?:api|access|secret|private)?key|credentials?|(?:auth|access)token"
    r"|auth|authorization|cookie|jwt|sig|signature|bearer"
)
_ANYWHERE = frozenset({"authorization", "jwt", "cookie"})
_HARMLESS_BEFORE = re.compile(
    r"page|next|previous|prev|continuation|cursor|sync|idempotency|cache|sort|partition|surrogate|public|websocket|primary"
    r"|foreign|row|object|group|routing"
)
_ENV_SECRET = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|APIKEY|CREDENTIAL|SECRETS|PASSWORDS|CREDENTIALS|JWT|PWD)\Z")


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def names_a_credential(name: str) -> bool:
    """Return whether a header or a parameter of this name carries a credential: `x-auth-token`, `accessToken`, `sig`.

    A token or key that identifies the next page, or a place in a store, is not a credential.
    """
    words = _words(name)
    if not words:
        return False
    if not _ANYWHERE.isdisjoint(words):
        return True
    return _LAST.fullmatch(words[-1]) is not None and (len(words) == 1 or _HARMLESS_BEFORE.fullmatch(words[-2]) is None)


def names_a_secret_variable(name: str) -> bool:
    """Return whether an environment variable has the name of a secret: one of its words, or its end, is such as `TOKEN`."""
    words = [word for word in re.split(r"[^A-Z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()) if word]
    return any(_ENV_SECRET.search(word) for word in words) or "KEY" in words or words[-1:] == ["AUTH"]


_PLAIN_WORD = r"(?:[A-Z]{1,19}|[A-Z]?[a-z]{1,19}|[A-Z]?[a-z]{1,15}(?:[A-Z][a-z]{2,15}){1,2})"
_ORDINARY = (
    re.compile(rf"{_PLAIN_WORD}(?:[-_. ]{_PLAIN_WORD}){{0,2}}"),
    re.compile(r"[-+]?[\d.,:_/ -]{1,15}"),  # numbers, dates, versions
    re.compile(r"[a-z][a-z0-9+.\-]*://.*", re.IGNORECASE | re.DOTALL),  # URLs; the secrets inside them are found separately
    re.compile(r"(?:(?:[a-z0-9][a-z0-9\-]{0,23}\.)+[a-z]{2,12}|localhost|(?:\d{1,3}\.){3}\d{1,3})(?::\d{1,5})?"),  # hosts
    re.compile(r"\.{1,2}/.*|[A-Za-z]:\\.*", re.DOTALL),  # paths
)


def looks_secret(value: str) -> bool:
    """Return whether a value looks secret: it is not one or two words, a number, a host, a URL or a path."""
    return not any(pattern.fullmatch(value) for pattern in _ORDINARY) and len(set(value)) > 3


_BACKSLASHES = rb"(?:\\++(?:u005[cC])?+|%(?:25)*5[cC])++"
_ESCAPE = re.compile(
    _BACKSLASHES
    + rb"(?:u([dD][89abAB][0-9a-fA-F]{2})\\++u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([bfnrt\"'/]))?"
    + rb"|%(?:25)*([0-9a-fA-F]{2})"
)
_CONTROLS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_HALF = re.compile(rb"(?:\\+(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?|u[dD][89abAB][0-9a-fA-F]{2})?|%(?:25)*[0-9a-fA-F]?)\Z")
_HALF_BYTES = 12


@dataclass(slots=True)
class Folded:
    """A folded text, and the place of each of its parts in the original."""

    data: bytes
    _starts: list[int] = field(default_factory=list)
    _marks: list[tuple[int, int, int]] = field(default_factory=list)

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return the place in the original of a non-empty place in `data`. An escape is never cut."""
        return self._at(start)[0], self._at(end - 1)[1]

    def _at(self, place: int) -> tuple[int, int]:
        """Return the start and the end, in the original, of the byte at a place of `data`."""
        number = bisect_right(self._starts, place) - 1
        if number < 0:
            return place, place + 1
        end, raw_start, raw_end = self._marks[number]
        if place < end:
            return raw_start, raw_end
        return raw_end + place - end, raw_end + place - end + 1


def fold(data: bytes) -> Folded:
    """Return the text with every escape undone. The cost is linear."""
    parts: list[bytes] = []
    starts: list[int] = []
    marks: list[tuple[int, int, int]] = []
    size = at = 0
    for match in _ESCAPE.finditer(data):
        plain = data[at : match.start()]
        character = _character(match)
        size += len(plain)
        starts.append(size)
        size += len(character)
        marks.append((size, _start(match), match.end()))
        parts += (plain, character)
        at = match.end()
    parts.append(data[at:])
    return Folded(b"".join(parts), starts, marks)


def _start(match: re.Match[bytes]) -> int:
    """Return the start of an escape. Only the last 1, 2, 4, … backslashes before `u` or `n` belong to it; the rest is text."""
    escape, start = match[0], match.start()
    if escape[1:2] != b"\\":
        return start
    count = len(escape) - len(escape.lstrip(b"\\"))
    return start + count - (count & -count) if escape[count : count + 1] in (b"u", b"x", b"b", b"f", b"n", b"r", b"t") else start


def _character(match: re.Match[bytes]) -> bytes:
    high, low, code, byte, letter, percent = match.groups()
    if letter is not None:
        return _CONTROLS.get(letter, letter)
    if code is not None:
        return b"" if code in (b"005c", b"005C") else chr(int(code, 16)).encode("utf-8", "surrogatepass")
    if high is not None:
        return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF)).encode()
    found = byte or percent
    return b"" if found is None else bytes([int(found, 16)])


def ends_in_half_an_escape(data: bytes) -> bool:
    """Return whether the last bytes may be the beginning of an escape, or half of a surrogate pair."""
    return _HALF.search(data, max(0, len(data) - _HALF_BYTES)) is not None
