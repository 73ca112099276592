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

NAMES = (
    "append",
    "audit",
    "bigfiles",
    "diff",
    "fleet",
    "fold",
    "handlers",
    "memory",
    "peers",
    "replay",
    "startup",
    "stream",
    "wire",
)
MESSAGES = "100000"
"""For `audit`, whose own size takes minutes; what the environment says holds before it."""


def _rows(name: str, home: Path) -> tuple[str, list[Row]]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    clean = environment(home) | {"MESSAGES": os.environ.get("MESSAGES", MESSAGES)}
    done = subprocess.run(command, cwd=ROOT, env=clean, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    return found["title"], [Row(**row) for row in found["rows"]]


def main() -> None:
    began = time.monotonic()
    chosen = sys.argv[1:] or NAMES
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
    summary = _summary([row for _, _, rows in tables for row in rows])
    print(f"{summary}\nin {time.monotonic() - began:.0f} s")
    if chosen is NAMES:
        _write(where, tables, summary)


HOW = "Medians of interleaved rounds; compared is ours / peer, or with a sign ours - peer."


def _summary(rows: list[Row]) -> str:
    goals = [row for row in rows if row.met is not None]
    missed = [row for row in goals if not row.met]
    lines = [f"{len(goals) - len(missed)} of {len(goals)} goals met"]
    for what, ours, theirs, peer, compared, goal, _ in cells(missed)[1:]:
        beside = f", {peer} {theirs}: {' '.join(compared.split())}" if peer else ""
        lines.append(f"- missed: {what}: {ours}{beside}; goal {goal}")
    return "\n".join(lines)


def _write(where: str, tables: list[tuple[str, str, list[Row]]], summary: str) -> None:
    """RESULTS.md, with the script behind each table."""
    parts = [
        f"# Results\n\nWritten by `make bench` on {date.today().isoformat()}.\n\n{where}\n\n{HOW} A row where the peer wins "
        f"stands here too.\n\n{summary}\n"
    ]
    for script, title, rows in tables:
        parts.append(f"## {title}\n\n{script}\n")
        lines = [[escaped(cell) for cell in line] for line in cells(rows)]
        lines.insert(1, ["---", "---:", "---:", "---", "---", "---", "---"])
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    (ROOT / "benchmarks" / "RESULTS.md").write_text("\n".join(parts), "utf-8")


def escaped(cell: str) -> str:
    """A cell of a Markdown table."""
    return cell.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


if __name__ == "__main__":
    main()
