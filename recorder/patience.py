"""A limit on the time that a regular expression of a user may take, in every thread.

Python's `re` holds the interpreter's lock while it searches. It lets signal handlers run, but they run in the main thread only:

1. In the main thread, a timer of CPU time interrupts the search by a signal.
2. In other threads, a child process searches, and the same timer ends it.
3. A pattern without a repetition and without alternatives cannot take long, and needs neither.
"""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from . import strict_json
from .errors import InputError, RetoldError

LIMIT_S = 2.0

_MAY_TAKE_LONG = re.compile(r"[*+?{|]")

_CHILD = """
import json, re, signal, sys
pattern, flags, texts, at_start, name, limit = json.load(sys.stdin)
compiled = re.compile(pattern, flags)
signal.setitimer(signal.ITIMER_VIRTUAL, limit)  # no handler: the signal ends the process
if name is not None:
    found = [compiled.sub(lambda _: name, text) for text in texts]
else:
    found = [match[0] for text in texts for match in ([compiled.match(text)] if at_start else compiled.finditer(text)) if match]
signal.setitimer(signal.ITIMER_VIRTUAL, 0)
json.dump(found, sys.stdout)
"""


def find_texts(pattern: re.Pattern[str], text: str, *, at_start: bool = False) -> list[str]:
    """Return the texts that a pattern of a user matches in `text`, or only at its start. Raise InputError after two seconds."""
    if not _MAY_TAKE_LONG.search(pattern.pattern):
        return _found(pattern, text, at_start)
    if threading.current_thread() is threading.main_thread():
        with patience(pattern.pattern):
            return _found(pattern, text, at_start)
    return _by_child(pattern, [text], at_start=at_start)


def replaced(pattern: re.Pattern[str], texts: Sequence[str], name: str) -> list[str]:
    """Return texts with `name` in place of each part that a pattern of a user matches. Raise InputError after two seconds."""
    if not _MAY_TAKE_LONG.search(pattern.pattern):
        return _replaced(pattern, texts, name)
    if threading.current_thread() is threading.main_thread():
        with patience(pattern.pattern):
            return _replaced(pattern, texts, name)
    return _by_child(pattern, texts, name=name)


def _replaced(pattern: re.Pattern[str], texts: Sequence[str], name: str) -> list[str]:
    return [pattern.sub(lambda _: name, text) for text in texts]


def _found(pattern: re.Pattern[str], text: str, at_start: bool) -> list[str]:
    matches = [pattern.match(text)] if at_start else pattern.finditer(text)
    return [match[0] for match in matches if match is not None]


def _by_child(pattern: re.Pattern[str], texts: Sequence[str], *, at_start: bool = False, name: str | None = None) -> list[str]:
    given = strict_json.dumps([pattern.pattern, pattern.flags, list(texts), at_start, name, LIMIT_S], ensure_ascii=True)
    done = subprocess.run([sys.executable, "-I", "-c", _CHILD], input=given, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGVTALRM:
        raise _too_long(pattern.pattern)
    if done.returncode != 0:
        raise RetoldError(f"the pattern {pattern.pattern[:80]!r} could not be searched for: {done.stderr.strip()[-200:]}")
    found: list[str] = json.loads(done.stdout)
    return found


def _too_long(pattern: str) -> InputError:
    return InputError(
        f"the pattern {pattern[:80]!r} takes more than {LIMIT_S:g} s for one text. Write it without a repetition in a "
        "repetition, such as (a+)+, and without alternatives that match the same text."
    )


@contextlib.contextmanager
def patience(pattern: str) -> Iterator[None]:
    """Limit a search with `pattern` to two seconds of CPU time, in the main thread. Raise InputError."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _too_long(pattern)

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before or signal.SIG_DFL)
