"""Makes docs/terminal.svg: what a real terminal of 80 columns shows of two commands.

    python docs/picture.py

The commands run in a pseudo-terminal, offline, with an empty home; rich turns what they wrote into SVG. Times of day are those
of the moment, everything else is the recording.
"""

import io
import os
import re
import sys
import tempfile
from pathlib import Path

import pexpect
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 80
COMMANDS = ("retold run examples/streaming_file_operations.yaml", "retold ls")


def typed(command: str, folder: str) -> str:
    """What a terminal receives when the command runs in it."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": folder,
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "RETOLD_DB": f"{folder}/log.db",
    }
    output, code = pexpect.run(
        command, cwd=str(ROOT), env=environment, encoding="utf-8", withexitstatus=True, dimensions=(50, WIDTH)
    )
    if code != 0:
        raise SystemExit(f"{command} ended with {code}:\n{output}")
    return str(output).replace("\r\n", "\n")


def main() -> None:
    screen = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            screen.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            screen.print(Text.from_ansi(typed(command, folder)))
    picture = screen.export_svg(title="retold", theme=MONOKAI)
    # Rich's font would be fetched from the network by whoever looks at the picture.
    picture = re.sub(r"\s*@font-face \{.*?\n    \}", "", picture, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")
    (ROOT / "docs" / "terminal.svg").write_text(picture, "utf-8")


if __name__ == "__main__":
    main()
