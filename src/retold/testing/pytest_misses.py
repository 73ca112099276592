"""The traceback of a miss in pytest: it ends at the line of the suite that sent the request."""

from types import TracebackType

import pytest

from ..recorder.errors import MissError

CLIENTS = ("anthropic", "asyncio", "claude_agent_sdk", "aiohttp", "httpx", "httpx2", "httpcore", "httpcore2", "retold")
"""The packages between the suite and the recording. A workflow runs in an event loop of its own."""


def only_of_the_suite(failed: "pytest.ExceptionInfo[BaseException]") -> None:
    """Cut the frames of the SDK and of its clients from the end of a miss's traceback."""
    if not isinstance(failed.value, MissError):
        return
    last: TracebackType | None = None
    each = failed.value.__traceback__
    while each is not None:
        if str(each.tb_frame.f_globals.get("__name__")).partition(".")[0] not in CLIENTS:
            last = each
        each = each.tb_next
    if last is not None:
        last.tb_next = None
