"""Run a command as a child process that behaves as if it ran without retold.

1. It inherits the standard streams.
2. It stays in retold's process group, so the terminal (job control, Ctrl-C, reading from stdin) treats it as before.
3. Signals to retold are passed on to it, and retold ends with its exit code or its signal.
4. If SIGKILL ends retold, the kernel sends SIGTERM to the child (Linux only), because nothing answers its requests any more.
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
from ..recorder.http.platforms import is_on
from ..recorder.http.recognition import BASE_URL_VARIABLES
from ..testing.placeholder_key import STAND_IN, has_key

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG = 1


class Child:
    """A running command. Create it before any thread starts, because Python code runs between fork and exec.

    A context manager: until it is left, signals go to the command. Write the summary inside it, so that a late Ctrl-C does not
    cut the summary short.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start the command. Raise InputError if it does not exist."""
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
        """Give signals back to this process; blocked signals would never reach its other code or its later children."""
        thread = self._passing
        if thread is not None and thread.ident is not None and thread.is_alive() and self._process.returncode is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pthread_kill(
                    thread.ident, signal.SIGUSR2
                )  # it waits for a signal, and would take the next one of this process
            thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    @property
    def code(self) -> int:
        """The exit code, or minus the number of the signal that ended the command."""
        assert self._process.returncode is not None
        return self._process.returncode

    async def wait(self) -> None:
        """Wait until the command ends, and pass signals on meanwhile."""
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
        """Pass signals on, in the only thread that receives them. The child has those of the whole group (Ctrl-C) already."""
        while self._process.returncode is None:
            number, is_for_all = _next_signal()
            if not is_for_all:
                self._process.send_signal(number)

    def end_alike(self) -> None:
        """If a signal ended the child, end this process by the same signal, so that its parent sees the same result."""
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
    """Wait for a signal. Return it, and whether the whole process group got it."""
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
    """Return the function that the child runs between fork and exec."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
    parent = os.getpid()

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # retold died in between
                os.kill(os.getpid(), signal.SIGTERM)

    return prepare


_IF_SET = ("ANTHROPIC_FOUNDRY_BASE_URL", "ANTHROPIC_GOOGLE_CLOUD_BASE_URL")
"""Variables that are set only if the child has one, because their clients refuse them beside other arguments."""


def environment(environ: Mapping[str, str], url: str, *, key: bool, platforms: bool = True) -> dict[str, str]:
    """Return the environment of a child with the API at `url`, past any proxy. With `key`, add a dummy key if it has none.

    With `platforms` the clients of Bedrock, Vertex and other platforms are pointed at `url`, too.
    """
    own = {**environ, "ANTHROPIC_BASE_URL": url}
    if platforms:
        if own.pop("ANTHROPIC_FOUNDRY_RESOURCE", None) is not None:  # the client refuses it beside a base URL
            own["ANTHROPIC_FOUNDRY_BASE_URL"] = url
        own |= {name: url for name in BASE_URL_VARIABLES if name not in _IF_SET or name in own}
    for platform in ("BEDROCK", "VERTEX"):
        if key and is_on(environ, f"CLAUDE_CODE_USE_{platform}"):
            own[f"CLAUDE_CODE_SKIP_{platform}_AUTH"] = "1"
    if any(name.lower() in ("http_proxy", "all_proxy") for name in environ):
        for name in ("NO_PROXY", "no_proxy"):
            own[name] = ",".join(filter(None, [environ.get(name), "127.0.0.1", "localhost"]))
    if key and not has_key(environ):
        own["ANTHROPIC_API_KEY"] = STAND_IN
    return own
