"""Replay without an API key, although SDK clients refuse to send without one.

While a block only replays, the environment holds a placeholder key, which clients made in the block use. A client made
earlier, for example at import, has no key; its check of the request headers is lifted until the block ends.
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
    """Return whether the environment holds an API key or an auth token."""
    return bool(environ.get("ANTHROPIC_API_KEY") or environ.get("ANTHROPIC_AUTH_TOKEN"))


@contextlib.contextmanager
def stand_in() -> Iterator[None]:
    """Allow clients of the anthropic SDK without a key in the block. An existing key is left unchanged.

    Blocks may overlap: the first sets the placeholder, the last removes it.
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
    """Patch the check that makes a client refuse to send without a key. Outside replays it still refuses.

    The method is private to the SDK. If an SDK version lacks it, only clients made in the block work without a key.
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
