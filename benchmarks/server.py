"""The scripted Messages API server in a separate process: in this one it would share the interpreter with the measured code."""

import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from tests.messages_server import MessagesServer, Reply, Request


@dataclass(frozen=True)
class Server:
    """A running server. The model of a request chooses the reply."""

    url: str
    pipe: Connection

    def sent_ns(self) -> list[int]:
        """Return the time of each frame of the last call except pings, on the monotonic clock that all processes share."""
        self.pipe.send("sent")
        found: list[int] = self.pipe.recv()
        return found


@contextmanager
def serving(replies: Mapping[str, Reply]) -> Iterator[Server]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, dict(replies)), daemon=True)
    process.start()
    theirs.close()  # so that a failing server causes an EOFError here, and no endless wait
    try:
        yield Server(ours.recv(), ours)
    finally:
        ours.send("stop")
        process.join(10)


def _serve(pipe: Connection, replies: dict[str, Reply]) -> None:
    def script(request: Request) -> Reply:
        return replies[request.json["model"]]

    with MessagesServer(script) as server:
        pipe.send(server.url)
        while pipe.recv() == "sent":
            server.wait_idle()
            pipe.send([at for at, frame in server.sent[-1] if b"event: ping" not in frame])
