"""A fake of Claude Code: a child process that speaks stream-json from a script, which is a recorded wire of the Agent SDK.

A script is a file of JSON lines (tests/agent_wires/). `r` sends a line to the SDK, and `w` waits for a line of its kind.
`close` waits for the end of the input. `eof` exits with code 0, `raise` exits with an error code, and `kill` ends by a signal.
"""

import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

WIRES = Path(__file__).parent / "agent_wires"
_SCRIPT = "RETOLD_TEST_WIRE"


def installed(folder: Path) -> str:
    """Write an executable that runs the fake, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "claude"
    path.write_text(f"#!{sys.executable} -SE\nimport runpy\nrunpy.run_path({str(__file__)!r}, run_name='__main__')\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def environment(script: str | Path) -> dict[str, str]:
    """Return the variables that name a script. `script` is a file, or the name of a recorded wire."""
    return {_SCRIPT: str(WIRES / f"{script}.jsonl" if isinstance(script, str) else script)}


def written(path: Path, *steps: dict[str, Any], base: str = "plain") -> Path:
    """Write a script that begins like a recorded wire, up to the user's first message, and continues with `steps`."""
    lines = [json.loads(line) for line in (WIRES / f"{base}.jsonl").read_text().split("\n") if line]
    end = next(at for at, line in enumerate(lines) if line.get("m", {}).get("type") == "user")
    path.write_text("".join(f"{json.dumps(step)}\n" for step in [*lines[: end + 1], *steps]))
    return path


def _kind(line: dict[str, Any]) -> tuple[Any, ...]:
    asked, answered = line.get("request"), line.get("response")
    return line["type"], asked["subtype"] if asked else None, answered["request_id"] if answered else None


def main() -> None:
    """Play the script."""
    text = Path(os.environ[_SCRIPT]).read_text().replace("/home/dev/proj", os.getcwd()).replace("/home/dev", os.environ["HOME"])
    ids: dict[str, str] = {}
    unread: list[dict[str, Any]] = []
    for step in map(json.loads, filter(None, text.split("\n"))):
        line = step.get("m", {})
        match step["d"]:
            case "r":
                answer = line.get("response")
                if line["type"] == "control_response" and answer["request_id"] in ids:
                    answer["request_id"] = ids[answer["request_id"]]
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
            case "w":
                while (got := next((each for each in unread if _kind(each) == _kind(line)), None)) is None:
                    read = sys.stdin.readline()
                    if not read:
                        sys.exit(0)
                    unread.append(json.loads(read))
                unread.remove(got)
                if "request_id" in line:
                    ids[line["request_id"]] = got["request_id"]
            case "close":
                sys.stdin.read()
            case "raise":
                sys.exit(step["exit_code"])
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
