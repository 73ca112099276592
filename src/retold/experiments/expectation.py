"""Read an expectation about a trajectory: a mapping of a YAML file, or the arguments of `Trajectory.expect`.

Both have the same keys and the same rules. A value that nothing could meet, an unknown key and a pattern that is no regular
expression are errors.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..recorder import strict_json
from ..recorder.errors import InputError
from ..recorder.words import nearest, sentence

Path = tuple[str | int, ...]
"""A place in an expectation, such as `("tools", 1, "input")`."""

BUDGETS = ("max_tokens", "max_cost_usd")
"""Keys about the whole run. A step has none of them."""

KEYS = (
    "tools", "in_order", "no_others", "never", "max_turns", *BUDGETS, "text_contains", "text_matches", "ended",
)  # fmt: skip
MATCH_KEYS = ("name", "input", "exact", "input_matches")
COUNT_KEYS = ("times", "at_least", "at_most")


@dataclass(frozen=True)
class ExpectedCall:
    """A description of tool calls, and how many of them there may be. `at` is its key and its number.

    `low` and `high` are the numbers of calls that the entry takes. `is_bounded` is whether further calls are a failure even if
    other calls are allowed.
    """

    at: Path
    name: str
    input: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = False
    input_matches: tuple[tuple[str, re.Pattern[str]], ...] = ()
    low: int = 1
    high: float = 1
    is_bounded: bool = False

    def __str__(self) -> str:
        parts = [strict_json.dumps(self.input)] if self.input or self.exact else []
        parts += [f"{path} /{pattern.pattern}/" for path, pattern in self.input_matches]
        return " ".join([self.name, *parts])

    @property
    def count(self) -> str:
        """The number of calls in words."""
        if self.low == self.high:
            return f"exactly {self.low}" if self.is_bounded else "1"
        return f"at most {self.high}" if self.low == 0 else f"at least {self.low}"


@dataclass(frozen=True)
class Expectation:
    """An expectation without errors. `steps` has those of single steps. None and empty sequences expect nothing."""

    tools: tuple[ExpectedCall, ...] | None = None
    in_order: bool = False
    no_others: bool = False
    never: tuple[ExpectedCall, ...] = ()
    max_turns: int | None = None
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    text_contains: tuple[str, ...] = ()
    text_matches: tuple[re.Pattern[str], ...] = ()
    ended: tuple[str, ...] = ()
    steps: Mapping[str, "Expectation"] = field(default_factory=dict)

    @property
    def names(self) -> list[Path]:
        """The place of each single expectation."""
        found: list[Path] = [call.at for call in (*(self.tools or ()), *self.never)]
        found += [(key,) for key in ("no_others", "in_order") if getattr(self, key)]
        found += [(key,) for key in ("max_turns", *BUDGETS) if getattr(self, key) is not None]
        found += [(key, n) for key in ("text_contains", "text_matches") for n in range(len(getattr(self, key)))]
        found += [("ended",)] if self.ended else []
        return found + [("steps", step, *at) for step, inner in self.steps.items() for at in inner.names]


def name_of(at: Path) -> str:
    """Return a place in words: `tools[1].input`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).removeprefix(".")


def expectation_of(given: Mapping[str, Any]) -> Expectation:
    """Return the expectation of a mapping. Raise InputError with all errors."""
    reader = ExpectationReader()
    found = reader.read(given)
    if reader.problems:
        raise InputError(" ".join(sentence(f"{name_of(at)}: {what}" if at else what) for at, what in reader.problems))
    return found


