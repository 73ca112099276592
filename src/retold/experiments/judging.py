"""Judge a trajectory by an expectation: one failure for each single expectation that does not hold, at its first offence."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ..comparing.text import amount, shown
from ..comparing.value_diff import changes
from ..recorder.strict_json import dumps
from ..recorder.words import clean, closest, nearest
from ..replay.matching.places import matches
from .expectation import Expectation, ExpectedCall, Path, name_of
from .facts import Facts, ToolCall


@dataclass(frozen=True, slots=True)
class Offence:
    """A single expectation that does not hold. `row` is the row of the run's table that shows it first."""

    at: Path
    message: str
    row: int

    @property
    def name(self) -> str:
        """The place of the expectation, such as `tools[1]`."""
        return clean(name_of(self.at))

    def as_dict(self) -> dict[str, Any]:
        """Return the failure as JSON."""
        return {"expectation": name_of(self.at), "message": self.message}


def judge(wanted: Expectation, run: Facts) -> Iterator[Offence]:
    """Yield the failures of an expectation, in its order."""
    end = len(run.rows) - 1
    yield from _tools(wanted, run, end)
    for entry in wanted.never:
        found = [call for call in run.calls if mismatch(entry, call) is None]
        if found:
            yield Offence(entry.at, f"{entry} was called {_times(len(found))}, first in turn {found[0].turn}", found[0].row)
    if wanted.max_turns is not None and run.turns > wanted.max_turns:
        yield Offence(("max_turns",), f"{run.turns} turns, at most {wanted.max_turns}", _row_of_turn(run, wanted.max_turns + 1))
    yield from _budgets(wanted, run, end)
    for n, text in enumerate(wanted.text_contains):
        if not any(text in said for said in run.texts):
            yield Offence(("text_contains", n), f"no answer contains {shown(text)}", end)
    for n, pattern in enumerate(wanted.text_matches):
        if not any(pattern.search(said) for said in run.texts):
            yield Offence(("text_matches", n), f"no answer matches /{clean(pattern.pattern)}/", end)
    if wanted.ended:
        yield from _ended(wanted.ended, run, end)
    for name, inner in wanted.steps.items():
        step = run.steps.get(name)
        if step is None:
            known = nearest(name, list(run.steps)) if run.steps else "; it has no steps"
            yield from (Offence(("steps", name, *at), f"the run has no step {name!r}{known}", end) for at in inner.names)
            continue
        first, last = _first_row(run, name), max(len(step.rows) - 2, 0)
        yield from (Offence(("steps", name, *each.at), each.message, first + min(each.row, last)) for each in judge(inner, step))


def _first_row(run: Facts, step: str) -> int:
    """Return the first row of a step. The rows of its conversations follow each other."""
    return next((n for n, row in enumerate(run.rows) if row.place == step or row.place.startswith(f"{step} / ")), 0)


def _budgets(wanted: Expectation, run: Facts, end: int) -> Iterator[Offence]:
    """Yield the sums that exceed their limit, and those that are unknown."""
    yield from _budget("max_tokens", "tokens", wanted.max_tokens, run.tokens, run.unknown, end)
    yield from _budget("max_cost_usd", "cost_usd", wanted.max_cost_usd, run.cost_usd, run.unknown, end)


def _budget(
    key: str, total: str, most: float | None, value: float | None, unknown: str, end: int
) -> Iterator[Offence]:  # fmt: skip
    if most is None:
        return
    noun = total.removesuffix("_usd")
    if value is None:
        yield Offence((key,), f"{_UNKNOWN[noun]}{unknown or _WHY[noun]}", end)
    elif value > most:
        yield Offence((key,), f"{noun} {amount(total, value)}, at most {amount(total, most)}", end)
    elif unknown:
        yield Offence((key,), f"{noun} at least {amount(total, value)}, the rest is unknown: {unknown}", end)


_UNKNOWN = {"tokens": "the tokens of the run are unknown: ", "cost": "the cost of the run is unknown: "}
_WHY = {"tokens": "no answer in it has a usage", "cost": "an answer has no usage, or its model no known price"}


def _ended(words: Sequence[str], run: Facts, end: int) -> Iterator[Offence]:
    if any(word in run.run_ended for word in words):
        return
    others = [(place, found) for place, found in run.conversations if not any(word in found for word in words)]
    if run.conversations and not others:
        return
    known = list(dict.fromkeys([*run.run_ended, *(word for _, found in run.conversations for word in found)]))
    asked = " or ".join(words)
    close = next((near for word in words if word not in known and (near := closest(word, known))), None)
    hint = f"; did you mean {close!r}?" if close else ""
    if len(run.conversations) > 1 and others:
        place, found = others[0]
        last = max((n for n, row in enumerate(run.rows) if row.place == place), default=end)
        yield Offence(("ended",), f"{place or 'a conversation'} ended as {', '.join(found)}, expected {asked}{hint}", last)
        return
    yield Offence(("ended",), f"ended as {', '.join(known) or 'unknown'}, expected {asked}{hint}", end)


