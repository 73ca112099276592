"""A test to be written: the cleaned recording, and the places of its two files."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from ...recorder.agent_wire import AgentSession
from ...recorder.cassette.folding import Recorded
from ...recorder.cassette.format import Cassette
from ...recorder.cassette.kept import Kept
from ...recorder.http.exchange import Exchange
from ...recorder.log.runs import RunInfo
from ..trajectory import Trajectory, trajectory


@dataclass(frozen=True)
class Draft:
    """The content of a test before it is written.

    recorded  the exchanges and sessions of the run, cleaned
    kept      the rules of matching that the run keeps
    test      the test's file; name is that of its function
    cassette  the cassette's file
    """

    run: RunInfo
    recorded: tuple[Recorded, ...]
    kept: Kept
    test: Path
    name: str
    cassette: Path

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges, in order."""
        return [each for each in self.recorded if isinstance(each, Exchange)]

    @property
    def sessions(self) -> list[AgentSession]:
        """The sessions of the Agent SDK, in order."""
        return [each for each in self.recorded if isinstance(each, AgentSession)]

    @cached_property
    def trajectory(self) -> Trajectory:
        """The trajectory of the recording, as the test will see it."""
        return trajectory(Cassette(self.cassette, self.exchanges, tuple(self.sessions), self.kept))

    @property
    def title(self) -> str:
        """The run, as the test names it."""
        day = datetime.fromtimestamp(self.run.started_ns / 1e9, UTC).date()
        return f"run {self.run.run[:8]} of {day}"

    def place(self, target: Path) -> str:
        """Return a path as an expression that begins at the test's own file."""
        parts = Path(os.path.relpath(target, self.test.parent)).parts
        up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
        base = "Path(__file__)" + ".parent" * (up + 1) if up < 3 else f"Path(__file__).parents[{up}]"
        rest = "/".join(parts[up:])
        return base if rest in ("", ".") else f'{base} / "{rest}"'


def shown(path: Path) -> str:
    """Return a path for a command, relative to the present folder if it is below it."""
    return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)


def function_name(run: RunInfo) -> str:
    """Return the name of the test of a run: that of its own test if a test recorded it, else one made of the run's name."""
    name = run.name.rpartition("::")[2]
    stem = name.rpartition("/")[2].rpartition(".")[0] if re.search(r"\.(?:ya?ml|json|py)$", name) else name
    slug = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_").lower()[:50].strip("_")
    return f"test_{slug.removeprefix('test_') or 'run'}"
