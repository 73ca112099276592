"""A command run as a child, as if it had been run itself: streams inherited, signals passed on, its own end returned.

The child stays in our process group, so that the terminal (job control, Ctrl-C, reading from stdin) treats it as before. If we
die without a word (SIGKILL) the kernel tells it (SIGTERM, Linux only), for nothing answers its requests any more.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

from ..recorder.errors import InputError
from ..testing.placeholder_key import STAND_IN, has_key

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG = 1


class Child:
    """A running command. Make it before any thread is started: between fork and exec code of ours runs.

    A context manager: until it is left, signals are the command's. What is written when the command has ended is written in it,
    so that a late Ctrl-C does not cut it short.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Raises InputError where there is no such command."""
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        self._passing: threading.Thread | None = None
        try:
            self._process = subprocess.Popen(command, env=environ, preexec_fn=_preparing(self._before))
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
            raise InputError(f"cannot run {command[0]}: {error.strerror or error}.") from error

    def __repr__(self) -> str:
        return f"<Child {self._process.pid} {'running' if self._process.returncode is None else self._process.returncode}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Signals are ours again: whoever else runs in this process, or is started by it, would never get them."""
        thread = self._passing
        if thread is not None and thread.ident is not None and thread.is_alive() and self._process.returncode is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pthread_kill(thread.ident, signal.SIGUSR2)  # it waits for a signal, and would take the next one of ours
            thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    @property
    def code(self) -> int:
        """How it ended: its exit code, or minus the number of the signal that killed it."""
        assert self._process.returncode is not None
        return self._process.returncode

    async def wait(self) -> None:
        """Wait for its end, and pass signals on meanwhile."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def wait() -> None:
            self._process.wait()
            loop.call_soon_threadsafe(ended.set)

        self._passing = threading.Thread(target=self._pass_signals_on, daemon=True)
        self._passing.start()
        threading.Thread(target=wait, daemon=True).start()
        await ended.wait()

    def _pass_signals_on(self) -> None:
        """Signals stay blocked everywhere but here. What the kernel sends to the whole group (Ctrl-C) the child has already."""
        while self._process.returncode is None:
            number, is_for_all = _next_signal()
            if not is_for_all:
                self._process.send_signal(number)

    def end_alike(self) -> None:
        """If a signal killed the child, die of the same: whoever runs us sees what it would have seen."""
        if self.code >= 0:
            return
        number = -self.code
        sys.stdout.flush()
        sys.stderr.flush()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)


def _next_signal() -> tuple[int, bool]:
    """The next signal, and whether the whole process group got it."""
    if hasattr(signal, "sigwaitinfo"):
        info = signal.sigwaitinfo(PASSED_ON)
        return info.si_signo, info.si_code > 0  # above 0: from the kernel, that is from the terminal (sigaction(2))
    number = signal.sigwait(PASSED_ON)
    return number, number in (signal.SIGINT, signal.SIGQUIT) and _in_foreground()


def _in_foreground() -> bool:
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _preparing(mask: Iterable[int]) -> Callable[[], None]:
    """What the child does between fork and exec."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
    parent = os.getpid()

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died in between
                os.kill(os.getpid(), signal.SIGTERM)

    return prepare


def environment(environ: Mapping[str, str], url: str, *, key: bool) -> dict[str, str]:
    """The environment of a child whose API is at `url`, around any proxy; with `key`, a dummy key where it has none."""
    own = {**environ, "ANTHROPIC_BASE_URL": url}
    if any(name.lower() in ("http_proxy", "all_proxy") for name in environ):
        for name in ("NO_PROXY", "no_proxy"):
            own[name] = ",".join(filter(None, [environ.get(name), "127.0.0.1", "localhost"]))
    if key and not has_key(environ):
        own["ANTHROPIC_API_KEY"] = STAND_IN
    return own
