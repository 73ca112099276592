"""A viewer of a recording: keys change its position, speed and pause, by rules that need neither a clock nor a terminal."""

from itertools import chain
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.cli.keyboard import KeyParser
from retold.replay.timing.viewer import FASTEST, KEYS, SLOWEST, Key, Viewer

S = 1_000_000_000


class Person:
    """Watch events at the recorded seconds `at` on a virtual clock, and press keys at seconds of that clock."""

    def __init__(self, at: list[float], keys: list[tuple[float, Key]] | None = None, **options: object) -> None:
        self.viewer = Viewer(**options)  # type: ignore[arg-type]
        self.at = [round(each * S) for each in at]
        self.keys = [(round(when * S), key) for when, key in keys or []]
        self.now = 0

    def watch(self) -> list[tuple[float, float]]:
        """Return (second of the clock, second of the recording) of each event shown, up to the end or a pause for good."""
        self.showings: list[list[tuple[float, float]]] = [[]]
        self.viewer.start(self.at[0], self.now)
        number = 0
        while number < len(self.at):
            self.viewer.comes(self.at[number], self.now)
            wait = self.viewer.wait_ns(self.at[number], self.now)
            if self.keys and (wait is None or self.keys[0][0] <= self.now + wait):
                when, key = self.keys.pop(0)
                self.now = max(self.now, when)
                self.viewer.press(key, self.now)
                if self.viewer.take_rewind():
                    number = 0
                    self.showings.append([])
                continue
            if wait is None or self.viewer.has_quit:
                break
            self.now += wait
            self.viewer.shown(self.at[number], self.now)
            self.showings[-1].append((self.now / S, self.at[number] / S))
            number += 1
        return list(chain(*self.showings))


def test_events_are_shown_at_their_recorded_times() -> None:
    assert Person([0, 1, 3]).watch() == [(0, 0), (1, 1), (3, 3)]


def test_speed_divides_the_time() -> None:
    assert Person([0, 1, 3], speed=2.0).watch() == [(0, 0), (0.5, 1), (1.5, 3)]


def test_an_idle_limit_shortens_a_longer_pause_before_the_speed_counts() -> None:
    assert Person([0, 1, 61, 62], idle_limit_ns=2 * S, speed=2.0).watch() == [(0, 0), (0.5, 1), (1.5, 61), (2, 62)]


def test_a_pause_takes_no_recorded_time() -> None:
    assert Person([0, 2, 3], [(1, "pause"), (11, "pause")]).watch() == [(0, 0), (12, 2), (13, 3)]


def test_a_step_shows_one_event_and_pauses() -> None:
    """The time continues from the stepped event."""
    assert Person([0, 2, 3, 5], [(1, "step"), (2, "step"), (7, "pause")]).watch() == [(0, 0), (1, 2), (2, 3), (9, 5)]


def test_a_step_passes_events_that_show_nothing() -> None:
    viewer = Viewer()
    viewer.start(0, 0)
    viewer.press("step", 0)
    viewer.shown(1 * S, 0, is_visible=False)
    assert viewer.wait_ns(2 * S, 0) == 0
    viewer.shown(2 * S, 0)
    assert viewer.wait_ns(3 * S, 0) is None


def test_forward_shows_everything_up_to_the_new_position_at_once() -> None:
    assert Person([0, 3, 5, 7], [(1, "forward")]).watch() == [(0, 0), (1, 3), (1, 5), (2, 7)]


def test_back_begins_again_and_waits_at_the_new_position() -> None:
    """Events before the position are shown again at once, so that the text before it is on the screen."""
    assert Person([0, 3, 8, 9], [(8.5, "back")]).watch() == [(0, 0), (3, 3), (8, 8), (8.5, 0), (8.5, 3), (13, 8), (14, 9)]


def test_back_stops_at_the_beginning() -> None:
    assert Person([0, 1, 4], [(2, "back")]).watch() == [(0, 0), (1, 1), (2, 0), (3, 1), (6, 4)]


def test_speed_keys_double_and_halve_from_now_on() -> None:
    assert Person([0, 2, 4], [(1, "faster"), (1.5, "slower")]).watch() == [(0, 0), (1.5, 2), (3.5, 4)]


def test_speed_has_limits() -> None:
    viewer = Viewer()
    for _ in range(20):
        viewer.press("faster", 0)
    assert viewer.speed == FASTEST
    for _ in range(20):
        viewer.press("slower", 0)
    assert viewer.speed == SLOWEST


def test_a_suspended_process_takes_no_recorded_time() -> None:
    viewer = Viewer()
    viewer.start(0, 0)
    viewer.hold(1 * S)
    viewer.resume(100 * S)
    assert viewer.wait_ns(3 * S, 100 * S) == 2 * S