class ExpectationReader:
    """Reads an expectation and collects its errors with their places in `problems`."""

    def __init__(self) -> None:
        self.problems: list[tuple[Path, str]] = []

    def read(self, given: Mapping[str, Any], at: Path = ()) -> Expectation:
        """Return the expectation of a mapping. It counts only if there are no problems."""
        known = (*KEYS, "steps") if not at else tuple(key for key in KEYS if key not in BUDGETS)
        for key in given:
            if at and key in BUDGETS:
                self._wrong((*at, key), f"{key!r} is about the whole run, and cannot be given for a step")
            elif key not in known:
                self._wrong((*at, str(key)), f"unknown key {str(key)!r}{nearest(str(key), known)}")
        tools = self._calls(given, "tools", at) if "tools" in given else None
        in_order, no_others = self._flag(given, "in_order", at), self._flag(given, "no_others", at)
        if tools is None and (in_order or no_others):
            self._wrong((*at, "in_order" if in_order else "no_others"), "it needs 'tools'")
        found = Expectation(
            tools, in_order, no_others, self._calls(given, "never", at) if "never" in given else (),
            self._whole(given, "max_turns", at), self._whole(given, "max_tokens", at), self._cost(given, at),
            self._texts(given, "text_contains", at),
            tuple(filter(None, map(self._pattern, self._places(given, "text_matches", at),
                                   self._texts(given, "text_matches", at)))),
            self._texts(given, "ended", at),
            self._steps(given["steps"], at) if "steps" in given and not at else {},
        )  # fmt: skip
        if not found.names and not self.problems:
            self._wrong(at, f"it expects nothing; give at least one of {', '.join(known)}")
        return found

    def _wrong(self, at: Path, what: str) -> None:
        self.problems.append((at, what))

    def _steps(self, given: Any, at: Path) -> dict[str, Expectation]:
        if not isinstance(given, Mapping) or not given or not all(isinstance(inner, Mapping) for inner in given.values()):
            self._wrong((*at, "steps"), "'steps' should be a mapping of the name of a step to its expectations")
            return {}
        return {str(name): self.read(inner, (*at, "steps", str(name))) for name, inner in given.items()}

    def _calls(self, given: Mapping[str, Any], key: str, at: Path) -> tuple[ExpectedCall, ...]:
        listed = given[key]
        if not isinstance(listed, list | tuple):
            self._wrong((*at, key), f"{key!r} should be a list of tools, and is {_shown(listed)}")
            return ()
        if not listed and (key == "never" or given.get("no_others") is not True):
            way = "; to expect no call at all, add 'no_others: true'" if key == "tools" else ""
            self._wrong((*at, key), f"{key!r} should have at least 1 tool{way}")
        return tuple(self._call(each, (*at, key, n), counts=key == "tools") for n, each in enumerate(listed))

    def _call(self, given: Any, at: Path, *, counts: bool) -> ExpectedCall:
        given = {"name": given} if isinstance(given, str) else given
        if not isinstance(given, Mapping):
            self._wrong(at, f"a tool should be a name or a mapping with a name, and is {_shown(given)}")
            return ExpectedCall(at[-2:], "")
        known = (*MATCH_KEYS, *COUNT_KEYS) if counts else MATCH_KEYS
        for key in given:
            if key in COUNT_KEYS and not counts:
                self._wrong((*at, key), f"{key!r} is for 'tools'; a call in 'never' has no number")
            elif key not in known:
                self._wrong((*at, str(key)), f"unknown key {str(key)!r}{nearest(str(key), known)}")
        name = given.get("name")
        if not isinstance(name, str) or not name:
            self._wrong((*at, "name") if "name" in given else at, "the name of the tool is missing")
        asked = given.get("input")
        if asked is not None and not isinstance(asked, Mapping):
            self._wrong((*at, "input"), f"'input' should be a mapping of arguments to values, and is {_shown(asked)}")
            asked = None
        exact = self._flag(given, "exact", at)
        if exact and asked is None:
            self._wrong((*at, "exact"), "it needs 'input'")
        low, high, bounded = self._counts(given, at) if counts else (1, math.inf, False)
        return ExpectedCall(at[-2:], str(name), asked or {}, exact, self._matches(given, at), low, high, bounded)

    def _counts(self, given: Mapping[str, Any], at: Path) -> tuple[int, float, bool]:
        """Return the smallest and the largest number of calls, and whether further ones are a failure."""
        times, least, most = (self._whole(given, key, at) for key in COUNT_KEYS)
        if times is not None and (least, most) != (None, None):
            self._wrong((*at, "times"), "it excludes 'at_least' and 'at_most'")
        elif least is not None and most is not None and least > most:
            self._wrong((*at, "at_least"), "it is greater than 'at_most'")
        if times is not None:
            return times, times, True
        if most is not None:
            return least or 0, most, True
        return (1, 1, False) if least is None else (least, math.inf, False)

    def _matches(self, given: Mapping[str, Any], at: Path) -> tuple[tuple[str, re.Pattern[str]], ...]:
        patterns = given.get("input_matches")
        if patterns is None:
            return ()
        if not isinstance(patterns, Mapping) or not patterns or not all(isinstance(each, str) for each in patterns.values()):
            said = "'input_matches' should be a mapping of arguments to regular expressions"
            self._wrong((*at, "input_matches"), f"{said}, and is {_shown(patterns)}")
            return ()
        read = [(str(path), self._pattern((*at, "input_matches", str(path)), text)) for path, text in patterns.items()]
        return tuple((path, pattern) for path, pattern in read if pattern is not None)

    def _pattern(self, at: Path, text: str) -> re.Pattern[str] | None:
        try:
            return re.compile(text)
        except (re.error, RecursionError, OverflowError) as error:
            self._wrong(at, f"{text!r} is no regular expression: {error}")
            return None

    def _flag(self, given: Mapping[str, Any], key: str, at: Path) -> bool:
        value = given.get(key, False)
        if not isinstance(value, bool):
            self._wrong((*at, key), f"{key!r} should be true or false, and is {_shown(value)}")
        return value is True

    def _whole(self, given: Mapping[str, Any], key: str, at: Path) -> int | None:
        if key not in given or (at and key in BUDGETS):
            return None
        value = given[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            way = "; to forbid a call, use 'never'" if key in COUNT_KEYS and value == 0 else ""
            self._wrong((*at, key), f"{key!r} should be a whole number from 1, and is {_shown(value)}{way}")
            return None
        return value

    def _cost(self, given: Mapping[str, Any], at: Path) -> float | None:
        if "max_cost_usd" not in given or at:
            return None
        value = given["max_cost_usd"]
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            self._wrong(("max_cost_usd",), f"'max_cost_usd' should be a number of US dollars, and is {_shown(value)}")
            return None
        return float(value)

    def _texts(self, given: Mapping[str, Any], key: str, at: Path) -> tuple[str, ...]:
        if key not in given:
            return ()
        value = given[key]
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) and text for text in texts):
            self._wrong((*at, key), f"{key!r} should be a text or a list of texts, none of them empty, and is {_shown(value)}")
            return ()
        return tuple(texts)

    def _places(self, given: Mapping[str, Any], key: str, at: Path) -> list[Path]:
        """Return the place of each text of a key, which may be one text or a list."""
        value = given.get(key, ())
        if isinstance(value, str):
            return [(*at, key)]
        return [(*at, key, n) for n in range(len(value) if isinstance(value, list | tuple) else 0)]


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
