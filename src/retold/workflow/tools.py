"""The tools that a workflow may allow, by their Claude Code names, and the code that runs them.

The tool definitions of requests are here and not taken from the SDK, for two reasons: a mock run must build the same request
without importing the SDK, and a new SDK must not turn every cassette into a miss. A test compares their parameters with the
SDK's own toolset, which runs the tools in a live run, confined to the workspace. A mock run executes no tools: the results
come from the recording.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from ..recorder.errors import InputError, RunError

if TYPE_CHECKING:
    from anthropic.lib.tools.agent_toolset import BashSession

ToolName = Literal["Read", "Write", "Edit", "Bash", "Glob", "Grep"]

CHANGING: frozenset[str] = frozenset({"Write", "Edit", "Bash"})
"""Tools that may change something. `permission_mode: plan` removes them."""


def _definition(name: str, description: str, required: Sequence[str], **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return {"name": name, "description": description, "input_schema": schema}


def _text(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


_FILE = _text("Path of the file, relative to the working directory.")

DEFINITIONS: dict[str, dict[str, Any]] = {
    tool["name"]: tool
    for tool in (
        _definition(
            "Read",
            "Read a text file, image or PDF in the working directory.",
            ["file_path"],
            file_path=_FILE,
            view_range={
                "type": "array",
                "items": {"type": "integer"},
                "description": "[first line, last line], counted from 1; -1 as last line reads to the end.",
            },
        ),
        _definition(
            "Write",
            "Write a file in the working directory; folders are made as needed and an existing file is replaced.",
            ["file_path", "content"],
            file_path=_FILE,
            content=_text("The whole content of the file."),
        ),
        _definition(
            "Edit",
            "Replace a text in a file; it must occur exactly once unless replace_all is true.",
            ["file_path", "old_string", "new_string"],
            file_path=_FILE,
            old_string=_text("The text to replace."),
            new_string=_text("What to put in its place."),
            replace_all={"type": "boolean", "description": "Replace every occurrence."},
        ),
        _definition(
            "Bash",
            "Run a command in a bash shell that keeps its state between calls; it starts in the working directory.",
            [],
            command=_text("The command to run."),
            restart={"type": "boolean", "description": "Start a new shell instead of running a command."},
            timeout_ms={"type": "integer", "description": "Give up after this many milliseconds."},
        ),
        _definition(
            "Glob",
            "List the files that match a pattern such as **/*.py, newest first.",
            ["pattern"],
            pattern=_text("The pattern, relative to the path."),
            path=_text("Folder to search in; the working directory when left out."),
        ),
        _definition(
            "Grep",
            "Search the contents of files for a regular expression.",
            ["pattern"],
            pattern=_text("The regular expression."),
            path=_text("File or folder to search; the working directory when left out."),
        ),
    )
}


class TimedOut(RunError):
    """A conversation exceeded its time limit."""

    def __init__(self, timeout_ms: int) -> None:
        super().__init__(f"timed out after {timeout_ms} ms")


class Tools(Protocol):
    """Runs the tools of an answer and returns one `tool_result` block for each `tool_use` block."""

    async def run(self, use: dict[str, Any]) -> dict[str, Any]:
        """Return the `tool_result` block for a `tool_use` block."""


class LiveTools:
    """The SDK's own toolset in a folder, limited to the allowed tools. Leaving the async context ends the shell."""

    def __init__(self, workdir: Path, allowed: Iterable[str]) -> None:
        self._workdir = workdir
        self._allowed = frozenset(allowed)
        self._shell: BashSession | None = None
        self._group = 0
        self._tools = _toolset(workdir, self._allowed) if self._allowed else {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._end_shell()

    async def run(self, use: dict[str, Any]) -> dict[str, Any]:
        """Run one tool. A failure inside it is returned as a result, so that the model can react to it."""
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": use.get("id")}
        try:
            result["content"] = await self._call(str(use.get("name")), use.get("input") or {})
        except Exception as error:
            content = getattr(error, "content", None)
            result |= {"content": content if content is not None else f"{use.get('name')}: {error}", "is_error": True}
        return result

    async def _call(self, name: str, given: Any) -> Any:
        if name not in self._allowed:
            raise PermissionError(f"not allowed; allowed tools are {', '.join(sorted(self._allowed)) or 'none'}")
        if not isinstance(given, dict):
            raise ValueError("the input is not a JSON object")
        if name == "Bash":
            fields = DEFINITIONS[name]["input_schema"]["properties"]
            if unknown := sorted(given.keys() - fields.keys()):
                raise ValueError(f"unknown field {', '.join(unknown)}; there are {', '.join(fields)}")
            return await self._bash(**given)
        return await self._tools[name].call(given)

    async def _bash(self, command: str | None = None, restart: bool = False, timeout_ms: int | None = None) -> str:
        """Run a command in the toolset's session, because only a private function could end the shell of its tool."""
        if restart:
            await self._end_shell()
            return "bash session restarted"
        if not command:
            raise ValueError("command is required")
        if self._shell is None or self._shell.closed:
            await self._start_shell()
        assert self._shell is not None
        try:
            output, code = await self._shell.exec(command, **({"timeout": timeout_ms / 1000} if timeout_ms else {}))
        except BaseException:  # timed out or cancelled: the command's processes must not continue
            await self._end_shell()
            raise
        if code != 0:
            raise _Failed(output or f"exit code {code}")
        return output

    async def _start_shell(self) -> None:
        """Start the shell as the toolset does (without our credentials in its environment), but in a process group of its own."""
        import anyio
        from anthropic.lib.tools.agent_toolset import BashSession

        await self._end_shell()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
        process = await anyio.open_process(
            ["/bin/bash", "--noprofile", "--norc"],
            cwd=self._workdir,
            env=environment | {"PS1": "", "PS2": "", "TERM": "dumb"},
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._group, self._shell = process.pid, BashSession(process)

    async def _end_shell(self) -> None:
        """End the shell and all processes that it started, background jobs included."""
        if self._shell is not None:
            # First end the shell through asyncio: if another call killed it, asyncio would report a lost child.
            shell, self._shell = self._shell, None
            await shell.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)


def _toolset(workdir: Path, allowed: frozenset[str]) -> dict[str, Any]:
    """Return the allowed tools by name, without Bash. Raise InputError if the installed SDK has none."""
    import anthropic  # 1.1 s: only a live run with tools needs it here

    try:
        from anthropic.lib.tools import agent_toolset
    except ImportError as error:
        raise InputError(
            f"anthropic {anthropic.__version__} has no agent tools: live steps with allowed_tools need 0.103 or newer."
        ) from error
    context = agent_toolset.AgentToolContext(workdir=workdir)
    made = {
        "Read": agent_toolset.beta_read_tool,
        "Write": agent_toolset.beta_write_tool,
        "Edit": agent_toolset.beta_edit_tool,
        "Glob": agent_toolset.beta_glob_tool,
        "Grep": agent_toolset.beta_grep_tool,
    }
    return {name: made[name](context) for name in allowed & made.keys()}


class _Failed(Exception):
    """A command exited with an error. Its output is the result."""

    @property
    def content(self) -> str:
        return str(self)