def _row_of_turn(run: Facts, number: int) -> int:
    """Return the first row of the n-th turn of the run, counted over all conversations."""
    seen: dict[tuple[str, int], None] = {}
    for n, row in enumerate(run.rows):
        if row.turn:
            seen.setdefault((row.place, row.turn))
            if len(seen) == number:
                return n
    return len(run.rows) - 1


# Tool calls


def _tools(wanted: Expectation, run: Facts, end: int) -> Iterator[Offence]:
    if wanted.tools is None:
        return
    entries, calls = wanted.tools, run.calls
    too_many = list(_too_many(entries, calls))
    yield from too_many
    if wanted.in_order:
        yield from _in_order(entries, calls, end, no_others=wanted.no_others, bounded={each.at for each in too_many})
        return
    taken = _assigned(entries, calls, spare=wanted.no_others)
    for number, entry in enumerate(entries):
        count = sum(owner == number for owner in taken.values())
        if count < entry.low:
            yield Offence(entry.at, _missing(entry, calls, count, taken), _nearest_row(entry, calls, taken, end))
    left = [call for n, call in enumerate(calls) if n not in taken]
    if wanted.no_others and left and not too_many:
        yield Offence(("no_others",), f"{_other(left[0])} in turn {left[0].turn} is not expected", left[0].row)


def _too_many(entries: Sequence[ExpectedCall], calls: Sequence[ToolCall]) -> Iterator[Offence]:
    for entry in entries:
        found = [call for call in calls if mismatch(entry, call) is None]
        if entry.is_bounded and len(found) > entry.high:
            over = found[int(entry.high)]
            yield Offence(entry.at, f"expected {entry.count} of {entry}, found {len(found)}", over.row)


def _assigned(entries: Sequence[ExpectedCall], calls: Sequence[ToolCall], *, spare: bool) -> dict[int, int]:
    """Give as many calls as possible to entries that describe them; return the entry of each call.

    First each entry gets its smallest number of calls. With `spare`, entries then take further calls up to their largest.
    """
    fits = [[n for n, call in enumerate(calls) if mismatch(entry, call) is None] for entry in entries]
    owner: dict[int, int] = {}

    def take(entry: int, seen: set[int]) -> bool:
        """Give an entry one more call; a call of another entry is free if that one finds another (augmenting path)."""
        for call in fits[entry]:
            if call not in seen:
                seen.add(call)
                if call not in owner or take(owner[call], seen):
                    owner[call] = entry
                    return True
        return False

    for number, entry in enumerate(entries):
        for _ in range(entry.low):
            if not take(number, set()):
                break
    for number, entry in enumerate(entries):
        while spare and sum(each == number for each in owner.values()) < entry.high and take(number, set()):
            pass
    return owner


def _in_order(
    entries: Sequence[ExpectedCall], calls: Sequence[ToolCall], end: int, *, no_others: bool, bounded: set[Path]
) -> Iterator[Offence]:
    """Yield at most one failure of the order. An entry that already failed for its number is not reported again."""
    if no_others:
        yield from (failure for failure in _strictly(entries, calls, end) if not bounded)
        return
    at = 0
    for entry in entries:
        for count in range(entry.low):
            found = next((n for n in range(at, len(calls)) if mismatch(entry, calls[n]) is None), None)
            if found is None:
                earlier = next((call for call in calls[:at] if mismatch(entry, call) is None), None)
                if entry.at in bounded:
                    return
                if earlier is not None and not any(mismatch(each, earlier) is None for each in entries if each is not entry):
                    yield Offence(entry.at, f"{entry} was called in turn {earlier.turn}, before the tools above it", earlier.row)
                else:
                    taken = dict.fromkeys(range(at), 0)
                    said = _missing(entry, calls, count, taken, " after the tools above it" if at else "")
                    yield Offence(entry.at, said, _nearest_row(entry, calls, taken, end))
                return
            at = found + 1


