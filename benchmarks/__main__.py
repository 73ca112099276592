"""Run every benchmark in a new process, one after the other, print the goals that were met, and write benchmarks/RESULTS.md.

`python -m benchmarks NAME …` runs some of them and writes nothing. With `--merge` before the names, their tables replace the
older ones in that file.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.measure import ROOT, Row, cells, environment, folder, machine, table

NAMES = (
    "append",
    "audit",
    "bigfiles",
    "diff",
    "fleet",
    "fleet_sizes",
    "fold",
    "handlers",
    "load",
    "memory",
    "peers",
    "replay",
    "scale",
    "startup",
    "stream",
    "whole",
    "wire",
)
RESULTS = ROOT / "benchmarks" / "RESULTS.md"

MESSAGES = "100000"
"""The size for `audit`, because its own size takes minutes. The variable MESSAGES overrides it."""


def _rows(name: str, home: Path) -> tuple[str, list[Row]]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    clean = environment(home) | {"MESSAGES": os.environ.get("MESSAGES", MESSAGES)}
    clean |= {name: os.environ[name] for name in ("EVENTS", "RUNS", "CALLS") if name in os.environ}
    done = subprocess.run(command, cwd=ROOT, env=clean, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    return found["title"], [Row(**row) for row in found["rows"]]


def main() -> None:
    began = time.monotonic()
    merge = sys.argv[1:2] == ["--merge"]
    chosen = sys.argv[2:] if merge else sys.argv[1:] or NAMES
    if unknown := sorted({*chosen} - {*NAMES}):
        sys.exit(f"benchmarks: {', '.join(unknown)}? There are {', '.join(NAMES)}.")
    where = f"{machine()}; load {os.getloadavg()[0]:.1f} at the beginning"
    print(f"{where}\n{HOW}\n")
    tables: list[tuple[str, str, list[Row]]] = []
    with folder() as home:
        for name in chosen:
            started = time.monotonic()
            title, found = _rows(name, home)
            script = f"`python -m benchmarks.{name}`, {time.monotonic() - started:.0f} s"
            print(f"{table(title, found)}\n{script}\n", flush=True)
            tables.append((script, title, found))
    summary = _summary(cells([row for _, _, rows in tables for row in rows])[1:])
    print(f"{summary}\nin {time.monotonic() - began:.0f} s")
    if chosen is NAMES:
        _write(where, tables, summary)
    elif merge:
        RESULTS.write_text(merged(RESULTS.read_text("utf-8"), where, tables), "utf-8")


HOW = "Medians of interleaved rounds; compared is ours / peer, or with a sign ours - peer."


def _summary(lines: Sequence[Sequence[str]]) -> str:
    """Return the met and missed goals in the cells of all tables."""
    goals = [line for line in lines if line[6]]
    missed = [line for line in goals if line[6] == "MISSED"]
    found = [f"{len(goals) - len(missed)} of {len(goals)} goals met"]
    for what, ours, theirs, peer, compared, goal, _ in missed:
        beside = f", {peer} {theirs}: {' '.join(compared.split())}" if peer else ""
        found.append(f"- missed: {what}: {ours}{beside}; goal {goal}")
    return "\n".join(found)


def _write(where: str, tables: list[tuple[str, str, list[Row]]], summary: str) -> None:
    """Write RESULTS.md, with the module behind each table."""
    parts = [
        f"# Results\n\nWritten by `make bench` on {date.today().isoformat()}.\n\n{where}\n\n{HOW} A row where the peer wins "
        f"stands here too.\n\n{summary}\n",
        *(_section(*each) for each in tables),
    ]
    RESULTS.write_text("\n".join(parts), "utf-8")


def _section(script: str, title: str, rows: list[Row]) -> str:
    lines = [[escaped(cell) for cell in line] for line in cells(rows)]
    lines.insert(1, ["---", "---:", "---:", "---", "---", "---", "---"])
    return f"## {title}\n\n{script}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def merged(results: str, where: str, tables: list[tuple[str, str, list[Row]]]) -> str:
    """Return RESULTS.md with these tables in place of older ones, or in the order of NAMES, and with a new count of goals."""
    head, *sections = results.split("\n## ")
    named = {_name_of(section): f"## {section}" for section in sections}
    for script, title, rows in tables:
        named[_name_of(script)] = _section(f"{script}, on {date.today().isoformat()}: {where}", title, rows)
    kept = [named[name] for name in NAMES if name in named]
    lines = [line for section in kept for line in section.splitlines() if line.startswith("| ")]
    found = [[_unescaped(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    summary = _summary([line for line in found if line[6] in ("met", "MISSED")])
    return "\n".join(
        [re.split(r"\n\d+ of \d+ goals met", head)[0] + f"\n{summary}\n", *(each.rstrip("\n") + "\n" for each in kept)]
    )


def _name_of(section: str) -> str:
    return str(re.findall(r"`python -m benchmarks\.(\w+)`", section)[0])


def escaped(cell: str) -> str:
    """Return a cell of a Markdown table."""
    return cell.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def _unescaped(cell: str) -> str:
    return cell.strip().replace("\\|", "|").replace("&lt;", "<").replace("&gt;", ">")


if __name__ == "__main__":
    main()
