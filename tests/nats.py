"""A real NATS server of one or three nodes on loopback, started and ended by its tests."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

SERVER = Path(sys.executable).parent / "nats-server"


def free_ports(count: int) -> list[int]:
    """Return ports without a listener."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Nats:
    """This many nodes, with their files in a folder. `extra` is added to every node's configuration."""

    def __init__(self, folder: Path, nodes: int = 1, *, extra: str = "") -> None:
        self.folder = folder
        self.ports = free_ports(2 * nodes)
        self.nodes = nodes
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self.ports[nodes:])
        for number in range(nodes):
            cluster = f"cluster {{ name: retold, listen: 127.0.0.1:{self.ports[nodes + number]}, routes: [{routes}] }}\n"
            (folder / f"{number}.conf").write_text(
                f"server_name: n{number}\nlisten: 127.0.0.1:{self.ports[number]}\n{cluster if nodes > 1 else ''}"
                f'jetstream {{ store_dir: "{folder}/s{number}", max_mem: 64M, max_file: 4G }}\n{extra}\n'
            )
        self._children: list[subprocess.Popen[bytes] | None] = [None] * nodes

    @property
    def servers(self) -> list[str]:
        """Return the addresses of the nodes."""
        return [f"nats://127.0.0.1:{port}" for port in self.ports[: self.nodes]]

    def start(self, numbers: Sequence[int] | None = None) -> Self:
        """Start all nodes, or those with these numbers."""
        chosen = range(self.nodes) if numbers is None else numbers
        for number in chosen:
            with (self.folder / f"{number}.log").open("ab") as log:
                command = [str(SERVER), "-c", str(self.folder / f"{number}.conf")]
                env = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
                self._children[number] = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        for number in chosen:
            wait_for(self.ports[number])
        return self

    def kill(self, number: int, sent: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one node, and wait for its end if the signal ends it."""
        child = self._children[number]
        assert child is not None
        child.send_signal(sent)
        if sent in (signal.SIGKILL, signal.SIGTERM):
            child.wait()

    def pid(self, number: int) -> int:
        """Return the process id of a running node."""
        child = self._children[number]
        assert child is not None
        return child.pid

    def save(self, number: int, name: str) -> None:
        """Copy the files of a stopped node under a name."""
        shutil.copytree(self.folder / f"s{number}", self.folder / name)

    def restore(self, number: int, name: str) -> None:
        """Restore the copy with that name as a stopped node's files: the server returns to an older state."""
        shutil.rmtree(self.folder / f"s{number}")
        shutil.copytree(self.folder / name, self.folder / f"s{number}")

    def files_with(self, mark: bytes) -> list[str]:
        """Return the files of all nodes that contain the mark."""
        found = (path for path in self.folder.glob("s*/**/*") if path.is_file())
        return [str(path.relative_to(self.folder)) for path in found if mark in path.read_bytes()]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            if child is not None and child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.terminate()
        for child in self._children:
            if child is not None:
                child.wait(20)


def wait_for(port: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on port {port}")
