"""Decide about each request of a block: play, record, pass through, or report a miss."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Literal

from ..recorder.cassette.exchanges import Exchanges
from ..recorder.cassette.format import read_cassette
from ..recorder.errors import CassetteError, InputError, MissError
from ..recorder.folders import UNKNOWN
from ..recorder.http.exchange import Exchange, Request, content_encoding
from ..recorder.http.sdk_errors import for_sdk
from ..recorder.secrets.redactor import Redactor
from ..recorder.words import clean
from ..replay.faults import Faults, Telling, whole
from ..replay.matching.matcher import Matcher
from ..replay.matching.profiles import SESSION_HEADERS, Profile, profile_of
from ..replay.matching.rules import Rules
from ..replay.relocating import in_folders
from ..settings import Settings
from .forking import ForkDecisions
from .loading import LoadedRecording

__tracebackhide__ = True


def _rules(settings: Settings, loaded: LoadedRecording, source: str) -> Rules:
    try:
        return settings.rules.with_kept(loaded.kept)
    except InputError as error:
        raise CassetteError(f"{source}: {error}") from error


def _profile_of(exchanges: Sequence[Exchange]) -> Profile:
    """Return the profile of a recording. A long one without the header of Claude Code is not read for it."""
    if isinstance(exchanges, Exchanges) and not any(map(exchanges.may_have, SESSION_HEADERS)):
        return "api"
    return profile_of(exchanges)


class Decisions:
    """The decisions of one block, and their counts. `replayable` holds the exchanges of further cassettes too.

    `misses` are the messages of the misses. After `end`, each request is a miss.
    """

    def __init__(self, loaded: LoadedRecording, settings: Settings, *, source: str, redactor: Redactor) -> None:
        self.loaded = loaded
        self.play_count = 0
        self.misses: list[str] = []
        branch = settings.branch
        known = loaded.exchanges if branch is None else [*branch.prefix, *branch.rest]
        self.profile: Profile = _profile_of(known) if settings.detect else settings.rules.profile
        further = [each for other in settings.also for each in read_cassette(other).exchanges]
        self.replayable: Sequence[Exchange] = [*loaded.exchanges, *further] if further else loaded.exchanges
        self.faults = Faults(settings.faults)
        self.rules = replace(_rules(settings, loaded, source), profile=self.profile)
        self.matcher = Matcher(self.replayable, source=source, redactor=redactor, rules=self.rules, repeats=settings.repeats)
        self._fork: ForkDecisions | None = None
        if branch is not None:
            beyond = Matcher(branch.rest, redactor=redactor, rules=self.rules)
            self._fork = ForkDecisions(branch, self.matcher, self._take_if_any, partial(self._is_in, beyond))
        self._settings = settings
        self._only_plays = not loaded.records_misses and not loaded.records_everything
        self._source = source
        self._redactor = redactor
        self._struck: list[Exchange] = []
        self._has_ended = False

    def __repr__(self) -> str:
        return f"<Decisions {self._source} {self.loaded.mode} {self.play_count} played>"

    def decide(self, request: Request) -> Telling | Literal["pass", "record"]:
        """Return the answer of a request of the API, or the way to treat it. Raise MissError."""
        self._redactor.learn(request)
        asked = self.filtered(request)
        if asked is None:
            return "pass"
        if self._has_ended:
            uri = self._redactor.url(request.uri)
            raise for_sdk(MissError(f"{self._source} is no longer in use: {request.method} {uri} came after its block ended."))
        if self._fork is not None:
            return self._forked(asked, self._fork)
        if self._only_plays:
            return self._take(asked)
        if self.loaded.records_everything:
            return "record"
        return self.play_if_any(asked) or "record"

    def _forked(self, asked: Request, fork: ForkDecisions) -> Telling | Literal["record"]:
        try:
            exchange = fork.take(asked)
        except MissError as miss:
            self.misses += [] if self.misses else [str(miss)]
            raise for_sdk(miss) from None
        return "record" if exchange is None else self._played(exchange)

    def play_if_any(self, request: Request) -> Telling | None:
        """Return the answer of a request, or None if there is none, which is no miss."""
        exchange = self._take_if_any(request)
        return None if exchange is None else self._played(exchange)

    def filtered(self, request: Request) -> Request | None:
        """Return the request as `before_record` leaves it, or None if it must not be recorded."""
        return request if self._settings.before_record is None else self._settings.before_record(request)

    def key(self, request: Request) -> str:
        """Return a digest that is the same for requests of equal meaning."""
        return sha256(self.matcher.key(request).encode("utf-8", "surrogatepass")).hexdigest()

    def note_played(self, exchange: Exchange) -> None:
        """Count an exchange as played that another player has given to its client."""
        self.matcher.mark_played(exchange)
        self.play_count += 1

    def is_replaced(self, old: Exchange, new: Sequence[Exchange]) -> bool:
        """Return whether the new exchanges replace one that the file held before."""
        if self.loaded.mode == "all":
            return any(self.matcher.same(in_folders(each.request, old.request.folders), old.request) for each in new)
        return self.loaded.mode == "rewrite"

    def end(self) -> None:
        """End the block."""
        self._has_ended = True

    def _take_if_any(self, request: Request) -> Exchange | None:
        """Take the exchange that answers a request in the folders of one of the recorded programs, or as it is."""
        tried: set[bytes] = set()
        if request.folders and content_encoding(request.headers):
            request = self._redactor.request(request)
        # A long recording is read during the first try, so further folders may be known after it.
        while (
            asked := next((each for each in self._spellings(self.matcher, request) if each.body not in tried), None)
        ) is not None:
            tried.add(asked.body)
            if (exchange := self.matcher.take_if_any(asked)) is not None:
                return exchange
        return None

    def _is_in(self, matcher: Matcher, request: Request) -> bool:
        return any(matcher.matches(spelling) for spelling in self._spellings(matcher, request))

    def _spellings(self, matcher: Matcher, request: Request) -> Iterator[Request]:
        if request.folders is not UNKNOWN:
            yield from (in_folders(request, folders) for folders in matcher.folders)
        yield request

    def _take(self, asked: Request) -> Telling:
        try:
            if asked.folders is not UNKNOWN and (exchange := self._take_if_any(asked)) is not None:
                return self._played(exchange)
            asked = next(self._spellings(self.matcher, asked))
            return self._played(self.matcher.take(asked))
        except MissError as miss:
            if (struck := self.matcher.alike(asked, self._struck)) is not None:
                self.play_count += 1
                return Telling(whole(struck), self._settings.timing)
            existed = self.loaded.existed
            hint = self._settings.how_to_record(existed=existed)
            said = miss if self._settings.test is None else clean(miss.brief)
            text = f"{said}\n{hint}" if existed else f"no cassette at {self._source}.\n{hint}"
            self.misses.append(text)
            raise for_sdk(MissError(text)) from None
        except InputError as wrong:  # damage in a long cassette, or a mask that takes too long
            raise for_sdk(wrong) from None

    def _played(self, exchange: Exchange) -> Telling:
        """Return an exchange with the faults of its call. If they destroyed its answer, a retry can get it."""
        self.play_count += 1
        if not self._settings.faults:
            return Telling(exchange, self._settings.timing)
        telling, destroyed = self.faults.on(exchange, self._settings.timing)
        if destroyed:
            self.matcher.put_back(exchange)
            self._struck.append(exchange)
        return telling
