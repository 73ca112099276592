"""The cost of an exchange, by genai-prices. The cost of an unknown model is None, never 0."""

import functools
from collections.abc import Callable
from typing import Any


def price(model: str, usage: dict[str, Any]) -> float | None:
    """Return the cost in US dollars of a usage as the Messages API reports it.

    Return None if genai-prices has no price for the model, or is not installed (`pip install 'retold[prices]'`).
    """
    extract_usage = _table()
    if extract_usage is None:
        return None
    try:
        return float(extract_usage({"model": model, "usage": usage}, provider_id="anthropic").calc_price().total_price)
    except (LookupError, ValueError):
        return None


@functools.cache
def _table() -> Callable[..., Any] | None:
    """Import the table of prices on first use: it takes 150 ms, and a mock run uses the recorded cost."""
    try:
        from genai_prices import extract_usage
    except ModuleNotFoundError:
        return None
    return extract_usage


def is_priced(model: str) -> bool | None:
    """Return whether the table has a price for the model; None if genai-prices is not installed."""
    return None if _table() is None else price(model, {"input_tokens": 1, "output_tokens": 1}) is not None
