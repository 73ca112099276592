"""Texts taken out of a recording before it becomes a test: secrets, and the texts that a user's patterns match.

A text is replaced by REDACTED, which matches any text in a replay, so the program may go on sending the real one. The home folder
of a recorded program is replaced by a neutral one instead, because a replay maps it to the folder of the program that runs.
"""

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ...recorder.agent_wire import AgentSession
from ...recorder.cassette.folding import Recorded, in_order
from ...recorder.cassette.sessions import CWD, HOME, each_session, moved
from ...recorder.cassette.transfer import exchanges_of, import_exchanges
from ...recorder.errors import InputError
from ...recorder.folders import FolderMap, Folders, pairs_between
from ...recorder.http.exchange import Exchange, content_encoding
from ...recorder.log.log import EventLog
from ...recorder.log.memory import MemoryStore
from ...recorder.patience import find_texts
from ...recorder.secrets.redactor import Redactor
from ...recorder.words import plural
from ...replay.faults import framed
from ...replay.relocating import in_folders, relocated
from .people import PersonalText, Placed, longest, people_in, texts_in


@dataclass(frozen=True)
class Cleaned:
    """A recording without the texts to take out: the number of those that patterns match, and of texts that held a secret."""

    recorded: tuple[Recorded, ...]
    taken: int
    secrets: int


def cleaned(
    recorded: Sequence[Recorded], redact: Sequence[re.Pattern[str]], keep: Sequence[re.Pattern[str]], also: Iterable[Placed] = ()
) -> Cleaned:  # fmt: skip
    """Return the recording without secrets and without the texts that patterns match.

    `also` are further texts of the test. Raise InputError if the rest holds data about people that no pattern keeps, or if a
    text cannot be taken out.
    """
    recorded = [_at_neutral_home(each) for each in recorded]
    texts = [*texts_in(recorded), *also]
    taken = sorted({found for pattern in redact for text, _ in texts for found in _matches(pattern, text)}, key=len, reverse=True)
    _check_patterns(redact, texts)
    redactor = Redactor(extra=[*taken, *_slugs(taken)])
    secrets = Redactor()
    hidden = sum(secrets.search(text.encode("utf-8", "surrogatepass")) is not None for text, _ in texts)
    left = people_in((redactor.text(text), place) for text, place in texts)
    left = [each for each in left if not any(find_texts(pattern, each.text) for pattern in keep)]
    if left:
        raise InputError(_refusal(left))
    if taken or hidden:
        recorded = _without(recorded, redactor)
        _check_gone(recorded, taken)
    return Cleaned(tuple(recorded), len(longest(taken)), hidden)


def _matches(pattern: re.Pattern[str], text: str) -> list[str]:
    return [found for found in find_texts(pattern, text) if found]


def _check_patterns(redact: Sequence[re.Pattern[str]], texts: Sequence[Placed]) -> None:
    for pattern in redact:
        if not any(_matches(pattern, text) for text, _ in texts):
            raise InputError(f"--redact {pattern.pattern!r} matches nothing in the run; nothing was written.")


def _slugs(taken: Collection[str]) -> Iterator[str]:
    """Yield the names that Claude Code makes of paths: `-home-jane` of `/home/jane`."""
    return (re.sub(r"[^A-Za-z0-9]", "-", text) for text in taken if text.startswith("/") and text.count("/") > 1)


SHOWN = 8
"""The most findings that an error lists."""


def _refusal(left: Sequence[PersonalText]) -> str:
    shown = [f"  {each}" for each in left[:SHOWN]]
    more = [f"  … and {len(left) - SHOWN} more"] if len(left) > SHOWN else []
    patterns = " ".join(f"--redact {shlex.quote(re.escape(each.text))}" for each in left[:SHOWN])
    return "\n".join(
        [
            f"the run holds data about people ({plural(len(left), 'text')}); nothing was written:", *shown, *more,
            f"Take them out with: {patterns}", "To keep what names no person, add --keep PATTERN; --keep . keeps everything.",
        ]
    )  # fmt: skip


def _at_neutral_home(recorded: Recorded) -> Recorded:
    """Return an exchange with neutral folders if those of its program name a person, and a session with those of a cassette."""
    if isinstance(recorded, AgentSession):
        return moved(recorded, CWD, HOME)
    old = recorded.request.folders
    if not people_in([(f"{old.cwd} {old.home} {old.tmp}", "")]):
        return recorded
    tmp = f"{HOME}/tmp" if people_in([(old.tmp, "")]) else old.tmp
    new = Folders(CWD if old.cwd else "", HOME if old.home else "", tmp)
    folders = FolderMap(pairs_between(old, new))
    request = replace(in_folders(recorded.request, new), folders=new)
    results = tuple(folders.value(list(recorded.tool_results)))
    return replace(relocated(recorded, folders), request=request, tool_results=results)


def _without(recorded: Sequence[Recorded], redactor: Redactor) -> list[Recorded]:
    """Return a recording without the texts of a redactor: they are removed where a recording is written, as in any import."""
    plain = [each if isinstance(each, AgentSession) else _unpacked(each) for each in recorded]
    with EventLog(store=MemoryStore()) as log:
        run = import_exchanges(log, plain, name="pin", source="", redactor=redactor)
        return list(in_order(exchanges_of(log, run), each_session(log, run)))


def _unpacked(exchange: Exchange) -> Exchange:
    """Return an exchange with its answer decompressed, because a text in compressed bytes cannot be replaced."""
    packed = exchange.response is not None and content_encoding(exchange.response.headers)
    return framed(exchange) if packed else exchange


def _check_gone(recorded: Sequence[Recorded], taken: Collection[str]) -> None:
    for text, place in texts_in(recorded):
        for each in taken:
            if each in text:
                raise InputError(f"{each!r} in {place} cannot be replaced; nothing was written.")
