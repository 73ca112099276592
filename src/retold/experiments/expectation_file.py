"""Read an expectation from a YAML file, with the places of its parts."""

from dataclasses import dataclass
from pathlib import Path

from ..recorder.errors import InputError
from ..recorder.words import sentence
from ..workflow.source import Source, read_source
from .expectation import Expectation, ExpectationReader
from .expectation import Path as Place


@dataclass(frozen=True)
class ExpectationFile:
    """A valid expectation and its file."""

    source: Source
    wanted: Expectation

    def position(self, at: Place) -> tuple[int, int]:
        """Return the line and column of a single expectation, counted from 1."""
        return self.source.position(at)


def read_expectation(path: Path) -> ExpectationFile:
    """Read a file of expectations. Raise InputError with file, line and column of all errors."""
    source = read_source(path, "expectation")
    reader = ExpectationReader()
    wanted = Expectation()
    if isinstance(source.data, dict) and "interactions" in source.data:
        reader.problems.append(((), "this is a cassette; give it as the recording, and a file of expectations with --expect"))
    elif isinstance(source.data, dict):
        wanted = reader.read(source.data)
    else:
        reader.problems.append(((), "an expectation is a mapping with keys such as `tools`, `never` and `max_turns`"))
    if reader.problems:
        placed = sorted((source.position(at), sentence(what)) for at, what in reader.problems)
        lines = [f"{path}:{line}:{column}: {what}" for (line, column), what in placed]
        raise InputError(lines[0] if len(lines) == 1 else f"{len(lines)} errors in the expectation:\n" + "\n".join(lines))
    return ExpectationFile(source, wanted)
