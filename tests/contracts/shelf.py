"""The tests that every shelf passes. The author of another shelf inherits them in a subclass:

class TestMine(ShelfContract):
    @pytest.fixture
    def make_shelf(self, tmp_path):
        return lambda source: MyShelf(tmp_path, source=source)   # two calls: two writers of one shelf
"""

from collections.abc import Callable
from typing import Any

import pytest

from retold.fleet.pages import Page, page_of
from retold.fleet.shelf import PageConflict, Position, Shelved
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from retold.recorder.log.memory import MemoryStore


def pages_of(run_name: str, sizes: list[int]) -> list[Page]:
    """Return the pages of a new run, with these numbers of events."""
    with EventLog(store=MemoryStore()) as log:
        return _pages_of(log, run_name, sizes)


def _pages_of(log: EventLog, name: str, sizes: list[int]) -> list[Page]:
    with log.start(name=name, mode="live") as writer:
        for number in range(sum(sizes)):
            writer.append(Entry("frame", b"data: %d \xff\n\n" % number))
    events = list(log.events(writer.run))
    pages = []
    for size in sizes:
        pages.append(page_of(events[:size]))
        events = events[size:]
    return pages


def put_all(shelf: Any, pages: list[Page]) -> Position | None:
    """Put the pages of one run, and return the position of the last."""
    position = shelf.last(pages[0].run)
    for page in pages:
        position = shelf.put(page, position)
    return position  # type: ignore[no-any-return]


def got_from(shelf: Any, after: str | None = None, **options: Any) -> list[Shelved]:
    """Return all pages of a shelf after a cursor."""
    return [got for batch in shelf.pages(after, **options) for got in batch]


class ShelfContract:
    """The tests that every shelf passes."""

    @pytest.fixture
    def make_shelf(self) -> Callable[[str], Any]:
        """Return a function that opens this test's shelf as the writer with the given source."""
        raise NotImplementedError

    @pytest.fixture
    def shelf(self, make_shelf: Callable[[str], Any]) -> Any:
        """Return the shelf, opened by the writer `a`."""
        return make_shelf("a")

    def test_an_empty_shelf_has_no_pages(self, shelf: Any) -> None:
        """Reads of one run and of all runs return nothing."""
        assert shelf.last("0" * 16) is None
        assert got_from(shelf) == []

    def test_pages_come_back_byte_for_byte_in_order(self, shelf: Any) -> None:
        """Their source and their events are equal to those put."""
        pages = pages_of("one", [1, 3, 200, 2])
        put_all(shelf, pages)
        assert [(got.source, got.page) for got in got_from(shelf)] == [("a", page) for page in pages]
        assert [event.seq for got in got_from(shelf) for event in got.page.events()] == list(range(206))

    def test_the_last_position_names_the_last_event(self, shelf: Any) -> None:
        """Each run has its own position. A second opening of the shelf returns the same position."""
        one, other = pages_of("one", [2, 2]), pages_of("other", [5])
        assert put_all(shelf, one) == shelf.last(one[0].run)
        put_all(shelf, other)
        assert shelf.last(one[0].run)[:2] == (3, one[-1].hash)
        assert shelf.last(other[0].run)[:2] == (4, other[-1].hash)

    def test_a_page_after_another_position_is_a_conflict(self, make_shelf: Callable[[str], Any]) -> None:
        """Two shippers of one run never both append. The slower one gets PageConflict, and the shelf does not keep its page."""
        first, second, third = pages_of("one", [1, 1, 1])
        shelf, same = make_shelf("a"), make_shelf("a")
        began = shelf.put(first, None)
        for page, after in ((first, None), (second, None), (third, began)):
            with pytest.raises(PageConflict):
                same.put(page, after)
        shelf.put(second, began)
        with pytest.raises(PageConflict):
            same.put(third, began)
        assert [got.page for got in got_from(shelf)] == [first, second]

    def test_the_same_run_of_two_sources_is_two_runs(self, make_shelf: Callable[[str], Any]) -> None:
        """The receiver reports the fork."""
        (page,) = pages_of("one", [2])
        make_shelf("a").put(page, None)
        make_shelf("b").put(page, None)
        assert sorted(got.source for got in got_from(make_shelf("a"))) == ["a", "b"]

    def test_a_reader_resumes_after_its_cursor(self, shelf: Any) -> None:
        """Every cursor returns exactly the pages after it."""
        pages = pages_of("one", [1] * 6)
        put_all(shelf, pages)
        cursors = [got.cursor for got in got_from(shelf)]
        for number, cursor in enumerate(cursors):
            assert [got.page for got in got_from(shelf, cursor)] == pages[number + 1 :]

    def test_a_cursor_of_another_shelf_returns_every_page(self, shelf: Any) -> None:
        """A page may arrive twice, but no page is missed."""
        pages = pages_of("one", [1, 1])
        put_all(shelf, pages)
        assert {got.page for got in got_from(shelf, "0:999999")} == set(pages)

    def test_a_read_of_one_run_returns_no_other_run(self, shelf: Any) -> None:
        """The reader skips the pages of other runs."""
        one, other = pages_of("one", [2, 2]), pages_of("other", [2])
        put_all(shelf, one)
        put_all(shelf, other)
        assert [got.page for got in got_from(shelf, run=other[0].run)] == other

    def test_a_waiting_reader_receives_the_next_page(self, make_shelf: Callable[[str], Any]) -> None:
        """The page is put while the reader waits."""
        first, second = pages_of("one", [1, 1])
        shelf = make_shelf("a")
        began = shelf.put(first, None)
        reader = (got for batch in make_shelf("a").pages(wait_s=30) for got in batch)
        assert next(reader).page == first
        shelf.put(second, began)
        assert next(reader).page == second

    def test_a_page_larger_than_a_message_comes_back(self, shelf: Any) -> None:
        """The page has one event of three megabytes."""
        with EventLog(store=MemoryStore()) as log, log.start(name="big", mode="live") as writer:
            writer.append(Entry("chunk", b"\xff" + b"x" * 3_000_000))
        page = page_of(list(log.events(writer.run))[1:2])
        first = page_of(list(log.events(writer.run))[:1])
        put_all(shelf, [first, page])
        assert [got.page for got in got_from(shelf)] == [first, page]


