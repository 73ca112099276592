"""Close the connections of this process before it forks.

SQLite keeps the locks and the shared memory of a file in tables of the process. A forked child has a copy of these tables, but
holds none of the locks: it regards the file as locked, another process truncates the shared memory under it, and the child dies
of SIGBUS. After a log was closed before the fork, the next write opens it again, in the parent and in the child.
"""

import os
import threading
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """An object with a connection, which `lock` guards."""

    lock: threading.RLock

    def shut(self) -> None: ...


WAIT_S = 1.0
"""How long a fork waits for a write of another thread."""

shut_before: WeakSet[Forkable] = WeakSet()
"""The objects that are shut before each fork, as long as they exist."""

_locked: list[Forkable] = []


def _before() -> None:
    for log in sorted(shut_before, key=id):  # in one order, because two threads may fork at once
        if log.lock.acquire(timeout=WAIT_S):
            _locked.append(log)
            log.shut()


def _after() -> None:
    while _locked:
        _locked.pop().lock.release()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
