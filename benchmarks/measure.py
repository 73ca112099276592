"""Shared parts of the benchmarks: interleaved rounds, medians, one table format, and a clean environment.

A single figure has little meaning: machines differ, and a machine differs from itself an hour later. So each figure is measured
beside a peer, turn by turn in the same run, and the ratio is the median of the rounds' own ratios.
"""

import argparse
import gc
import json
import os
import platform
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: our median, the peer's, their comparison, and the goal if there is one.

    `compared` is the median over the rounds of ours / theirs or ours - theirs. `low` and `high` are its smallest and greatest
    value.
    """

    what: str
    ours: float
    unit: str
    peer: str = ""
    theirs: float | None = None
    compared: float | None = None
    low: float | None = None
    high: float | None = None
    is_ratio: bool = True
    goal: str = ""
    met: bool | None = None
    remark: str = ""
    """It takes the place of a missing comparison."""


def ratio(
    what: str, ours: Sequence[float], peer: str, theirs: Sequence[float], unit: str,
    *, at_most: float | None = None, at_least: float | None = None,
) -> Row:  # fmt: skip
    """Return a row of our figures divided by the peer's, round by round."""
    found = [one / other for one, other in zip(ours, theirs, strict=True)]
    middle = statistics.median(found)
    return Row(
        what, statistics.median(ours), unit, peer, statistics.median(theirs), middle, min(found), max(found),
        goal=_goal(at_most, at_least, "x"), met=_met(middle, at_most, at_least),
    )  # fmt: skip


def added(
    what: str, ours: Sequence[float], peer: str, theirs: Sequence[float], unit: str, *, at_most: float | None = None
) -> Row:
    """Return a row of our figures minus the peer's, round by round, in `unit`."""
    found = [one - other for one, other in zip(ours, theirs, strict=True)]
    middle = statistics.median(found)
    return Row(
        what, statistics.median(ours), unit, peer, statistics.median(theirs), middle, min(found), max(found), is_ratio=False,
        goal=_goal(at_most, None, f" {unit}"), met=_met(middle, at_most, None),
    )  # fmt: skip


def figure(what: str, ours: Sequence[float], unit: str, *, at_most: float | None = None) -> Row:
    """Return a row without a peer."""
    middle = statistics.median(ours)
    return Row(what, middle, unit, goal=_goal(at_most, None, f" {unit}"), met=_met(middle, at_most, None))


def beside(what: str, ours: float, unit: str, peer: str, theirs: float | None = None, *, remark: str, **more: Any) -> Row:
    """Return a row for which a ratio has no meaning: a count, or a peer that cannot do it. `remark` gives the reason."""
    return Row(what, ours, unit, peer, theirs, remark=remark, **more)


def absent(what: str, ours: Sequence[float], peer: str, unit: str) -> Row:
    """Return a row without the figure of a peer that is not installed."""
    return beside(what, statistics.median(ours), unit, peer, remark="not installed")


def _goal(at_most: float | None, at_least: float | None, unit: str) -> str:
    return f"<= {at_most:g}{unit}" if at_most is not None else f">= {at_least:g}{unit}" if at_least is not None else ""


def _met(value: float, at_most: float | None, at_least: float | None) -> bool | None:
    """Judge the displayed value, with two digits."""
    value = round(value, 2)
    return value <= at_most if at_most is not None else value >= at_least if at_least is not None else None


def quantile(samples: Sequence[float], share: float) -> float:
    """Return the sample below which `share` of all samples lie."""
    return sorted(samples)[min(len(samples) - 1, int(share * len(samples)))]


def rounds(number: int, contestants: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Run each contestant once per round, each time beginning with another one. Return their results, by name."""
    found: dict[str, list[T]] = {name: [] for name in contestants}
    names = list(contestants)
    for turn in range(number):
        gc.collect()
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(contestants[name]())
    return found


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return the rows of a table as text, its head first."""
    lines: list[tuple[str, ...]] = [("", "ours", "peer", "", "compared (min to max)", "goal", "")]
    for row in rows:
        theirs = "" if row.theirs is None else _number(row.theirs, row.unit)
        compared = row.remark
        if row.compared is not None and row.low is not None and row.high is not None:
            unit = "x" if row.is_ratio else f" {row.unit}"
            sign = "" if row.is_ratio else "+"
            spread = "" if row.low == row.high else f"  ({row.low:{sign}.2f} to {row.high:{sign}.2f})"
            compared = f"{row.compared:{sign}.2f}{unit}{spread}"
        met = {True: "met", False: "MISSED", None: ""}[row.met]
        lines.append((row.what, _number(row.ours, row.unit), theirs, row.peer, compared, row.goal, met))
    return lines


def table(title: str, rows: Sequence[Row]) -> str:
    """Return the rows as aligned text."""
    lines = cells(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(7)]
    shown = ["  ".join(_aligned(line[i], width, right=i in (1, 2)) for i, width in enumerate(widths)) for line in lines]
    return "\n".join([title, *(f"  {line}".rstrip() for line in shown)])


def _aligned(cell: str, width: int, *, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


def _number(value: float, unit: str) -> str:
    digits = 0 if isinstance(value, int) or abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def run(title: str, measure: Callable[[], list[Row]]) -> None:
    """Run a benchmark: measure in a clean environment, and print the table (`--json`: the rows)."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    arguments = parser.parse_args()
    with folder() as home:
        clean = environment(home)
        os.environ.clear()
        os.environ.update(clean)
        rows = measure()
    print(json.dumps({"title": title, "rows": [asdict(row) for row in rows]}) if arguments.json else table(title, rows))


def environment(home: Path) -> dict[str, str]:
    """Return the environment of measured code: the path and an empty home, without keys and settings.

    Byte code is written and used.

    PYTHONPATH is passed on, so that a changed copy of retold can be measured beside the installed one.
    """
    passed = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return passed | {"HOME": str(home), "LANG": "C.UTF-8", "TZ": "UTC"}


@contextmanager
def folder() -> Iterator[Path]:
    """Create a temporary folder on a disk, because /tmp is memory on many machines, and a log is not kept in memory."""
    place = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="retold-bench-", dir=place) as name:
        yield Path(name)


def found_command(name: str) -> Path | None:
    """Find a program in the environment of this Python or on the path."""
    found = shutil.which(name, path=os.pathsep.join([str(BIN), os.environ.get("PATH", "")]))
    return Path(found) if found else None


def machine() -> str:
    """Describe the machine of the figures."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = found[0] if found else model
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {', '.join(_versions())}"
    )


def _versions() -> Iterator[str]:
    """Return the versions of retold and of its peers."""
    for package in ("anthropic", "httpx2", "typer", "vcrpy", "cassetter", "duckdb"):
        with suppress(PackageNotFoundError):
            yield f"{package} {version(package)}"
    for name, command in {"git": "git", "ripgrep": "rg", "node": "node"}.items():
        if path := found_command(command):
            printed = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            yield f"{name} {re.findall(r'[0-9][0-9.]+[0-9]', printed)[0]}"
    if path := found_command("llmock"):  # of its package, because the program does not print it
        yield f"aimock {json.loads((path.resolve().parent.parent / 'package.json').read_text())['version']}"