def _strictly(entries: Sequence[ExpectedCall], calls: Sequence[ToolCall], end: int) -> Iterator[Offence]:
    """Yield the first call that is not the next expected one, or the first entry that is missing at the end.

    A state is an entry and the number of calls that it has taken; all ways to read the calls are followed at once.
    """
    states = _skipping(entries, {(0, 0)})
    for call in calls:
        following = {
            (entry, min(taken + 1, entries[entry].low) if entries[entry].high > 1e9 else taken + 1)
            for entry, taken in states
            if entry < len(entries) and taken < entries[entry].high and mismatch(entries[entry], call) is None
        }
        if not following:
            if any(entry == len(entries) for entry, _ in states):
                yield Offence(("no_others",), f"{_other(call)} in turn {call.turn} is not expected", call.row)
                return
            entry = entries[max(number for number, taken in states if taken < entries[number].high)]
            why = mismatch(entry, call) or f"expected {entry.count} of it"
            yield Offence(entry.at, f"expected {entry} next, found {_other(call)} in turn {call.turn}: {why}", call.row)
            return
        states = _skipping(entries, following)
    if not any(entry == len(entries) for entry, _ in states):
        entry = entries[max(number for number, _ in states)]
        yield Offence(entry.at, f"expected {entry.count} of {entry}, the calls end before it", end)


def _skipping(entries: Sequence[ExpectedCall], states: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Add the states after entries that have enough calls."""
    todo = list(states)
    while todo:
        entry, taken = todo.pop()
        if entry < len(entries) and taken >= entries[entry].low and (entry + 1, 0) not in states:
            states.add((entry + 1, 0))
            todo.append((entry + 1, 0))
    return states


# One entry and one call


def mismatch(entry: ExpectedCall, call: ToolCall) -> str | None:
    """Return the first way in which a call differs from an entry; None if the entry describes it."""
    if not fnmatchcase(call.name, entry.name):
        return f"the tool is {clean(call.name)}"
    if entry.exact:
        found = next(changes(dict(entry.input), call.input, "input"), None)
        if found is not None:
            return _unlike(found.path, found.b, found.a, has=found.kind != "removed", wants=found.kind != "added")
    elif (why := _outside(entry.input, call.input, "input")) is not None:
        return why
    for path, pattern in entry.input_matches:
        values = list(_at(path, call.input))
        if not values:
            return f"the input has no {clean(path)}"
        for value in values:
            if not pattern.search(value if isinstance(value, str) else dumps(value)):
                return f"input.{clean(path)} is {shown(value)}, expected /{clean(pattern.pattern)}/"
    return None


def _outside(wanted: Any, value: Any, path: str) -> str | None:
    """Return the first place at which a value lacks a part that is wanted. Lists have the same length."""
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        for key, inner in wanted.items():
            if key not in value:
                return f"{path} has no {clean(str(key))}"
            if (why := _outside(inner, value[key], f"{path}.{key}")) is not None:
                return why
        return None
    if isinstance(wanted, list | tuple) and isinstance(value, list) and len(wanted) == len(value):
        ways = (_outside(one, other, f"{path}[{n}]") for n, (one, other) in enumerate(zip(wanted, value, strict=True)))
        return next(filter(None, ways), None)
    # In Python True == 1, in JSON it does not.
    same = wanted == value and isinstance(wanted, bool) == isinstance(value, bool)
    return None if same else _unlike(path, value, wanted, has=True, wants=True)


def _unlike(path: str, value: Any, wanted: Any, *, has: bool, wants: bool) -> str:
    path = clean(path)
    if not has:
        return f"it has no {path}"
    return f"{path} is {shown(value)}, " + (f"expected {shown(wanted)}" if wants else "expected none")


def _at(name: str, value: Any, path: str = "") -> Iterator[Any]:
    """Yield the values at the places that a name with wildcards matches, the outermost ones only."""
    if path and matches(name, path):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _at(name, inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _at(name, inner, f"{path}[{n}]")


# Words


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _other(call: ToolCall) -> str:
    return f"{clean(call.name)} {shown(call.input)}"


def _candidates(entry: ExpectedCall, calls: Sequence[ToolCall], taken: Mapping[int, int]) -> list[ToolCall]:
    """Return the free calls of the tool of an entry, which differ in their input only."""
    return [call for n, call in enumerate(calls) if n not in taken and fnmatchcase(call.name, entry.name)]


def _missing(
    entry: ExpectedCall, calls: Sequence[ToolCall], count: int, taken: Mapping[int, int], where: str = ""
) -> str:  # fmt: skip
    said = f"expected {entry.count} of {entry}{where}, found {count}"
    for call in _candidates(entry, calls, taken):
        if (why := mismatch(entry, call)) is not None:
            return f"{said}; in turn {call.turn} {why}"
    names = Counter(call.name for call in calls)
    if any(fnmatchcase(name, entry.name) for name in names):
        return said
    near = closest(entry.name, names)
    called = ", ".join(f"{clean(name)}{f' ×{number}' if number > 1 else ''}" for name, number in names.items())
    return f"{said}; " + (f"did you mean {near!r}?" if near else f"called: {called or 'nothing'}")


def _nearest_row(entry: ExpectedCall, calls: Sequence[ToolCall], taken: Mapping[int, int], end: int) -> int:
    return next((call.row for call in _candidates(entry, calls, taken) if mismatch(entry, call) is not None), end)
