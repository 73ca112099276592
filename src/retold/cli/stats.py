"""retold stats: usage, cost, times and errors of the runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..recorder.files import plain_name
from .common import Csv, Db, Json, note, one_of, print_json, say
from .endings import file_of, form_of_file, printed_to

if TYPE_CHECKING:
    from ..audit.stats import Repriced, StatsLine
    from ..recorder.log.log import EventLog


def stats(
    by: Annotated[
        str,
        typer.Option("--by", help="model, day, hour, name, step, tool, error or status; or one of them and day: model,day."),
    ] = "model",
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="The first day: 7d (ago), today, a date.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="The last day: the same forms.")] = None,
    mode: Annotated[
        str | None, typer.Option("--mode", help="Only runs of this mode: live, import or mock.", show_default="live and import")
    ] = None,
    reprice: Annotated[
        str | None,
        typer.Option("--reprice", metavar="MODEL", help="Also print the cost of the same traffic with this model, as a range."),
    ] = None,
    csv: Csv = False,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="text, csv, json, or html: a page with charts.", show_default="text"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file to write; .txt, .csv, .json or .html.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
    json: Json = False,
    db: Db = None,
) -> None:
    """Print messages, tokens, cost, errors, retries and times of the runs, by a column of your choice, and their total.

    An unknown cost is printed as ?, never as 0. Replays do not count. Percentiles are right within 1 %. By error, a line is a
    kind of failure; by status, that of the run. The total is in the table only, not in JSON and CSV.

    With --format html, write a page that draws costs, tokens, errors, retries and times by day and model.

    Example: retold stats --by model,day --since 30d
    """
    from ..audit.accounts import day_of
    from ..audit.when import moment
    from ..recorder.log.log import EventLog
    from .stats_page import print_page

    keys = [each.strip() for each in by.split(",")]
    _check_keys(by, keys)
    one_of("--mode", mode, ("live", "import", "mock"))
    output = file_of(output)
    form = _form(format_, output, csv=csv, json=json)
    if reprice is not None:
        reprice = _model_to_reprice(reprice, keys, form)
    span: dict[str, Any] = {
        "modes": ("live", "import") if mode is None else (mode,),
        "since_day": None if since is None else day_of(moment(since, "--since")),
        "until_day": None if until is None else day_of(moment(until, "--until")),
    }
    log = EventLog(db)
    what = f"the page of {log.path}" if form == "html" else "the statistics"
    with printed_to(output, what=what, force=force):
        if form == "html":
            print_page(log, **span)
        else:
            _print_as(form, keys, _lines(log, keys, span, with_total=form == "text"), reprice)


def _lines(log: "EventLog", keys: list[str], span: dict[str, Any], *, with_total: bool) -> "list[StatsLine]":
    from ..audit.index import opened
    from ..audit.stats import stats as account
    from ..audit.stats import total
    from .terminal import progress

    with progress("indexed", "events") as told, opened(log, progress=told) as index:
        lines = account(index, keys, **span)
        if with_total and len(lines) > 1:
            lines.append(total(index, keys, **span))
    return lines


def _check_keys(by: str, keys: list[str]) -> None:
    """Raise InputError if `--by` names anything but one dimension, or one and day."""
    from ..audit.accounts import DIMENSIONS
    from ..recorder.errors import InputError

    names = ["name" if each == "workflow" else each for each in DIMENSIONS]
    if not set(keys) <= {*names, "workflow"} or len(keys) != len(set(keys)) or len(set(keys) - {"day"}) > 1:
        raise InputError(f"--by {by!r}: name one of {', '.join(names)}, or one of them and day, such as model,day.")


def _print_as(form: str, keys: list[str], lines: "list[StatsLine]", reprice: str | None) -> None:
    if form == "json":
        print_json([_as_dict(keys, line, reprice) for line in lines])
    elif form == "csv":
        _print_csv(keys, lines, reprice)
    elif lines:
        _print(keys, lines)
        if reprice is not None:
            _print_repriced(keys, lines, reprice)
    if not lines:
        note("retold: no exchanges to count; `retold ls` lists the runs, --mode mock counts replays.")
        raise typer.Exit(1)


FORMS = ("text", "csv", "json", "html")
ENDINGS = {".txt": "text", ".csv": "csv", ".json": "json", ".html": "html", ".htm": "html"}


def _form(named: str | None, output: Path | None, *, csv: bool, json: bool) -> str:
    """Return the form of the output, which an ending of the file can name too. Raise InputError if two differ."""
    from ..recorder.errors import InputError
    from .common import one_of

    one_of("--format", named, FORMS)
    chosen = (named, "csv" if csv else None, "json" if json else None)
    ending = "" if output is None else Path(plain_name(output)).suffix
    # A form that is asked for counts, whatever the ending, unless the ending names another form.
    of_file = form_of_file(output, ENDINGS, "text") if output is not None and (ending in ENDINGS or not any(chosen)) else None
    asked = {each for each in (*chosen, of_file) if each is not None}
    if len(asked) > 1:
        raise InputError(f"{' and '.join(sorted(asked))} exclude each other; choose one form.")
    return next(iter(asked), "text")


def _model_to_reprice(name: str, keys: list[str], form: str) -> str:
    """Return the id of a model, also for an alias such as `opus`. Raise InputError if it has no price, or the output no place."""
    from ..recorder.errors import InputError
    from ..recorder.words import nearest, sentence
    from ..workflow.pricing import is_priced
    from ..workflow.schema import MODELS

    if form == "html":
        raise InputError("--reprice has no place in the page of --format html; choose text, csv or json.")
    if "tool" in keys:
        raise InputError("--reprice needs tokens, and tools have none: choose --by model, day, workflow or step.")
    model = MODELS.get(name, name)
    known = is_priced(model)
    if known is None:
        raise InputError("--reprice needs the table of prices; install it with pip install 'retold[prices]'.")
    if not known:
        like = nearest(name, [*MODELS, *MODELS.values()])
        raise InputError(sentence(f"--reprice {name!r}: the table of prices (genai-prices) has no such model of Anthropic{like}"))
    return model


def _repriced(keys: list[str], line: "StatsLine", model: str) -> "Repriced":
    from ..audit.stats import repriced
    from ..workflow.pricing import price

    return repriced(line, model, price, is_same_model=dict(zip(keys, line.keys, strict=True)).get("model") == model)


def _as_dict(keys: list[str], line: "StatsLine", reprice: str | None = None) -> dict[str, Any]:
    from dataclasses import fields

    found: dict[str, Any] = dict(zip(keys, line.keys, strict=True))
    for each in fields(line)[1:]:
        value = getattr(line, each.name)
        if isinstance(value, tuple):
            stem = each.name.removesuffix("_ms")
            found |= {f"{stem}_p{p}_ms": _rounded(v) for p, v in zip((50, 95, 99), value, strict=True)}
        else:
            found[each.name] = value
    if reprice is not None:
        cost = _repriced(keys, line, reprice)
        found |= {"repriced_model": reprice, "repriced_low_usd": cost.low_usd, "repriced_high_usd": cost.high_usd}
    return found


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)


def _print_csv(keys: list[str], lines: "list[StatsLine]", reprice: str | None) -> None:
    from .table import print_csv

    rows = [_as_dict(keys, line, reprice) for line in lines]
    if rows:
        print_csv(list(rows[0]), [list(row.values()) for row in rows])


def _print(keys: list[str], lines: "list[StatsLine]") -> None:
    """Print two blocks that fit into 80 columns: usage, then errors and times."""
    from ..recorder.words import plural
    from .table import dollars, print_table

    if "tool" in keys:
        return _print_tools(keys, lines)
    has_total = len(lines) > 1
    names = [_named(line) for line in lines]
    head = tuple(key.upper() for key in keys)
    right = range(len(keys), 20)
    used = [(*head, "RUNS", "CALLS", "MSGS", "IN", "OUT", "CACHE+", "CACHE>", "COST")]
    went = [(*head, "ERRORS", "RETRIES", "FIRST50", "P95", "P99", "TOOK50", "P95", "P99")]
    for name, line in zip(names, lines, strict=True):
        tokens = (line.input_tokens, line.output_tokens, line.cache_creation_input_tokens, line.cache_read_input_tokens)
        cost = dollars(line.cost_usd) + ("+" if line.unpriced and line.cost_usd is not None else "")
        # A message belongs to no failure, so a line of errors has none.
        messages = "-" if "error" in keys and line.keys[0] != "TOTAL" else str(line.messages)
        used.append((*name, str(line.runs), str(line.exchanges), messages, *map(_short, tokens), cost))
        times = map(_time, (*line.first_token_ms, *line.duration_ms))
        went.append((*name, str(line.errors), str(line.retries), *times))
    print_table(used, right=right, has_total=has_total)
    say()
    print_table(went, right=right, has_total=has_total)
    unpriced = lines[-1].unpriced  # of the total, or of the only line
    if unpriced:
        note(f"retold: the cost of {plural(unpriced, 'exchange')} is not known and not in the sums (marked + or ?)")
    return None


def _print_repriced(keys: list[str], lines: "list[StatsLine]", model: str) -> None:
    from ..recorder.words import plural
    from .table import dollars, print_table

    has_total = len(lines) > 1
    costs = [_repriced(keys, line, model) for line in (lines[:-1] if has_total else lines)]
    if has_total:
        costs.append(_sum_of(costs))  # the ranges add up; a range of the total would take each model for another one
    rows = [(*(key.upper() for key in keys), "CALLS", "COST", "LOW", "HIGH")]
    for line, cost in zip(lines, costs, strict=True):
        more = "+" if cost.low_usd is not None and cost.without_usage else ""
        ends = (dollars(cost.low_usd) + more, dollars(cost.high_usd) + more)
        recorded = dollars(line.cost_usd) + ("+" if line.unpriced and line.cost_usd is not None else "")
        rows.append((*_named(line), str(line.exchanges), recorded, *ends))
    say(f"\nThe same traffic with {model} (its counts of tokens may differ by 35 %):\n")
    print_table(rows, right=range(len(keys), 20), has_total=has_total)
    unknown = costs[-1].without_usage
    if unknown:
        note(f"retold: {plural(unknown, 'exchange')} without a usage cannot be priced (marked + or ?)")


def _sum_of(costs: "list[Repriced]") -> "Repriced":
    from ..audit.stats import Repriced

    lows = [cost.low_usd for cost in costs if cost.low_usd is not None]
    highs = [cost.high_usd for cost in costs if cost.high_usd is not None]
    without = sum(cost.without_usage for cost in costs)
    return Repriced(sum(lows) if lows else None, sum(highs) if highs else None, without)


def _print_tools(keys: list[str], lines: "list[StatsLine]") -> None:
    from .table import print_table

    rows = [(*(key.upper() for key in keys), "RUNS", "USES", "ERRORS", "TOOK50", "P95", "P99")]
    for line in lines:
        counts = ("-" if line.keys[0] == "TOTAL" and not line.runs else str(line.runs), str(line.messages), str(line.errors))
        rows.append((*_named(line), *counts, *map(_time, line.duration_ms)))
    print_table(rows, right=range(len(keys), 20), has_total=len(lines) > 1)


def _named(line: "StatsLine") -> tuple[str, ...]:
    """Return the keys of a line, with `-` for a missing one. The total has only one."""
    is_total = line.keys[0] == "TOTAL" and not any(line.keys[1:])
    return line.keys if is_total else tuple(key or "-" for key in line.keys)


def _short(count: int) -> str:
    """`950`, `12.3k`, `4.56M`."""
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 1_000_000 else f"{count / 1e6:.2f}M"


def _time(ms: float | None) -> str:
    """`35ms`, `1.2s`, `4m05s`; `-` for no value."""
    if ms is None:
        return "-"
    if ms < 999.5:
        return f"{ms:.0f}ms"
    if ms < 59_950:
        return f"{ms / 1000:.1f}s"
    minutes, rest = divmod(round(ms / 1000), 60)
    return f"{minutes}m{rest:02d}s"
