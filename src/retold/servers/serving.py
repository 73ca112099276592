"""Answer each request of a server: play a recorded exchange, or send the request on and record the answer."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import unquote

from ..recorder import strict_json
from ..recorder.errors import MissError, RetoldError
from ..recorder.folders import UNKNOWN, Folders
from ..recorder.http.exchange import Request
from ..recorder.http.recognition import versioned
from ..recorder.proxy.api_side import to_request
from ..recorder.proxy.http_messages import Asked, Peer, Refusal, head_bytes, refusal
from ..recorder.proxy.relay import THREADED_BYTES, Relay, Unrecorded
from ..recorder.proxy.upstream import Upstream
from ..replay.faults import Telling
from ..replay.relocating import folders_between, relocated
from ..replay.server import retell
from ..replay.timing.recorded_order import Order, order_of
from ..replay.timing.session_order import SessionOrder
from ..testing.session import CassetteSession
from .gate import Gate
from .summary import OUTSIDE

MISS_STATUS = 418
"""A status that the API never sends. Claude Code and the SDKs show its text and do not retry, unlike 404, 401 and 409."""

CASSETTE_HEADER = "x-retold-cassette"
_NAMED = re.compile(r"/cassette/([^/?]+)(/[^?]*)?(\?.*)?")


@dataclass
class Serving:
    """The cassettes of a server by name, and the upstream of recorded requests.

    A client names a cassette by the prefix `/cassette/NAME` of the path, or in the header x-retold-cassette. If there is only
    one cassette, it needs no name.
    """

    uses: Mapping[str, CassetteSession]
    upstream: Upstream
    gate: Gate = field(default_factory=Gate)
    note: Callable[[str], None] | None = None
    folders: Folders = UNKNOWN
    """The folders of the program that asks, if retold started it."""
    failures: list[RetoldError] = field(default_factory=list)
    refusals: Counter[int] = field(default_factory=Counter)
    """The number of refused requests, by status. They were not read."""
    kept_open: Counter[str] = field(default_factory=Counter)
    """The number of exchanges, by cassette, that the client closed when they were recorded and does not close now."""
    orders: dict[int, Order | SessionOrder | None] = field(init=False)

    def __post_init__(self) -> None:
        # Parallel requests get their answers in any order, except those of Claude Code, because they depend on each other.
        self.orders = {
            id(use): order_of(use.exchanges) if use.profile == "claude-code" else SessionOrder(use.exchanges)
            for use in self.uses.values()
        }

    def __str__(self) -> str:
        """`recording https://…`, or `serving a, b`, for a person."""
        names = ", ".join(
            name if use.profile == "api" else f"{name} (matched as {use.profile})" for name, use in self.uses.items()
        )
        modes = {use.record_mode for use in self.uses.values()}
        if modes == {"none"}:
            return f"serving {names}"
        return f"recording {self.upstream.url} ({names})"

    def tell(self, text: str) -> None:
        """Print a note for the user, if `note` is set."""
        if self.note is not None:
            self.note(text)

    @property
    def turned_away(self) -> bool:
        """Whether a request was refused for its content, not for its origin."""
        return any(status not in OUTSIDE for status in self.refusals)

    def refused(self, refusal: Refusal) -> None:
        """Count a refused request; the first one of each status is reported at once."""
        self.refusals[refusal.status] += 1
        if self.refusals[refusal.status] == 1:
            self.tell(f"retold: refused a request ({refusal.status}): {refusal.message}")

    def answerer(self) -> "Connection":
        """Return an answerer for the requests of one connection."""
        return Connection(self)

    def use_of(self, asked: Asked) -> tuple[CassetteSession, Asked]:
        """Return the cassette that a request names, and the request without that name, with the version of the API.

        Raise MissError.
        """
        name, target = asked.header(CASSETTE_HEADER), asked.target
        if (match := _NAMED.fullmatch(target)) is not None:
            name, target = unquote(match[1]), (match[2] or "/") + (match[3] or "")
        if name is None and len(self.uses) == 1:
            (use,) = self.uses.values()
        elif name is not None and name in self.uses:
            use = self.uses[name]
        else:
            known = ", ".join(self.uses)
            raise MissError(
                f"no cassette is called {name!r}; there are {known}."
                if name is not None
                else f"name a cassette, by the path /cassette/NAME or the header {CASSETTE_HEADER}; there are {known}."
            )
        return use, replace(asked, target=target if self.upstream.path.endswith("/v1") else versioned(target))

    def request(self, asked: Asked) -> Request:
        """Return a client's request as it is recorded and matched."""
        return replace(to_request(asked, self.upstream), folders=self.folders)

    def health(self) -> bytes:
        """Return the answer of /health: the state of each cassette, as JSON."""
        cassettes = {
            name: {
                "mode": use.record_mode, "profile": use.profile, "exchanges": len(use.exchanges), "played": use.play_count,
                "unplayed": len(use.unplayed), "recorded": use.recorded, "misses": len(use.misses),
            }
            for name, use in self.uses.items()
        }  # fmt: skip
        body = strict_json.dumps({"status": "ok", "cassettes": cassettes}, ensure_ascii=True).encode()
        return head_bytes(200, "OK", [("content-type", "application/json"), ("content-length", str(len(body)))]) + body


