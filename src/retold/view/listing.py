"""The list of runs of `retold view`: filtered, sorted and in pages, by the parameters of its address."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..audit.runs import Chosen, Found, listed_runs
from ..audit.when import moment
from ..recorder.errors import InputError
from ..recorder.http.exchange import timestamp
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo

LISTED = 100
"""The number of runs on a page by default."""

_SORTS: dict[str, Callable[[Found], Any]] = {
    "name": lambda found: found.info.name.lower(),
    "took": lambda found: (found.info.ended_ns or found.info.started_ns) - found.info.started_ns,
    "messages": lambda found: found.info.messages,
    "requests": lambda found: found.info.exchanges,
    "errors": lambda found: 0 if found.facts is None else (found.facts.failed, found.facts.healed),
    "tokens": lambda found: 0 if found.facts is None else found.facts.input_tokens + found.facts.output_tokens,
    "cost": lambda found: found.cost_usd or 0.0,
}
"""The orders beside the newest first. `desc` puts the largest first."""


def listing(log: EventLog, params: Mapping[str, str]) -> dict[str, Any]:
    """Return the data of a page of the list: `runs`, `page`, `more`, and `problem` if a parameter cannot be read."""
    size, page = _number(params.get("n"), LISTED), _number(params.get("page"), 1)
    try:
        wanted = _wanted(params)
        problem = None
    except InputError as error:
        wanted, problem = Chosen(), str(error)
    sort, skip = params.get("sort", ""), (page - 1) * size
    found, unknown = listed_runs(log, wanted, limit=None if sort in _SORTS else skip + size + 1)
    if sort in _SORTS:
        found = sorted(found, key=_SORTS[sort], reverse=params.get("order", "desc") == "desc")
    return {
        "runs": [as_listed(each) for each in found[skip : skip + size]],
        "page": page,
        "more": len(found) > skip + size,
        "params": {key: params[key] for key in PARAMS if params.get(key)},
        "list_problem": problem or unknown,
    }


PARAMS = ("name", "status", "model", "error", "since", "until", "sort", "order", "n")
"""The parameters of the address that the links of a page keep."""


def _wanted(params: Mapping[str, str]) -> Chosen:
    since, until = params.get("since"), params.get("until")
    return Chosen(
        name=params.get("name") or None,
        status=params.get("status") or None,
        model=params.get("model") or None,
        failed=bool(params.get("error")),
        since_ns=moment(since, "since") if since else None,
        until_ns=moment(until, "until") if until else None,
        facts=True,
    )


def _number(text: str | None, default: int) -> int:
    return max(1, int(text)) if text and re.fullmatch(r"\d{1,6}", text) else default


def as_listed(found: Found) -> dict[str, Any]:
    """Return a run as a page lists it. Times are in microseconds."""
    info = found.info
    listed = _of_info(info) | {"outcome": found.outcome}
    if (facts := found.facts) is not None:
        listed |= {
            "models": facts.models, "cost": facts.cost_usd, "input": facts.input_tokens, "output": facts.output_tokens,
            "calls": facts.calls, "failed": facts.failed, "healed": facts.healed, "prompt": facts.prompt,
        }  # fmt: skip
    return listed


def _of_info(info: RunInfo) -> dict[str, Any]:
    return {
        "run": info.run,
        "name": info.name,
        "mode": info.mode,
        "status": info.status,
        "started": timestamp(info.started_ns),
        "took": None if info.ended_ns is None else (info.ended_ns - info.started_ns) // 1000,
        "messages": info.messages,
        "exchanges": info.exchanges,
        "error": info.error,
    }
