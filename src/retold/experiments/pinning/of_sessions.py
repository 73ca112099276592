"""The test of sessions of the Agent SDK: their options and prompts again, and the recorded answers of their callbacks."""

import shlex
from collections.abc import Iterator, Mapping
from textwrap import indent
from typing import Any, Literal

from ...recorder.agent_wire import END_INPUT, AgentSession, WireLine, is_prompt
from ...recorder.errors import InputError
from ...recorder.strict_json import object_or_empty
from ...recorder.words import one_line
from .draft import Draft, shown
from .expectations import expectations
from .literals import MARGIN, Code, assignment, call, literal, pattern
from .parts import Parts
from .session_callbacks import Callbacks
from .session_options import HERE, here, initial_options, options_of

_LINES = """\
async def lines(*messages):
    for message in messages:
        yield message"""

_CONTROLS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "interrupt": ("interrupt", ()),
    "set_permission_mode": ("set_permission_mode", ("mode",)),
    "set_model": ("set_model", ("model",)),
    "mcp_status": ("get_mcp_status", ()),
    "get_context_usage": ("get_context_usage", ()),
    "rewind_files": ("rewind_files", ("user_message_id",)),
    "mcp_reconnect": ("reconnect_mcp_server", ("serverName",)),
    "mcp_toggle": ("toggle_mcp_server", ("serverName", "enabled")),
    "stop_task": ("stop_task", ("task_id",)),
}
"""Requests of a program: the method of ClaudeSDKClient that sends each, and the fields that it takes."""


def sessions_parts(draft: Draft) -> Parts:
    """Return the parts of the test of sessions. Raise InputError for a session that the SDK cannot repeat."""
    sessions = draft.sessions
    names = [f"session_{number}" if len(sessions) > 1 else "session" for number in range(1, len(sessions) + 1)]
    functions = [_function(name, session, number) for number, (name, session) in enumerate(zip(names, sessions, strict=True), 1)]
    is_moved = any("here(" in each for each in functions)
    imports = {"import asyncio", "import claude_agent_sdk", *(["import os"] if is_moved else [])}
    body = [_expecting(session, f"asyncio.run({name}())") for name, session in zip(names, sessions, strict=True)]
    return Parts(
        f"The session of {one_line(draft.run.name)}, again through the Agent SDK",
        "Claude Code does not run: its lines come from the cassette. If the program sends another line, an error names the "
        "difference. Put a call of your own code in the place of the sessions, and edit this file as you like. This command "
        "records the cassette again:",
        f"pytest {shlex.quote(shown(draft.test))} --retold-mode=rewrite",
        frozenset(imports),
        (*([HERE] if is_moved else []), *([_LINES] if any("lines(" in each for each in functions) else []), *functions),
        tuple(body),
        (*expectations(draft.trajectory, "retold_cassette"), "assert retold_cassette.all_played"),
        ("retold_cassette",),
        marked=True,
    )


def _expecting(session: AgentSession, statement: str) -> str:
    if session.ending != "failed":
        return statement
    error = object_or_empty(session.error)
    message = str(error.get("message", "")).split("\n")[0][:60]
    if error.get("exit_code") is not None:  # the SDK may put the text of the last result before it
        message = f"exit code: {error['exit_code']}"
    return f"with pytest.raises(Exception, match={pattern(message)}):\n{MARGIN}{statement}"


