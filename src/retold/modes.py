"""Record modes, as vcrpy and pytest-recording have them, and who decides which one holds.

none           replay; what is not recorded is a miss
once           record a cassette that is not there; replay one that is
new_episodes   replay what is recorded, record the rest
all            record everything; of what is asked again the old recording goes, the rest stays
rewrite        record everything into an empty cassette
verify         send everything, compare with the recording, change nothing
"""

import os
from typing import Literal, get_args

from .recorder.errors import InputError

RecordMode = Literal["none", "once", "new_episodes", "all", "rewrite", "verify"]
MODES: tuple[RecordMode, ...] = get_args(RecordMode)

ENVIRONMENT = "RETOLD_RECORD_MODE"
"""Overrides what the code says, also under CI."""


def resolve(asked: str | None, *, override: str | None = None) -> RecordMode:
    """The mode that holds: the override (option or environment), else none under `CI`, else what was asked, else none."""
    override = override or os.environ.get(ENVIRONMENT)
    if override:
        return check(override)
    mode = check(asked or "none")
    return "none" if in_ci() else mode


def in_ci() -> bool:
    """Whether this is continuous integration, which never records by itself."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def check(mode: str) -> RecordMode:
    """Raises InputError for an unknown mode, naming the nearest."""
    for known in MODES:
        if mode == known:
            return known
    from .handlers import nearest, sentence  # pydantic: a tenth of a second of every pytest session

    raise InputError(sentence(f"unknown record mode {mode!r}{nearest(mode, MODES)}"))


def how_to_record(*, existed: bool) -> str:
    """Return advice for the reader of a miss, whose cassette existed or not."""
    ci = " CI=true allows no recording unless one of the two overrides allows it." if in_ci() else ""
    mode, missing = ("new_episodes", "the missing requests") if existed else ("once", "it")
    return f'Record {missing} with record_mode="{mode}" (pytest: --retold-mode={mode}, elsewhere: {ENVIRONMENT}={mode}).{ci}'
