"""The cassette: a slice of the log as a reviewable text file that vcrpy can replay too.

The format is vcrpy's YAML, version 1: `version`, `interactions[].request/response`. vcrpy ignores other keys, so retold adds
two, both named `retold`. At the top: `{format: 1}`. In each interaction what vcrpy has no place for:

    recorded_at     when the request went out, ISO 8601, UTC
    started_ms      the same on the run's own clock, so that pauses between exchanges can be retold
    first_ms        when the response's head came, after the request
    offsets_ms      when each piece of the body came, after the request; one string of numbers, because a list of 100,000
                    numbers costs a YAML parser half a second
    sizes           the pieces' sizes in bytes, where they are not the frames of an event stream (JSON, compressed bodies)
    ended_ms        when the exchange ended
    ending, error   how it ended
    call, attempt   retries of one call share its number
    step, task, variables, tool_results, cost_usd   what a workflow run needs to be retold offline

A body is a literal block where YAML can hold it so, a quoted string where it cannot, `!!binary` where it is not UTF-8. `.json`
files hold the same structure. Writing is atomic, and a YAML file ends in `...`, so that one cut short is told. A file that is
there but damaged is an error and is never overwritten.
"""

import base64
import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import yaml

from .errors import CassetteError, CassetteMissing
from .events import ENDINGS, Ending, encode
from .exchange import Exchange, Failure, Headers, Request, Response, TimedPiece, content_encoding, has_frames, pieces_of

FORMAT = 1
"""Version of the `retold:` keys that this module writes; a newer one is refused."""

MAX_DEPTH = 200
"""Deeper nesting than any request has."""

# What could be a structure deeper than that: many openings in a row, or many `[` or `{` that no JSON string explains.
_DEEP = re.compile(r"(?:[\[{]\s*){40}|(?:^|\n)(?:[ ]*[-?:][ ]+){40}|\n {400}|(?:[\[{][^\"'\n]{0,40}){150}")

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# YAML normalises these inside a literal block, or cannot hold them there.
_NOT_LITERAL = re.compile(r"[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|[ \t]\n")


class Cassette(NamedTuple):
    """A cassette's exchanges in recorded order, and the file they came from."""

    path: Path
    exchanges: tuple[Exchange, ...]


# Reading


def read_cassette(path: str | os.PathLike[str]) -> Cassette:
    """Read a cassette, retold's or vcrpy's, YAML or JSON. Raises CassetteMissing or CassetteError (file, entry, line)."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise CassetteMissing(f"no cassette at {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CassetteError(f"cannot read the cassette {path}: {error}.") from error
    data = _load(path, text)
    if not isinstance(data, dict) or not isinstance(data.get("interactions"), list):
        raise CassetteError(
            f"{path} is not a cassette: it has no list `interactions`. It was left as it is; restore it from version "
            "control, or delete it and record again."
        )
    _check_format(path, data, text)
    exchanges = []
    for number, entry in enumerate(data["interactions"]):
        try:
            exchanges.append(_to_exchange(entry))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"missing key {error}" if isinstance(error, KeyError) else str(error)
            raise CassetteError(
                f"{path}:{_line_of(text, number)}: interaction {number + 1} is damaged: {what}. The file was left as it is."
            ) from error
    return Cassette(path, tuple(exchanges))


def _load(path: Path, text: str) -> Any:
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", 1)
            raise CassetteError(f"{path}:{line}: the cassette is damaged: {error}. The file was left as it is.") from error
    try:
        _check_depth(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        problem = getattr(error, "problem", None) or str(error)
        raise CassetteError(
            f"{path}:{line}: the cassette is damaged: {problem}. It was left as it is; restore it from version control, or "
            "delete it and record again."
        ) from error


def _check_depth(text: str) -> None:
    """Raise YAMLError for a document so deep that libyaml's parser would overflow the stack of the process.

    Parsing into events needs no stack, but twice the time: it is done only where the text could be that deep.
    """
    if len(text) < MAX_DEPTH or _DEEP.search(text) is None:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark: Any = event.start_mark
                raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_format(path: Path, data: dict[str, Any], text: str) -> None:
    own = data.get("retold")
    version = own.get("format") if isinstance(own, dict) else None
    if version is not None and path.suffix != ".json" and not text.rstrip().endswith("\n..."):
        raise CassetteError(
            f"{path}:{text.count(chr(10)) + 1}: the cassette is cut short: its end mark `...` is missing. It was left as it "
            "is; restore it from version control, or delete it and record again."
        )
    if isinstance(version, int) and version > FORMAT:
        raise CassetteError(
            f"{path} was written by a newer retold (cassette format {version}, this one reads up to {FORMAT}). Update "
            "retold: pip install -U retold."
        )


def _line_of(text: str, number: int) -> int:
    """The line on which an interaction begins; parsed only for an error's text."""
    try:
        root: Any = yaml.compose(text, Loader=_Loader)
        entries = next(value for key, value in root.value if key.value == "interactions")
        return int(entries.value[number].start_mark.line) + 1
    except (yaml.YAMLError, StopIteration, IndexError, AttributeError, TypeError):
        return 1