def test_a_run_in_progress_is_shown_live_and_stops_at_a_pause() -> None:
    viewer = Viewer(speed=None, keys=("pause", "step", "quit"))
    assert viewer.wait_ns(5 * S, 0) == 0
    viewer.shown(5 * S, 0)
    for key in ("back", "faster", "forward"):
        viewer.press(key, 0)
    assert viewer.status(0) == "0:05  live  space pauses, ? lists the keys"
    viewer.press("pause", 0)
    assert viewer.wait_ns(5 * S, 0) is None


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ([], "1:01:05 of 2:00:00  1x  space pauses, ? lists the keys"),
        (["pause"], "1:01:05 of 2:00:00  paused  space plays on, . steps, ? lists the keys"),
        (["faster"], "1:01:05 of 2:00:00  2x  space pauses, ? lists the keys"),
        (["help"], "space pause  . step  left -5 s  right +5 s  + faster  - slower  q quit"),
        (["help", "help"], "1:01:05 of 2:00:00  1x  space pauses, ? lists the keys"),
    ],
)
def test_status_names_position_state_and_keys_in_80_columns(keys: list[Key], line: str) -> None:
    viewer = Viewer()
    viewer.start(3665 * S, 0)
    for key in keys:
        viewer.press(key, 0)
    assert viewer.status(0, 7200 * S) == line
    assert len(line) < 80


PRESSED = st.lists(st.tuples(st.floats(0, 60), st.sampled_from(sorted(set(KEYS) - {"quit"}))), max_size=12).map(sorted)
EVENTS = st.lists(st.floats(0, 100), min_size=1, max_size=20).map(sorted)
LIMIT = st.none() | st.integers(0, 20 * S)


@settings(max_examples=25)
@given(EVENTS, PRESSED, LIMIT)
def test_any_keys_show_every_event_once_and_in_order_between_seeks_back(
    at: list[float], keys: list[tuple[float, Key]], limit: int | None
) -> None:
    """Each pass begins at the beginning. The last pass is complete, unless the viewer stays paused."""
    person = Person(at, list(keys), idle_limit_ns=limit)
    person.watch()
    whole = [each / S for each in person.at]
    for showing in person.showings:
        assert [recorded for _, recorded in showing] == whole[: len(showing)]
        assert [when for when, _ in showing] == sorted(when for when, _ in showing)
    assert person.viewer.is_paused or len(person.showings[-1]) == len(whole)


@settings(max_examples=25)
@given(EVENTS, PRESSED, LIMIT)
def test_a_wait_that_is_over_makes_its_event_due(at: list[float], keys: list[tuple[float, Key]], limit: int | None) -> None:
    viewer, now = Viewer(idle_limit_ns=limit), 0
    viewer.start(0, now)
    for seconds, key in keys:
        now = max(now, round(seconds * S))
        viewer.press(key, now)
    for each in at:
        viewer.comes(round(each * S), now)
        if (wait := viewer.wait_ns(round(each * S), now)) is None:
            assert viewer.is_paused
            return
        assert limit is None or viewer.speed is None or wait <= limit / viewer.speed + 1
        now += wait
        assert viewer.wait_ns(round(each * S), now) == 0
        viewer.shown(round(each * S), now)


# The bytes of keys

BYTES: dict[bytes, list[Key]] = {
    b" ": ["pause"], b".": ["step"], b"+": ["faster"], b"=": ["faster"], b"-": ["slower"], b"q": ["quit"], b"?": ["help"],
    b"\x1b[A": ["faster"], b"\x1b[B": ["slower"], b"\x1b[C": ["forward"], b"\x1b[D": ["back"], b"\x1bOD": ["back"],
    b"\x1b[1;2C": ["forward"], b"\x1b[15~": [], b"\x1bx": [], b"A": [], b"\xe6\x9d\xb1": [], b"\r": [], b"\x1b[200~": [],
}  # fmt: skip


@settings(max_examples=25)
@given(st.lists(st.sampled_from(sorted(BYTES)), max_size=10), st.data())
def test_keys_are_read_from_bytes_that_are_cut_anywhere_but_after_escape(typed: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(typed)
    cuts = [at for at in range(1, len(whole)) if whole[at - 1 : at] != b"\x1b"]
    places = sorted(data.draw(st.sets(st.sampled_from(cuts)))) if cuts else []
    parser, found = KeyParser(), list[Key]()
    for start, end in zip([0, *places], [*places, len(whole)], strict=True):
        found += parser.feed(whole[start:end])
    assert found == [key for each in typed for key in BYTES[each]]


def test_escape_alone_is_not_a_key() -> None:
    parser = KeyParser()
    assert [parser.feed(b"\x1b"), parser.feed(b"q")] == [[], ["quit"]]


@settings(max_examples=25)
@given(st.binary(max_size=40))
def test_any_bytes_are_read(data: bytes) -> None:
    assert set(KeyParser().feed(data)) <= set(get_args(Key))
