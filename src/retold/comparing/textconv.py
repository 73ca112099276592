"""A recording as plain text for `git diff`: what counts in it, one line for each line of a text, and the same for the same run.

Ids, times and signatures are left out, as in a comparison, so a recording that was made again differs in git only where it
differs by meaning.
"""

from collections.abc import Iterator
from typing import Any

from ..recorder import strict_json
from ..recorder.words import clean
from .conversations import Item
from .reading import Side
from .text import amount, noun

NOT_STABLE = ("duration_ms", "ttft_ms")
"""The totals that differ in every run."""


def as_plain(side: Side) -> Iterator[str]:
    """Yield the lines of a recording: each conversation with its turns, then the totals."""
    for number, stream in enumerate(side.streams):
        if number:
            yield ""
        yield f"conversation {clean(str(stream.label))}".rstrip() if str(stream.label) else f"conversation {number + 1}"
        turn = 0
        for item in stream.items:
            if item.turn != turn:
                turn = item.turn
                yield ""
                yield f"  turn {turn}"
            yield from _lines(item)
    totals = {name: value for name, value in side.totals.items() if value is not None and name not in NOT_STABLE}
    if totals:
        yield ""
        yield "totals"
        yield from (f"  {name} {amount(name, value)}" for name, value in totals.items())


def _lines(item: Item) -> Iterator[str]:
    yield f"    {noun(item.kind, item)}"
    shown = item.value.get("input") if item.kind == "tool_use" else item.text
    if item.kind in ("request", "answer", "init", "system", "result", "session", "tool_use") and not isinstance(shown, str):
        shown = strict_json.dumps(shown, indent=2)
    elif item.kind in ("request", "answer", "init", "system", "result", "session"):
        shown = strict_json.dumps(_present(item.value), indent=2)
    for line in clean(str(shown)).split("\n"):
        yield f"      {line}".rstrip()


def _present(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object without its empty fields."""
    return {key: each for key, each in value.items() if each is not None}
