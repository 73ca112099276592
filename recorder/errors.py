"""The errors of retold. Each message names the problem, its place, and the way out.

RetoldError                 exit 1
├── RunError                exit 1   a run or a step failed
├── ShelfError              exit 1   a place for the pages of many logs that cannot be reached or used
├── InputError              exit 2   bad input: an option, a path, a name, a file
│   ├── WorkflowError       exit 2   a workflow file
│   ├── HandlerError        exit 2   a handler's name or options
│   ├── CassetteError       exit 2   a cassette that exists but is damaged
│   │   └── CassetteMissing exit 2   a cassette that does not exist
│   └── LogError            exit 2   a log that cannot be opened, read or written
│       └── LogVersionError exit 2   a log written by a newer retold
└── MissError               exit 3   a request without a recorded exchange
    └── RecordingEnded      exit 3   a stream read past the place where the recorded client closed it
"""

from collections.abc import Sequence
from typing import NamedTuple

from .words import clean


class Problem(NamedTuple):
    """One thing that is wrong in a file; lines and columns count from 1."""

    line: int
    column: int
    message: str


class RetoldError(Exception):
    """Root of every error that retold raises on purpose; `exit_code` is the exit code of the CLI.

    Its text is safe for a terminal, because a traceback prints it too and it may quote a model.
    """

    exit_code = 1

    def __str__(self) -> str:
        return clean(super().__str__())


class RunError(RetoldError):
    """A run or one of its steps failed: the API returned an error, the stream was cut, or a tool could not run."""


class BlockedError(RetoldError):
    """A request was refused, because the network is blocked for requests that no recording covers."""


class ShelfError(RetoldError):
    """A shelf (the place where pages of logs are kept for other machines) cannot be reached, or refused a page."""


class InputError(RetoldError):
    """Bad input of a person: an option, a path, a name, or the content of a file."""

    exit_code = 2


class WorkflowError(InputError):
    """A workflow file that cannot run as written; `problems` lists each problem with its place, from top to bottom."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class HandlerError(InputError):
    """An unknown handler, or unknown options of one; `option` is the wrong one if there is exactly one."""

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class CassetteError(InputError):
    """A cassette that exists but cannot be read. It is never overwritten."""


class CassetteMissing(CassetteError):
    """A cassette that does not exist."""


class LogError(InputError):
    """A log that cannot be opened, read or written."""


class LogVersionError(LogError):
    """A log written by a newer version of retold."""


class MissError(RetoldError):
    """A request in a replay for which there is no recorded exchange. It is never retried and never sent live.

    `brief` is the message in at most three lines. The first one is the first difference, if there is a recording to compare.
    """

    exit_code = 3

    def __init__(self, message: str, brief: str | None = None) -> None:
        super().__init__(message)
        self.brief = message if brief is None else brief


class RecordingEnded(MissError):
    """A client reads past the place where the recorded client closed the stream, so the recording holds no more."""


class LogFolderWarning(UserWarning):
    """The folder of a log is writable for every user, so any user can replace the log."""


class LogSpaceWarning(UserWarning):
    """The disk of a log has no room for a second copy of it, so erased bytes were overwritten in place."""


class LeftOutWarning(UserWarning):
    """Part of a log or of a file cannot be read and is left out. The rest is used."""


class RecordingLostWarning(UserWarning):
    """A run continues without being recorded, because its log cannot be written (`on_failure="go_on"`)."""


class ShippingWarning(UserWarning):
    """Events of a log are not on its shelf, or the shelf does not answer. The log has them; `retold ship` ships them later."""
