"""The cassette: a part of the log as a reviewable text file that vcrpy can replay, too.

The format is vcrpy's YAML, version 1: `version`, `interactions[].request/response`. vcrpy ignores other keys, so retold adds
two, both named `retold`. At the top: `{format: 2}` and rules of matching (kept.py). In each interaction, the
values without a place in vcrpy's format:

    recorded_at     the time when the request was sent, ISO 8601, UTC
    started_ms      the same on the run's own clock, for the pauses between exchanges
    first_ms        the time of the response's head, after the request
    offsets_ms      the time of each piece of the body, after the request; one string of numbers, because a list of 100,000
                    numbers costs a YAML parser half a second
    sizes           the sizes of the pieces in bytes, if they are not the frames of an event stream (JSON, compressed bodies)
    ended_ms        the time of the exchange's end
    ending, error   the ending (`Ending`) and its error
    call, attempt   retries of one call share its number
    body_layout     the way from the indented JSON to the request's bytes (json_layout.py); `body_sha256` is their digest when
                    they were recorded; a body that a person edited later is matched as edited
    folders         the folders of the recorded program (cwd, home, tmp), if they occur in the exchange
    step, task, variables, tool_results, cost_usd   values that the replay of a workflow needs

Sessions of the Claude Agent SDK are under the top-level key `sessions` (sessions.py).

A body is a literal block if YAML can hold it in one, else a quoted string, and `!!binary` if it is not UTF-8. `.json` files hold
the same structure. Writing is atomic. A YAML file ends with the key `retold_end`, so a truncated file is recognised even after a
formatter; format 1 ends with `...`. A damaged file is an error and is never overwritten.
"""

import io
import json
import os
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import yaml

from .. import strict_json
from ..agent_wire import AgentSession
from ..errors import CassetteError, CassetteMissing
from ..files import packing, plain_name, read_regular, replacing, unpacked
from ..hints import near, unreadable
from ..http.exchange import Exchange, Response, has_frames
from .block_yaml import CassetteLoader
from .entry import DAMAGE, lay_out, milliseconds, ms_text, to_exchange
from .exchanges import Exchanges, Shared, outline
from .foreign import named, named_text, was_cassette, way_out
from .kept import NOTHING_KEPT, Kept
from .logged import LiteralBody
from .sessions import entry_to_session, session_to_entry
from .writing import as_text, dump, for_json

FORMAT = 2
"""Version of the `retold:` keys that this module writes; a newer one is refused."""

_CONFLICT = re.compile(rb"^<{7}(?: |\r?$)", re.MULTILINE)
_END_OF_1 = re.compile(rb"\n\.\.\.[ \t]*(?:#[^\n]*)?(?:\r?\n[ \t]*(?:#[^\n]*)?)*\Z")
_GZIP = b"\x1f\x8b"


class Cassette(NamedTuple):
    """A cassette's exchanges and sessions of the Agent SDK, each in recorded order, its file, and the rules that it keeps."""

    path: Path
    exchanges: Sequence[Exchange]
    sessions: tuple[AgentSession, ...] = ()
    kept: Kept = NOTHING_KEPT

    @property
    def is_empty(self) -> bool:
        """Whether the file holds neither exchanges nor sessions."""
        return not self.exchanges and not self.sessions


# Reading


def names_file(reference: str) -> bool:
    """Return whether an argument RUN|CASSETTE names a file, existing or not, rather than a run of the log."""
    has_ending = plain_name(reference).endswith((".yaml", ".yml", ".json", ".toml"))
    return has_ending or "/" in reference or reference == "-" or Path(reference).is_file()


LAZY_BYTES = 1_000_000
"""A smaller file is always read whole, so that damage shows at once."""


def read_cassette(path: str | os.PathLike[str], *, lazy: bool = False) -> Cassette:
    """Read a cassette, retold's or vcrpy's, YAML or JSON. Raise CassetteMissing or CassetteError (file, entry, line).

    With `lazy` the interactions of a large file are read when they are first needed. Then damage inside of an interaction raises
    CassetteError at that time.
    """
    return cassette_at(Path(path), lazy=lazy)


