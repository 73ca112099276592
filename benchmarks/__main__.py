"""Runs every benchmark in a process of its own, one after the other, says at the end which goals were met, and writes it all
to benchmarks/RESULTS.md. `python -m benchmarks NAME …` runs some of them and writes nothing.
"""

import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from benchmarks.measure import ROOT, Row, cells, environment, folder, machine, table

NAMES = ("append", "audit", "diff", "fold", "handlers", "memory", "peers", "replay", "startup", "stream", "wire")
SIZES = {"MESSAGES": "100000"}
"""Of `audit`, whose own size takes minutes; what the environment says holds before it."""


def _rows(name: str, home: Path) -> tuple[str, list[Row]]:
    sizes = {name: os.environ.get(name, size) for name, size in SIZES.items()}
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment(home) | sizes, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    return found["title"], [Row(**row) for row in found["rows"]]


def main() -> None:
    began = time.monotonic()
    chosen = sys.argv[1:] or NAMES
    print(f"{machine()}\n{HOW}\n")
    tables: list[tuple[str, str, list[Row]]] = []
    with folder() as home:
        for name in chosen:
            title, found = _rows(name, home)
            print(table(title, found), end="\n\n", flush=True)
            tables.append((name, title, found))
    summary = _summary([row for _, _, rows in tables for row in rows])
    print(f"{summary}\nin {time.monotonic() - began:.0f} s")
    if chosen is NAMES:
        _write(tables, summary)


HOW = "Medians of interleaved rounds; compared is ours / peer, or with a sign ours - peer."


def _summary(rows: list[Row]) -> str:
    goals = [row for row in rows if row.met is not None]
    missed = [row for row in goals if not row.met]
    lines = [f"{len(goals) - len(missed)} of {len(goals)} goals met"]
    for row in missed:
        value = row.ours if row.compared is None else row.compared
        lines.append(f"- missed: {row.what}{f' against {row.peer}' if row.peer else ''}: {value:.2f}, goal {row.goal}")
    return "\n".join(lines)


def _write(tables: list[tuple[str, str, list[Row]]], summary: str) -> None:
    """RESULTS.md, with the script behind each table."""
    parts = [
        f"# Results\n\nWritten by `make bench` on {date.today().isoformat()}.\n\n{machine()}\n\n{HOW} A row where the peer wins "
        f"stands here too.\n\n{summary}\n"
    ]
    for name, title, rows in tables:
        parts.append(f"## {title}\n\n`python -m benchmarks.{name}`\n")
        lines = [[escaped(cell) for cell in line] for line in cells(rows)]
        lines.insert(1, ["---", "---:", "---:", "---", "---", "---", "---"])
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    (ROOT / "benchmarks" / "RESULTS.md").write_text("\n".join(parts), "utf-8")


def escaped(cell: str) -> str:
    """A cell of a Markdown table."""
    return cell.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


if __name__ == "__main__":
    main()
