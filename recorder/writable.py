"""Whether a file can be written, looked at before anything is run rather than when it has been paid for."""

import os
from pathlib import Path


def why_not_writable(path: Path) -> str | None:
    """Why a file cannot be made or written there; None where nothing is known to stand in the way. Nothing is made."""
    there = next((each for each in (path, *path.absolute().parents) if each.exists()), Path("/"))
    if there == path:
        return "it is a folder" if there.is_dir() else None if os.access(there, os.W_OK) else "it may not be written"
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return None
    return f"{there} is {'not writable' if there.is_dir() else 'no folder'}"