def cassette_at(path: Path, *, lazy: bool = False, shared: Shared | None = None) -> Cassette:
    """Read a cassette as `read_cassette` does. Interactions that are in `shared` are not read again, and new ones are added."""
    try:
        data = read_regular(path)
    except FileNotFoundError as error:
        raise CassetteMissing(f"no cassette at {path}{near(path)}") from error
    except OSError as error:
        raise CassetteError(f"cannot read the cassette {path}: {unreadable(error)}") from error
    return cassette_of(path, data, lazy=lazy, shared=shared)


def cassette_of(path: Path, data: bytes, *, lazy: bool = False, shared: Shared | None = None) -> Cassette:
    """Return the cassette in the bytes of a file; see `read_cassette`. Compressed bytes are decompressed. Raise CassetteError."""
    if data.startswith(_GZIP):
        try:
            data = unpacked(data)
        except OSError as error:
            raise CassetteError(f"cannot read the cassette {path}: {unreadable(error)}") from error
    lazy = lazy and len(data) >= LAZY_BYTES
    suffix = _suffix(path, data)
    found = None if suffix == ".json" and not lazy else outline(data, suffix)
    if found is None:
        return Cassette(path, *_read_whole(path, data))
    _check_format(path, found.document, data)
    exchanges = Exchanges(found, lambda: _read_whole(path, data)[0], shared)
    kept = _read_kept(path, found.document)
    return Cassette(path, exchanges if lazy else tuple(exchanges), _read_sessions(path, found.document), kept)


def _suffix(path: Path, data: bytes) -> str:
    """Return the ending that names the format. A file without one, such as a pipe, is JSON if it begins as an object."""
    suffix = Path(plain_name(path)).suffix
    if suffix in (".yaml", ".yml", ".json", ".toml"):
        return suffix
    return ".json" if data[:200].lstrip().startswith(b"{") else suffix


def _read_whole(path: Path, data: bytes) -> tuple[tuple[Exchange, ...], tuple[AgentSession, ...], Kept]:
    """Return all exchanges and sessions of a file of any form, and the rules that it keeps."""
    document = _load(path, data)
    if isinstance(document, dict) and "workflow" in document and "interactions" not in document:
        raise CassetteError(f"{path} is a workflow, not a cassette. Its recording is beside it; retold run {path} plays it.")
    if (kind := named(document)) is not None:
        raise CassetteError(f"{path}: {kind}")
    if isinstance(document, dict) and "interactions" not in document and {"request", "response"} <= document.keys():
        document = {"interactions": [document]}  # Datadog's test agent keeps one file for each exchange
    if not isinstance(document, dict) or not isinstance(document.get("interactions"), list):
        raise CassetteError(f"{path} is not a cassette: it has no list `interactions`. It was left as it is.{way_out(data)}")
    _check_format(path, document, data)
    exchanges = []
    for number, entry in enumerate(document["interactions"]):
        try:
            exchanges.append(to_exchange(entry))
        except DAMAGE as error:
            what = f"missing key {error}" if isinstance(error, KeyError) else str(error)
            raise CassetteError(
                f"{path}:{_line_of(data, number)}: interaction {number + 1} is damaged: {what}. The file was left as it is."
            ) from error
    return tuple(exchanges), _read_sessions(path, document), _read_kept(path, document)


def _read_kept(path: Path, document: dict[str, Any]) -> Kept:
    own = document.get("retold")
    if not isinstance(own, dict) or own.keys() <= {"format"}:
        return NOTHING_KEPT
    try:
        return Kept.of(own)
    except ValueError as error:
        raise CassetteError(f"{path}: the key `retold` at the top is damaged: {error}. The file was left as it is.") from error


def _read_sessions(path: Path, document: dict[str, Any]) -> tuple[AgentSession, ...]:
    """Return the sessions of a document without reading its interactions. Raise CassetteError."""
    entries = document.get("sessions") or ()
    if not isinstance(entries, list | tuple):
        raise CassetteError(f"{path}: the key `sessions` should hold a list. The file was left as it is.")
    sessions = []
    for number, entry in enumerate(entries, 1):
        try:
            sessions.append(entry_to_session(entry))
        except DAMAGE as error:
            what = f"missing key {error}" if isinstance(error, KeyError) else str(error)
            raise CassetteError(f"{path}: session {number} is damaged: {what}. The file was left as it is.") from error
    return tuple(sessions)


