"""retold explain: why requests missed the prompt cache."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Csv, Db, Json, form_of, print_json, say

if TYPE_CHECKING:
    from ..experiments.cache import Explained


class Subject(StrEnum):
    """The subjects that the command explains."""

    cache = "cache"


def explain(
    subject: Annotated[Subject, typer.Argument(metavar="SUBJECT", help="The subject: cache.")],
    source: Annotated[str, typer.Argument(metavar="RUN", help="A run of the log, or a cassette: a file, - or REV:path.")],
    csv: Csv = False,
    json: Json = False,
    db: Db = None,
) -> None:
    """Explain which requests missed the prompt cache, from which path on their prefix differed, and what the misses cost.

    Each request is compared with the one before it in its conversation. A request missed the cache if the API read fewer tokens
    than it had cached before. An unknown gap or cost is printed as ?.

    Example: retold explain cache last
    """
    from ..experiments.cache import explain_cache
    from ..workflow.pricing import price
    from .table import print_csv_of

    del subject  # there is one so far
    form = form_of(json=json, csv=csv)
    found = explain_cache(source, db, price)
    if form == "json":
        print_json([each.as_dict() for each in found])
    elif form == "csv":
        print_csv_of([each.as_dict() for each in found])
    elif found:
        _print(found)
    else:
        say("Each conversation has one request, so none could use the cache of an earlier one.")


def _print(found: "list[Explained]") -> None:
    """Print a table of all requests, then a paragraph about each miss, then the sum."""
    from ..recorder.words import plural
    from .table import UNKNOWN, dollars, print_table

    def count(tokens: int | None) -> str:
        return UNKNOWN if tokens is None else f"{tokens:,}"

    head = ("TALK", "TURN", "GAP", "CACHED", "READ", "WRITTEN", "INPUT", "MISSED", "COST", "RESULT")
    rows = [
        (
            str(each.conversation), str(each.turn), _time(each.gap_s), count(each.cached_before), count(each.read_tokens),
            count(each.written_tokens), count(each.input_tokens), count(each.missed_tokens), dollars(each.cost_usd), each.outcome,
        )
        for each in found
    ]  # fmt: skip
    print_table([head, *rows], right=range(len(head) - 1))
    missed = [each for each in found if each.outcome == "missed"]
    say()
    for each in missed:
        _print_miss(each)
    unknown = sum(each.outcome == "unknown" for each in found)
    tokens = sum(each.missed_tokens or 0 for each in missed)
    known = [each.missed_usd for each in missed if each.missed_usd is not None]
    cost = dollars(sum(known) if known else None) + ("+" if known and len(known) < len(missed) else "")
    ends = f": {tokens:,} tokens, {cost} more" if missed else ""
    without = f"; {plural(unknown, 'request')} without a usage" if unknown else ""
    say(f"{len(missed)} of {plural(len(found), 'request')} missed the cache{ends}{without}")


def _print_miss(each: "Explained") -> None:
    from .table import dollars

    place = f"{each.place}, " if each.place else ""
    say(f"{place}talk {each.conversation}, turn {each.turn}: {each.missed_tokens:,} tokens, {dollars(each.missed_usd)} more")
    for cause in each.causes:
        say(f"  cause: {cause}")
    if each.difference is not None and not any(cause.startswith(each.difference["path"]) for cause in each.causes):
        say(f"  {each.difference['path']} {each.difference['kind']}, after the cached part")
    say(f"  same as in turn {each.compared_with}: {', '.join(each.same) or 'no whole part'}")
    if each.lifetime_s is not None:
        say(f"  {_time(each.gap_s)} after the request before it; the cache lives {_time(each.lifetime_s)}")
    if each.cache_miss_reason is not None:
        tokens = "" if each.api_missed_tokens is None else f", about {each.api_missed_tokens:,} tokens"
        say(f"  the API: {each.cache_miss_reason}{tokens}")


def _time(seconds: float | None) -> str:
    """`0.4s`, `35s`, `6m10s`, `1h`; `?` for None."""
    from .table import UNKNOWN

    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return "".join(f"{n}{unit}" for n, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if n)
