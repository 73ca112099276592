"""Profiles: what of a request changes from run to run of one program, though the same is asked. Named, and told to the user.

`api` changes nothing: what any client sends counts as it stands. `claude-code` knows Claude Code's own prompts (measured with
2.1.330): its working directory, home, git status, date and version stamp, the ids of its agents, and where it keeps their output.
"""

import re
from collections.abc import Iterable
from typing import Any, Literal, get_args

from ..recorder.errors import InputError
from ..recorder.exchange import Exchange, Request, header

Profile = Literal["api", "claude-code"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

_WORKING_DIRECTORY = re.compile(r"Primary working directory: (/[^\n]+)")
_MEMORY = re.compile(r"`(/[^`\n]*)/\.claude/projects/([^/`\n]+)/memory/?`")

_STAMPS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?<=Primary working directory: )[^\n]+"), "{{cwd}}"),
    (re.compile(r"(?<=Platform: )[^\n]+|(?<=Shell: )[^\n]+|(?<=OS Version: )[^\n]+"), "{{machine}}"),
    (
        re.compile(r"(?<=This is the git status at the start of the conversation)\..*?Recent commits:\n(?:[^\n]+\n)*", re.DOTALL),
        "{{git}}",
    ),
    (re.compile(r"(?<=Today.s date is )\d{4}-\d\d-\d\d"), "{{date}}"),
    (re.compile(r"(?<=cc_version=)(\d+\.\d+\.\d+)\.\w+"), r"\1"),
    (re.compile(r"/[^\s<>]*/claude-\d+/[^\s<>]*/tasks/[^\s<>]*\.output"), "{{output of a task}}"),
    (re.compile(r"(?<=<task-id>)[^<]+(?=</task-id>)|\ba[0-9a-f]{16}\b"), "{{agent}}"),
    (re.compile(r"(?<=<duration_ms>)\d+(?=</duration_ms>)"), "{{duration}}"),
)


def check_profile(name: str) -> Profile:
    """Raises InputError for an unknown profile."""
    for known in PROFILES:
        if name == known:
            return known
    raise InputError(f"unknown profile {name!r}: give auto, {' or '.join(PROFILES)}.")


def profile_of(exchanges: Iterable[Exchange]) -> Profile:
    """The profile for a recording, by who made it."""
    return "claude-code" if any(map(is_claude_code, (exchange.request for exchange in exchanges))) else "api"


def is_claude_code(request: Request) -> bool:
    """Whether Claude Code sent this."""
    return header(request.headers, "x-claude-code-session-id") is not None


def normalised(body: Any) -> Any:
    """A JSON body of Claude Code, with what changes from run to run replaced by names, and content in one form."""
    if not isinstance(body, dict):
        return body
    places: dict[str, str] = {}
    for text in _texts(body):
        if (match := _WORKING_DIRECTORY.search(text)) is not None:
            places |= {match[1]: "{{cwd}}", re.sub(r"[^A-Za-z0-9]", "-", match[1]): "{{project}}"}
        if (match := _MEMORY.search(text)) is not None:
            places |= {match[1]: "{{home}}", match[2]: "{{project}}"}
    # The longest first: the working directory may be in the home. One letter (`/`) names no place.
    names = [re.escape(place) for place in sorted(places, key=len, reverse=True) if len(place) > 1]
    pattern = re.compile(rf"(?:{'|'.join(names)})(?![\w-])") if names else None

    def rewritten(value: Any) -> Any:
        if isinstance(value, str):
            for stamp, name in _STAMPS:
                value = stamp.sub(name, value)
            return value if pattern is None else pattern.sub(lambda match: places[match[0]], value)
        if isinstance(value, list):
            return [rewritten(item) for item in value]
        if isinstance(value, dict):
            return {key: rewritten(_blocks(item) if key in ("content", "system") else item) for key, item in value.items()}
        return value

    return rewritten(body)


def _blocks(content: Any) -> Any:
    """Text stands for one block of text: which of the two is sent depends on where the cache mark is."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
