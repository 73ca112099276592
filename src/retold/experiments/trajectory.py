"""The trajectory of a recording: its turns, tool calls, texts, tokens, cost and endings, for assertions about them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ..comparing.sources import Source, read_side
from ..comparing.varying import PLAIN
from ..recorder.errors import InputError
from ..recorder.log.log import EventLog
from ..recorder.words import nearest, plural, sentence
from .expectation import expectation_of
from .facts import Facts, ToolCall
from .gathering import facts_of
from .verdict import Verdict


class ExpectedTool(TypedDict, total=False):
    """An expected tool call, as `Trajectory.expect` and the files of `retold check` describe it. Only `name` is required.

    name           the name of the tool; `*` matches any text, as in `mcp__*`
    input          values that the input has at least; with `exact`, the whole input
    exact          True if the input may have no other values
    input_matches  regular expressions by path, such as `{"file_path": "^src/"}`
    times          the exact number of such calls
    at_least       the smallest number of such calls
    at_most        the largest number of such calls
    """

    name: str
    input: Mapping[str, Any]
    exact: bool
    input_matches: Mapping[str, str]
    times: int
    at_least: int
    at_most: int


class Trajectory:
    """The turns, tool calls, texts and endings of a recording, in the order of its conversations.

    `retold.trajectory` returns one.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def __repr__(self) -> str:
        ended = ", ".join(self.ended) or "?"
        return f"<Trajectory {self.title}: {plural(self.turns, 'turn')}, {plural(len(self.calls), 'tool call')}, ended {ended}>"

    @property
    def title(self) -> str:
        """The name of the recording."""
        return self._facts.title

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls that the model finished, each with `name`, `input`, `turn`, `result` and `is_error`."""
        return self._facts.calls

    @property
    def turns(self) -> int:
        """The number of answers of the model."""
        return self._facts.turns

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each answer that has one."""
        return self._facts.texts

    @property
    def text(self) -> str:
        """The text of the last answer that has one; an empty text if none has."""
        return self.texts[-1] if self.texts else ""

    @property
    def ended(self) -> tuple[str, ...]:
        """The words for the end.

        They are of the run (`completed`, `failed`), of the last answer of each conversation (`end_turn`, `max_tokens`, `cut`,
        `overloaded_error` …), and of the result of a session (`success`, `error_max_turns` …).
        """
        return self._facts.ended

    @property
    def tokens(self) -> int | None:
        """All tokens, input, cache and output; None if the recording has no usage."""
        return self._facts.tokens

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars; None if a price or a usage is unknown."""
        return self._facts.cost_usd

    def step(self, name: str) -> "Trajectory":
        """Return the part of one step of a workflow. Its tokens and cost are unknown. Raise InputError if there is none."""
        steps = self._facts.steps
        if name not in steps:
            known = nearest(name, list(steps)) if steps else ", which has no steps"
            raise InputError(sentence(f"no step {name!r} in {self.title}{known}"))
        return Trajectory(steps[name])

    def expect(
        self, *, tools: Sequence[str | ExpectedTool] | None = None, in_order: bool = False, no_others: bool = False,
        never: Sequence[str | ExpectedTool] | None = None, max_turns: int | None = None, max_tokens: int | None = None,
        max_cost_usd: float | None = None, text_contains: str | Sequence[str] | None = None,
        text_matches: str | Sequence[str] | None = None, ended: str | Sequence[str] | None = None,
    ) -> "Trajectory":  # fmt: skip
        """Raise AssertionError unless everything holds; return this trajectory. The failure shows the run as a table.

            retold.trajectory(result).expect(
                tools=["Read", {"name": "Edit", "input": {"path": "a.py"}}],
                in_order=True,
                never=["Bash"],
                max_turns=4,
            )

        tools          tool calls, each by its name or as an `ExpectedTool`; each entry needs calls of its own
        in_order       the tools are called in this order; other calls may come between them
        no_others      no call is left over
        never          tool calls that must not occur
        max_turns      the largest number of answers of the model
        max_tokens     the largest number of tokens, input, cache and output; unknown tokens fail
        max_cost_usd   the largest cost; an unknown cost fails
        text_contains  texts, each of which one answer contains
        text_matches   regular expressions, each of which is found in one answer
        ended          the word for the end of the run or of every conversation, or several words of which one fits

        Raise InputError for an expectation that nothing can meet, such as an empty one.
        """
        __tracebackhide__ = True  # pytest ends its traceback at the caller's line
        given = {
            "tools": tools, "in_order": in_order, "no_others": no_others, "never": never, "max_turns": max_turns,
            "max_tokens": max_tokens, "max_cost_usd": max_cost_usd, "text_contains": text_contains,
            "text_matches": text_matches, "ended": ended,
        }  # fmt: skip
        wanted = expectation_of({name: value for name, value in given.items() if value is not None})
        verdict = Verdict.on(self._facts, wanted)
        if not verdict.ok:
            raise AssertionError(verdict.as_text())
        return self


def trajectory(source: Source, *, log: EventLog | str | os.PathLike[str] | None = None) -> Trajectory:
    """Return the trajectory of a recording, to assert what its model did.

    `source` is a run of the log, a cassette, a result of `run_workflow`, `retold_cassette`, or anything else that `compare`
    accepts. Of a cassette in use it has the exchanges that the block has played or recorded so far. Tool inputs and texts are as
    the model wrote them. Raise InputError if the source cannot be read.
    """
    return Trajectory(facts_of(read_side(source, log, manner=PLAIN)))
