"""`session_store`, which imports the Agent SDK only when it is called."""

from typing import TYPE_CHECKING

from ..recorder.errors import InputError
from ..recorder.log.log import EventLog

if TYPE_CHECKING:
    from .store import LogSessionStore


def session_store(log: EventLog) -> "LogSessionStore":
    """Return the Agent SDK's `SessionStore` over a log, so that sessions resume from it: `ClaudeAgentOptions(session_store=…)`.

    Raise InputError if the Agent SDK is not installed, or if it is too old to have session stores.
    """
    try:
        from .store import LogSessionStore
    except ImportError as error:
        raise InputError("retold.session_store needs a newer Claude Agent SDK: pip install 'retold[agent]'.") from error
    return LogSessionStore(log)
