"""The waiting time of a user: whole processes, from start to end, byte-compiled and with warm file caches.

`--help` is compared with a bare typer app of as many empty commands. `retold run` of the smallest example, offline, into an
existing log and into a new one, is compared with a bare typer app that runs one of its empty commands. The bare app is measured
with typer's defaults (help drawn by rich) and with retold's settings (plain help). Goals are set against the second one, which
is faster.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measure import BIN, ROOT, Row, environment, figure, folder, ratio, rounds, run

ROUNDS = 15
WORKFLOW = "examples/clean_streaming_numbers.yaml"

BARE = """
from typing import Annotated

import typer

app = typer.Typer(name="bare", help="A bare app.", no_args_is_help=True{settings})

@app.callback()
def _main(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    pass
"""
COMMAND = """
@app.command()
def command{number}(
    name: Annotated[str, typer.Argument(help="A name.")] = "",
    option: Annotated[bool, typer.Option("--option", help="An option.")] = False,
    other: Annotated[str, typer.Option("--other", help="Another option.")] = "",
) -> None:
    "An empty command."
"""
MAIN = """
def main() -> None:
    app()

if __name__ == "__main__":
    main()
"""
PLAIN = ", rich_markup_mode=None, pretty_exceptions_enable=False"


def _write_bare(home: Path, name: str, settings: str) -> None:
    """Write a module with seven empty commands and a console script for it, in pip's form."""
    commands = "".join(COMMAND.format(number=number) for number in range(1, 8))
    (home / f"{name}.py").write_text(BARE.format(settings=settings) + commands + MAIN)
    script = home / name
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom {name} import main\nsys.exit(main())\n")
    script.chmod(0o755)


def _process(command: Sequence[str | Path], home: Path, cwd: Path) -> float:
    """Return the milliseconds of a process."""
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=environment(home), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def measure() -> list[Row]:
    with folder() as home:
        _write_bare(home, "bare", PLAIN)
        _write_bare(home, "bare_rich", "")
        retold_run: list[str | Path] = [BIN / "retold", "run", WORKFLOW, "--db"]
        new = (home / f"new-{number}" / "log.db" for number in range(1000))
        contestants: dict[str, Callable[[], float]] = {
            "python": lambda: _process([sys.executable, "-c", "pass"], home, home),
            "help": lambda: _process([sys.executable, "-m", "retold", "--help"], home, ROOT),
            "bare help": lambda: _process([sys.executable, "-m", "bare", "--help"], home, home),
            "rich help": lambda: _process([sys.executable, "-m", "bare_rich", "--help"], home, home),
            "run": lambda: _process([*retold_run, home / "old.db"], home, ROOT),
            "new": lambda: _process([*retold_run, next(new)], home, ROOT),
            "bare run": lambda: _process([home / "bare", "command1"], home, home),
        }
        rounds(2, contestants)  # writes byte code and fills the file caches
        found = rounds(ROUNDS, contestants)
    return [
        figure("python -c pass", found["python"], "ms"),
        ratio("python -m retold --help", found["help"], "bare app, plain help", found["bare help"], "ms", at_most=1.2),
        ratio("python -m retold --help", found["help"], "bare app, rich help", found["rich help"], "ms", at_most=1.2),
        ratio("retold run, existing log", found["run"], "bare app, empty command", found["bare run"], "ms", at_most=1.5),
        ratio("retold run, new log", found["new"], "bare app, empty command", found["bare run"], "ms", at_most=1.5),
    ]


if __name__ == "__main__":
    run("startup: whole processes", measure)
