"""A message as one JSON object for scripts: the message itself and its place in the log."""

from typing import Any

from ..recorder import strict_json
from ..recorder.http.exchange import timestamp
from ..recorder.messages import Message


def as_json(message: Message) -> dict[str, Any]:
    """Return `{run, seq, time, t_ms, step, task, type, subtype, message}`.

    `time` is ISO 8601 in UTC; `t_ms` is in milliseconds since the run began.
    """
    return {
        "run": message.run,
        "seq": message.seq,
        "time": timestamp(message.wall_ns),
        "t_ms": round(message.t_ns / 1e6, 3),
        "step": message.step,
        "task": message.task,
        "type": message.type,
        "subtype": message.subtype,
        "message": message.data,
    }


def json_line(message: Message) -> str:
    """Return `as_json` as one line of text."""
    return strict_json.dumps(as_json(message)) + "\n"
