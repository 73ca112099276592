"""The first frame of a replay against the size of the cassette.

A block begins, the first recorded request is sent, and the first frame of its answer arrives. The figure is CPU time of this
process, because the disk's cache serves each file.

The request goes through httpx2 without the SDK, because the SDK's own work does not depend on the file. Each file has exchanges
of 8 KB: half of the bytes are requests of several messages, half are answers. The peer is vcrpy's load of the same file with
its C loader, because vcrpy loads a file completely before its first answer. `last` asks for the last recorded exchange, so all
requests before it are read.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx2

from benchmarks.measure import Row, figure, folder, ratio, rounds, run
from benchmarks.samples import arguments, exchange
from retold.recorder.cassette.format import write_cassette
from retold.recorder.http.exchange import Exchange, Request

SIZES_MB = (1, 10, 100)
BYTES = 8_700
"""Bytes of one exchange in the file."""
ROUNDS = {1: 9, 10: 5, 100: 1}
DELTAS = 24


def _exchange(number: int) -> Exchange:
    recorded = exchange(DELTAS, answer=number)
    messages = [{"role": ("user", "assistant")[turn % 2], "content": f"{number} {turn} " * 40} for turn in range(9)]
    body = json.dumps({**arguments(answer=number), "messages": messages, "stream": True}, separators=(",", ":")).encode()
    return replace(recorded, request=replace(recorded.request, body=body))


def _first_frame(path: Path, request: Request) -> Callable[[], float]:
    import retold

    def once() -> float:
        with httpx2.Client() as client:  # reads the machine's certificates, 20 to 40 ms
            head = client.build_request(request.method, request.uri, headers=list(request.headers), content=request.body)
            began = time.process_time()
            with retold.use_cassette(path, record_mode="none"):
                answer = client.send(head, stream=True)
                assert next(answer.iter_raw()).startswith(b"event: message_start")
                taken = time.process_time() - began
                answer.close()
        return taken * 1000

    return once


def _vcrpy(path: Path) -> Callable[[], float]:
    from vcr.persisters.filesystem import FilesystemPersister
    from vcr.serializers import jsonserializer, yamlserializer

    def once() -> float:
        began = time.process_time()
        FilesystemPersister.load_cassette(path, jsonserializer if path.suffix == ".json" else yamlserializer)
        return (time.process_time() - began) * 1000

    return once


def measure() -> list[Row]:
    rows: list[Row] = []
    with folder() as home:
        for size in SIZES_MB:
            number = size * 1_000_000 // BYTES
            first, last = _exchange(0).request, _exchange(number - 1).request
            for suffix in (".yaml", ".json"):
                path = home / f"{size}{suffix}"
                write_cassette(path, map(_exchange, range(number)))
                if not rows:
                    _first_frame(path, first)()  # the first block of a process imports modules for the later ones
                goal = 0.5 if size > 1 else None  # a small file is read whole, so that all damage is reported at once
                name = f"{path.stat().st_size / 1e6:.0f} MB {suffix[1:].upper()}"
                found = rounds(ROUNDS[size], {"ours": _first_frame(path, first), "vcrpy": _vcrpy(path)})
                rows.append(ratio(f"first frame, {name}", found["ours"], "vcrpy's load", found["vcrpy"], "ms", at_most=goal))
                rows.append(figure(f"the same of the last exchange, {name}", [_first_frame(path, last)()], "ms"))
                path.unlink()
    return rows


if __name__ == "__main__":
    run("bigfiles: the first frame of a replay against the size of its cassette", measure)
