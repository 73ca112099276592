"""Record the cassettes of the examples through the real live path, from a scripted Messages API server on loopback.

    python -m tests.record_examples

Each example is run as a user would run it (`retold run … --live` in a subprocess) in an empty folder, with an empty home and
a dummy key. The answers of "Claude" are scripted in `tests/example_replies.py`. All other parts (SDK, tee, tools, log,
cassette) are the real ones.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.example_replies import REPLIES, script_of
from tests.messages_server import MessagesServer

ROOT = Path(__file__).resolve().parent.parent


def scrubbed_environment(url: str, home: str) -> dict[str, str]:
    """Return the caller's path, a dummy key, and the loopback server as the API. Keep no other variable of the caller."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "LANG": "C.UTF-8",
        "ANTHROPIC_API_KEY": "test-key",
        "ANTHROPIC_BASE_URL": url,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }


def record(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder, MessagesServer(script_of(name)) as server:
        command = [sys.executable, "-m", "retold", "run", str(ROOT / "examples" / f"{name}.yaml"), "--live"]
        command += ["--cassette", str(ROOT / "cassettes" / f"{name}.yaml")]
        subprocess.run(command, cwd=folder, env=scrubbed_environment(server.url, folder), check=True)


if __name__ == "__main__":
    for example in sys.argv[1:] or REPLIES:
        record(example)
