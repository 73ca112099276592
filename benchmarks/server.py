"""The scripted Messages API server in a process of its own: in ours it would share the interpreter with what is measured."""

import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from tests.messages_server import MessagesServer, Reply, Request


@dataclass(frozen=True)
class Server:
    """A running server; the model of a request chooses the reply."""

    url: str
    pipe: Connection

    def sent_ns(self) -> list[int]:
        """When each frame of the last call was sent, pings left out: the monotonic clock, which all processes share."""
        self.pipe.send("sent")
        found: list[int] = self.pipe.recv()
        return found


@contextmanager
def serving(replies: Mapping[str, Reply]) -> Iterator[Server]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, dict(replies)), daemon=True)
    process.start()
    theirs.close()  # so that a server that fails is an EOFError here, not a wait
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