def _function(name: str, session: AgentSession, number: int) -> str:
    """Return the source of the function that runs a session."""
    first = next((line.data for line in session.lines if line.is_sent), {})
    request = object_or_empty(first.get("request"))
    callbacks = Callbacks(session, request)
    options = here({**options_of(session, number), **initial_options(request)})
    options |= callbacks.options(options.pop("mcp_servers", None))
    if any("client_composed" in line.data for line in session.lines if line.is_sent):
        options["verbatim_prompts"] = True
    statements = [assignment("options", call("claude_agent_sdk.ClaudeAgentOptions", options, before=14))]
    functions = list(callbacks.functions)
    match _form(session):
        case "text":
            prompt = next(_content(line.data) for line in session.lines if is_prompt(line))
            statements += _query(session, here(prompt))
        case "none":  # the session could not begin
            statements += _query(session, "")
        case "stream":
            functions.append(_prompts(session))
            statements += _query(session, Code("prompts()"))
        case "client":
            statements.append("async with claude_agent_sdk.ClaudeSDKClient(options) as client:")
            statements += [indent(each, MARGIN) for each in _client(session, number)]
    body = "\n\n".join([*functions, "\n".join(statements)])
    return f"async def {name}():\n{indent(body, MARGIN)}"


def _form(session: AgentSession) -> Literal["none", "text", "stream", "client"]:
    """Return the form of a session: `query` with one text or with a stream of prompts, or a client."""
    prompts = [line.data for line in session.lines if is_prompt(line)]
    controls = [line for line in session.lines if line.is_sent and _control(line) not in (None, "initialize")]
    if not prompts:
        return "none"
    if len(prompts) == 1 and prompts[0].get("session_id") == "" and isinstance(_content(prompts[0]), str):
        return "text"
    if not controls and any(line.data == END_INPUT for line in session.lines):
        return "stream"
    return "client"


def _prompts(session: AgentSession) -> str:
    yielded = [f"yield {literal(here(_plain(line.data)), before=14)}" for line in session.lines if is_prompt(line)]
    return "\n".join(["async def prompts():", *(indent(each, MARGIN) for each in yielded)])


def _content(line: Mapping[str, Any]) -> Any:
    return object_or_empty(line.get("message")).get("content")


def _control(line: WireLine) -> str | None:
    return str(object_or_empty(line.data.get("request")).get("subtype")) if line.data.get("type") == "control_request" else None


def _query(session: AgentSession, prompt: Any) -> list[str]:
    source = call("claude_agent_sdk.query", {"prompt": prompt, "options": Code("options")}, before=len("async for message in :"))
    if session.ending != "closed":
        return [f"async for _ in {source}:\n{MARGIN}pass"]
    results = sum(line.data.get("type") == "result" for line in session.lines if not line.is_sent)
    answers = sum(line.data.get("type") == "assistant" for line in session.lines if not line.is_sent)
    kind, count = ("ResultMessage", results) if results else ("AssistantMessage", answers)
    return [
        "seen = 0", f"async for message in {source}:",
        f"{MARGIN}seen += isinstance(message, claude_agent_sdk.{kind})",
        f"{MARGIN}if seen == {count}:  # the recorded program stopped reading here", f"{MARGIN * 2}break",
    ]  # fmt: skip


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a prompt without the field that an option of the SDK adds."""
    return {key: value for key, value in line.items() if key != "client_composed"}


def _client(session: AgentSession, number: int) -> Iterator[str]:
    """Yield the statements of a client: prompts and requests in recorded order, and the answers between them."""
    reading = f"async for _ in client.receive_response():\n{MARGIN}pass"
    owed = False
    for line in session.lines:
        if not line.is_sent:
            if owed and line.data.get("type") == "result":
                owed = False
                yield reading
        elif is_prompt(line):
            owed = True
            yield _prompted(line.data)
        elif (subtype := _control(line)) not in (None, "initialize"):
            if subtype not in _CONTROLS:
                raise InputError(f"session {number} sent the request {subtype}, which a test cannot repeat; it cannot be pinned.")
            method, names = _CONTROLS[subtype]
            request = line.data["request"]
            yield f"await client.{method}({', '.join(literal(here(request.get(name))) for name in names)})"
    if owed:
        yield reading


def _prompted(line: Mapping[str, Any]) -> str:
    content, id_ = _content(line), line.get("session_id", "default")
    further = {} if id_ == "default" else {"session_id": id_}
    if isinstance(content, str):
        return f"await {call('client.query', further, here(content), before=14)}"
    said = literal(here(_plain(line)), before=30)
    return f"await client.query(lines({said}))"
