"""Pauses before a request or a step is tried again."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from .agent import Cause
from .schema import RetryConfig

MAX_DELAY_S = 60.0
"""The longest pause in seconds. An answer that asks for a longer one is not obeyed, as in the SDK."""

REPEATED: frozenset[Cause] = frozenset({"rate_limit", "overloaded", "server_error", "connection", "cut"})
"""Causes of failure that may not recur."""


def delay_s(config: RetryConfig, attempt: int) -> float:
    """Return the pause after the attempt of that number (from 1), in seconds."""
    base = config.base_delay_ms / 1000
    factor = {"exponential": 2.0 ** (attempt - 1), "linear": float(attempt), "constant": 1.0}[config.backoff_strategy]
    return min(base * factor, MAX_DELAY_S)


def asked_delay_s(headers: Mapping[str, str]) -> float | None:
    """Return the pause that an answer asks for, in seconds, or None (`retry-after-ms`, or `retry-after` as seconds or a date)."""
    try:
        delay = float(headers["retry-after-ms"]) / 1000 if "retry-after-ms" in headers else float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        try:
            delay = parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time()
        except ValueError:
            return None
    return delay if 0 <= delay <= MAX_DELAY_S else None
