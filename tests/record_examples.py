"""Records the cassettes of the examples through the real live path, from a scripted Messages API server on loopback.

    python -m tests.record_examples

Each example is run as a user would run it (`retold run … --live` in a subprocess) in an empty folder, with an empty home and
a dummy key. What "Claude" says is scripted below; everything else (SDK, tee, tools, log, cassette) is the real thing.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.messages_server import MessagesServer, Reply, text, thinking, tool_use

ROOT = Path(__file__).resolve().parent.parent


def usage(given: int, made: int) -> dict[str, int]:
    return {"input_tokens": given, "output_tokens": made}


NUMBERS = [
    Reply(
        [text("1\n2\n3\n4\n5\n6\n7\n8\n9\n10", pieces=3)],
        first_gap_s=0.18,
        gap_s=0.03,
        usage=usage(28, 29),
    )
]

FILE_OPERATIONS = [
    Reply(
        [
            thinking("Four operations on one file; Write first."),
            text("I'll write test_file.txt with the two lines.", pieces=12),
            tool_use("Write", {"file_path": "test_file.txt", "content": "alpha\nbeta\n"}, pieces=16),
        ],
        stop_reason="tool_use",
        first_gap_s=0.25,
        gap_s=0.03,
        usage=usage(1154, 121),
    ),
    Reply(
        [text("Now I'll read it back.", pieces=10), tool_use("Read", {"file_path": "test_file.txt"}, pieces=12)],
        stop_reason="tool_use",
        first_gap_s=0.2,
        gap_s=0.03,
        usage=usage(1302, 68),
    ),
    Reply(
        [
            text('Both lines are there. I\'ll change "beta" to "gamma".', pieces=12),
            tool_use("Edit", {"file_path": "test_file.txt", "old_string": "beta", "new_string": "gamma"}, pieces=16),
        ],
        stop_reason="tool_use",
        first_gap_s=0.2,
        gap_s=0.03,
        usage=usage(1389, 112),
    ),
    Reply(
        [text("Finally I'll count the lines.", pieces=10), tool_use("Bash", {"command": "wc -l test_file.txt"}, pieces=12)],
        stop_reason="tool_use",
        first_gap_s=0.2,
        gap_s=0.03,
        usage=usage(1525, 71),
    ),
    Reply(
        [text('I wrote test_file.txt, read it, changed "beta" to "gamma", and it has 2 lines.', pieces=10)],
        first_gap_s=0.2,
        gap_s=0.03,
        usage=usage(1618, 33),
    ),
]

EXAMPLES = {"clean_streaming_numbers": NUMBERS, "streaming_file_operations": FILE_OPERATIONS}


def scrubbed_environment(url: str, home: str) -> dict[str, str]:
    """An environment without anything of the caller's but the path: a dummy key, and the loopback server as the API."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "LANG": "C.UTF-8",
        "ANTHROPIC_API_KEY": "test-key",
        "ANTHROPIC_BASE_URL": url,
    }


def record(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder, MessagesServer(EXAMPLES[name]) as server:
        command = [sys.executable, "-m", "retold", "run", str(ROOT / "examples" / f"{name}.yaml"), "--live"]
        command += ["--cassette", str(ROOT / "cassettes" / f"{name}.yaml")]
        subprocess.run(command, cwd=folder, env=scrubbed_environment(server.url, folder), check=True)


if __name__ == "__main__":
    for example in sys.argv[1:] or EXAMPLES:
        record(example)
