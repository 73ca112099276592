"""Accounts: the sums of runs, messages, tokens, costs, errors and times by model, day, hour, workflow, step, tool, error and
status.

An account is one line: a dimension (`model`), a key in it (`claude-…`), a local day and a mode of run. Times are counted in
buckets (`buckets.py`). An unknown cost is not 0: its exchange is counted as unpriced.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from ..recorder.http.call_errors import FAILED, CallCounts, error_kind
from ..recorder.log.erasure import account_of
from ..recorder.messages import blocks_of
from ..recorder.strict_json import object_or_empty
from .buckets import measure

DIMENSIONS = ("model", "day", "hour", "workflow", "step", "tool", "error", "status")
"""The dimensions. `error` is the kind of a failure, and `status` that of the run. A run without an end has an account of the
dimension `OPEN` instead of one by status, with its id as the key.
"""

OPEN = "open"

SUMS = (
    "runs", "exchanges", "messages", "input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens",
    "cost_usd", "priced", "unpriced", "errors", "retries", "without_usage",
)  # fmt: skip
"""The sums. For a tool, `messages` counts its uses and `errors` its results that are errors."""

TOKENS = SUMS[3:7]

MOST = 10**15
"""Larger counts and costs are ignored: an import may hold any number, and sums have 64 bits."""

HALF_MINUTE_NS = 30 * 10**9

PROMPT_CHARS = 300
"""The first prompt of a run is cut to this many characters."""

Key = tuple[str, str, str]
"""(dimension, key, day)"""

Keys = tuple[tuple[str, str], ...]
"""(dimension, key) pairs of one event"""

Answer = tuple[int, int]
"""The numbers of the first and the last event of an exchange."""

Counted = Callable[[str], str]
"""A function that returns the other run in which a message of this identity was counted; empty if there is none."""

OF_SESSION = "session "
"""Begins the second identity of a message that a session of the Agent SDK counted. An exchange with the same answer is a copy."""


@dataclass(slots=True)
class Account:
    """One line. `first` and `took` count buckets of milliseconds: to the first token, and to the end."""

    sums: Counter[str] = field(default_factory=Counter)
    first: Counter[int] = field(default_factory=Counter)
    took: Counter[int] = field(default_factory=Counter)

    def add(self, other: "Account") -> None:
        """Add the counts of another account."""
        self.sums.update(other.sums)
        self.first.update(other.first)
        self.took.update(other.took)


def day_of(wall_ns: int) -> str:
    """Return the local day of nanoseconds since the epoch. `ls` and `--since today` use local days too."""
    return time.strftime("%Y-%m-%d", time.localtime(wall_ns // 1_000_000_000))


def hour_of(wall_ns: int) -> str:
    """Return the local hour of nanoseconds since the epoch, such as `09:00`."""
    return time.strftime("%H:00", time.localtime(wall_ns // 1_000_000_000))


def zone() -> str:
    """Return a text that differs between time zones with different days: their names and their offsets over the years."""
    offsets = [time.localtime(year * 31_556_952 + half * 15_778_476).tm_gmtoff for year in range(68) for half in (0, 1)]
    return f"{'/'.join(time.tzname)} {sha256(str(offsets).encode()).hexdigest()[:16]}"


def identities(data: dict[str, Any]) -> list[str]:
    """Return the identities of a message, by which a copy of it in another file is recognised: of its answer, and of its line.

    1. A transcript is imported again after it has grown.
    2. A session that continues in another file begins with a copy of the first file.

    An answer has a message id and the id of its request. The message id alone may be made up by a proxy.
    """
    found = []
    request = data.get("requestId") or data.get("request_id")
    if request and isinstance(request, str):
        answer = object_or_empty(data.get("message")).get("id")
        if answer and isinstance(answer, str):
            found.append(f"answer {answer} {request}")
    line = data.get("uuid")
    if line and isinstance(line, str):
        found.append(f"line {line}")
    return found


def _usable(usage: dict[str, Any], cost: Any) -> tuple[float | None, dict[str, int]]:
    """Return the cost, None if it is no usable number, and the usable counts of a usage."""
    known = float(cost) if isinstance(cost, int | float) and 0 <= cost < MOST else None
    return known, {name: n for name in TOKENS if isinstance(n := usage.get(name), int) and 0 <= n <= MOST}


class _OpenRequest(NamedTuple):
    """A request without an answer so far: the number of its call and its attempt, the model it names, and its time."""

    call: int
    attempt: int
    model: str
    t_ns: int
    repeats: bool = False


@dataclass(slots=True)
class _Spent:
    """A sum of costs (None if none is known) and tokens."""

    cost_usd: float | None = None
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, cost: float | None, tokens: dict[str, int]) -> None:
        """Add those of one exchange."""
        if cost is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost
        for name, count in tokens.items():
            self.tokens[name] += count


@dataclass(slots=True)
class RunAccount:
    """Books the events of one run in their order. `first_ns` returns the times of the first tokens of answers.

    `counted` claims a message for this run if no other run has claimed it. `claimed` claims nothing.
    """

    name: str
    started_ns: int
    first_ns: Callable[[Sequence[Answer]], Sequence[int | None]]
    counted: Counted = lambda _: ""
    claimed: Counted = lambda _: ""
    booked: dict[Key, Account] = field(default_factory=dict)
    times_of_day: dict[int, tuple[str, str]] = field(default_factory=dict)
    together: dict[tuple[Keys, str, str], Account] = field(default_factory=dict)
    near: dict[tuple[int, str, str | None, str | None], Account] = field(default_factory=dict)
    answered: list[tuple[Answer, int, Account]] = field(default_factory=list)
    keys: dict[str, dict[str, None]] = field(default_factory=dict)
    spent: _Spent = field(default_factory=_Spent)
    errors: int = 0
    calls: CallCounts = field(default_factory=CallCounts)
    times: Account = field(default_factory=Account)
    prompt: str = ""
    open: dict[int, _OpenRequest] = field(default_factory=dict)
    uses: dict[str, tuple[str, int]] = field(default_factory=dict)
    turns: dict[str, tuple[str, str, int, dict[str, Any]]] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)
    copies: set[int] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    copied: _Spent = field(default_factory=_Spent)

    @property
    def copy_of(self) -> str:
        """The run in which the answers of this one are counted, empty if one is counted here: both recorded one session."""
        return "" if self.answers[""] or not self.answers else self.answers.most_common(1)[0][0]

    def _account(self, wall_ns: int, step: str, model: str | None, error: str | None = None) -> Account:
        """Return the account of an event's step, model and error, with that of its workflow. The last two may be None."""
        place = (wall_ns // HALF_MINUTE_NS, step, model, error)
        account = self.near.get(place)
        if account is None:
            names = (("model", model), ("workflow", self.name), ("step", step), ("error", error))
            keys = tuple((dimension, key) for dimension, key in names if key is not None)
            account = self.near[place] = self._together(keys, wall_ns)
        return account

    def _together(self, keys: Keys, wall_ns: int) -> Account:
        """Return the account of some keys together with the day, the hour and `OPEN`. `take` adds it to the line of each."""
        day, hour = self._local(wall_ns)
        together = self.together.get((keys, day, hour))
        if together is None:
            together = self.together[keys, day, hour] = Account()
            for dimension, key in (*keys, ("day", day), ("hour", hour), (OPEN, "")):
                self._see(dimension, key, day)
        return together

    def _local(self, wall_ns: int) -> tuple[str, str]:
        """Return local day and hour. Every offset from UTC since 1970 is a multiple of half a minute."""
        half_minute = wall_ns // HALF_MINUTE_NS
        found = self.times_of_day.get(half_minute)
        if found is None:
            found = self.times_of_day[half_minute] = day_of(wall_ns), hour_of(wall_ns)
        return found

    def _see(self, dimension: str, key: str, day: str) -> Account:
        """Return a line. A run counts once for each key, on the day on which it began."""
        own = self.keys.setdefault(dimension, {})
        if key not in own:
            own[key] = None
            first_day, _ = self._local(self.started_ns)
            began = key if dimension == "day" else first_day
            # A run that lasts over midnight has lines on both days, but is one run of its first day.
            if dimension != "day" or day == first_day:
                self._line(dimension, key, began).sums["runs"] += 1
        return self._line(dimension, key, day)

    def _line(self, dimension: str, key: str, day: str) -> Account:
        line = self.booked.get((dimension, key, day))
        if line is None:
            line = self.booked[dimension, key, day] = Account()
        return line

    def take(self) -> dict[Key, Account]:
        """Return the lines of what was booked since the last call."""
        for (_, asked_ns, account), first_ns in zip(
            self.answered, self.first_ns([each[0] for each in self.answered]), strict=True
        ):
            if first_ns is not None:
                measure(first_ns - asked_ns, account.first, self.times.first)
        self.answered.clear()
        for (keys, day, hour), together in self.together.items():
            for dimension, key in (*keys, ("day", day), ("hour", hour), (OPEN, "")):
                self._line(dimension, key, day).add(together)
        booked, self.booked = self.booked, {}
        self.together.clear()
        self.near.clear()
        return booked

    def began(self) -> None:
        """Count the run for its day and its workflow, even if it has no further events."""
        self._together((("workflow", self.name),), self.started_ns)

    def message(self, data: dict[str, Any], step: str, exchange: int | None, t_ns: int, wall_ns: int) -> str:
        """Book a message: on its model if it is an answer, and on the tools of its tool uses and results.

        Return the other run in which it is counted, or an empty text.

        A session of the Agent SDK has no exchanges: its results report the usage. If a proxy recorded the requests of the same
        session, the run that is booked first counts.
        """
        asked = None if exchange is None else self.open.get(exchange)
        if asked is not None and asked.repeats:
            return ""
        if data.get("type") == "erased":
            data = {"type": data.get("subtype"), **account_of(data)}
        names = identities(data)
        if exchange in self.sessions:
            exchange = None
            # Claim the message under a second name, by which the run of the proxy recognises its own copy below.
            for identity in names:
                self.counted(OF_SESSION + identity)
        inner = object_or_empty(data.get("message"))
        model = inner.get("model")
        account = self._account(wall_ns, step, model if isinstance(model, str) and model else None)
        other = next(filter(None, [self.counted(identity) for identity in names]), "") if names else ""
        if names and exchange is not None:
            # If the message is booked already, the usage of this exchange is not booked either (`exchange_ended`).
            other = next(filter(None, [self.claimed(OF_SESSION + identity) for identity in names]), "")
            self.copies |= {exchange} if other else set()
        self.answers[other] += data.get("type") == "assistant"
        if other:
            return other
        account.sums["messages"] += 1
        # Several lines share the id and the usage of one answer, so the usage is booked once.
        if exchange is None and data.get("type") == "assistant" and isinstance(inner.get("usage"), dict) and model:
            self.turns[str(inner.get("id"))] = (str(model), step, wall_ns, inner["usage"])
        if data.get("type") == "result" and exchange is None:
            self._result(data, step, wall_ns)
        for block in blocks_of(data):
            kind = block.get("type")
            if kind != "text":
                self._tool(str(kind), block, t_ns, wall_ns)
        return ""

    def _tool(self, kind: str, block: dict[str, Any], t_ns: int, wall_ns: int) -> None:
        if kind.endswith("tool_use"):
            name = str(block.get("name", ""))
            self.uses[str(block.get("id"))] = (name, t_ns)
            self._see("tool", name, self._local(wall_ns)[0]).sums["messages"] += 1
        elif kind.endswith("tool_result") and (use := self.uses.pop(str(block.get("tool_use_id")), None)) is not None:
            line = self._see("tool", use[0], self._local(wall_ns)[0])
            line.sums["errors"] += bool(block.get("is_error"))
            measure(t_ns - use[1], line.took)

    def _result(self, data: dict[str, Any], step: str, wall_ns: int) -> None:
        """Book the usage that Claude Code reports for a session without recorded exchanges."""
        spent = data.get("model_usage_since_last_result") or data.get("modelUsage")
        if not isinstance(spent, dict) or not self.turns:
            return
        # The report covers these answers, so `ended` must not book their usage again.
        answers = Counter(model for model, *_ in self.turns.values())
        self.turns.clear()
        for model, usage in spent.items():
            if not isinstance(usage, dict):
                continue
            tokens = {
                "input_tokens": usage.get("inputTokens"),
                "output_tokens": usage.get("outputTokens"),
                "cache_creation_input_tokens": usage.get("cacheCreationInputTokens"),
                "cache_read_input_tokens": usage.get("cacheReadInputTokens"),
            }
            self._spend(model, step, wall_ns, tokens, usage.get("costUSD"), exchanges=answers[model])

    def session_started(self, seq: int) -> None:
        """Note a session of the Agent SDK."""
        self.sessions.add(seq)

    def exchange_started(self, seq: int, data: dict[str, Any], model: str, t_ns: int, *, repeats: bool = False) -> None:
        """Note a request to a model. An exchange that `repeats` one of another run, as a fork replays it, is not booked again."""
        self.open[seq] = _OpenRequest(data.get("call") or 0, data.get("attempt") or 1, model, t_ns, repeats)

    def model_asked(self, exchange: int) -> str:
        """Return the model that the request of an open exchange names, or an empty text."""
        return self.open[exchange].model if exchange in self.open else ""

    def prompted(self, text: str) -> None:
        """Take a prompt. The first one, shortened, describes the run in a listing."""
        self.prompt = self.prompt or text.strip()[:PROMPT_CHARS]

    def exchange_ended(
        self, exchange: int, data: dict[str, Any], step: str, task: str, seq: int, t_ns: int, wall_ns: int
    ) -> None:  # fmt: skip
        """Book an exchange with its usage, cost and duration. An error belongs to the model that was asked."""
        # An exchange whose start cannot be read has no duration, but its usage counts.
        asked = self.open.pop(exchange, _OpenRequest(0, 1, "", t_ns))
        self.calls.ended(exchange, step, task, data, call=asked.call)
        if asked.repeats:
            return
        failed = data.get("ending") in FAILED
        self.errors += failed
        usage = data.get("usage")
        model = str(data.get("model") or (asked.model if failed else ""))
        cost = data.get("cost_usd")
        # A refused call costs nothing, so it does not make the sum of costs incomplete.
        free = not usage and data.get("ending") in ("http_error", "no_response")
        if exchange in self.copies:
            self.copies.discard(exchange)
            self.copied.add(*_usable(object_or_empty(usage), cost))
            return
        account = self._spend(model, step, wall_ns, object_or_empty(usage), cost, free=free, error=error_kind(data))
        account.sums["errors"] += failed
        account.sums["retries"] += asked.attempt > 1
        if not failed:
            measure(t_ns - asked.t_ns, account.took, self.times.took)
            self.answered.append(((exchange, seq), asked.t_ns, account))

    def _spend(
        self, model: str, step: str, wall_ns: int, usage: dict[str, Any], cost: Any, *, exchanges: int = 1,
        free: bool = False, error: str = "",
    ) -> Account:  # fmt: skip
        account = self._account(wall_ns, step, model, error)
        known, spent = _usable(usage, cost)
        self.spent.add(known, spent)
        sums = account.sums
        sums["exchanges"] += exchanges
        for name, count in spent.items():
            sums[name] += count
        sums["without_usage"] += 0 if spent or free else exchanges
        if known is not None:
            sums["priced"] += 1
            sums["cost_usd"] += known  # type: ignore[assignment] # sums of tokens are whole, this one is not
        else:
            sums["unpriced"] += not free
        return account

    def ended(self) -> None:
        """Book a session that ended without a report of its usage: each answer has a usage, but no cost."""
        for model, step, wall_ns, usage in self.turns.values():
            self._spend(model, step, wall_ns, usage, None)
        self.turns.clear()
