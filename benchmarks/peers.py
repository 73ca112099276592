"""Recording a live stream and replaying it, beside other recorders: vcrpy and cassetter around a client, aimock before it.

`first event` is the wait of a recorder's user: 21 frames 50 ms apart, from the call to its first event. Ours is the first of a
new cassette, which also begins a run in the log (`stream` measures later ones). `flood` is 2,000 deltas at full speed. The
recordings are replayed instantly and at the recorded pace, and their bytes are compared with those of the server. `block` is
the time of the whole `with` block, which loads and writes cassettes. The server and every contestant run in separate processes.
Peers that are not installed are named.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

from tests.messages_server import Reply

from benchmarks.contestants import IN_PROCESS, KEY, Contestant, Mode, Read, Task, contestant, is_installed, listening
from benchmarks.measure import BIN, Row, absent, added, beside, folder, found_command, ratio, rounds, run
from benchmarks.samples import AROUND_DELTAS, frames
from benchmarks.server import serving

LIVE, FLOOD, CUT_AFTER = 16, 2_000, 10
GAP_S = 0.05
LIVE_ROUNDS, FLOODS, PACED = 5, 9, 3
SENT = {"live": [*frames(LIVE)], "flood": [*frames(FLOOD)]}
REPLIES = {
    "live": Reply(raw_frames=SENT["live"], gap_s=GAP_S),
    "flood": Reply(raw_frames=SENT["flood"]),
    "cut": Reply(raw_frames=SENT["live"], cut_after=CUT_AFTER),
}
CASSETTES = ("vcrpy", "cassetter")
AT_ONCE = "1000000"
"""aimock has a factor only."""

Found = Mapping[str, list[Read]]


def _first_ms(read: Read) -> float:
    return read.first_ms


def _stream_ms(read: Read) -> float:
    return read.stream_ms


def _block_ms(read: Read) -> float:
    return read.block_ms


def _deltas_per_s(read: Read) -> float:
    assert read.events == FLOOD + AROUND_DELTAS or read.events == 0
    return FLOOD / read.stream_ms * 1000


def _compared(
    what: str, found: Found, value: Callable[[Read], float], unit: str, peers: Sequence[str],
    compare: Callable[..., Row] = ratio,
) -> Iterator[Row]:  # fmt: skip
    ours = [value(read) for read in found["retold"]]
    for peer in peers:
        if peer in found:
            yield compare(what, ours, peer, [value(read) for read in found[peer]], unit)
        else:
            yield absent(what, ours, peer, unit)


def _paced(what: str, found: Found, recorded_ms: float, peers: Sequence[str]) -> Iterator[Row]:
    """Compare our replay with the pace of the recording.

    A peer's pace is a remark, because a peer without times is fast but not better.
    """
    ours = [read.stream_ms for read in found["retold"]]
    yield ratio(what, ours, "the live stream", [recorded_ms] * len(ours), "ms", at_most=1.01)
    for peer in peers:
        if peer not in found:
            yield absent(what, ours, peer, "ms")
            continue
        theirs = median(read.stream_ms for read in found[peer])
        yield beside(what, median(ours), "ms", peer, theirs, remark=f"{theirs / recorded_ms:.0%} of the live stream's time")


def _kept(what: str, found: Mapping[str, Read], sent: Sequence[bytes], peers: Sequence[str]) -> Iterator[Row]:
    """Count the frames that came back unchanged in their places, and compare all bytes."""
    whole = b"".join(sent)

    def same(read: Read) -> int:
        return sum(one == other for one, other in zip(read.body.split(b"\n\n"), whole.split(b"\n\n")[:-1], strict=False))

    ours = found["retold"]
    for peer in peers:
        if peer not in found:
            yield absent(what, [same(ours)], peer, "frames")
            continue
        body = found[peer].body
        number = len(body.split(b"\n\n")) - 1
        remark = "bytes equal" if body == whole else f"{number} frames, {len(body):,} of {len(whole):,} bytes"
        goal = f"{len(sent)}, bytes equal"
        yield beside(what, same(ours), "frames", peer, same(found[peer]), remark=remark, goal=goal, met=ours.body == whole)


def _keys(what: str, files: Mapping[str, Sequence[Path]], peers: Sequence[str]) -> Iterator[Row]:
    found = {name: sum(path.read_bytes().count(KEY.encode()) for path in paths) for name, paths in files.items()}
    for peer in peers:
        remark = "" if peer in found else "not installed"
        yield beside(what, found["retold"], "times", peer, found.get(peer), remark=remark, goal="0", met=found["retold"] == 0)


# Around a client


def _in_process(url: str, racers: Mapping[str, Contestant], home: Path) -> Iterator[Row]:
    def reading(
        name: str, model: str, mode: Mode, timing: str = "instant", *, is_raw: bool = False, may_fail: bool = False
    ) -> Callable[[], Read]:
        path = None if name == "plain" else home / f"{name}-{model}.yaml"
        task = Task(url, model, 1, path, mode, timing, is_raw)
        return lambda: racers[name].read(task, may_fail=may_fail)

    ours = [name for name in IN_PROCESS if name in racers]
    everyone = ["plain", *ours]
    others = ("plain", *CASSETTES)
    live = rounds(LIVE_ROUNDS, {name: reading(name, "live", "all") for name in everyone})
    flood = rounds(FLOODS, {name: reading(name, "flood", "all") for name in everyone})
    yield from _compared("recording, first event", live, _first_ms, "ms", others, added)
    yield from _compared("recording, flood", flood, _deltas_per_s, "deltas/s", others)
    yield from _compared("recording, flood, block", flood, _block_ms, "ms", ("vcrpy",), partial(ratio, at_most=1.2))
    yield from _compared("recording, flood, block", flood, _block_ms, "ms", ("cassetter",))
    instant = rounds(FLOODS, {name: reading(name, "flood", "none") for name in ours})
    yield from _compared("replay at once, flood", instant, _deltas_per_s, "deltas/s", CASSETTES)
    yield from _compared("replay at once, flood, block", instant, _block_ms, "ms", CASSETTES)
    paced = rounds(PACED, {name: reading(name, "live", "none", "original") for name in ours})
    yield from _paced("replay at original pace", paced, median(map(_stream_ms, live["retold"])), CASSETTES)
    raw = {name: reading(name, "flood", "none", is_raw=True)() for name in ours}
    yield from _kept("replay, frames as sent", raw, SENT["flood"], CASSETTES)
    for what, mode, peers in (("recording", "all", everyone), ("replay", "none", ours)):
        cut = {name: reading(name, "cut", mode, may_fail=True)() for name in peers}  # type: ignore[arg-type]
        yield from _cut(
            f"{what}, events of a stream cut after {CUT_AFTER}", cut, [p for p in others if p != "plain" or mode == "all"]
        )
    yield from _keys("the API key in the cassette", {name: [home / f"{name}-live.yaml"] for name in ours}, CASSETTES)


def _cut(what: str, found: Mapping[str, Read], peers: Sequence[str]) -> Iterator[Row]:
    ours = found["retold"]
    for peer in peers:
        if peer not in found:
            yield absent(what, [ours.events], peer, "events")
            continue
        theirs = found[peer]
        remark = f"then {theirs.error}" if theirs.error == ours.error else f"then {theirs.error or 'no error'}; ours {ours.error}"
        yield beside(what, ours.events, "events", peer, theirs.events, remark=remark)


# As a server


def _over_http(url: str, client: Contestant, home: Path) -> Iterator[Row]:
    """The same client asks each server. Every recording has another request, because aimock answers requests that it knows."""
    names = [name for name in ("retold", "aimock") if name == "retold" or is_installed(name)]
    folders = {name: home / f"{name}-server" for name in names}
    answers = {(name, model): count(1) for name in ("plain", *names) for model in ("live", "flood")}

    def record(urls: Mapping[str, str], name: str, model: str) -> Read:
        return client.read(Task(urls[name], model, next(answers[name, model])))

    with ExitStack() as servers:
        urls = {name: servers.enter_context(listening(_recorder(name, url, folders[name]), folders[name])) for name in names}
        urls["plain"] = url
        live = rounds(LIVE_ROUNDS, {name: partial(record, urls, name, "live") for name in urls})
        flood = rounds(FLOODS, {name: partial(record, urls, name, "flood") for name in urls})
    yield from _compared("recording proxy, first event", live, _first_ms, "ms", ("plain", "aimock"), added)
    yield from _compared("recording proxy, flood", flood, _deltas_per_s, "deltas/s", ("plain", "aimock"))

    with ExitStack() as servers:
        at_once, paced = (
            {name: servers.enter_context(listening(_player(name, folders[name], is_paced), folders[name])) for name in names}
            for is_paced in (False, True)
        )
        tasks = {name: Task(at_once[name], "flood", 1) for name in names}
        instant = rounds(FLOODS, {name: partial(client.read, task) for name, task in tasks.items()})
        raw = {name: client.read(Task(at_once[name], "flood", 1, is_raw=True)) for name in names}
        slow = rounds(PACED, {name: partial(client.read, Task(paced[name], "live", 1)) for name in names})
    yield from _compared("replay server at once, flood", instant, _stream_ms, "ms", ("aimock",))
    yield from _paced("replay server at original pace", slow, median(map(_stream_ms, live["retold"])), ("aimock",))
    yield from _kept("replay server, frames as sent", raw, SENT["flood"], ("aimock",))
    files = {name: [path for path in folders[name].rglob("*.*") if path.suffix in (".yaml", ".json")] for name in names}
    yield from _keys("the API key in what is kept", files, ("aimock",))


def _recorder(name: str, upstream: str, home: Path) -> list[str | Path]:
    home.mkdir()
    if name == "retold":
        return [BIN / "retold", "proxy", "--upstream", upstream, "-o", home / "all.yaml", "--db", home / "log.db"]
    return [_aimock(), "--record", "--provider-anthropic", upstream, "--port", "0", "--fixtures", home]


def _player(name: str, home: Path, is_paced: bool) -> list[str | Path]:
    if name == "retold":
        return [BIN / "retold", "serve", home / "all.yaml", "--repeat", "--timing", "original" if is_paced else "instant"]
    return [_aimock(), "--strict", "--port", "0", "--fixtures", home, "--replay-speed", "1" if is_paced else AT_ONCE]


def _aimock() -> Path:
    found = found_command("llmock")
    assert found is not None
    return found


def measure() -> list[Row]:
    with folder() as home, serving(REPLIES) as server, ExitStack() as stack:
        names = ("plain", *(name for name in IN_PROCESS if is_installed(name)))
        racers = {name: stack.enter_context(contestant(name)) for name in names}
        for name, racer in racers.items():  # imports, first connections, the SDK's caches
            racer.read(Task(server.url, "flood", 1, None if name == "plain" else home / f"{name}-warm.yaml", "all"))
        return [*_in_process(server.url, racers, home), *_over_http(server.url, racers["plain"], home)]


if __name__ == "__main__":
    run(f"peers: a live stream recorded and replayed, {FLOOD:,} deltas or {LIVE + AROUND_DELTAS} frames 50 ms apart", measure)
