"""Makes docs/terminal.svg: what a real terminal of 80 columns shows of a workflow, run twice, and of the difference.

    python -m docs.picture

The commands run in a pseudo-terminal with an empty home, against a scripted server on this machine; rich turns what they wrote
into SVG.
"""

import io
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

import pexpect
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from tests.messages_server import MessagesServer, Reply, text, tool_use

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 80
COMMANDS = ("retold run review.yaml --live", "retold run review.yaml --live > again.txt", "retold diff last~1 last")

WORKFLOW = """\
workflow:
  name: "review"
  steps:
    - name: "read"
      type: "claude"
      claude_options:
        model: "haiku"
        allowed_tools: ["Read"]
        async_streaming: true
        stream_handler: "console"
      prompt: "What is still open in notes.txt?"
"""
NOTES = "- tests: done\n- docs: open\n- release date: open\n"


def answers(*closing: str) -> list[Reply]:
    """Each run reads the notes, then says something else."""
    look = [text("I'll read the notes first."), tool_use("Read", {"file_path": "notes.txt"})]
    return [
        reply
        for said in closing
        for reply in (Reply(look, stop_reason="tool_use", gap_s=0.03), Reply([text(said)], first_gap_s=0.4, gap_s=0.03))
    ]


def typed(command: str, folder: str, url: str) -> str:
    """What a terminal receives when the command runs in it."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": folder,
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "a-key-for-nobody",
    }
    output, code = pexpect.run(
        shlex.join(["bash", "-c", command]),
        cwd=folder,
        env=environment,
        encoding="utf-8",
        withexitstatus=True,
        dimensions=(50, WIDTH),
    )
    if code not in (0, 1):  # 1: they differ
        raise SystemExit(f"{command} ended with {code}:\n{output}")
    return str(output).replace("\r\n", "\n")


def main() -> None:
    screen = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    script = answers("Still open: the docs and the release date.", "Still open: docs, and a release date.")
    with tempfile.TemporaryDirectory() as folder, MessagesServer(script) as server:
        Path(folder, "review.yaml").write_text(WORKFLOW)
        Path(folder, "notes.txt").write_text(NOTES)
        for command in COMMANDS:
            screen.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            screen.print(Text.from_ansi(typed(command, folder, server.url)))
    picture = screen.export_svg(title="retold", theme=MONOKAI)
    # Rich's font would be fetched from the network by whoever looks at the picture.
    picture = re.sub(r"\s*@font-face \{.*?\n    \}", "", picture, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")
    (ROOT / "docs" / "terminal.svg").write_text(picture, "utf-8")


if __name__ == "__main__":
    main()
