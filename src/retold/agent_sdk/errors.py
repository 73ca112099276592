"""The errors of the Agent SDK that a recording keeps, raised again in a replay."""

from typing import Any

import claude_agent_sdk


def again(error: dict[str, Any]) -> Exception:
    """Return a recorded error as the SDK raised it. A type that this version of the SDK lacks is a connection error."""
    kind = getattr(claude_agent_sdk, error["type"], None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = claude_agent_sdk.CLIConnectionError
    # The constructors of the SDK build the message from other values, which the recorded message holds already.
    made: Exception = kind.__new__(kind)
    made.args = (error["message"],)
    for name in ("exit_code", "stderr"):
        if name in error:
            setattr(made, name, error[name])
    return made
