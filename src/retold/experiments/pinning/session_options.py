"""The options of a session of the Agent SDK, from the command line that the SDK made of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...recorder.agent_wire import AgentSession
from ...recorder.cassette.sessions import CWD, HOME
from ...recorder.errors import InputError
from ...recorder.strict_json import object_in, object_or_empty
from .literals import Code, call, literal

_ALWAYS = frozenset({"output-format", "verbose", "input-format"})
"""Options that the SDK passes in every session."""

PRESET = {"type": "preset", "preset": "claude_code"}


def _listed(value: str) -> list[str]:
    return [each for each in value.split(",") if each]


def _tools(value: str) -> Any:
    return PRESET if value == "default" else _listed(value)


def _schema(value: str) -> dict[str, Any]:
    return {"type": "json_schema", "schema": json.loads(value)}


_VALUES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "tools": ("tools", _tools),
    "allowedTools": ("allowed_tools", _listed),
    "disallowedTools": ("disallowed_tools", _listed),
    "max-turns": ("max_turns", int),
    "max-budget-usd": ("max_budget_usd", float),
    "max-thinking-tokens": ("max_thinking_tokens", int),
    "task-budget": ("task_budget", lambda value: {"total": int(value)}),
    "model": ("model", str),
    "fallback-model": ("fallback_model", str),
    "betas": ("betas", _listed),
    "permission-mode": ("permission_mode", str),
    "resume": ("resume", str),
    "session-id": ("session_id", str),
    "resume-session-at": ("resume_session_at", str),
    "resume-drops-turn": ("resume_drops_turn", str),
    "settings": ("settings", str),
    "setting-sources": ("setting_sources", _listed),
    "effort": ("effort", str),
    "json-schema": ("output_format", _schema),
}
"""Options with a value: the name in ClaudeAgentOptions, and the conversion."""

_SWITCHES: Mapping[str, str] = {
    "continue": "continue_conversation",
    "include-partial-messages": "include_partial_messages",
    "include-hook-events": "include_hook_events",
    "strict-mcp-config": "strict_mcp_config",
    "fork-session": "fork_session",
}


def options_of(session: AgentSession, number: int) -> dict[str, Any]:
    """Return the arguments of ClaudeAgentOptions, without callbacks. Raise InputError if an option cannot be written.

    The servers of SDK MCP tools are left out of `mcp_servers`: `sdk_servers_of` returns them.
    """
    if session.argv is None:
        raise InputError(f"session {number} used a transport of its own, so its options are unknown; it cannot be pinned.")
    found: dict[str, Any] = {}
    further: dict[str, Any] = {}
    for name, value in _pairs(session.argv):
        if name in _ALWAYS:
            continue
        if name == "session-mirror":
            raise InputError(f"session {number} used a session store, which the test cannot make again; it cannot be pinned.")
        if name in _SWITCHES and value is None:
            found[_SWITCHES[name]] = True
        elif name in _VALUES and value is not None:
            key, convert = _VALUES[name]
            found[key] = convert(value)
        elif not _several(found, name, value or ""):
            further[name] = value
    if "system_prompt" not in found:
        found["system_prompt"] = PRESET
    elif found["system_prompt"] == "":
        del found["system_prompt"]
    return found | ({"extra_args": further} if further else {})


def _several(found: dict[str, Any], name: str, value: str) -> bool:
    """Add an option that has a form of its own. Return False for an unknown one."""
    match name:
        case "system-prompt":
            found["system_prompt"] = value
        case "system-prompt-file":
            found["system_prompt"] = {"type": "file", "path": value}
        case "append-system-prompt":
            found["system_prompt"] = {**PRESET, "append": value}
        case "permission-prompt-tool":
            found |= {} if value == "stdio" else {"permission_prompt_tool_name": value}  # stdio: there is a callback
        case "add-dir":
            found.setdefault("add_dirs", []).append(value)
        case "plugin-dir":
            found.setdefault("plugins", []).append({"type": "local", "path": value})
        case "thinking":
            found["thinking"] = {"type": value}
        case "thinking-display":
            found["thinking"] = {**_thinking(found), "display": value}
        case "mcp-config":
            servers = object_or_empty(object_in(value).get("mcpServers"))
            found["mcp_servers"] = {key: each for key, each in servers.items() if each.get("type") != "sdk"} if servers else value
        case _:
            return False
    return True


def _thinking(found: dict[str, Any]) -> dict[str, Any]:
    """Return the setting of thinking so far; a budget of tokens is a part of it if it has a display."""
    if "max_thinking_tokens" in found:
        return {"type": "enabled", "budget_tokens": found.pop("max_thinking_tokens")}
    return dict(found.get("thinking", {"type": "adaptive"}))


def _pairs(argv: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the name of each option, without dashes, with its value; None for one without a value."""
    found: list[tuple[str, str | None]] = []
    for word in argv:
        if word.startswith("--") and not (found and found[-1][1] is None and found[-1][0] == "system-prompt"):
            name, is_joined, value = word.removeprefix("--").partition("=")
            found.append((name, value if is_joined else None))
        elif found and found[-1][1] is None:
            found[-1] = (found[-1][0], word)
        elif found:
            found.append((found[-1][0], word))
    return found


def sdk_servers_of(session: AgentSession) -> list[str]:
    """Return the names of the servers of SDK MCP tools."""
    for name, value in _pairs(session.argv or ()):
        if name == "mcp-config":
            servers = object_or_empty(object_in(value or "").get("mcpServers"))
            return [key for key, each in servers.items() if object_or_empty(each).get("type") == "sdk"]
    return []


def has_permission_callback(session: AgentSession) -> bool:
    """Return whether the program decided about permissions itself."""
    return ("permission-prompt-tool", "stdio") in _pairs(session.argv or ())


def initial_options(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the SDK sends in its first request, without hooks."""
    found: dict[str, Any] = {}
    agents = object_or_empty(request.get("agents"))
    if agents:
        found["agents"] = {name: Code(_agent(each)) for name, each in agents.items()}
    if isinstance(request.get("skills"), list):
        found["skills"] = request["skills"]
    if request.get("forwardSubagentText"):
        found["forward_subagent_text"] = True
    return found


HERE = f'''\
def here(text):
    """Return a text with the folders of this machine; the cassette has neutral ones in their places."""
    return text.replace("{CWD}", os.getcwd()).replace("{HOME}", os.path.expanduser("~"))'''
"""A function of the test."""


def here(value: Any) -> Any:
    """Return a value in which each text with neutral folders is a call of that function."""
    if isinstance(value, str) and not isinstance(value, Code) and (CWD in value or HOME in value):
        return Code(f"here({literal(value)})")
    if isinstance(value, dict):
        return {key: here(item) for key, item in value.items()}
    return [here(item) for item in value] if isinstance(value, list) else value


def _agent(definition: Mapping[str, Any]) -> str:
    return call("claude_agent_sdk.AgentDefinition", here(dict(definition)))
