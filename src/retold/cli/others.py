"""Notes on the exchanges of a run with other hosts, which hold no Claude messages."""

from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ..recorder.log.log import EventLog
    from .viewing import Specs


def others_in(log: "EventLog", run: str, way: str) -> list[str]:
    """Return one sentence per host that has exchanges without Claude messages. `way` gives the command that shows them."""
    from ..recorder.words import plural

    with_messages = {event.exchange for event in log.events(run, kinds=("message",))}
    hosts: Counter[str] = Counter()
    for event in log.events(run, kinds=("exchange.started",)):
        uri = str(event.data.get("uri", ""))
        if event.seq not in with_messages and not is_claude(uri):
            hosts[urlsplit(uri).netloc.rpartition("@")[2]] += 1
    return [
        f"{plural(n, 'exchange')} with {host} {'holds' if n == 1 else 'hold'} no Claude messages; {way}"
        for host, n in hosts.items()
    ]


def is_claude(uri: str) -> bool:
    """Return whether an exchange is one with Claude, which has no messages only because it failed or counted."""
    asked = urlsplit(uri)
    host, path = asked.hostname or "", asked.path
    return host.endswith("anthropic.com") or "/v1/messages" in path or path.endswith("/v1/complete") or "anthropic.claude" in path


def tell_of(others: list[str], handlers: "Specs", *, empty: bool) -> "Specs":
    """Print the sentences, and return the handlers still to run: a run without messages has no stream to draw on a screen."""
    from ..recorder.words import one_line
    from .common import say

    for sentence in others:
        say(one_line(sentence))
    return [(name, options) for name, options in handlers if not (others and empty and name in ("simple", "console"))]
