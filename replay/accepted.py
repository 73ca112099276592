"""Recorded bodies for clients that do not accept their encoding (Accept-Encoding, RFC 9110, 12.5.3).

A client that accepts the recorded encoding gets the recorded bytes, still compressed. A client that sends no Accept-Encoding,
or names other encodings, gets the decoded body.
"""

from ..recorder.errors import MissError
from ..recorder.http.encodings import decoder_for
from ..recorder.http.exchange import Exchange, Headers, content_encoding
from .faults import framed


def accepts(headers: Headers, encoding: str) -> bool:
    """Return True if request headers accept a content encoding. Without Accept-Encoding they accept none."""
    weights: dict[str, float] = {}
    for name, value in headers:
        if name.lower() == "accept-encoding":
            weights |= dict(map(_weighed, value.split(",")))
    # RFC 9110, 8.4.1: x-gzip and x-compress are old names of gzip and compress.
    encoding = encoding.removeprefix("x-")
    return weights.get(encoding, weights.get(f"x-{encoding}", weights.get("*", 0.0))) > 0


def readable(exchange: Exchange, headers: Headers) -> Exchange:
    """Return the exchange in an encoding that a client with these request headers accepts.

    Raise MissError if the body has to be decoded and cannot be.
    """
    response = exchange.response
    encoding = "" if response is None else content_encoding(response.headers)
    if response is None or not encoding or not response.body or accepts(headers, encoding):
        return exchange
    decoder = decoder_for(response.headers)
    if not decoder.decode(response.body) or decoder.exceeded:
        package = {"br": ": pip install brotli", "zstd": ": pip install backports.zstd"}.get(encoding, "")
        raise MissError(
            f"the recorded answer is compressed with {encoding}, which this client does not accept (Accept-Encoding), and it "
            f"cannot be decoded here{package}."
        )
    return framed(exchange)


def _weighed(item: str) -> tuple[str, float]:
    coding, _, parameter = item.partition(";")
    name, _, value = parameter.partition("=")
    try:
        weight = float(value) if name.strip().lower() == "q" else 1.0
    except ValueError:
        # A malformed weight counts as a refusal, so the client gets the decoded body.
        weight = 0.0
    return coding.strip().lower(), weight


def repeated_at_once(status: int, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return response headers that let an SDK repeat a failed call after 1 ms instead of half a second and more.

    An instant replay adds them, because it has no server to protect from load. Answers that SDKs do not repeat keep theirs.
    """
    if not (status in (408, 409, 429) or status >= 500):
        return headers
    return [*((name, value) for name, value in headers if name.lower() != "retry-after-ms"), ("retry-after-ms", "1")]
