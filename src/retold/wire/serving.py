"""What a server does with each request: play the exchange that a cassette holds for it, or send it on and record it."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import unquote

from ..recorder import strict_json
from ..recorder.errors import MissError, RetoldError
from ..recorder.http1 import Asked, Client, head_bytes, refusal
from ..recorder.proxy import THREADED_BYTES, Relay, Unrecorded, to_request
from ..recorder.upstream import Upstream
from ..replay.faults import Telling
from ..replay.order import Order, order_of
from ..replay.server import retell
from ..used import UsedCassette
from .gate import Gate

MISS_STATUS = 418
"""A status that the API never sends. Claude Code and the SDKs show its text and do not ask again; 404, 401 and 409 differ."""

CASSETTE_HEADER = "x-retold-cassette"
_NAMED = re.compile(r"/cassette/([^/?]+)(/[^?]*)?(\?.*)?")


@dataclass
class Serving:
    """The cassettes a server has in use, by name, and where requests go that are to be recorded.

    A client names a cassette by the path `/cassette/NAME` before its own or in the header x-retold-cassette; where there is
    only one it need not.
    """

    uses: Mapping[str, UsedCassette]
    upstream: Upstream
    gate: Gate = field(default_factory=Gate)
    note: Callable[[str], None] | None = None
    failures: list[RetoldError] = field(default_factory=list)
    orders: dict[int, Order | None] = field(init=False)

    def __post_init__(self) -> None:
        # Whoever asks in parallel gets answers in any order, but for Claude Code, whose requests tell of each other.
        self.orders = {id(use): order_of(use.exchanges) for use in self.uses.values() if use.profile == "claude-code"}

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
        """Tell the person who watches the server, if anybody does."""
        if self.note is not None:
            self.note(text)

    def answerer(self) -> "Connection":
        """Answers the requests of one connection."""
        return Connection(self)

    def use_of(self, asked: Asked) -> tuple[UsedCassette, Asked]:
        """The cassette that a request names, and the request without its name. Raises MissError."""
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
        return use, replace(asked, target=target)

    def health(self) -> bytes:
        """Answers /health: that the server is there, and what has become of its cassettes."""
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

    async def answer(self, asked: Asked, client: Client) -> bool:
        serving = self._serving
        if (refused := serving.gate.refuses(asked)) is not None:
            client.write(refusal(refused[0], "permission_error", refused[1], closes=True))
            return False
        if asked.target == "/health" and asked.method in ("GET", "HEAD"):
            client.write(serving.health() if asked.method == "GET" else serving.health().partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
            return asked.keeps_alive
        try:
            use, asked = serving.use_of(asked)
            if asked.method == "HEAD" and use.record_mode == "none":
                return await self._probed(use, asked, client)
            match await self._decide(use, asked):
                case Telling() as told:
                    return await retell(*told, asked, client, serving.orders.get(id(use)))
                case "pass":
                    return await self._relay.forward(asked, client, lambda _: Unrecorded())
            return await self._relay.forward(asked, client, use.begin)
        except MissError as miss:
            serving.tell(f"retold: {miss}")
            client.write(refusal(MISS_STATUS, "invalid_request_error", str(miss), mark="miss"))
            return asked.keeps_alive
        except RetoldError as error:  # nothing reaches a client that is not in the log
            serving.tell(f"retold: {error}")
            serving.failures.append(error)
            return False

    async def _probed(self, use: UsedCassette, asked: Asked, client: Client) -> bool:
        """HEAD asks whether the API is there (Claude Code does at times), not for anything that could be a miss."""
        if (told := use.play_if_any(to_request(asked, self._serving.upstream))) is not None:
            return await retell(*told, asked, client)
        client.write(head_bytes(200, "OK", [("content-length", "0")]))
        return asked.keeps_alive

    async def _decide(self, use: UsedCassette, asked: Asked) -> Telling | Literal["pass", "record"]:
        request = to_request(asked, self._serving.upstream)
        if len(asked.body) > THREADED_BYTES:
            return await asyncio.to_thread(use.decide, request)
        return use.decide(request)

    def close(self) -> None:
        self._relay.close()
