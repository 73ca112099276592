"""What an exchange cost, by genai-prices. An unknown model has an unknown cost, never 0."""

from typing import Any


def price(model: str, usage: dict[str, Any]) -> float | None:
    """US dollars for a usage as the Messages API reports it, or None where the model's price is not known."""
    from genai_prices import extract_usage  # 150 ms, and a mock run takes the recorded cost

    try:
        return float(extract_usage({"model": model, "usage": usage}, provider_id="anthropic").calc_price().total_price)
    except (LookupError, ValueError):
        return None
