"""Profiles: named rules for the parts of a request that change from run to run of one program although it asks the same.

`api` changes nothing: a request counts as the client sent it. `claude-code` normalises Claude Code's own prompts (measured with
2.1.330): its working directory, home, git status, date and version stamp, the ids of its agents, and the paths of their output.
"""

import re
from collections.abc import Iterable
from typing import Any, Literal, get_args

from ...recorder.errors import InputError
from ...recorder.folders import Folders
from ...recorder.http.exchange import Exchange, Request, header

Profile = Literal["api", "claude-code"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

SESSION_HEADERS = ("X-Claude-Code-Session-Id", "x-claude-code-session-id")
"""The header of Claude Code's requests, in the spellings that it is recorded in."""

_WORKING_DIRECTORY = re.compile(r"Primary working directory: (/[^\n]+)")
_MEMORY = re.compile(r"`(/[^`\n]*)/\.claude/projects/([^/`\n]+)/memory/?`")

_RAW_CWD = re.compile(rb'Primary working directory: (/[^\\"]+)')
_RAW_MEMORY = re.compile(rb'`(/[^`\\"]*)/\.claude/projects/[^/`]+/memory/?`')
"""The same in the JSON of a request."""

_AGENT = re.compile(r"agentId: (a[0-9a-f]{8,32})\b|<task-id>([\w-]{6,64})</task-id>")

# A literal to search first (a request may hold megabytes of files), the pattern that begins with it, and its replacement.
_STAMPS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("Primary working directory: ", re.compile(r"(Primary working directory: )[^\n]+"), r"\1{{cwd}}"),
    (" - OS Version: ", re.compile(r"( - (?:Platform|Shell|OS Version): )[^\n]+"), r"\1{{machine}}"),
    ("s date is ", re.compile(r"(Today.s date is )\d{4}-\d\d-\d\d"), r"\1{{date}}"),
    ("cc_version=", re.compile(r"(cc_version=\d+\.\d+\.\d+)\.\w+"), r"\1"),
    ("<duration_ms>", re.compile(r"(<duration_ms>)\d+(?=</duration_ms>)"), r"\1{{duration}}"),
)
_OUTPUT = re.compile(r"/claude-\d+/[^\s<>]{1,400}/tasks/[^\s<>/]{1,100}\.output")
_GIT_STATUS, _COMMITS = "This is the git status at the start", "Recent commits:\n"
_LINES = re.compile(r"(?:[^\n]++\n)*+")
_BEFORE_A_PATH = frozenset(" \t\n<>\"'`(")


def check_profile(name: str) -> Profile:
    """Return the profile of that name. Raise InputError if there is none."""
    for known in PROFILES:
        if name == known:
            return known
    raise InputError(f"unknown profile {name!r}: give auto, {' or '.join(PROFILES)}.")


def profile_of(exchanges: Iterable[Exchange]) -> Profile:
    """Return the profile for a recording, by the program that made it."""
    return "claude-code" if any(map(is_claude_code, (exchange.request for exchange in exchanges))) else "api"


def is_claude_code(request: Request) -> bool:
    """Return True if Claude Code sent the request."""
    return header(request.headers, SESSION_HEADERS[1]) is not None


def folders_in(body: bytes) -> Folders:
    """Return the folders that the prompt of Claude Code names, as far as it does."""
    cwd, memory = _RAW_CWD.search(body), _RAW_MEMORY.search(body)
    return Folders(*("" if found is None else found[1].decode("utf-8", "replace") for found in (cwd, memory)))


def normalised(body: Any) -> Any:
    """Return a JSON body of Claude Code with its changing parts replaced by names, and content in one form."""
    if not isinstance(body, dict):
        return body
    places: dict[str, str] = {}
    for text in texts_in(body):
        if "Primary working directory: " in text and (match := _WORKING_DIRECTORY.search(text)) is not None:
            places |= {match[1]: "{{cwd}}", re.sub(r"[^A-Za-z0-9]", "-", match[1]): "{{project}}"}
        if "/.claude/projects/" in text and (match := _MEMORY.search(text)) is not None:
            places |= {match[1]: "{{home}}", match[2]: "{{project}}"}
        if "agentId: " in text or "<task-id>" in text:
            places |= {match[1] or match[2]: "{{agent}}" for match in _AGENT.finditer(text)}
    # The longest first, because the working directory may be inside the home. A path of one letter (`/`) is too common.
    names = [place for place in sorted(places, key=len, reverse=True) if len(place) > 1]
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, names))})(?![\w-])") if names else None

    def rewritten(value: Any) -> Any:
        if isinstance(value, str):
            value = _without_git_status(_without_outputs(value))
            for beginning, stamp, name in _STAMPS:
                if beginning in value:
                    value = stamp.sub(name, value)
            if pattern is not None and any(name in value for name in names):
                value = pattern.sub(lambda match: places[match[0]], value)
            return value
        if isinstance(value, list):
            return [rewritten(item) for item in value]
        if isinstance(value, dict):
            return {key: rewritten(_blocks(item) if key in ("content", "system") else item) for key, item in value.items()}
        return value

    return rewritten(body)


def _without_outputs(text: str) -> str:
    """Return a text without the paths of files that hold the output of Claude Code's tasks, in any temporary folder."""
    parts, end = [], 0
    for match in _OUTPUT.finditer(text):
        start = match.start()
        while start > end and text[start - 1] not in _BEFORE_A_PATH:
            start -= 1
        parts += [text[end:start], "{{output of a task}}"]
        end = match.end()
    return "".join([*parts, text[end:]]) if parts else text


def _without_git_status(text: str) -> str:
    """Return a text without its git reports, up to the last commit of each. A report without a list of commits is kept."""
    parts, end = [], 0
    while (start := text.find(_GIT_STATUS, end)) >= 0 and (commits := text.find(_COMMITS, start)) >= 0:
        parts += [text[end:start], _GIT_STATUS, "{{git}}"]
        lines = _LINES.match(text, commits + len(_COMMITS))
        end = commits + len(_COMMITS) if lines is None else lines.end()
    return "".join([*parts, text[end:]]) if parts else text


def _blocks(content: Any) -> Any:
    """Return content as a list of blocks. Claude Code sends a string or one block of text, depending on its cache marks."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def texts_in(value: Any) -> Iterable[str]:
    """Yield the texts in a JSON value, without the keys of objects, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)
