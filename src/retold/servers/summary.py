"""One-line summaries of a recording or a replay."""

from collections.abc import Mapping

from ..recorder.proxy.http_messages import phrase
from ..recorder.words import dollars, plural
from ..replay.matching.matcher import note_unplayed
from ..testing.calls import Tally
from ..testing.session import CassetteSession

_ENDINGS = {
    "complete": "complete", "closed": "closed early", "cut": "cut", "error_event": "ended in an error event",
    "http_error": "HTTP error", "no_response": "without a response",
}  # fmt: skip


def recorded_line(use: CassetteSession) -> str:
    """`recorded 3 exchanges (2 complete, 1 cut), 198 frames, 75 in + 70 out tokens, $0.0012, run 1a2b3c4d in LOG and FILE`."""
    tally = use.calls.tally
    endings = ", ".join(f"{count} {_ENDINGS[ending]}" for ending, count in tally.endings.items())
    parts = [f"{plural(use.calls.count, 'exchange')} ({endings})", plural(tally.frames, "frame"), *_spent(tally)]
    assert use.log is not None
    assert use.run is not None
    where = f"run {use.run[:8]} in {use.log.path}"
    return f"recorded {', '.join(parts)}: {where}{'' if use.written is None else f' and {use.written}'}"


def _spent(tally: Tally) -> list[str]:
    """Return token counts and cost (USD), as far as they are known."""
    if not tally.used:
        return []
    money = dollars(tally.cost_usd)
    if not tally.priced:
        money = "cost unknown"
    elif tally.priced != tally.used:
        money = f"more than {money}"
    return [f"{tally.input_tokens:,} in + {tally.output_tokens:,} out tokens", money]


def trouble_lines(use: CassetteSession) -> list[str]:
    """Return the reasons for exchanges without a response, each once."""
    return [f"no response: {reason}" for reason in use.calls.tally.reasons]


def replayed_line(use: CassetteSession) -> str:
    """`replayed 3 of 4 exchanges from FILE; 1 recorded exchange not played`."""
    left = [exchange for exchange in use.unplayed if exchange.request.method != "HEAD"]
    how = "" if use.profile == "api" else f" (matched as {use.profile})"
    parts = [
        f"replayed {len(use.exchanges) - len(use.unplayed)} of {plural(len(use.exchanges), 'exchange')} from {use.source}{how}"
    ]
    parts += [note_unplayed(left)] if left else []
    parts += [f"fault {spec} never happened" for spec in use.faults.unused]
    return "; ".join(parts)


OUTSIDE = frozenset({403, 421})
"""Refusal statuses unrelated to the recorded program: a web page or another machine tried the port."""


def door_lines(refusals: Mapping[int, int], kept_open: Mapping[str, int]) -> list[str]:
    """`refused 3 requests, neither forwarded nor recorded: 2 × 400 Bad Request, 1 × 421 Misdirected Request`, and
    `1 exchange of FILE broken off: closed by the client when recorded, and not this time`."""
    lines = []
    if refusals:
        named = ", ".join(f"{count} × {status} {phrase(status)}".rstrip() for status, count in sorted(refusals.items()))
        lines.append(f"refused {plural(sum(refusals.values()), 'request')}, neither forwarded nor recorded: {named}")
    lines += [
        f"{plural(count, 'exchange')} of {source} broken off: closed by the client when recorded, and not this time"
        for source, count in kept_open.items()
    ]
    return lines
