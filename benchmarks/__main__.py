"""Runs every benchmark in a process of its own, one after the other, and says at the end which goals were met."""

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import ROOT, Row, environment, folder, machine, table

NAMES = ("append", "diff", "fold", "handlers", "memory", "replay", "startup", "stream")


def _rows(name: str, home: Path) -> tuple[str, list[Row]]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment(home), check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    return found["title"], [Row(**row) for row in found["rows"]]


def main() -> None:
    began = time.monotonic()
    print(f"{machine()}\nMedians of interleaved rounds; compared is ours / peer, or with a sign ours - peer.\n")
    rows = []
    with folder() as home:
        for name in NAMES:
            title, found = _rows(name, home)
            print(table(title, found), end="\n\n", flush=True)
            rows += found
    goals = [row for row in rows if row.met is not None]
    missed = [row for row in goals if not row.met]
    print(f"{len(goals) - len(missed)} of {len(goals)} goals met, in {time.monotonic() - began:.0f} s")
    for row in missed:
        value = row.ours if row.compared is None else row.compared
        print(f"  missed: {row.what}{f' against {row.peer}' if row.peer else ''}: {value:.2f}, goal {row.goal}")


if __name__ == "__main__":
    main()
