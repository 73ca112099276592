"""Python children, forked from a process that has already imported retold and the SDK.

Importing the SDK takes 2.5 s of CPU, a new interpreter with a command of retold 0.5 s, and a fork 0.1 s. Each pytest worker
starts one such process when a test first asks for a child. A child resembles one of `subprocess`: it has its own environment,
folder, arguments, input and output, and ends like any interpreter. No module of retold reads the environment, the folder or the
clock at import, so children can share the imports. A test of the start of a process, its memory, an import or an interpreter
variable uses `subprocess`.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
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
IMPORTED = ("audit", "cli", "comparing", "fleet", "formats", "handlers", "servers", "workflow")
"""The packages of retold with modules that the children share, including all of their imports."""
NEED_AN_EXTRA = ("retold.workflow.claude_code_live",)
"""Modules among them that import a package outside retold's dependencies."""


class Child:
    """A running child, with the part of `subprocess.Popen` that the tests use."""

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
        """Return the exit code. Raise TimeoutExpired after `timeout` seconds."""
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
    *argv: str | Path, env: Mapping[str, str], timeout: float = 60, cwd: str | Path | None = None, input: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run `python ARGV` (a file, -m or -c) to its end, as `subprocess.run` with `capture_output`."""
    with tempfile.TemporaryFile("w+") as typed, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        typed.write(input)
        typed.seek(0)
        child = start(*argv, env=env, files=(typed.fileno(), out.fileno(), err.fileno()), cwd=cwd)
        try:
            code = child.wait(timeout)
        finally:
            child.kill()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(argv, code, out.read(), err.read())


def spawn(*argv: str | Path, env: Mapping[str, str], cwd: Path) -> Child:
    """Start `python ARGV` with pipes for its output and no input, as `subprocess.Popen`."""
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    try:
        with open(os.devnull) as nothing:
            child = start(*argv, env=env, files=(nothing.fileno(), to_out, to_err), cwd=cwd)
    finally:
        os.close(to_out)
        os.close(to_err)
    child.stdout, child.stderr = os.fdopen(out, encoding="utf-8"), os.fdopen(err, encoding="utf-8")
    return child


def start(*argv: str | Path, env: Mapping[str, str], files: tuple[int, int, int], cwd: str | Path | None = None) -> Child:
    """Start `python ARGV` with these files as its input, output and errors."""
    task = {"argv": list(map(str, argv)), "env": dict(env), "cwd": str(cwd or Path.cwd())}
    ending, status = os.pipe()
    try:
        socket.send_fds(_server(), [json.dumps(task).encode() + b"\n"], [*files, status])
    finally:
        os.close(status)
    return Child(int(_line(ending)), ending)


def _line(file: int) -> bytes:
    """Read one line of a pipe, byte by byte, so that the next line stays in the pipe."""
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
    # If its own stdout is a pipe, the interpreter treats every output as not seekable. That suits the files of all children.
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with theirs:
        process = subprocess.Popen(command, cwd=ROOT, env=env | {"LANG": "C.UTF-8"}, pass_fds=[theirs.fileno()], **pipes)

    def end() -> None:
        ours.close()
        process.communicate()

    atexit.register(end)
    return ours


def serve(channel: int) -> None:
    """Fork a child for each task that arrives, until the socket is closed. Return in each child too, after its script."""
    path = [entry for entry in sys.path if entry not in ("", str(ROOT))]
    gc.disable()
    importlib.import_module("anthropic")
    for package in IMPORTED:
        for module in pkgutil.walk_packages(importlib.import_module(f"retold.{package}").__path__, f"retold.{package}."):
            if module.name not in NEED_AN_EXTRA:
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for the children's waiting parents
    server = socket.socket(fileno=channel)
    while True:
        text, files = b"", list[int]()
        while not text.endswith(b"\n"):
            more, fds, _, _ = socket.recv_fds(server, 1 << 20, 4)
            if not more:
                return
            text, files = text + more, files + fds
        if os.fork() == 0:
            server.close()
            *streams, status = files
            if _wait_for_a_fork(status):
                return _become(json.loads(text), path, streams)
        for file in files:
            os.close(file)


def _wait_for_a_fork(status: int) -> bool:
    """Fork again. Return True in the child. In the parent, write the child's pid and then its exit code, and exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(status)
        return True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(status, b"%d\n" % child)
    os.write(status, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


def _become(task: dict[str, Any], path: list[str], streams: list[int]) -> None:
    for number, file in enumerate(streams):
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
