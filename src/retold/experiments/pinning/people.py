"""Data about people in the texts of a recording: addresses, numbers and names of folders that no test should publish.

Only forms that can be recognised for certain are looked for: a name in a sentence looks like any other word.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ...audit.occurrences import texts_of_exchange, texts_of_session
from ...recorder.agent_wire import AgentSession
from ...recorder.cassette.folding import Recorded
from ...recorder.http.exchange import Exchange, Request
from ...recorder.words import plural

_EMAIL = re.compile(r"(?<![\w.+\-/:])[\w.+\-]+@(?:[\w\-]+\.)+[A-Za-z]{2,}(?![\w@])")
_PHONE = re.compile(
    r"(?<![\w+.\-/])(?:\+[1-9]\d{0,2}(?:[ .\-/]?\(?\d{1,5}\)?){2,6}|\(?[2-9]\d{2}\)?[ .\-][2-9]\d{2}[.\-]\d{4})(?![\w\-])"
)
_HOME = re.compile(r"(?<![\w.\-])(?:/home|/Users)/[A-Za-z_][\w.\-]*(?<![.\-])|[A-Za-z]:\\+Users\\+[A-Za-z_][\w.\-]*")
_CARD = re.compile(r"(?<![\w.\-+/])\d{4}(?:[ \-]?\d{4}){2}[ \-]?\d{1,7}(?![\w\-])")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_SSN = re.compile(r"(?<![\w\-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w\-])")

_NO_PERSON = re.compile(r"(?:no-?reply|git|donotreply|do-not-reply)(?:\+.*)?", re.IGNORECASE)
_RESERVED = re.compile(r"(?:.*[.@])?(?:example(?:\.(?:com|org|net|edu))?|test|invalid|localhost|local)", re.IGNORECASE)
"""Domains that RFC 2606 keeps for examples."""

SERVICE_HOMES = frozenset(
    {
        *("user", "users", "username", "you", "me", "name", "dev", "app", "agent", "runner", "ubuntu", "debian", "ec2-user"),
        *("vscode", "node", "coder", "sandbox", "Shared", "runneradmin", "circleci", "vagrant", "jovyan", "vsts"),
    }
)
"""Names of home folders that name no person."""


@dataclass(frozen=True)
class PersonalText:
    """A text about a person: its kind, the number of its places, and the first one."""

    text: str
    kind: str
    count: int
    place: str

    def __str__(self) -> str:
        return f"{self.text}  {self.kind}, {plural(self.count, 'place')}, first in {self.place}"


Placed = tuple[str, str]
"""A text of a recording, and its place for a person."""


def texts_in(recorded: Iterable[Recorded]) -> Iterator[Placed]:
    """Yield each text of a recording with its place. Texts that are split over the pieces of a stream are joined."""
    exchanges = sessions = 0
    for each in recorded:
        if isinstance(each, AgentSession):
            sessions += 1
            yield from ((text, f"session {sessions}") for text in texts_of_session(each))
            continue
        exchanges += 1
        yield from ((text, f"request {exchanges}") for text in texts_of_exchange(replace(each, response=None, tool_results=())))
        answer: Exchange = replace(each, request=Request("", ""))
        yield from ((text, f"answer {exchanges}") for text in texts_of_exchange(answer))


def people_in(texts: Iterable[Placed]) -> list[PersonalText]:
    """Return the data about people in texts, in the order of their first places."""
    found: dict[str, PersonalText] = {}
    for text, place in texts:
        for part, kind in _of(text):
            known = found.get(part)
            found[part] = PersonalText(part, kind, 1, place) if known is None else replace(known, count=known.count + 1)
    whole = set(longest(found))
    return [each for each in found.values() if each.text in whole]


def longest(texts: Iterable[str]) -> list[str]:
    """Return the texts that are no part of another one. A piece of a stream may hold a part of a text that goes on after it."""
    kept: list[str] = []
    for text in sorted(texts, key=len, reverse=True):
        if not any(text in longer for longer in kept):
            kept.append(text)
    return kept


def _of(text: str) -> Iterator[tuple[str, str]]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            name, _, domain = match[0].partition("@")
            if not (_NO_PERSON.fullmatch(name) or _RESERVED.fullmatch(domain)):
                yield match[0], "e-mail address"
    if "/home/" in text or "Users" in text:
        for match in _HOME.finditer(text):
            if re.split(r"[/\\]", match[0])[-1] not in SERVICE_HOMES:
                yield match[0], "home folder"
    if len(text) >= _SHORTEST and any(char.isdigit() for char in text):
        yield from ((match[0], "phone number") for match in _PHONE.finditer(text) if _is_phone(match[0]))
        yield from ((match[0], "card number") for match in _CARD.finditer(text) if _is_card(match[0]))
        yield from ((match[0], "bank account") for match in _IBAN.finditer(text) if _is_iban(match[0]))
        yield from ((match[0], "social security number") for match in _SSN.finditer(text))


_SHORTEST = 9
"""The shortest number that is looked for."""


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def _is_phone(text: str) -> bool:
    """Return whether a number is long enough; numbers 555-01xx are kept for fiction."""
    digits = _digits(text)
    return 9 <= len(digits) <= 15 and digits[-7:-2] != "55501"


def _is_card(text: str) -> bool:
    """Return whether a number has the length and the check digit of a card (Luhn)."""
    digits = _digits(text)
    doubled = (int(digit) * (1 + number % 2) for number, digit in enumerate(reversed(digits)))
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and sum(sum(divmod(value, 10)) for value in doubled) % 10 == 0


def _is_iban(text: str) -> bool:
    """Return whether the check digits of an account number are right (ISO 13616)."""
    plain = text.replace(" ", "")
    number = "".join(str(int(char, 36)) for char in plain[4:] + plain[:4])
    return int(number) % 97 == 1
