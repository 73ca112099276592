"""API requests of a pytest session that no cassette covers: counted, printed at the end, and refused if they must not be sent.

A fixture of a wider scope than the test runs before the test's cassette is in use, so its requests are outside of every
cassette. They are refused in these cases (`retold_outside = count` turns refusals off):

1. The mode is none and the test that runs is marked: its fixtures would reach the API in every replay.
2. The mode none was asked for (option, ini setting, environment, CI), the session has marked tests, and the request leaves this
   machine.
"""

import os
from collections.abc import Generator
from typing import Any

import pytest

from .pytest_session import STATS
from .record_modes import ENVIRONMENT, in_ci, resolve

COUNT = "count"


class Outside:
    """Notes the API requests of a session that no block covers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._item: pytest.Item | None = None
        self._has_marked = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Watch the client libraries: all of them if a test is marked, else those that the tests have imported."""
        from ..recorder.http.patching import install

        self._has_marked = any(map(is_marked, session.items))
        install(imports=self._has_marked)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Remember which test runs."""
        self._item = item
        try:
            return (yield)
        finally:
            self._item = None

    def _is_refused(self, *, leaves: bool) -> bool:
        option, setting = self._config.getoption("--retold-mode"), self._config.getini("retold_mode")
        if self._config.getini("retold_outside") == COUNT or resolve(setting, override=option) != "none":
            return False
        if self._item is not None and is_marked(self._item):
            return True
        was_asked_for = bool(option or setting or os.environ.get(ENVIRONMENT) or in_ci())
        return self._has_marked and was_asked_for and leaves

    def note(self, asked: Any) -> None:
        """Count a request. Raises BlockedError if it is refused."""
        from ..recorder.errors import BlockedError
        from ..recorder.http.guard import is_loopback
        from ..recorder.http.sdk_errors import for_sdk

        is_refused = self._is_refused(leaves=not is_loopback(asked.host))
        stats = self._config.stash[STATS]
        requests = stats.refused if is_refused else stats.live
        requests[str(asked)] = requests.get(str(asked), 0) + 1
        if not is_refused:
            return
        where = f" while {self._item.nodeid} was running" if self._item is not None else ""
        text = (
            f"{asked} was refused: it was made outside of every cassette{where}, and the record mode is none. A fixture of "
            "module or session scope runs before the cassette of a test is in use: enter retold.use_cassette(PATH) in the "
            "fixture. To let such requests pass, set retold_outside = count."
        )
        raise for_sdk(BlockedError(text))


def is_marked(item: pytest.Item) -> bool:
    """Return whether a test uses a cassette of retold's."""
    return item.get_closest_marker("retold") is not None or "retold_cassette" in getattr(item, "fixturenames", ())


def lines(live: dict[str, int], refused: dict[str, int]) -> list[str]:
    """Return the lines of the session's summary about such requests."""
    found = []
    for requests, fate in ((live, "sent to the API"), (refused, "refused")):
        if count := sum(requests.values()):
            which = ", ".join(f"{request} ({times})" for request, times in sorted(requests.items())[:3])
            more = f" and {len(requests) - 3} more" if len(requests) > 3 else ""
            noun = "API request" if count == 1 else "API requests"
            found.append(f"{count} {noun} outside of every cassette {fate}: {which}{more}")
    return found
