"""The parts of requests that vary from run to run of one program, taken out of a comparison as out of matching.

These are the parts that the profile of Claude Code names, the rules that a recording keeps (`--ignore`, `--mask`), and the
folders of the program, which get the names that a cassette gives them. A page of one run shows all of them as they are.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ..recorder.cassette.kept import NOTHING_KEPT, Kept
from ..recorder.cassette.sessions import CWD, HOME
from ..recorder.events import encode
from ..recorder.folders import UNKNOWN, FolderMap, Folders, pairs_between
from ..recorder.http.exchange import Request, from_text
from ..replay.matching.profiles import folders_in, is_claude_code
from ..replay.matching.rules import Rules, masked, named

NAMED = Folders(CWD, HOME, "/retold/tmp")
"""The names of the folders."""


class Manner(NamedTuple):
    """How a side is read: as it is, or without the parts that vary; rules beside its own; and whether kept folders count."""

    is_plain: bool = False
    kept: Kept = NOTHING_KEPT
    with_folders: bool = True


OWN_MANNER = Manner()
PLAIN = Manner(is_plain=True)


class Varying:
    """Takes out what varies in the requests and messages of one run, in their order."""

    def __init__(self, names: Mapping[str, str], manner: Manner, kept: Kept = NOTHING_KEPT) -> None:
        names = {} if manner.is_plain else names
        pattern = "|".join(re.escape(text) for text in sorted(names, key=len, reverse=True))
        self._names, self._pattern = names, re.compile(pattern) if pattern else None
        self._manner = manner
        self.kept = kept
        self.has_folders = False
        """Whether a request gives the folders of its program."""
        ignore, mask = kept if manner.kept == NOTHING_KEPT else kept.with_(manner.kept)
        self._ignored = Rules(match_on=("body",), ignore=ignore)
        self._rules = Rules(match_on=("body",), mask=mask)
        self._map: FolderMap | None = None

    def body(self, data: Mapping[str, Any]) -> bytes:
        """Return the body of a request without what varies. `meaning`, `first` and `value` refer to this request from now on."""
        body = from_text(data["body"])
        if self._manner.is_plain:
            return body
        folders = Folders.of(data["folders"]) if data.get("folders") else UNKNOWN
        request = Request(data["method"], data["uri"], tuple(map(tuple, data["headers"])), body, folders)
        self.has_folders = self.has_folders or (folders is not UNKNOWN and bool(folders))
        is_of_claude_code = is_claude_code(request)
        if is_of_claude_code != (self._rules.profile == "claude-code"):
            self._rules = replace(self._rules, profile="claude-code" if is_of_claude_code else "api")
        pairs = {} if folders is UNKNOWN or not self._manner.with_folders else pairs_between(folders, NAMED)
        if is_of_claude_code:
            pairs |= pairs_between(folders_in(body), NAMED)
        if pairs:
            self._map = FolderMap(pairs)
        if self._map is not None:
            body = self._map.data(body)
        # Such a rule may name a message by its number, so it is applied to the whole request.
        return encode(self._ignored.meaning(replace(request, body=body), {})["body"]) if self._ignored.ignore else body

    def meaning(self, data: Mapping[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        """Return the parts of a body that count, with its messages."""
        asked = self._rules.meaning(Request(data["method"], data["uri"], (), encode(body)), self._names)["body"]
        return {"messages": [], **asked}

    def first(self, body: dict[str, Any], messages: list[dict[str, Any]]) -> list[Any]:
        """Return the first message of a conversation, by which the conversations of two sides are paired."""
        if self._rules.profile == "api" and not self._rules.mask:
            return messages[:1] if self._pattern is None else list(named(messages[:1], self._pattern, self._names))
        sent = {key: value for key, value in body.items() if key == "system"} | {"messages": messages[:1]}
        found = self._rules.meaning(Request("POST", "", (), encode(sent)), self._names)["body"]
        return list(found.get("messages") or [])

    def value(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a message without what varies."""
        if self._pattern is not None:
            message = named(message, self._pattern, self._names)
        if self._map:
            message = self._map.value(message)
        if message.get("type") == "user" and self._rules.mask:
            message = masked(message, self._rules.mask)
        return message
