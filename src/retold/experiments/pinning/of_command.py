"""The test of a recorded command: `retold replay` runs it against the cassette."""

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...recorder.cassette.folding import Recorded
from ...recorder.http.exchange import Exchange
from ...recorder.words import one_line
from .draft import Draft, shown
from .expectations import expectations
from .literals import Code, assignment, literal
from .parts import Parts

_EXITED = re.compile(r"the command exited with (\d+)")
_SIGNALLED = re.compile(r"signal (\d+) ended the command")
_PYTHON = re.compile(r"(?:.*/)?python(?:3(?:\.\d+)?)?")


def folder_of(recorded: Iterable[Recorded]) -> Path:
    """Return the folder in which the command ran, or the present one if that folder is not there."""
    found = (each.request.folders.cwd for each in recorded if isinstance(each, Exchange))
    cwd = next(filter(None, found), "")
    return Path(cwd) if os.path.isdir(cwd) else Path.cwd()


def command_parts(draft: Draft, command: Sequence[str], folder: Path) -> Parts:
    """Return the parts of the test of a command that ran in a folder."""
    program, *rest = (_relative(word, folder) for word in command)
    program = _on_path(program)
    is_python = _PYTHON.fullmatch(program) is not None
    typed = shlex.join(["python" if is_python else program, *rest])
    words = [Code("sys.executable") if is_python else program, *rest]
    return Parts(
        f"The command `{one_line(typed if len(typed) <= 40 else f'{typed[:39]}…')}`",
        "The program runs offline: its requests are answered from the cassette. If a request changes, the exit code is 3 and an "
        "error names the difference. Edit this file as you like. This command records the cassette again:",
        f"retold record -o {shlex.quote(shown(draft.cassette))} -- {one_line(typed)}",
        frozenset({"import subprocess", "import sys", "from pathlib import Path"}),
        (
            assignment("FOLDER", draft.place(folder)),
            assignment("CASSETTE", draft.place(draft.cassette)),
            assignment("COMMAND", literal(words, before=len("COMMAND = "))),
        ),
        (
            'replay = [sys.executable, "-m", "retold", "replay", CASSETTE, "--", *COMMAND]',
            "done = subprocess.run(replay, cwd=FOLDER, stdin=subprocess.DEVNULL, capture_output=True, text=True)",
            f"assert done.returncode == {_exit_code(draft.run.error or '')}, done.stderr",
            'assert "not played" not in done.stderr, done.stderr',
        ),
        tuple(expectations(draft.trajectory, "CASSETTE")),
    )


def _exit_code(error: str) -> int:
    if (found := _EXITED.search(error)) is not None:
        return int(found[1])
    found = _SIGNALLED.search(error)
    return 0 if found is None else -int(found[1])


def _on_path(program: str) -> str:
    """Return the name of a program if its absolute path is the one that the name has on this machine."""
    name = os.path.basename(program)
    return name if os.path.isabs(program) and shutil.which(name) == program else program


def _relative(word: str, folder: Path) -> str:
    """Return a path inside of the folder as a relative one, so that the test runs in any clone."""
    return os.path.relpath(word, folder) if word.startswith(f"{folder}/") else word
