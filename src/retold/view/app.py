"""The application of `retold view`: a list of runs, full-text search, the page of a run, and the difference of two runs.

It reads the log and changes nothing. Only the owner of a log may read it, so every address begins with a secret that other
users of the machine cannot guess. The application answers only requests that name this machine in their Host header, because
an attacker can rebind the name of a foreign page to 127.0.0.1. It refuses a request of a foreign page even with the right
address, except if the user follows a link. Other pages may not frame, cache or load its pages.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..audit.accounts import day_of
from ..audit.index import opened
from ..audit.runs import Chosen, listed_runs
from ..audit.search import Hit, context, search
from ..audit.when import moment
from ..comparing.reading import read_run
from ..comparing.sources import compare
from ..pages.assemble import page
from ..pages.diff_page import diff_page
from ..pages.log_page import RUNS, log_data, log_page
from ..pages.run_page import PAGE_KINDS, RunFold, render
from ..recorder import strict_json
from ..recorder.errors import InputError, RetoldError
from ..recorder.http.exchange import timestamp
from ..recorder.interrupted import events_of
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from ..servers.gate import foreign_page
from .listing import listing

HITS = 100
"""The number of hits that a search shows."""

POLL_S = 0.1
"""The interval in seconds at which a running run is read. A browser gains nothing from a shorter one."""

IDLE_POLLS = 10
"""After this many intervals without news, check whether the writer of the run is still alive."""

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def application(log: EventLog, home: str, stopping: Callable[[], bool]) -> Starlette:
    """Return the application for a log, under `home`, such as `/SECRET/`. Streams end when `stopping` returns True."""
    view = _View(log, home, stopping)
    return Starlette(
        routes=[
            Route(home, view.runs),
            Route(f"{home}run/{{run}}", view.run),
            Route(f"{home}run/{{run}}/events", view.events),
            Route(f"{home}diff", view.diff),
            Route(f"{home}log", view.log),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False),
            Middleware(_NoForeignPages),
        ],
        exception_handlers={RetoldError: _refused},
    )


async def _refused(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"retold: {error}\n", 404, headers=_HEADERS)


class _NoForeignPages:
    """Refuses requests of pages of other origins. A link that the user follows is allowed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            header = Request(scope).headers.get
            follows_link = (
                header("sec-fetch-mode") == "navigate" and header("sec-fetch-dest") == "document" and not header("origin")
            )
            if not follows_link and foreign_page(header) is not None:
                await PlainTextResponse("retold: requests of other web pages are refused\n", 403, headers=_HEADERS)(
                    scope, receive, send
                )
                return
        await self._app(scope, receive, send)


class _View:
    def __init__(self, log: EventLog, home: str, stopping: Callable[[], bool]) -> None:
        self._log = log
        self._home = home
        self._stopping = stopping

    def runs(self, request: Request) -> Response:
        """Return the newest runs and the hits of a search."""
        query = request.query_params.get("q", "").strip()
        data: dict[str, Any] = {"home": self._home, "log": str(self._log.path), "query": query, "hits": [], "problem": None}
        data |= listing(self._log, request.query_params)
        if query:
            try:
                with opened(self._log) as index:
                    data["hits"] = [_hit(hit) for hit in search(index, query, limit=HITS)]
            except RetoldError as error:
                data["problem"] = str(error)
        return HTMLResponse(page("runs", title="retold", data=data, live=True), headers=_HEADERS)

    def run(self, request: Request) -> Response:
        """Return the page of a run. The page of a running run updates itself."""
        info = self._log.find(request.path_params["run"])
        fold = RunFold(self._log, info)
        last = -1
        for event in events_of(self._log, info.run, PAGE_KINDS):
            fold.event(event)
            last = event.seq
        data = fold.data() | {"home": self._home}
        if data["run"]["status"] == "running":
            data["live"] = f"{self._home}run/{info.run}/events?after={last}"
        return HTMLResponse(render(data, info, live=True), headers=_HEADERS)

    def log(self, request: Request) -> Response:
        """Return the page of the log: costs, errors and times of its runs."""
        asked = request.query_params
        try:
            since, until = (day_of(moment(asked[key], key)) if asked.get(key) else None for key in ("since", "until"))
        except InputError as error:
            return PlainTextResponse(f"retold: {error}\n", 400, headers=_HEADERS)
        runs, _ = listed_runs(self._log, Chosen(without_mode="mock"), limit=RUNS + 1)
        with opened(self._log) as index:
            data = log_data(index, runs, name=str(self._log.path), since_day=since, until_day=until)
        return HTMLResponse(log_page(data, home=self._home), headers=_HEADERS)

    def diff(self, request: Request) -> Response:
        """Return the page that compares two runs of this log. (`retold diff` also compares files.)"""
        infos = [self._log.find(request.query_params.get(side, "")) for side in ("a", "b")]
        a, b = (read_run(self._log, info.run, title=f"{info.name} ({info.run[:8]}, {info.mode})") for info in infos)
        return HTMLResponse(diff_page(compare(a, b), home=self._home), headers=_HEADERS)

    async def events(self, request: Request) -> Response:
        """Stream the additions of a running run as server-sent events. A browser that reconnects continues after its last
        event.
        """
        info = await asyncio.to_thread(self._log.find, request.path_params["run"])
        said = request.headers.get("last-event-id") or request.query_params.get("after", "")
        after = int(said) if re.fullmatch(r"\d{1,15}", said) else -1
        return StreamingResponse(self._follow(info, after), media_type="text/event-stream", headers=_HEADERS)

    async def _follow(self, info: RunInfo, after: int) -> AsyncIterator[str]:
        fold = RunFold(self._log, info)
        at = await asyncio.to_thread(self._read, fold, info.run, -1, after)
        fold.data()
        idle, ended = 0, False
        while not ended and not self._stopping():
            at = await asyncio.to_thread(self._read, fold, info.run, at, None)
            news = fold.news()
            ended = fold.ended
            if news is None:
                idle += 1
                if idle % IDLE_POLLS == 0:
                    found = await asyncio.to_thread(self._log.find, info.run)
                    if found.status != "running":
                        fold.stopped(found)
                        continue
                await asyncio.sleep(POLL_S)
                continue
            idle = 0
            yield f"id: {at}\ndata: {strict_json.dumps(news, ensure_ascii=True)}\n\n"
        yield "event: end\ndata: \n\n"

    def _read(self, fold: RunFold, run: str, after: int, until: int | None) -> int:
        """Fold the events after one, up to another or to the last, and return the number of the last."""
        for event in self._log.events(run, after=after, kinds=PAGE_KINDS):
            if until is not None and event.seq > until:
                break
            fold.event(event)
            after = event.seq
        return after


def _hit(hit: Hit) -> dict[str, Any]:
    """Return a hit with the lines around the matches, which are marked."""
    lines = [line for group in context(hit.lines, 1) for line in group][:8]
    parts: list[list[Any]] = []
    for line in lines:
        at = 0
        for start, end in line.found:
            parts += [[0, line.text[at:start]], [1, line.text[start:end]]]
            at = end
        parts.append([0, line.text[at:] + "\n"])
    return {"run": hit.run, "name": hit.name, "seq": hit.seq, "time": timestamp(hit.wall_ns), "type": hit.type, "parts": parts}