def _to_exchange(entry: dict[str, Any]) -> Exchange:
    entry = _mapping(entry, "an interaction")
    own = _mapping(entry.get("retold") or {}, "retold")
    recorded = _mapping(entry["request"], "request")
    request = Request(_word(recorded["method"]), _word(recorded["uri"]), _headers(recorded.get("headers")), _any_body(recorded))
    ending = own.get("ending", "complete")
    if ending not in ENDINGS:
        raise ValueError(f"unknown ending {ending!r}; one of {', '.join(ENDINGS)}")
    error = own.get("error")
    response = (
        None
        if entry.get("response") is None or ending == "no_response"
        else _to_response(_mapping(entry["response"], "response"), own)
    )
    if "ending" not in own and response is not None and response.status >= 400:
        ending = "http_error"
    ended_ns = _ns(own.get("ended_ms"))
    if ended_ns == 0 and response is not None and response.pieces:
        ended_ns = response.pieces[-1].offset_ns
    started_ns = _ns(own.get("started_ms"))
    return Exchange(
        request=request,
        response=response,
        ending=cast(Ending, ending),
        failure=None if error is None else Failure(_word(error["type"]), _word(error["message"])),
        call=int(own.get("call", 0)),
        attempt=int(own.get("attempt", 1)),
        step=_word(own.get("step", "")),
        task=_word(own.get("task", "")),
        recorded_at=_word(own.get("recorded_at", "")),
        started_ns=started_ns,
        ended_ns=started_ns + ended_ns,
        stamped=_word(own.get("stamped", "pull")),
        cost_usd=None if own.get("cost_usd") is None else float(own["cost_usd"]),
        variables={_word(k): _word(v) for k, v in _mapping(own.get("variables") or {}, "variables").items()},
        tool_results=tuple(_mapping(result, "a tool result") for result in _tool_results(own.get("tool_results"))),
    )


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} should be a mapping, and is {str(value)[:60]!r}")
    return value


def _to_response(recorded: dict[str, Any], own: dict[str, Any]) -> Response:
    if "status_code" in recorded:  # vcrpy's httpx format before version 6
        status, reason = int(recorded["status_code"]), ""
        body = _body(recorded["content"]) if "content" in recorded else _any_body(recorded)
    else:
        state = _mapping(recorded["status"], "status")
        status, reason = int(state["code"]), _word(state.get("message") or "")
        body = _any_body(recorded)
    headers = _repaired(_headers(recorded.get("headers")), body)
    offsets = [_ns(float(number)) for number in _word(own.get("offsets_ms", "")).split()]
    first_ns = _ns(own.get("first_ms"))
    pieces = []
    for number, (data, is_frame) in enumerate(_cut(body, headers, own.get("sizes"))):
        # A body edited by hand may have more pieces than times: the last time holds for the rest.
        offset = offsets[min(number, len(offsets) - 1)] if offsets else first_ns
        pieces.append(TimedPiece(offset, data, is_frame))
    return Response(status, reason, headers, tuple(pieces), first_ns)


