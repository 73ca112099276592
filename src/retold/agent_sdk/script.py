"""The script of a recorded session: which line that the program writes now is which recorded line, without I/O.

Ids that the SDK makes up do not count. An answer belongs to the question of Claude Code that it answers, and questions are
counted, because the ids of two sessions differ. Messages of the user come in the recorded order, other lines in any order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..recorder import strict_json
from ..recorder.agent_wire import END_INPUT, AgentSession, options_of
from ..recorder.strict_json import object_or_empty
from ..replay.matching.differences import differences
from ..replay.matching.redacted import agree
from ..replay.matching.rules import DEFAULT_RULES, Rules

_MADE_UP = ("uuid", "timestamp", "request_id")

_ANSWERS = "control_response"

PATH_OF_ANSWER = "response."


def is_question(line: Mapping[str, Any]) -> bool:
    """Return whether a received line is a question of Claude Code to the program: a callback, a hook, a tool of an MCP server."""
    return line.get("type") == "control_request"


def meaning(line: Mapping[str, Any], questions: Mapping[str, int]) -> dict[str, Any]:
    """Return the part of a written line that counts. `questions` maps the ids of questions to their numbers."""
    if line.get("type") == _ANSWERS:
        answer = object_or_empty(line.get("response"))
        number = questions.get(str(answer.get("request_id")), -1)
        return {"type": _ANSWERS, "question": number, "response": {k: v for k, v in answer.items() if k != "request_id"}}
    return {key: value for key, value in line.items() if key not in _MADE_UP}


class Script:
    """A recorded session that is being played. `ids` maps recorded ids of the program's requests to those of this run.

    `rules` name the parts of the program's lines that do not count.
    """

    def __init__(self, session: AgentSession, rules: Rules = DEFAULT_RULES) -> None:
        self.session = session
        self.lines = session.lines
        self.ids: dict[str, str] = {}
        self._asked: list[dict[str, Any]] = []
        numbers: dict[str, int] = {}
        self._open: dict[int, dict[str, Any]] = {}
        for at, line in enumerate(session.lines):
            if line.is_sent:
                self._open[at] = rules.counting(meaning(line.data, numbers))
            elif is_question(line.data):
                numbers[str(line.data.get("request_id"))] = len(self._asked)
                self._asked.append(line.data)

    def __repr__(self) -> str:
        return f"<Script {len(self.lines)} lines, {len(self._open)} awaited>"

    def is_heard(self, at: int) -> bool:
        """Return whether the program has written the recorded line."""
        return at not in self._open

    def hear(self, said: dict[str, Any], id_: object = None) -> bool:
        """Take a line of the program by its meaning; `id_` is its request id. Return False if it is not in the recording.

        An answer that the recorded program did not give, because it closed the session before, is in every recording.
        """
        candidates = self._candidates(said)
        for at in candidates:
            if agree(self._open[at], said):
                del self._open[at]
                if said.get("type") == "control_request":
                    self.ids[str(self.lines[at].data.get("request_id"))] = str(id_)
                return True
        return not candidates and (said == END_INPUT or said.get("type") == _ANSWERS)

    def delivered(self, at: int) -> dict[str, Any]:
        """Return a received line as this run gets it: an answer to a request of the program has the id of this run."""
        data = self.lines[at].data
        answer = object_or_empty(data.get("response"))
        if data.get("type") == _ANSWERS and answer.get("request_id") in self.ids:
            return data | {"response": answer | {"request_id": self.ids[answer["request_id"]]}}
        return data

    def why_not(self, said: dict[str, Any]) -> tuple[int, str]:
        """Return how far a line is from the recorded one, as a number of differences, and the differences as a text."""
        if not (candidates := self._candidates(said)):
            return 1_000, f"the recording has no further line of this kind: {_short(said)}"
        found = min(((len(d := differences(self._open[at], said)), at, d) for at in candidates), key=lambda each: each[:2])
        _, at, different = found
        shown = "\n".join(f"  {line.replace(PATH_OF_ANSWER, '', 1)}" for line in different[:3])
        return len(different), f"line {at + 1}, {self._name(said)}:\n{shown}"

    def name_of(self, at: int) -> str:
        """Return the name of an awaited line, for messages."""
        return f"line {at + 1}, {self._name(self._open[at])}"

    def _candidates(self, said: Mapping[str, Any]) -> list[int]:
        """Return the awaited lines of the same kind: of the user's messages only the next one."""
        kind = _kind(said)
        found = [at for at, line in self._open.items() if _kind(line) == kind]
        return found[:1] if said.get("type") == "user" else found

    def _name(self, said: Mapping[str, Any]) -> str:
        if said.get("type") != _ANSWERS:
            subtype = object_or_empty(said.get("request")).get("subtype")
            return {"user": "the message of the user", "end_input": "the end of the input"}.get(
                str(said.get("type")), f"the request {subtype}"
            )
        number = int(said["question"])
        question = object_or_empty(self._asked[number].get("request")) if 0 <= number < len(self._asked) else {}
        return f"the answer to {question_name(question)}"


def question_name(question: Mapping[str, Any]) -> str:
    """Return the name of a question of Claude Code: `can_use_tool Write`, `the hook PreToolUse`, `the tool add of calc`."""
    subtype = str(question.get("subtype", "a question"))
    if subtype == "hook_callback":
        return f"the hook {object_or_empty(question.get('input')).get('hook_event_name', question.get('callback_id'))}"
    if subtype == "mcp_message":
        message = object_or_empty(question.get("message"))
        tool = object_or_empty(message.get("params")).get("name")
        server = question.get("server_name")
        return f"the tool {tool} of {server}" if message.get("method") == "tools/call" else f"{message.get('method')} of {server}"
    return f"{subtype} {question.get('tool_name', '')}".strip()


def _kind(said: Mapping[str, Any]) -> tuple[Any, ...]:
    request = object_or_empty(said.get("request"))
    return said.get("type"), request.get("subtype"), said.get("question")


def _short(value: Any) -> str:
    return strict_json.dumps(value)[:200]


# The options of a session


def argv_differences(
    recorded: AgentSession, argv: Sequence[str] | None, sdk: str, rules: Rules = DEFAULT_RULES
) -> list[str]:  # fmt: skip
    """Return the options that differ. Options that only one of two versions of the SDK passes do not count."""
    if recorded.argv is None or argv is None:
        return [] if (recorded.argv is None) == (argv is None) else ["the transport: recorded with another kind of transport"]
    old, new = rules.counting(options_of(recorded.argv)), rules.counting(options_of(argv))
    if recorded.sdk != sdk:
        shared = old.keys() & new.keys()
        old, new = ({name: value for name, value in each.items() if name in shared} for each in (old, new))
    return differences(old, new)
