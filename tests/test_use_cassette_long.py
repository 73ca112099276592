"""A replay reads a long cassette only as far as its requests need."""

import json
from pathlib import Path

import httpx2
import pytest

import retold
from retold.recorder.cassette import format as cassette_format
from retold.recorder.cassette.exchanges import Exchanges
from retold.recorder.cassette.format import write_cassette
from retold.recorder.errors import CassetteError, MissError
from retold.recorder.http.exchange import Exchange
from tests.exchanges import URL, answer, exchange

SUFFIXES = (".yaml", ".json")
COUNT = 5


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cassette of five exchanges that counts as long."""
    monkeypatch.setattr(cassette_format, "LAZY_BYTES", 0)
    found = tmp_path / f"long{request.param}"
    write_cassette(found, map(numbered, range(COUNT)))
    return found


def body(number: int) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": f"request {number}"}]}).encode()


def numbered(number: int) -> Exchange:
    return exchange(answer(f"event: a\ndata: {number}\n\n".encode()), body=body(number))


def damage(path: Path, number: int) -> None:
    """Damage the ending of one exchange."""
    parts = path.read_bytes().split(b"complete")
    path.write_bytes(b"complete".join(parts[: number + 1]) + b"complote" + b"complete".join(parts[number + 1 :]))


def ask(client: httpx2.Client, number: int) -> str:
    return client.post(URL, content=body(number), headers={"anthropic-version": "2023-06-01"}).text


def read_so_far(used: retold.UsedCassette) -> int:
    """Return the number of exchanges that the sequence has read."""
    assert isinstance(used.exchanges, Exchanges)
    return used.exchanges.read_count


def test_a_request_reads_no_further_than_its_exchange(path: Path) -> None:
    """Counting the exchanges and numbering the unplayed ones read no further either."""
    with retold.use_cassette(path, record_mode="none") as used, httpx2.Client() as client:
        assert read_so_far(used) == 0
        assert ask(client, 1) == "event: a\ndata: 1\n\n"
        assert read_so_far(used) == 2
        assert (len(used), used.unplayed_numbers, used.all_played) == (COUNT, [0, 2, 3, 4], False)
        assert read_so_far(used) == 2
        assert [ask(client, number)[-3] for number in (0, 4, 3, 2)] == list("0432")
        assert (used.all_played, used.unplayed) == (True, [])


def test_equal_requests_get_their_answers_in_recorded_order(path: Path) -> None:
    """Reading stops at the first match. Later recordings are read later."""
    answers = [answer(f"data: {number}\n\n".encode()) for number in range(3)]
    write_cassette(path, [exchange(answers[0]), numbered(7), exchange(answers[1]), exchange(answers[2])])
    with retold.use_cassette(path, record_mode="none") as used, httpx2.Client() as client:
        headers = {"anthropic-version": "2023-06-01"}
        got = [client.post(URL, content=b'{"model":"m"}', headers=headers).text for _ in range(3)]
        assert got == ["data: 0\n\n", "data: 1\n\n", "data: 2\n\n"]
        assert used.unplayed_numbers == [1]


def test_a_miss_compares_all_recorded_requests(path: Path) -> None:
    """The nearest one may be the last one."""
    with retold.use_cassette(path, record_mode="none"), httpx2.Client() as client, pytest.raises(MissError) as missed:
        client.post(URL, content=body(4).replace(b'"m"', b'"n"'), headers={"anthropic-version": "2023-06-01"})
    assert "Nearest is recorded exchange 5" in str(missed.value)


def test_damage_is_refused_when_reading_reaches_it(path: Path) -> None:
    """The exchanges before it are played, and none after it. The file stays unchanged."""
    damage(path, 2)
    before = path.read_bytes()
    with retold.use_cassette(path, record_mode="none"), httpx2.Client() as client:
        assert ask(client, 1) == "event: a\ndata: 1\n\n"
        for number in (2, 3):
            with pytest.raises(CassetteError, match="interaction 3 is damaged: unknown ending"):
                ask(client, number)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", ["new_episodes", "all", "rewrite"])
def test_a_use_that_may_write_reads_the_whole_file_first(path: Path, mode: str) -> None:
    """An exchange that cannot be read is never replaced."""
    damage(path, 4)
    with pytest.raises(CassetteError, match="interaction 5 is damaged"), retold.use_cassette(path, record_mode=mode):
        pass
