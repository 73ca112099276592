"""The results of a message batch: `GET /v1/messages/batches/{id}/results`, one JSON object a line, in any order.

A line is `{"custom_id", "result": {"type", …}}`. The result of the type `succeeded` holds a complete answer under `message`; the
other types (`errored`, `canceled`, `expired`) hold none.
"""

import json
from typing import Any


def answers_in(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Return the answers of a batch's results with their `custom_id`, in the order of the lines; none for any other body."""
    if not body.startswith(b"{") or b'"custom_id"' not in body[: body.find(b"\n") + 1 or None]:
        return []
    answers: list[tuple[str, dict[str, Any]]] = []
    for line in body.split(b"\n"):
        try:
            value = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):  # cut inside a line
            return answers
        result = value.get("result") if isinstance(value, dict) else None
        message = result.get("message") if isinstance(result, dict) else None
        if isinstance(message, dict) and message.get("type") == "message":
            answers.append((str(value.get("custom_id", "")), message))
    return answers
