"""`retold pin`: write the test of a run and its cassette."""

import os
from dataclasses import dataclass
from typing import Any

from ...recorder.cassette.format import write_cassette
from ...recorder.errors import InputError, RetoldError
from ...recorder.files import replacing
from ...recorder.log.log import EventLog
from .draft import shown
from .plan import PinOptions, Planned, plan_pin


@dataclass(frozen=True)
class Pinned:
    """A written test."""

    planned: Planned

    @property
    def test(self) -> str:
        """The path of the test."""
        return shown(self.planned.draft.test)

    @property
    def cassette(self) -> str:
        """The path of the cassette."""
        return shown(self.planned.draft.cassette)

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as JSON."""
        draft, found = self.planned.draft, self.planned.draft.trajectory
        return {
            "run": draft.run.run,
            "name": draft.run.name,
            "kind": self.planned.kind,
            "test": self.test,
            "cassette": self.cassette,
            "exchanges": len(draft.exchanges),
            "sessions": len(draft.sessions),
            "turns": found.turns,
            "tool_calls": len(found.calls),
            "left_out": self.planned.left_out,
            "redacted": self.planned.taken,
            "secrets": self.planned.secrets,
        }


def pin(log: EventLog, ref: str, options: PinOptions) -> Pinned:
    """Write the test of a run and its cassette, both or none of them. Raise InputError, CassetteError, LogError."""
    planned = plan_pin(log, ref, options)
    draft = planned.draft
    was_there = draft.cassette.exists()
    write_cassette(draft.cassette, draft.exchanges, draft.sessions, draft.kept)
    try:
        with replacing(draft.test) as file:
            file.write(planned.source.encode())
    except BaseException as error:
        if not was_there:
            draft.cassette.unlink()
        if isinstance(error, OSError) and not isinstance(error, RetoldError):
            raise InputError(f"cannot write {shown(draft.test)}: {error.strerror or os.strerror(error.errno or 0)}.") from error
        raise
    return Pinned(planned)