class Connection:
    """Answers the requests of one client's connection."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._relay = Relay(serving.upstream)

    def refuses(self, asked: Asked) -> Refusal | None:
        return self._serving.gate.refuses(asked)

    def refused(self, refusal: Refusal) -> None:
        self._serving.refused(refusal)

    async def answer(self, asked: Asked, client: Peer) -> bool:
        serving = self._serving
        if asked.target == "/health" and asked.method in ("GET", "HEAD"):
            client.write(serving.health() if asked.method == "GET" else serving.health().partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
            return asked.keeps_alive
        try:
            use, asked = serving.use_of(asked)
            if asked.method in ("HEAD", "OPTIONS") and (use.record_mode == "none" or use.forks):
                return await self._probed(use, asked, client)
            match await self._decide(use, asked):
                case Telling() as told:
                    return await self._retell(use, told, asked, client)
                case "pass":
                    return await self._relay.forward(asked, client, lambda _: Unrecorded())
            begin, asked = use.begin, replace(asked, body=use.changed(asked.body))
            return await self._relay.forward(asked, client, lambda sent: begin(replace(sent, folders=serving.folders)))
        except MissError as miss:
            serving.tell(f"retold: {miss}")
            has_no_body = asked.method == "HEAD"
            client.write(refusal(MISS_STATUS, "invalid_request_error", str(miss), mark="miss", head=has_no_body))
            return asked.keeps_alive
        except RetoldError as error:  # a client gets nothing that is not in the log
            serving.tell(f"retold: {error}")
            serving.failures.append(error)
            return False

    async def _retell(self, use: CassetteSession, told: Telling, asked: Asked, client: Peer) -> bool:
        def kept_open() -> None:
            self._serving.kept_open[use.source] += 1

        exchange = relocated(told.exchange, folders_between(told.exchange.request, self._serving.request(asked)))
        return await retell(exchange, told.timing, asked, client, self._serving.orders.get(id(use)), kept_open)

    async def _probed(self, use: CassetteSession, asked: Asked, client: Peer) -> bool:
        """Answer HEAD and OPTIONS, which are never misses: Claude Code checks sometimes that the API answers, and a browser
        that an allowed page may send its request."""
        if (told := use.play_if_any(self._serving.request(asked))) is not None:
            return await self._retell(use, told, asked, client)
        headers = [*self._serving.gate.leave(asked), ("content-length", "0")]
        client.write(head_bytes(200, "OK", headers))
        return asked.keeps_alive

    async def _decide(self, use: CassetteSession, asked: Asked) -> Telling | Literal["pass", "record"]:
        request = self._serving.request(asked)
        if len(asked.body) > THREADED_BYTES:
            return await asyncio.to_thread(use.decide, request)
        return use.decide(request)

    def close(self) -> None:
        self._relay.close()
