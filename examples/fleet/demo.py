"""`make fleet`: three nodes of NATS, two recorders with a shipper each, and a mirror that shows both live, on this machine.

Each recorder is `retold run --ship` in a folder of its own. The mirror is a log that a puller fills, and a console handler of it
shows each run while it is recorded, its lines under the name of its source. The demo ends by itself or by Ctrl-C.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from retold.fleet.opening import address
from retold.fleet.pull import Puller
from retold.fleet.shelf import Shelf
from retold.handlers import Reader, make_handler
from retold.handlers.base import READ_KINDS
from retold.recorder.errors import ShelfError
from retold.recorder.log.log import EventLog

EXAMPLES = Path(__file__).resolve().parent.parent
WORKFLOWS = {"pod-a": "clean_streaming_numbers.yaml", "pod-b": "session_conversation.yaml"}
"""The example that each recorder runs, by source."""

NODES = 3

CHILD_S = 10
"""How long Ctrl-C waits for each child. A recorder ships for a minute more if the nodes never became ready."""

SIGNALS: list[int] = []
"""The signals that came. The demo looks for them between two steps."""


def main() -> None:
    """Run the demo. `--timing T` is the pace of the recorders, `original` by default."""
    timing = sys.argv[sys.argv.index("--timing") + 1] if "--timing" in sys.argv else "original"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda given, _: SIGNALS.append(given))  # an exception could come between a start and its end
    with tempfile.TemporaryDirectory(prefix="retold-fleet-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        url = stack.enter_context(nodes(folder))
        print(f"three nodes of NATS: {url}", flush=True)
        mirror = EventLog(folder / "mirror.db")
        for source, workflow in WORKFLOWS.items():
            stack.enter_context(recorder(folder / source, source, workflow, url, timing))
            print(f"{source}: retold run {workflow} --ship {url}", flush=True)
        shown = follow(mirror, url)
    print(f"the mirror showed {shown} runs; every node, recorder and shipper has ended")
    if signal.SIGTERM in SIGNALS:
        sys.exit(128 + signal.SIGTERM)


@contextlib.contextmanager
def child(command: list[str], folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a folder, with its output in a file, until the block ends."""
    with (folder / "output.txt").open("ab") as output:
        # A group of its own: Ctrl-C ends this program first, and this program ends its children in order.
        running = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(CHILD_S if SIGNALS else None)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


@contextlib.contextmanager
def nodes(folder: Path) -> Iterator[str]:
    """Start a cluster of NATS servers, and yield the address of a shelf on it."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2 * NODES)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports[NODES:])
    server = Path(sys.executable).parent / "nats-server"
    with contextlib.ExitStack() as stack:
        for number in range(NODES):
            own = folder / f"node-{number}"
            own.mkdir()
            (own / "nats.conf").write_text(
                f"server_name: n{number}\nlisten: 127.0.0.1:{ports[number]}\njetstream {{ store_dir: '{own}' }}\n"
                f"cluster {{ name: retold, listen: 127.0.0.1:{ports[NODES + number]}, routes: [{routes}] }}\n"
            )
            stack.enter_context(child([str(server), "-c", "nats.conf"], own))
        yield f"nats://{','.join(f'127.0.0.1:{port}' for port in ports[:NODES])}/demo"


@contextlib.contextmanager
def recorder(folder: Path, source: str, workflow: str, url: str, timing: str) -> Iterator[None]:
    """Run an example in a folder, and ship it."""
    folder.mkdir()
    command = [sys.executable, "-m", "retold", "run", str(EXAMPLES / workflow), "--mock", "--timing", timing, "--ship", url]
    with child(command, folder, RETOLD_SOURCE=source, RETOLD_SHIP_DRAIN_S="60", RETOLD_DB=""):
        yield


def follow(mirror: EventLog, url: str) -> int:
    """Pull, and show every run in a thread, until one run of each source has ended; return their number."""
    shelf = address(url).open_to_read()
    wait_for_the_stream(shelf)
    if SIGNALS:  # there may be no stream yet, which the puller would refuse
        shelf.close()
        return 0
    puller = Puller(mirror, shelf)
    pulling = threading.Thread(target=puller.run, kwargs={"follow": True})
    pulling.start()
    threads: dict[str, threading.Thread] = {}
    try:
        while not SIGNALS and (len(threads) < len(WORKFLOWS) or any(thread.is_alive() for thread in threads.values())):
            for info in mirror.runs():
                if info.run not in threads:
                    threads[info.run] = threading.Thread(target=show, args=(mirror, info.run), daemon=True)
                    threads[info.run].start()
            if not pulling.is_alive():
                raise SystemExit("the puller ended too early")
            time.sleep(0.02)
    finally:
        puller.stop()
        pulling.join()
        shelf.close()
    return len(threads)


def wait_for_the_stream(shelf: Shelf) -> None:
    """Wait until the cluster has a leader and the first shipper has made the stream."""
    deadline = time.monotonic() + 60
    while not SIGNALS:
        try:
            next(shelf.pages(), None)
            return
        except ShelfError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"no shelf after a minute: {error}") from error
            time.sleep(0.2)


def show(mirror: EventLog, run: str) -> None:
    """Show a run from its beginning to its end, each line under the name of its source."""
    out = Labelled(str(mirror.store.source_of(run)))
    handler = make_handler("console", {}, out)
    reader = Reader(handler)
    for event in mirror.follow(run, kinds=sorted({*READ_KINDS, *handler.kinds})):
        reader.event(event)
    handler.close()
    out.flush()


class Labelled(StringIO):
    """Prints whole lines on stdout, with a label before each."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = label
        self._rest = ""

    def write(self, text: str) -> int:
        """Print the lines that are whole now."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            sys.stdout.write(f"{self._label} | {line}".rstrip() + "\n")  # one write: several threads print
            sys.stdout.flush()
        return len(text)


if __name__ == "__main__":
    main()
