"""The key that a replay does not need, although SDK clients send nothing without one.

While a block only replays, the environment holds a stand-in, which clients made in the block find. A client that was made
earlier, as in a module, found none: its check of the request's headers is lifted meanwhile.
"""

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

STAND_IN = "replayed-by-retold"

_lock = threading.Lock()
_users = 0


def has_key(environ: Mapping[str, str]) -> bool:
    """Whether a client will find something to authenticate with in this environment."""
    return bool(environ.get("ANTHROPIC_API_KEY") or environ.get("ANTHROPIC_AUTH_TOKEN"))


@contextlib.contextmanager
def stand_in() -> Iterator[None]:
    """Let clients of the anthropic SDK be used without a key in the block. If there is a key, nothing is changed.

    Blocks may overlap: the first one puts the stand-in there, the last one takes it away.
    """
    global _users
    _lift_checks()
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


def _lift_checks() -> None:
    """Patch the check that makes a client refuse to send without a key; outside of replays it refuses as before.

    The method is private to the SDK. If a version has none of that name, only clients made in the block need no key.
    """
    sdk: Any = sys.modules.get("anthropic")
    for kind in () if sdk is None else (sdk.Anthropic, sdk.AsyncAnthropic):
        check = getattr(kind, "_validate_headers", None)
        if check is not None and not getattr(check, "_retold", False):
            kind._validate_headers = _lifted(check)


def _lifted(check: Any) -> Any:
    @functools.wraps(check)
    def validate(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return check(self, *args, **kwargs)
        except TypeError:
            if not _users:
                raise

    validate._retold = True  # type: ignore[attr-defined] # marks the patch
    return validate
