"""The state of a person who watches a recording: position, speed, pause. Keys change it; it has neither a clock nor a screen.

1. Positions are recorded times in nanoseconds. They pass at `speed` while the viewer plays.
2. An event is due at its recorded time. Everything at or before the position is due at once, so a seek needs no other rule.
3. A pause longer than the idle limit is shortened when its event becomes the next one: the position leaps.
4. After a seek backwards the caller shows the recording again from its beginning; see `take_rewind`.
"""

from typing import Literal, get_args

Key = Literal["pause", "step", "back", "forward", "faster", "slower", "help", "quit"]
KEYS: tuple[Key, ...] = get_args(Key)

SEEK_NS = 5_000_000_000
"""The length of a seek, as in asciinema's player."""

SLOWEST, FASTEST = 1 / 16, 64.0

_HELP: dict[Key, str] = {
    "pause": "space pause", "step": ". step", "back": "left -5 s", "forward": "right +5 s", "faster": "+ faster",
    "slower": "- slower", "quit": "q quit",
}  # fmt: skip
"""What the keys do; all of it fits into 80 columns."""


class Viewer:
    """A view of one recording. All times that callers pass as `now_ns` are those of one monotonic clock.

    `keys` are the keys that have an effect. Without a speed the viewer follows a run in progress: each event is due at once.
    """

    def __init__(self, *, speed: float | None = 1.0, idle_limit_ns: int | None = None, keys: tuple[Key, ...] = KEYS) -> None:
        self.speed = speed
        self.is_paused = False
        self.has_quit = False
        self.shows_help = False
        self._keys = keys
        self._idle_limit_ns = idle_limit_ns
        self._start_ns = 0
        self._at_ns = 0.0
        self._since_ns = 0
        self._steps = 0
        self.is_rewound = False
        self._is_held = False

    def __repr__(self) -> str:
        state = "paused" if self.is_paused else "playing"
        return f"<Viewer {state} at {self._at_ns / 1e9:.3f} s, {'live' if self.speed is None else f'{self.speed:g}x'}>"

    def start(self, at_ns: int, now_ns: int) -> None:
        """Begin at a position, which is the earliest one."""
        self._start_ns, self._at_ns, self._since_ns = at_ns, at_ns, now_ns

    def position_ns(self, now_ns: int) -> float:
        """Return the position."""
        if self.is_paused or self._is_held or self.speed is None:
            return self._at_ns
        return self._at_ns + (now_ns - self._since_ns) * self.speed

    def comes(self, at_ns: int, now_ns: int) -> None:
        """Note that the event at this position is the next one."""
        limit_ns = self._idle_limit_ns
        if limit_ns is not None and at_ns - self.position_ns(now_ns) > limit_ns:
            self._move(at_ns - limit_ns, now_ns)

    def wait_ns(self, at_ns: int, now_ns: int) -> int | None:
        """Return how long the event at this position has to wait; 0 if it is due, None if a key has to come first."""
        left_ns = at_ns - self.position_ns(now_ns)
        if self.is_paused:
            return 0 if self._steps or (left_ns <= 0 and self.speed is not None) else None
        if self.speed is None or left_ns <= 0:
            return 0
        return max(1, -int(-left_ns // self.speed))

    def shown(self, at_ns: int, now_ns: int, *, is_visible: bool = True) -> None:
        """Note that the event at this position was shown. A step ends with an event that is visible."""
        if self.speed is None or (self._steps and at_ns > self.position_ns(now_ns)):
            self._move(at_ns, now_ns)
        if self._steps and is_visible:
            self._steps -= 1

    def press(self, key: Key, now_ns: int) -> None:
        """Take a key."""
        if key not in self._keys:
            return
        here = self.position_ns(now_ns)
        self._move(here, now_ns)
        match key:
            case "pause":
                self.is_paused, self._steps = not self.is_paused, 0
            case "step":
                self.is_paused, self._steps = True, self._steps + 1
            case "forward":
                self._at_ns = here + SEEK_NS
            case "back":
                self._at_ns, self.is_rewound, self._steps = max(float(self._start_ns), here - SEEK_NS), True, 0
            case "faster" if self.speed is not None:
                self.speed = min(self.speed * 2, FASTEST)
            case "slower" if self.speed is not None:
                self.speed = max(self.speed / 2, SLOWEST)
            case "help":
                self.shows_help = not self.shows_help
            case "quit":
                self.has_quit = True

    def take_rewind(self) -> bool:
        """Return whether the position went back since the last call: show the recording again from its beginning."""
        rewound, self.is_rewound = self.is_rewound, False
        return rewound

    def hold(self, now_ns: int) -> None:
        """Stop the time, because the process is about to be suspended."""
        self._move(self.position_ns(now_ns), now_ns)
        self._is_held = True

    def resume(self, now_ns: int) -> None:
        """Let the time pass again after `hold`."""
        if self._is_held:
            self._is_held, self._since_ns = False, now_ns

    def status(self, now_ns: int, length_ns: int | None = None) -> str:
        """Return one line about the state. `length_ns` is the position of the last event, if it is known."""
        if self.shows_help:
            return "  ".join(_HELP[key] for key in self._keys if key in _HELP)
        at_ns = self.position_ns(now_ns)
        if length_ns is not None:
            at_ns = min(at_ns, length_ns)
        place = _minutes(at_ns) + ("" if length_ns is None else f" of {_minutes(length_ns)}")
        speed = "live" if self.speed is None else f"{self.speed:g}x"
        hint = "space plays on, . steps" if self.is_paused else "space pauses"
        return f"{place}  {'paused' if self.is_paused else speed}  {hint}, ? lists the keys"

    def _move(self, to_ns: float, now_ns: int) -> None:
        self._at_ns, self._since_ns = to_ns, now_ns


def _minutes(at_ns: float) -> str:
    minutes, seconds = divmod(int(at_ns / 1e9), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
