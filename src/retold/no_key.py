"""The key that a replay does not need: SDK clients send nothing without one, so a stand-in takes its place."""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping

STAND_IN = "replayed-by-retold"

_lock = threading.Lock()
_users = 0


def has_key(environ: Mapping[str, str]) -> bool:
    """Whether a client will find something to authenticate with in this environment."""
    return bool(environ.get("ANTHROPIC_API_KEY") or environ.get("ANTHROPIC_AUTH_TOKEN"))


@contextlib.contextmanager
def stand_in() -> Iterator[None]:
    """Clients made meanwhile can be used without a key: the first user of several puts the stand-in there, the last takes it
    away. Where there is a key nothing is changed."""
    global _users
    with _lock:
        is_needed = _users > 0 or not has_key(os.environ)
        if is_needed:
            _users += 1
            if not has_key(os.environ):
                os.environ["ANTHROPIC_API_KEY"] = STAND_IN
    try:
        yield
    finally:
        with _lock:
            _users -= is_needed
            if is_needed and _users == 0 and os.environ.get("ANTHROPIC_API_KEY") == STAND_IN:
                del os.environ["ANTHROPIC_API_KEY"]
