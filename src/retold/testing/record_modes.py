"""Record modes, named as in vcrpy and pytest-recording, and the rule that chooses one.

none           replay; a request without a recording is a miss
once           record if the cassette does not exist; otherwise replay
new_episodes   replay recorded requests, record the others
refresh        the same; at the end, remove the recordings that were not played
all            record everything; replace recordings of repeated requests, keep the others
rewrite        record everything into an empty cassette
verify         send everything, compare with the recording, change nothing
"""

import os
from typing import Literal, NamedTuple, get_args

from ..recorder.errors import InputError

RecordMode = Literal["none", "once", "new_episodes", "refresh", "all", "rewrite", "verify"]
MODES: tuple[RecordMode, ...] = get_args(RecordMode)

ENVIRONMENT = "RETOLD_RECORD_MODE"
"""The environment variable that overrides the mode given in code, also under CI."""


def resolve(asked: str | None, *, override: str | None = None) -> RecordMode:
    """Return the record mode. Raise InputError if it is unknown.

    The override (option, then environment) comes first. Without one, the mode is `none` under CI, else `asked`, else `none`.
    """
    if override := override or os.environ.get(ENVIRONMENT):
        return check(override)
    mode = check(asked or "none")
    return "none" if in_ci() else mode


def is_overridden() -> bool:
    """Return whether the environment overrides the mode given in code."""
    return bool(os.environ.get(ENVIRONMENT))


def in_ci() -> bool:
    """Return whether the process runs under continuous integration, which records only with an override."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def check(mode: str) -> RecordMode:
    """Return the mode. Raise InputError, with the nearest known name, if it is unknown."""
    for known in MODES:
        if mode == known:
            return known
    from ..recorder.words import nearest, sentence

    raise InputError(sentence(f"unknown record mode {mode!r}{nearest(mode, MODES)}"))


class OneTest(NamedTuple):
    """A test of pytest as a miss names it: the argument that selects it, and its cassette's path."""

    argument: str
    cassette: str

    def how_to_record(self, *, existed: bool) -> str:
        """Return the command that records this test alone. It sends only the requests that no recording answers."""
        if not existed:
            return f"To record this test: pytest {self.argument} --retold-mode=once"
        return f"To record this test again: pytest {self.argument} --retold-mode=refresh"


def how_to_record(*, existed: bool) -> str:
    """Return the advice on recording that a miss prints. `existed`: the cassette file existed."""
    ci = " CI=true allows no recording unless one of the two overrides allows it." if in_ci() else ""
    mode, missing = ("new_episodes", "the missing requests") if existed else ("once", "it")
    return f'Record {missing} with record_mode="{mode}" (pytest: --retold-mode={mode}, elsewhere: {ENVIRONMENT}={mode}).{ci}'