def _cut(body: bytes, headers: Headers, sizes: object) -> Iterable[tuple[bytes, bool]]:
    if sizes is None or has_frames(headers, body):
        for piece in pieces_of(body, headers):
            yield piece.data, piece.is_frame
        return
    start = 0
    for size in map(int, _word(sizes).split()):
        if body[start : start + size]:
            yield body[start : start + size], False
        start += size
    if body[start:]:
        yield body[start:], False


def _any_body(recorded: dict[str, Any]) -> bytes:
    """The body of a request or response; some recorders keep JSON already parsed, as `parsed_body`."""
    if recorded.get("body") is None and recorded.get("parsed_body") is not None:
        return encode(recorded["parsed_body"])
    return _body(recorded.get("body"))


def _tool_results(value: Any) -> list[Any]:
    """Tool results; as JSON text where they hold what YAML cannot (half a surrogate pair)."""
    found = json.loads(value) if isinstance(value, str) else value
    if found is not None and not isinstance(found, list):
        raise ValueError("tool_results should be a list")
    return found or []


def _word(value: Any) -> str:
    """A plain value as text; a structure where one belongs is damage, and could be an alias that grows without end."""
    if isinstance(value, dict | list | tuple | set):
        raise ValueError(f"a {type(value).__name__} stands where text should")
    return str(value)


def _body(value: Any) -> bytes:
    """A body in any form found in the wild: text, bytes, `{string: …}`, `{base64_string: …}`, nothing."""
    if isinstance(value, dict):
        if "base64_string" in value:
            return base64.b64decode(value["base64_string"])
        value = value.get("string")
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    raise ValueError(f"a body of type {type(value).__name__}")


def _headers(value: Any) -> Headers:
    """Header pairs from `{name: [values]}`, `{name: value}` or a list of pairs."""
    if value is None:
        return ()
    pairs = value.items() if isinstance(value, dict) else value
    return tuple((str(name), str(item)) for name, items in pairs for item in (items if isinstance(items, list) else [items]))


def _repaired(headers: Headers, body: bytes) -> Headers:
    """Without a content-encoding that the body does not have: many recorders store decoded bodies under old headers."""
    if content_encoding(headers) in ("gzip", "x-gzip") and not body.startswith(b"\x1f\x8b"):
        return tuple((name, value) for name, value in headers if name.lower() != "content-encoding")
    return headers


def _ns(ms: Any) -> int:
    """Milliseconds of the file as nanoseconds. Raises ValueError for what is no time."""
    if ms is None:
        return 0
    value = float(ms)
    if not 0 <= value < 1e12:
        raise ValueError(f"a time should be a number of milliseconds, and is {value}")
    return round(value * 1_000_000)


# Writing


