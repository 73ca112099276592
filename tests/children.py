"""Run `retold` as a child process that a test watches, stops and kills."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import retold
from tests import forks

DEADLINE_S = 30.0

Child = subprocess.Popen[str] | forks.Child


class Folder:
    """A working directory in which `retold` runs as a child that can be watched, stopped and killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = retold.EventLog(path / ".retold" / "log.db")
        self.children: list[Child] = []

    def spawn(self, *args: str | Path, url: str = "", **environment: str) -> Child:
        """Start `retold ARGS` without waiting for it. With `url` it can call a server, so it imports the SDK."""
        own = {"PATH": os.environ["PATH"], "HOME": str(self.path), "LANG": "C.UTF-8", "TZ": "UTC"}
        if url:
            own |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "test-key"}
        self.children.append(forks.spawn("-m", "retold", *args, env=own | environment, cwd=self.path))
        return self.children[-1]

    def run_python(self, script: str) -> None:
        """Run a script to its end, with any exit code."""
        subprocess.run([sys.executable, "-c", script], cwd=self.path, check=False, timeout=DEADLINE_S)

    def newest(self) -> retold.RunInfo:
        return self.log.runs(limit=1)[0]

    def frames(self) -> int:
        """Return the number of frames of the newest run, or 0 if there is no log yet."""
        return self.newest().frames if self.log.path.exists() and self.log.runs() else 0

    def close(self) -> None:
        for child in self.children:
            with child:  # closes its pipes and waits
                child.kill()


def _heed_sigint() -> None:
    """Restore Python's SIGINT handler: a child of a background job (`make test &`) would ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def rest_of(child: Child) -> tuple[str, str]:
    """Return the rest of a child's stdout and stderr, up to its end."""
    assert child.stdout is not None
    assert child.stderr is not None
    limit = threading.Timer(DEADLINE_S, child.kill)
    limit.start()
    try:
        return child.stdout.read(), child.stderr.read()
    finally:
        child.wait()
        limit.cancel()


def wait_until(condition: Callable[[], bool], seconds: float = DEADLINE_S) -> None:
    """Return as soon as the condition is true. Fail if it stays false for too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def line_of(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()
