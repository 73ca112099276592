"""The errors retold raises; every message says what happened, where, and the way out.

RetoldError                 exit 1
├── RunError                exit 1   a run or a step failed
├── InputError              exit 2   something a person wrote or named is wrong
│   ├── WorkflowError       exit 2   a workflow file
│   ├── HandlerError        exit 2   a handler's name or options
│   ├── CassetteError       exit 2   a cassette that is there but damaged
│   │   └── CassetteMissing exit 2   a cassette that is not there
│   └── LogError            exit 2   a log that cannot be opened, read or written
│       └── LogVersionError exit 2   a log written by a newer retold
└── MissError               exit 3   a request that no recorded exchange answers
    └── RecordingEnded      exit 3   a stream read on where its client closed it when it was recorded
"""

from collections.abc import Sequence
from typing import NamedTuple

from .screen import clean


class Problem(NamedTuple):
    """One thing that is wrong in a file; lines and columns count from 1."""

    line: int
    column: int
    message: str


class RetoldError(Exception):
    """Root of every error retold raises on purpose; `exit_code` is what the CLI exits with.

    Its text is clean for a terminal, because a traceback shows it too and it may quote a model.
    """

    exit_code = 1

    def __str__(self) -> str:
        return clean(super().__str__())


class RunError(RetoldError):
    """A run or a step of it failed: the API answered with an error, the stream was cut, a tool could not run."""


class BlockedError(RetoldError):
    """A request that was refused: the network is blocked for what no recording covers."""


class InputError(RetoldError):
    """Something a person wrote or named is wrong: an option, a path, a name, a file's content."""

    exit_code = 2


class WorkflowError(InputError):
    """A workflow file that cannot be run as written; `problems` are the single ones with their places, from top to bottom."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class HandlerError(InputError):
    """An unknown handler, or options it does not take; `option` is the one at fault where it is one alone."""

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class CassetteError(InputError):
    """A cassette that is there but cannot be read; it is never overwritten."""


class CassetteMissing(CassetteError):
    """A cassette that is not there."""


class LogError(InputError):
    """A log that cannot be opened, read or written."""


class LogVersionError(LogError):
    """A log written by a newer version of retold."""


class MissError(RetoldError):
    """A request in replay that no recorded exchange answers. Never retried, never sent live."""

    exit_code = 3


class RecordingEnded(MissError):
    """A client reads on where it closed the stream itself when the stream was recorded: the recording holds no more."""


class LogFolderWarning(UserWarning):
    """A log stands in a folder that everybody may write to: anybody can put another one in its place."""


class LeftOutWarning(UserWarning):
    """A part of a log or of a file cannot be read and is left out; the rest is used."""


class RecordingLostWarning(UserWarning):
    """A run goes on that is not recorded any further, because its log cannot be written (`on_failure="go_on"`)."""