def _load(path: Path, data: bytes) -> Any:
    """Return the document in a UTF-8 file. libyaml and json read its bytes (and UTF-16, which no other part of retold reads)."""
    try:
        if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            data.decode()
        suffix = _suffix(path, data)
        if suffix == ".toml":
            import tomllib

            return tomllib.loads(data.decode())
        return json.loads(data) if suffix == ".json" else yaml.load(data, Loader=CassetteLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        try:
            data.decode()
        except UnicodeDecodeError as undecodable:
            raise CassetteError(f"cannot read the cassette {path}: {unreadable(undecodable)}") from error
        if (kind := named_text(data)) is not None:
            raise CassetteError(f"{path}: {kind}") from error
        mark = getattr(error, "problem_mark", None)
        line = getattr(error, "lineno", 1) if mark is None else mark.line + 1
        problem = getattr(error, "problem", None) or str(error)
        if _suffix(path, data) != ".json" and (conflict := _CONFLICT.search(data)) is not None:
            line, problem = data.count(b"\n", 0, conflict.start()) + 1, "an unresolved merge conflict (`<<<<<<<`)"
        what = "the cassette is damaged: " if was_cassette(data) else "not a cassette, nor any other YAML or JSON: "
        raise CassetteError(f"{path}:{line}: {what}{problem}. It was left as it is.{way_out(data)}") from error


def _check_format(path: Path, document: dict[str, Any], data: bytes) -> None:
    own = document.get("retold")
    version = own.get("format") if isinstance(own, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise CassetteError(
            f"{path} was written by a newer retold (cassette format {version}, this one reads up to {FORMAT}). Update "
            "retold: pip install -U retold."
        )
    if version is not None and _suffix(path, data) != ".json" and not _is_whole(document, data, version):
        line = data.count(b"\n") + 1
        mark = "`...`" if version == 1 else "`retold_end: true`"
        raise CassetteError(
            f"{path}:{line}: the cassette is cut short: its end mark {mark} is missing (cut off, or removed by a formatter). It "
            "was left as it is. Restore it from version control, or delete it and record again."
        )


def _is_whole(document: dict[str, Any], data: bytes, version: Any) -> bool:
    """Return whether a YAML cassette has its end mark. Comments may follow it; formatters keep the key of format 2."""
    return document.get("retold_end") is True or (version == 1 and _END_OF_1.search(data) is not None)


def _line_of(data: bytes, number: int) -> int:
    """Return the line on which an interaction begins. The file is parsed for it only if there is an error."""
    try:
        root: Any = yaml.compose(data, Loader=CassetteLoader)
        entries = next(value for key, value in root.value if key.value == "interactions")
        return int(entries.value[number].start_mark.line) + 1
    except (yaml.YAMLError, StopIteration, IndexError, AttributeError, TypeError, ValueError):
        return 1


# Writing


def _head(kept: Kept) -> dict[str, Any]:
    return {"version": 1, "retold": {"format": FORMAT, **kept.as_dict()}}


_END = {"retold_end": True}

_UNREAD_HEADERS = re.compile(
    r"host|connection|content-length|accept-encoding|x-stainless-(?!lang$|retry-count$).*", re.IGNORECASE
)
"""Request headers that no matching rule and no other part of retold reads from a recording. The log keeps them."""


def to_yaml(
    exchanges: Iterable[Exchange], file: IO[str], sessions: Iterable[AgentSession] = (), kept: Kept = NOTHING_KEPT
) -> int:  # fmt: skip
    """Write a cassette as YAML and return the number of interactions. One at a time is in memory, of a long answer a page."""
    dump(_head(kept), file)
    count = 0
    for count, exchange in enumerate(exchanges, 1):
        if count == 1:
            file.write("interactions:\n")
        long = LiteralBody.of(exchange.response)
        entry = _to_entry(exchange, long)
        dump([entry], file) if long is None else long.dump(entry, file)
    if count == 0:
        file.write("interactions: []\n")
    for number, session in enumerate(sessions):
        if number == 0:
            file.write("sessions:\n")
        dump([session_to_entry(session)], file)
    dump(_END, file)
    return count


def write_cassette(
    path: str | os.PathLike[str], exchanges: Iterable[Exchange], sessions: Iterable[AgentSession] = (), kept: Kept = NOTHING_KEPT,
) -> int:  # fmt: skip
    """Write a cassette completely or not at all, and return the number of its exchanges. Raise CassetteError.

    A symbolic link stays a link, and the file that it points to is replaced. An existing file keeps its mode.
    """
    path = Path(path)
    if plain_name(path).endswith(".toml"):
        raise CassetteError(f"cannot write the cassette {path}: retold reads TOML and does not write it. Use .yaml or .json.")
    try:
        with replacing(path) as packed, packing(packed, path) as data:
            file = io.TextIOWrapper(data, encoding="utf-8", newline="")
            if plain_name(path).endswith(".json"):
                entries = [_to_entry(exchange) for exchange in exchanges]
                document = {**_head(kept), "interactions": entries}
                if held := [session_to_entry(session) for session in sessions]:
                    document["sessions"] = held
                file.write(strict_json.dumps(for_json({**document, **_END}), indent=1))
                count = len(entries)
                file.write("\n")
            else:
                count = to_yaml(exchanges, file, sessions, kept)
            file.flush()
            file.detach()
    except OSError as error:
        raise CassetteError(f"cannot write the cassette {path}: {error.strerror or error}.") from error
    return count


def _to_entry(exchange: Exchange, long: LiteralBody | None = None) -> dict[str, Any]:
    request, response = exchange.request, exchange.response
    laid_out = lay_out(request.body)
    return {
        "request": {
            "method": request.method,
            "uri": request.uri,
            "headers": _grouped(pair for pair in request.headers if _UNREAD_HEADERS.fullmatch(pair[0]) is None),
            "body": as_text(request.body) if laid_out is None else laid_out[0],
        },
        # vcrpy needs a response. The ending distinguishes a missing one.
        "response": {
            "status": {
                "code": 0 if response is None else response.status,
                "message": "" if response is None else response.reason,
            },
            "headers": {} if response is None else _grouped(response.headers),
            "body": {"string": _body(response, long)},
        },
        "retold": {key: value for key, value in _own(exchange, laid_out, long).items() if value not in (None, "", (), [], {})},
    }


def _body(response: Response | None, long: LiteralBody | None) -> str | bytes:
    if long is not None:
        return long.body
    return as_text(b"" if response is None else response.body)


def _own(exchange: Exchange, laid_out: tuple[str, str] | None, long: LiteralBody | None) -> dict[str, Any]:
    response, failure, place = exchange.response, exchange.failure, exchange.place
    own: dict[str, Any] = {
        "recorded_at": exchange.recorded_at,
        "step": place.step,
        "task": place.task,
        "call": place.call,
        "attempt": place.attempt,
        "stamped": place.stamped,
        "ending": exchange.ending,
        "error": None if failure is None else {"type": failure.type, "message": failure.message},
        "started_ms": milliseconds(exchange.started_ns),
        "folders": _shown_folders(exchange, long),
    }
    if response is not None:
        own["first_ms"] = milliseconds(response.first_ns)
        own["offsets_ms"] = " ".join(ms_text(piece.offset_ns) for piece in response.pieces) if long is None else long.offsets
        if response.pieces and not has_frames(response.headers, response.pieces[0].data) and len(response.pieces) > 1:
            own["sizes"] = " ".join(str(len(piece.data)) for piece in response.pieces)
    return own | {
        "ended_ms": milliseconds(exchange.ended_ns - exchange.started_ns),
        "cost_usd": exchange.cost_usd,
        "variables": dict(place.variables),
        "tool_results": _storable(list(exchange.tool_results)),
        "body_layout": None if laid_out is None else laid_out[1],
        "body_sha256": None if laid_out is None else sha256(exchange.request.body).hexdigest(),
    }


def _shown_folders(exchange: Exchange, long: LiteralBody | None) -> dict[str, str]:
    """Return the folders of the program if they occur in the exchange. Otherwise a cassette would name them in vain."""
    request, response = exchange.request, exchange.response
    if not request.folders:
        return {}
    if response is None:
        pieces: Iterable[bytes] = ()
    else:
        pieces = (response.body,) if long is None else (piece.data for piece in response.pieces)
    return request.folders.as_dict() if any(map(request.folders.show_in, chain([request.body], pieces))) else {}


def _storable(results: list[dict[str, Any]]) -> list[dict[str, Any]] | str:
    try:
        strict_json.dumps(results).encode()
    except UnicodeEncodeError:
        return strict_json.dumps(results, ensure_ascii=True)
    return results


def _grouped(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in headers:
        grouped.setdefault(name, []).append(value)
    return grouped
