"""The callbacks of a recorded session: permissions, hooks and SDK MCP tools that give their recorded answers again."""

import re
from collections.abc import Mapping
from textwrap import indent
from typing import Any

from ...recorder.agent_wire import AgentSession
from ...recorder.strict_json import object_or_empty
from .literals import MARGIN, Code, call, literal
from .session_options import has_permission_callback, here, sdk_servers_of

_ALLOW = "claude_agent_sdk.PermissionResultAllow"
_DENY = "claude_agent_sdk.PermissionResultDeny"


class Callbacks:
    """The source of the callbacks of a session. `functions` stand before the options, in the session's function."""

    def __init__(self, session: AgentSession, first: Mapping[str, Any]) -> None:
        self.functions: list[str] = []
        self._questions = _questions(session)
        self._hooks = object_or_empty(first.get("hooks"))
        self._permits = has_permission_callback(session)
        self._servers = sdk_servers_of(session)

    def options(self, servers: Any) -> dict[str, Any]:
        """Return the options that name the callbacks. `servers` are the other MCP servers of the session."""
        found: dict[str, Any] = {}
        if self._permits:
            found["can_use_tool"] = self._permission()
        if self._hooks:
            found["hooks"] = {event: [self._matcher(each) for each in matchers] for event, matchers in self._hooks.items()}
        if self._servers:
            own = {name: self._server(name) for name in self._servers}
            found["mcp_servers"] = {**(servers if isinstance(servers, dict) else {}), **own}
        elif servers:
            found["mcp_servers"] = servers
        return found

    def _permission(self) -> Code:
        asked = [(question, answer) for question, answer in self._questions if question.get("subtype") == "can_use_tool"]
        decisions = [Code(_decision(question, answer)) for question, answer in asked]
        self._answering("can_use_tool", "name, given, context", decisions, Code(f"{_ALLOW}()"))
        return Code("can_use_tool")

    def _matcher(self, matcher: Mapping[str, Any]) -> Code:
        hooks = [Code(self._hook(str(name))) for name in matcher.get("hookCallbackIds") or ()]
        options = {"matcher": matcher.get("matcher"), "hooks": hooks}
        options |= {"timeout": matcher["timeout"]} if "timeout" in matcher else {}
        options |= {"on_failure": matcher["onFailure"]} if "onFailure" in matcher else {}
        return Code(call("claude_agent_sdk.HookMatcher", options, before=30))

    def _hook(self, name: str) -> str:
        asked = [answer for question, answer in self._questions if question.get("callback_id") == name]
        self._answering(name, "given, tool_use_id, context", asked, {})
        return name

    def _answering(self, name: str, parameters: str, answers: list[Any], otherwise: Any) -> None:
        """Add a function that gives recorded answers, in the order of the questions."""
        answers = here(answers)
        different = list(dict.fromkeys(map(literal, answers)))
        if len(different) > 1:
            listed = literal([Code(each) for each in map(literal, answers)], before=len(name) + 14)
            self.functions.append(f"{name}_answers = iter({listed})")
            answer = f"next({name}_answers)"
        else:
            answer = different[0] if different else literal(otherwise)
        self.functions.append(f"async def {name}({parameters}):\n{indent(f'return {answer}', MARGIN)}")

    def _server(self, name: str) -> Code:
        """Add the tools of a server, which give their recorded results."""
        tools: list[Code] = []
        version = ""
        for question, answer in self._questions:
            message = object_or_empty(question.get("message"))
            if question.get("server_name") != name:
                continue
            result = object_or_empty(object_or_empty(answer.get("mcp_response")).get("result"))
            if message.get("method") == "initialize":
                version = str(object_or_empty(result.get("serverInfo")).get("version") or "")
            elif message.get("method") == "tools/list" and not tools:
                tools = [Code(self._tool(name, each)) for each in result.get("tools") or ()]
        options = {"version": version} if version not in ("", "1.0.0") else {}
        return Code(call("claude_agent_sdk.create_sdk_mcp_server", options | {"tools": tools}, name, before=30))

    def _tool(self, server: str, tool: Mapping[str, Any]) -> str:
        name = str(tool.get("name", ""))
        function = re.sub(r"\W", "_", name, flags=re.ASCII)
        answers = []
        for question, answer in self._questions:
            message = object_or_empty(question.get("message"))
            is_call = message.get("method") == "tools/call" and object_or_empty(message.get("params")).get("name") == name
            if is_call and question.get("server_name") == server:
                result = object_or_empty(object_or_empty(answer.get("mcp_response")).get("result"))
                answers.append(_result(result))
        self._answering(function, "given", answers, {"content": []})
        described = [name, str(tool.get("description", "")), tool.get("inputSchema") or {}]
        self.functions[-1] = f"@{call('claude_agent_sdk.tool', {}, *described, before=5)}\n{self.functions[-1]}"
        return function


def _questions(session: AgentSession) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the questions of Claude Code to the program, each with the recorded answer."""
    answers: dict[Any, dict[str, Any]] = {}
    for line in session.lines:
        if line.is_sent and line.data.get("type") == "control_response":
            response = object_or_empty(line.data.get("response"))
            answers[response.get("request_id")] = object_or_empty(response.get("response"))
    asked = [line.data for line in session.lines if not line.is_sent and line.data.get("type") == "control_request"]
    answered = [each for each in asked if each.get("request_id") in answers]
    return [(object_or_empty(each.get("request")), answers[each.get("request_id")]) for each in answered]


def _decision(question: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    if answer.get("behavior") != "allow":
        options = {"message": str(answer.get("message", ""))} | ({"interrupt": True} if answer.get("interrupt") else {})
        return call(_DENY, here(options))
    changed = answer.get("updatedInput") != question.get("input")
    return call(_ALLOW, {"updated_input": here(answer.get("updatedInput"))} if changed else {})


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": result.get("content", [])} | ({"is_error": True} if result.get("isError") else {})
