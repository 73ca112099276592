"""Python children that need the SDK, forked from a process that has imported it: the import takes 2.5 s of CPU, a fork 20 ms.

Each worker of pytest starts one such process, when a test first asks for a child. A child is like one of `subprocess`: a process
of its own with its own environment, folder, arguments and output, which imports retold by itself and ends as any interpreter.
A test about the start of a process, its memory or the import of the SDK uses `subprocess`.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

ROOT = Path(__file__).resolve().parent.parent


class Child:
    """A running child, with as much of `subprocess.Popen` as the tests use."""

    def __init__(self, pid: int, ending: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        self._ending = ending

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in filter(None, (self.stdout, self.stderr)):
            stream.close()
        self.wait()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while the child runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code. Raises TimeoutExpired after so many seconds."""
        if self.returncode is None:
            if not select.select([self._ending], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("python", timeout or 0)
            self.returncode = int(_line(self._ending))
            os.close(self._ending)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal if the child has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def run(
    *argv: str | Path, env: Mapping[str, str], timeout: float = 60, cwd: str | Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run `python ARGV` (a file, -m or -c) to its end, as `subprocess.run` with `capture_output`."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = start(*argv, env=env, stdout=out.fileno(), stderr=err.fileno(), cwd=cwd)
        try:
            code = child.wait(timeout)
        finally:
            child.kill()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(argv, code, out.read(), err.read())


def spawn(*argv: str | Path, env: Mapping[str, str], cwd: Path) -> Child:
    """Start `python ARGV` with pipes for its output, as `subprocess.Popen`."""
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    try:
        child = start(*argv, env=env, stdout=to_out, stderr=to_err, cwd=cwd)
    finally:
        os.close(to_out)
        os.close(to_err)
    child.stdout, child.stderr = os.fdopen(out, encoding="utf-8"), os.fdopen(err, encoding="utf-8")
    return child


def start(*argv: str | Path, env: Mapping[str, str], stdout: int, stderr: int, cwd: str | Path | None = None) -> Child:
    """Start `python ARGV` with these files as its output."""
    task = {"argv": list(map(str, argv)), "env": dict(env), "cwd": str(cwd or Path.cwd())}
    ending, told = os.pipe()
    try:
        socket.send_fds(_server(), [json.dumps(task).encode() + b"\n"], [stdout, stderr, told])
    finally:
        os.close(told)
    return Child(int(_line(ending)), ending)


def _line(file: int) -> bytes:
    """Read one line of a pipe, byte by byte, so that the next one stays in it."""
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(file, 1)
        assert more, "the process that forks the children has ended"
        line += more
    return line


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", f"from tests.forks import serve; serve({theirs.fileno()})"]
    env = {name: value for name, value in os.environ.items() if name in ("PATH", "SSL_CERT_DIR", "PYTHONPYCACHEPREFIX")}
    # With a pipe as its output, the interpreter takes any output for one without places, which fits the files of all children.
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with theirs:
        process = subprocess.Popen(command, cwd=ROOT, env=env | {"LANG": "C.UTF-8"}, pass_fds=[theirs.fileno()], **pipes)

    def end() -> None:
        ours.close()
        process.communicate()

    atexit.register(end)
    return ours


def serve(channel: int) -> None:
    """Fork a child for each task that comes, until the socket is closed. Returns in each child too, after its script."""
    path = [entry for entry in sys.path if entry not in ("", str(ROOT))]
    importlib.import_module("anthropic")
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait for the children
    server = socket.socket(fileno=channel)
    while True:
        text, files = b"", list[int]()
        while not text.endswith(b"\n"):
            more, fds, _, _ = socket.recv_fds(server, 1 << 20, 3)
            if not more:
                return
            text, files = text + more, files + fds
        if os.fork() == 0:
            server.close()
            stdout, stderr, told = files
            if _wait_for_a_fork(told):
                return _become(json.loads(text), path, stdout, stderr)
        for file in files:
            os.close(file)


def _wait_for_a_fork(told: int) -> bool:
    """Fork again. Return True in the child; in the parent, write its pid and then its exit code, and exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(told)
        return True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(told, b"%d\n" % child)
    os.write(told, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


def _become(task: dict[str, Any], path: list[str], stdout: int, stderr: int) -> None:
    for number, file in ((1, stdout), (2, stderr)):
        os.dup2(file, number)
        os.close(file)
    os.chdir(task["cwd"])
    os.environ.clear()
    os.environ.update(task["env"])
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    first, *rest = task["argv"]
    own = [entry for entry in task["env"].get("PYTHONPATH", "").split(os.pathsep) if entry]
    folder = task["cwd"] if first == "-m" else "" if first == "-c" else str(Path(first).resolve().parent)
    sys.path[:] = [folder, *own, *path]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    sys.argv = ["-c", *rest[1:]] if first == "-c" else [first, *rest]
    source, name = (rest[0], "<string>") if first == "-c" else (Path(first).read_bytes(), first)
    names = sys.modules["__main__"].__dict__
    names |= {} if first == "-c" else {"__file__": first}
    del names["serve"]
    exec(compile(source, name, "exec"), names)