class _Dumper(yaml.SafeDumper):
    """Strings of several lines as literal blocks, no anchors for values that happen to be shared."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


class _FastDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """The same in C. It cannot put characters beyond the BMP (emoji) into a literal block; `_Dumper`, ten times slower, can."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: Any, text: str) -> Any:
    if _NOT_LITERAL.search(text) is None and "\n" in text.rstrip("\n") and not text.startswith((" ", "\n", "\t")):
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    style = '"' if _NOT_LITERAL.search(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_FastDumper.add_representer(str, _represent_text)


def to_yaml(data: Any, file: IO[str]) -> None:
    """Write YAML as cassettes have it."""
    dumper = _Dumper if _has_astral(data) else _FastDumper
    yaml.dump(data, file, Dumper=dumper, allow_unicode=True, sort_keys=False, width=2**31 - 1, explicit_end=True)


def _has_astral(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isascii() and max(value) > "\uffff"
    if isinstance(value, dict):
        return any(map(_has_astral, value.values()))
    return isinstance(value, list) and any(map(_has_astral, value))


def write_cassette(path: str | os.PathLike[str], exchanges: Sequence[Exchange]) -> None:
    """Write a cassette, all or nothing: a new file takes the old one's place only when it is whole. Raises CassetteError."""
    path = Path(path)
    data = _document(exchanges)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                if path.suffix == ".json":
                    json.dump(_for_json(data), file, ensure_ascii=False, indent=1)
                    file.write("\n")
                else:
                    to_yaml(data, file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CassetteError(f"cannot write the cassette {path}: {error.strerror or error}.") from error


def dump_cassette(exchanges: Sequence[Exchange], file: IO[str]) -> None:
    """Write a cassette as YAML to an open file."""
    to_yaml(_document(exchanges), file)


def _document(exchanges: Sequence[Exchange]) -> dict[str, Any]:
    return {"version": 1, "retold": {"format": FORMAT}, "interactions": [_to_entry(exchange) for exchange in exchanges]}


def _to_entry(exchange: Exchange) -> dict[str, Any]:
    request, response = exchange.request, exchange.response
    return {
        "request": {
            "method": request.method,
            "uri": request.uri,
            "headers": _grouped(request.headers),
            "body": _text(request.body),
        },
        # vcrpy needs a response; one that never came is told apart by its ending.
        "response": {
            "status": {
                "code": 0 if response is None else response.status,
                "message": "" if response is None else response.reason,
            },
            "headers": {} if response is None else _grouped(response.headers),
            "body": {"string": "" if response is None else _text(response.body)},
        },
        "retold": {key: value for key, value in _own(exchange).items() if value not in (None, "", (), [], {})},
    }


def _own(exchange: Exchange) -> dict[str, Any]:
    response, failure = exchange.response, exchange.failure
    own: dict[str, Any] = {
        "recorded_at": exchange.recorded_at,
        "step": exchange.step,
        "task": exchange.task,
        "call": exchange.call,
        "attempt": exchange.attempt,
        "stamped": exchange.stamped,
        "ending": exchange.ending,
        "error": None if failure is None else {"type": failure.type, "message": failure.message},
        "started_ms": _ms(exchange.started_ns),
    }
    if response is not None:
        own["first_ms"] = _ms(response.first_ns)
        own["offsets_ms"] = " ".join(_number(piece.offset_ns) for piece in response.pieces)
        if len(response.pieces) > 1 and not has_frames(response.headers, response.pieces[0].data):
            own["sizes"] = " ".join(str(len(piece.data)) for piece in response.pieces)
    return own | {
        "ended_ms": _ms(exchange.ended_ns - exchange.started_ns),
        "cost_usd": exchange.cost_usd,
        "variables": exchange.variables,
        "tool_results": _storable(list(exchange.tool_results)),
    }


def _storable(results: list[dict[str, Any]]) -> list[dict[str, Any]] | str:
    try:
        json.dumps(results, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(results)
    return results


def _grouped(headers: Headers) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in headers:
        grouped.setdefault(name, []).append(value)
    return grouped


def _text(data: bytes) -> str | bytes:
    """Text where UTF-8 holds it; bytes, written as `!!binary`, where it does not."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _for_json(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("string"), bytes):
            return {"base64_string": base64.b64encode(value["string"]).decode()}
        return {key: _for_json(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return {"base64_string": base64.b64encode(value).decode()}
    return [_for_json(item) for item in value] if isinstance(value, list) else value


def _ms(ns: int) -> float:
    """Nanoseconds as milliseconds, to the microsecond: what a stamp is worth, and short in the file."""
    return round(ns / 1_000_000, 3)


def _number(ns: int) -> str:
    return f"{ns / 1_000_000:.3f}".rstrip("0").rstrip(".")
