"""Find the recorded exchange that answers a request, and report a miss if there is none.

`Rules` (rules.py) define which parts of a request count. Volatile values that a workflow puts into its prompts are replaced by
their names on both sides. Identical requests are consumed in recorded order and never merged.
"""

import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from ...recorder.cassette.exchanges import Exchanges
from ...recorder.errors import MissError
from ...recorder.folders import UNKNOWN, Folders
from ...recorder.http.exchange import Exchange, Request
from ...recorder.secrets.redactor import REDACTED, Redactor
from ...recorder.strict_json import canonical
from ...recorder.words import plural
from .differences import differences
from .redacted import agree, may_agree
from .rules import DEFAULT_RULES, Rules
from .sketch import Sketch, distance, sketch_of
from .threads import ThreadIndex, is_continued, is_refused_thread, is_threaded

MAX_DIFFERENCES = 5
"""The number of differences that a miss report lists; the rest are counted."""

MAX_CANDIDATES = 4
"""The number of recorded requests that a miss compares in depth."""
MAX_COMPARED_BYTES = 256 * 1024
"""The size of the requests compared after the first one. Both limits keep a miss within 100 ms."""


class Matcher:
    """The exchanges of a recording that are still to be played. Miss reports contain `source` as its name."""

    def __init__(
        self,
        exchanges: Iterable[Exchange],
        *,
        source: str = "the recording",
        redactor: Redactor | None = None,
        rules: Rules = DEFAULT_RULES,
        repeats: bool = False,
    ) -> None:
        self.source = source
        self.rules = rules
        self._redactor = redactor or Redactor()
        self._repeats = repeats
        self._lock = threading.Lock()
        # A lazy sequence is read as far as the requests need it, in recorded order.
        self._exchanges: Sequence[Exchange] = exchanges if isinstance(exchanges, Exchanges) else tuple(exchanges)
        self._read: list[Exchange] = []
        self._folders: list[Folders] = []
        self._played: list[Exchange] = []
        self._again: set[int] = set()
        # A request may repeat an earlier answer with another day's value, so all requests replace all recorded values.
        lazy = exchanges if isinstance(exchanges, Exchanges) else None
        with_variables = () if lazy is not None and not lazy.may_have("variables") else self._exchanges
        variables = [pair for exchange in with_variables for pair in exchange.place.variables.items()]
        self._recorded = {value: name for name, value in variables if value}
        # Digests of the keys: in a long conversation the keys themselves take as much memory as all of its requests.
        self._keys: dict[int, bytes] = {}
        self._sketches: dict[int, Sketch] = {}
        # Only of keys that wait: an empty queue takes 0.8 KB.
        self._waiting: dict[bytes, deque[Exchange]] = {}
        # Only these keys need the slower comparison that treats a redacted place as a wildcard.
        self._redacted: dict[str, None] = {}
        self._has_threads = False
        if lazy is None:
            self._read_all()

    def __repr__(self) -> str:
        return f"<Matcher {self.source} {len(self._played)} of {len(self._exchanges)} played>"

    @cached_property
    def _threads(self) -> ThreadIndex:
        """Built for the first request that no exchange matches as it is, so every exchange is read by then."""
        return ThreadIndex(self._exchanges, self.key, has_threads=self._has_threads)

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """The exchanges of the recording, in recorded order; a lazy sequence stays one."""
        return self._exchanges

    @property
    def folders(self) -> Sequence[Folders]:
        """The different folders of the recorded programs, of the exchanges that are read."""
        with self._lock:
            if not self._read:
                self._read_next()
        return self._folders

    @property
    def played(self) -> list[Exchange]:
        """The played exchanges, in the order of the requests."""
        return list(self._played)

    @property
    def unplayed(self) -> list[Exchange]:
        """The exchanges that no request has asked for yet, in recorded order."""
        played = set(map(id, self._played))
        return [exchange for exchange in self._exchanges if id(exchange) not in played]

    @property
    def unplayed_numbers(self) -> list[int]:
        """The numbers of the same exchanges, counted from 0. To count them, those that are not read yet stay unread."""
        played = set(map(id, self._played))
        read = [number for number, exchange in enumerate(self._read) if id(exchange) not in played]
        return [*read, *range(len(self._read), len(self._exchanges))]

    def take(self, request: Request, variables: Mapping[str, str] | None = None, unit: tuple[str, str] | None = None) -> Exchange:
        """Return the next recorded exchange for this request. `variables` are its volatile values by name. Raise MissError.

        If no exchange matches a request of a message thread, but one might match its whole history, return the API's own error
        that asks for it (threads.py). That exchange is not one of the recording.

        If several exchanges match, one of the same `unit`, (step, task), is preferred, so that tasks with equal prompts keep
        their own answers.
        """
        meaning = self._meaning(request, variables or {})
        key = canonical(meaning)
        with self._lock:
            exchange = self._find(request, key, unit)
            if exchange is None:
                refusal = self._threads.refusal(request, self.unplayed, raw=self._compares_bytes)
                if refusal is not None:
                    return refusal
                raise self._miss(request, meaning, key)
            self._answer(exchange, key)
        return exchange

    def take_if_any(self, request: Request) -> Exchange | None:
        """Return the exchange that `take` would return, or None if nothing matches."""
        with self._lock:
            key = self.key(request)
            exchange = self._find(request, key)
            if exchange is not None:
                self._answer(exchange, key)
        return exchange

    def mark_played(self, exchange: Exchange) -> None:
        """Count an exchange as played that another player has given to a client."""
        with self._lock:
            self._play(exchange)

    def next_attempt(self, exchange: Exchange) -> Exchange | None:
        """Take the recorded retry of the same call that follows `exchange`. Return None if it was the last attempt."""
        with self._lock:
            wanted = (*exchange.place.unit, exchange.place.call, exchange.place.attempt + 1)
            for following in self._of_key(self._keys[id(exchange)]):
                if (*following.place.unit, following.place.call, following.place.attempt) == wanted:
                    self._play(following)
                    return following
        return None

    def put_back(self, exchange: Exchange) -> None:
        """Make an exchange available for the next matching request. It still counts as played."""
        if id(exchange) not in self._keys:  # an error of the API that no exchange of the recording gave
            return
        with self._lock:
            self._waiting.setdefault(self._keys[id(exchange)], deque()).appendleft(exchange)
            self._played = [played for played in self._played if played is not exchange] + [exchange]
            self._again.add(id(exchange))

    def alike(self, request: Request, exchanges: Iterable[Exchange]) -> Exchange | None:
        """Return the recorded exchange that streams the answer to this request for a whole answer, or None."""
        wanted = self._meaning(request, {})
        for exchange in exchanges:
            found = differences(self._meaning(exchange.request, {}), wanted)
            if found and all(line.startswith(("stream: ", "max_tokens: ")) for line in found):
                return exchange
        return None

    def matches(self, request: Request, variables: Mapping[str, str] | None = None) -> bool:
        """Return True if `take` would find an exchange."""
        with self._lock:
            return self._find(request, self.key(request, variables)) is not None

    def same(self, one: Request, other: Request) -> bool:
        """Return True if the same recording would answer both requests."""
        return self.key(one) == self.key(other) and self.rules.agree(one, other)

    def key(self, request: Request, variables: Mapping[str, str] | None = None) -> str:
        """Return the text that requests of equal meaning share."""
        return canonical(self._meaning(request, variables or {}))

    def _meaning(self, request: Request, variables: Mapping[str, str]) -> dict[str, Any]:
        """Return the parts of a request that count, scrubbed.

        Both sides are scrubbed here, because a value that is secret on this machine may not have been secret on the recording
        machine.
        """
        names = self._recorded | {value: name for name, value in variables.items() if value}
        scrubbed = self._redactor.request(request, with_headers="headers" in self.rules.match_on)
        return self.rules.meaning(scrubbed, names)

    def _find(self, request: Request, key: str, unit: tuple[str, str] | None = None) -> Exchange | None:
        found = self._candidate(_digest(key), request, unit)
        if found is not None:
            return found
        # A text that was redacted on the recording machine is plain here if this machine's environment differs.
        # may_agree is a cheap test on the text, so most keys are never parsed.
        likes = [like for like in self._redacted if like != key and may_agree(like, key)]
        wanted = json.loads(key) if likes else None
        for like in likes:
            if agree(json.loads(like), wanted) and (found := self._candidate(_digest(like), request, unit)) is not None:
                return found
        return self._threaded(request)

    @property
    def _compares_bytes(self) -> bool:
        return "raw_body" in self.rules.match_on

    def _threaded(self, request: Request) -> Exchange | None:
        """Return the exchange with the same whole request. Its own form, threaded or not, may differ."""
        if self._compares_bytes or not self._threads.concerns(request):
            return None
        candidates = [exchange for exchange in self._threads.candidates(request) if self.rules.agree(request, exchange.request)]
        if not is_continued(request):  # only a thread can be refused
            candidates = [exchange for exchange in candidates if not is_refused_thread(exchange)]
        waiting = [exchange for exchange in candidates if self._is_waiting(exchange)]
        return next(iter([*waiting, *reversed(candidates)] if self._repeats else waiting), None)

    def _is_waiting(self, exchange: Exchange) -> bool:
        return any(other is exchange for other in self._waiting.get(self._keys[id(exchange)], ()))

    def _candidate(self, key: bytes, request: Request, unit: tuple[str, str] | None) -> Exchange | None:
        """Return the first exchange of this unit, else of any unit. A repeat gets the latest answer that was played."""
        first: Exchange | None = None
        for exchange in self._of_key(key):
            if self.rules.agree(request, exchange.request):
                if unit is None or exchange.place.unit == unit:
                    return exchange
                first = first or exchange
        if first is None and self._repeats:
            again = (exchange for exchange in reversed(self._played) if self._keys[id(exchange)] == key)
            first = next((exchange for exchange in again if self.rules.agree(request, exchange.request)), None)
        return first

    def _of_key(self, key: bytes) -> Iterator[Exchange]:
        """Yield the waiting exchanges of a key in order. Read on in the recording for further ones."""
        yield from list(self._waiting.get(key, ()))
        while (exchange := self._read_next()) is not None:
            if self._keys[id(exchange)] == key:
                yield exchange

    def _read_next(self) -> Exchange | None:
        """Read one more exchange of the recording. Return None at its end. Raise CassetteError if it is damaged."""
        try:
            exchange = self._exchanges[len(self._read)]
        except IndexError:
            return None
        meaning = self._meaning(exchange.request, {})
        text = canonical(meaning)
        key = self._keys[id(exchange)] = _digest(text)
        self._sketches[id(exchange)] = sketch_of(meaning)
        self._has_threads = self._has_threads or (b'"thread"' in exchange.request.body and is_threaded(exchange.request))
        if key not in self._waiting:
            self._waiting[key] = deque()
            if REDACTED in text:
                self._redacted[text] = None
        self._waiting[key].append(exchange)
        self._read.append(exchange)
        if exchange.request.folders not in (UNKNOWN, *self._folders):
            self._folders.append(exchange.request.folders)
        return exchange

    def _read_all(self) -> None:
        while self._read_next() is not None:
            pass

    def _answer(self, exchange: Exchange, key: str) -> None:
        """Play an exchange for a request with this key."""
        self._play(exchange)
        if _digest(key) != self._keys[id(exchange)]:
            # A client that sends whole histories does not repeat the attempts whose thread had expired.
            for refused in filter(self._is_waiting, self._threads.refused_with(exchange)):
                self._play(refused)

    def _whole(self, request: Request) -> Request:
        """Return the whole request for a request of a thread, and any other request as it is."""
        if self._compares_bytes or not self._threads.concerns(request):
            return request
        return self._threads.whole(request) or request

    def _play(self, exchange: Exchange) -> None:
        while id(exchange) not in self._keys and self._read_next() is not None:
            pass  # another player was the first to need it
        key = self._keys[id(exchange)]
        waiting = self._waiting.get(key, deque())
        for number, other in enumerate(waiting):
            if other is exchange:  # a repeated exchange is no longer in the queue
                del waiting[number]
                if not waiting:
                    del self._waiting[key]
                break
        # put_back has already counted it as played.
        if id(exchange) in self._again:
            self._again.discard(id(exchange))
        else:
            self._played.append(exchange)

    def _miss(self, request: Request, meaning: dict[str, Any], key: str) -> MissError:
        asked = f"{request.method} {urlsplit(request.uri).path}"
        head = f"no recorded exchange answers call {len(self._played) + 1}, {asked}, in {self.source}"
        if not self._exchanges:
            return MissError(f"{head}: it holds no exchanges.")
        digest = _digest(key)
        alike = [exchange for exchange in self._exchanges if self._keys[id(exchange)] == digest]
        times = sum(1 for exchange in alike if self.rules.agree(request, exchange.request))
        if times:
            often = _times(times)
            return MissError(f"{head}: the same request was recorded {often} and has been played {often} already.")
        if alike:
            rejecting = ", ".join(self.rules.disagreeing(request, alike[0].request))
            return MissError(f"{head}: it was recorded, but {rejecting} in match_on rejects it.")
        if (whole := self._whole(request)) is not request:
            meaning = self._meaning(whole, {})
        number, differences = self._nearest(meaning, sketch_of(meaning))
        lines = [f"{head}.", f"Nearest is recorded exchange {number}; it differs in:"]
        lines += [f"  {line}" for line in differences[:MAX_DIFFERENCES]]
        if len(differences) > MAX_DIFFERENCES:
            lines.append(f"  … and {len(differences) - MAX_DIFFERENCES} more places")
        return MissError("\n".join(lines), brief=_brief(f"{head}; nearest is recorded exchange {number}.", differences))

    def _nearest(self, wanted: dict[str, Any], sketch: Sketch) -> tuple[int, list[str]]:
        """Return the number and the differences of the most similar recorded exchange. Unplayed exchanges win a tie.

        The sketches choose the candidates. The best one is always compared in depth, the others only while that is cheap.
        """
        played = set(map(id, self._played))
        ranks = [
            (distance(self._sketches[id(exchange)], sketch), id(exchange) in played, number)
            for number, exchange in enumerate(self._exchanges, 1)
        ]
        best: tuple[int, bool, int, list[str]] | None = None
        read = 0
        for _, again, number in sorted(ranks)[:MAX_CANDIDATES]:
            request = self._exchanges[number - 1].request
            read += len(request.body)
            # A large request takes milliseconds to compare; further candidates would break the limit of 100 ms.
            if best is not None and read > MAX_COMPARED_BYTES:
                break
            found = differences(self._meaning(self._whole(request), {}), wanted)
            rank = (len(found), again, number, found)
            if best is None or rank[:3] < best[:3]:
                best = rank
        assert best is not None
        return best[2], best[3]


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def _brief(where: str, differences: Sequence[str]) -> str:
    """Return the first difference, the place of the miss, and the paths of further differences, one line each."""
    if not differences:
        return where
    first, *others = differences
    paths = ", ".join(line.partition(": ")[0] for line in others[: MAX_DIFFERENCES - 1])
    more = "" if len(others) < MAX_DIFFERENCES else f" and {len(others) - MAX_DIFFERENCES + 1} more places"
    return "\n".join([first, where, *([f"It differs in {paths}{more}, too."] if others else [])])


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def note_unplayed(exchanges: Sequence[Exchange]) -> str:
    """Return a line that counts the recorded exchanges that were never requested, with their steps."""
    steps = sorted({exchange.place.step for exchange in exchanges if exchange.place.step})
    where = f" (of step {', '.join(steps)})" if steps else ""
    return f"{plural(len(exchanges), 'recorded exchange')} not played{where}"
