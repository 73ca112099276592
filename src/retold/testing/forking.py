"""The decisions of a fork: replay up to the point, record from there on, and refuse a program that leaves the recording.

1. A request that an unplayed exchange before the point answers is played, also if it comes late.
2. If every exchange before the point is played, the program has reached the point: the request is live.
3. A request that the parent holds after the point has reached it, too, because parallel requests come in any order.
4. Any other request has left the recording. It is a miss, and so is each request after it.

After the first live request, the third and fourth rule no longer count: the program is past the point.
"""

from collections.abc import Callable

from ..experiments.branch import Branch
from ..recorder.errors import MissError
from ..recorder.http.exchange import Exchange, Request
from ..recorder.words import plural
from ..replay.matching.matcher import Matcher

__tracebackhide__ = True


class ForkDecisions:
    """Decides about the requests of one fork, in any thread.

    find     takes the exchange before the point that answers a request
    reaches  returns whether the parent holds a request after the point
    """

    def __init__(
        self, branch: Branch, matcher: Matcher, find: Callable[[Request], Exchange | None], reaches: Callable[[Request], bool]
    ) -> None:
        self._branch = branch
        self._matcher = matcher
        self._find = find
        self._reaches = reaches
        self._is_past = False
        self._miss: str | None = None

    def __repr__(self) -> str:
        return f"<ForkDecisions {self._branch!r}{' past it' if self._is_past else ''}>"

    def take(self, request: Request) -> Exchange | None:
        """Return the recorded exchange for a request, or None if the request is live. Raise MissError."""
        if self._miss is not None:
            raise MissError(self._miss)
        forms = list(self._branch.forms_of(request))
        for form in forms:
            if (exchange := self._find(form)) is not None:
                return exchange
        if self._is_past or not self._matcher.unplayed_numbers or any(map(self._reaches, forms)):
            self._is_past = True
            return None
        return self._refused(forms[-1])

    def _refused(self, request: Request) -> Exchange:
        """Return the error by which the API asks for the whole history of a thread. Else raise MissError."""
        try:
            return self._matcher.take(request)
        except MissError as miss:
            played, branch = len(self._matcher.played), self._branch
            self._miss = (
                f"{miss}\nThe program left the recording at its request {played + 1}, before the point {branch.point}: "
                f"{played} of {plural(len(branch.prefix), 'exchange')} before it were played. Nothing was sent or recorded."
            )
            raise MissError(self._miss) from None