class AttendedShelfContract(ShelfContract):
    """The tests of a shelf that keeps reports."""

    def test_the_newest_report_under_each_key_is_kept(self, make_shelf: Callable[[str], Any]) -> None:
        """Every opening of the shelf reads the same reports. A report is not a page."""
        shelf = make_shelf("a")
        assert shelf.reports() == {}
        for key, text in (("source.a", b"1"), ("mirror.a-b_1", b'{"x":"\xc3\xa9"}'), ("source.a", b"2")):
            shelf.report(key, text)
        assert make_shelf("b").reports() == {"source.a": b"2", "mirror.a-b_1": b'{"x":"\xc3\xa9"}'}
        assert got_from(shelf) == []

    def test_a_cursor_covers_the_whole_runs_before_it(self, make_shelf: Callable[[str], Any]) -> None:
        """It covers only whole runs of the shelf's own source. A cursor of another shelf covers nothing."""
        shelf, other = make_shelf("a"), make_shelf("xa")
        one, two, foreign = pages_of("one", [1, 1]), pages_of("two", [1]), pages_of("foreign", [1])
        put_all(shelf, [one[0]])
        put_all(shelf, two)
        put_all(shelf, [one[1]])
        put_all(other, foreign)
        cursors = [got.cursor for got in got_from(shelf)]
        assert [shelf.has_read(cursor, one[0].run) for cursor in cursors] == [False, False, True, True]
        assert [shelf.has_read(cursor, two[0].run) for cursor in cursors] == [False, True, True, True]
        assert not any(shelf.has_read(cursor, foreign[0].run) for cursor in cursors)
        assert not any(shelf.has_read(cursors[-1], run) for run in ("0" * 16, one[0].run[:8]))
        assert not any(shelf.has_read(cursor, one[0].run) for cursor in ("0:999999", "x|9|00"))


class ErasableShelfContract(ShelfContract):
    """The tests of a shelf with erasable pages."""

    def bytes_left(self, mark: bytes) -> list[str]:
        """Return the places where the shelf still stores the mark. A subclass searches its files."""
        raise NotImplementedError

    def test_a_replaced_page_takes_the_place_of_the_first(self, shelf: Any) -> None:
        """New readers and readers of the first page get the replacement.

        Positions stay correct, and the next page can be appended.
        """
        first, second, third = pages_of("one", [2, 2, 1])
        put_all(shelf, [first, second])
        cursor = got_from(shelf)[-1].cursor
        erased = first._replace(body=first.body.replace(b"data: 0", b"data: *"))
        shelf.replace(erased)
        assert {got.page for got in got_from(shelf)} == {erased, second}
        assert [got.page for got in got_from(shelf, cursor)] == [erased]
        assert shelf.last(first.run)[:2] == (3, second.hash)
        shelf.put(third, shelf.last(first.run))
        assert self.bytes_left(b"data: 0") == []
        assert shelf.remains == "" or shelf.remains.endswith(".")

    def test_a_dropped_run_is_gone(self, shelf: Any) -> None:
        """The shelf keeps neither its pages nor its position nor its bytes."""
        one, other = pages_of("one", [2, 2]), pages_of("other", [2])
        put_all(shelf, one)
        put_all(shelf, other)
        shelf.drop(one[0].run)
        assert [got.page for got in got_from(shelf)] == other
        assert shelf.last(one[0].run) is None
        assert self.bytes_left(one[0].run.encode()) == []
