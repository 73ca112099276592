"""retold doctor: installed packages, paths, and problems."""

import importlib.metadata
import importlib.util
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..recorder.files import open_regular
from .common import Db, Json, heading, print_json, say, test_mode
from .fleet_check import mirror_found, mirror_line, shelf_found, shelf_lines

if TYPE_CHECKING:
    from ..recorder.agent_wire import AgentSession

PARTS = (
    "anthropic",
    "claude-agent-sdk",
    "httpx2",
    "httpx",
    "pydantic",
    "PyYAML",
    "jinja2",
    "rich",
    "typer",
    "genai-prices",
    "starlette",
    "uvicorn",
    "pyarrow",
    "nats-py",
    "vcrpy",
    "pytest",
)

_FIRST_KEYS = re.compile(rb"(?:\A|[\n{, \"])interactions\"?:")
"""How a cassette begins, within 200 bytes: retold's or vcrpy's, YAML or JSON."""

KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


def doctor(json: Json = False, db: Db = None) -> None:
    """List packages, the log, the cassettes and the fleet on the shelf of RETOLD_SHIP; check each of them, and for a key.

    Keys are never printed. Exit code 1 if a problem prevents a run.

    Example: retold doctor
    """
    problems: list[str] = []
    found = {
        "versions": _versions(),
        "log": _log(db, problems),
        "cassettes": _cassettes(problems),
        "live": _live(problems),
        "shelf": shelf_found(db, problems),
        "problems": problems,
    }
    if json:
        print_json(found)
    else:
        _show(found)
    if problems:
        raise typer.Exit(1)


def _versions() -> dict[str, str | None]:
    from ..recorder.log.sqlite.evidence import SQLITE_VERSION

    found: dict[str, str | None] = {
        "retold": importlib.metadata.version("retold"),
        "python": f"{platform.python_version()} ({platform.system()} {platform.machine()})",
        "sqlite": SQLITE_VERSION,
    }
    for part in PARTS:
        try:
            found[part] = importlib.metadata.version(part)
        except importlib.metadata.PackageNotFoundError:
            found[part] = None
    return found


def _log(db: Path | None, problems: list[str]) -> dict[str, Any]:
    from ..recorder.errors import RetoldError
    from ..recorder.log.log import EventLog

    with EventLog(db) as log:
        found: dict[str, Any] = {"path": str(log.path), "there": log.path.exists(), "runs": 0, "bytes": 0}
        if not found["there"]:
            return found
        try:
            runs = log.runs()
            found |= {"runs": len(runs), "bytes": log.path.stat().st_size}
            found["shelves"] = mirror_found(log)
            found["unfinished"] = [info.run for info in runs if info.status in ("running", "interrupted")]
        except (RetoldError, OSError) as error:
            problems.append(str(error))
    return found


def _cassettes(problems: list[str]) -> list[dict[str, Any]]:
    """Return the cassettes below the working directory."""
    from ..recorder.cassette.format import read_cassette
    from ..recorder.errors import CassetteError

    found: list[dict[str, Any]] = []
    for path in sorted(_like_cassettes()):
        try:
            held = read_cassette(path)
            unread = _unread(path, held.sessions, problems)
            found.append({
                "path": str(path), "exchanges": len(held.exchanges), "sessions": len(held.sessions), "no_longer_read": unread,
            })  # fmt: skip
        except CassetteError as error:
            found.append({"path": str(path), "exchanges": None, "sessions": None, "no_longer_read": []})
            problems.append(str(error))
    return found


def _unread(path: Path, sessions: "tuple[AgentSession, ...]", problems: list[str]) -> list[str]:
    """Return the fields of sessions that the Agent SDK read when they were recorded, and the installed version does not read.

    Sessions that the installed version recorded are not checked, so that the SDK is not imported for them.
    """
    try:
        installed = importlib.metadata.version("claude-agent-sdk")
    except importlib.metadata.PackageNotFoundError:
        return []
    found: dict[str, None] = {}
    for number, session in enumerate(sessions, 1):
        if session.sdk != installed:
            from ..agent_sdk.unread import no_longer_read

            names, errors = no_longer_read(session)
            found |= dict.fromkeys(names)
            if errors:
                problems.append(
                    f"{path}: Agent SDK {installed} cannot read session {number}, which {session.sdk} recorded: {errors[0]}. "
                    "Record it again."
                )
    return list(found)


def _like_cassettes() -> Iterator[Path]:
    """Yield the files that begin as cassettes do. Hidden folders, installed packages and links are not entered."""
    for folder, folders, names in os.walk("."):
        within = Path(folder)
        folders[:] = [n for n in folders if n[0] != "." and n != "node_modules" and not (within / n / "pyvenv.cfg").exists()]
        for path in (within / name for name in names if name.endswith((".yaml", ".yml", ".json"))):
            try:
                with open_regular(path) as file:
                    is_one = _FIRST_KEYS.search(file.read(200)) is not None
            except OSError:
                is_one = False
            if is_one:
                yield path


def _live(problems: list[str]) -> dict[str, Any]:
    from ..recorder.errors import InputError
    from ..recorder.secrets.redactor import Redactor

    try:
        mode: str = test_mode()
    except InputError as error:
        problems.append(str(error))
        mode = "unknown"
    url = os.environ.get("ANTHROPIC_BASE_URL")
    return {
        "key": next((f"set ({name})" for name in KEYS if os.environ.get(name)), "not set"),
        "base_url": Redactor().url(url) if url else "https://api.anthropic.com (the default)",
        "mode": mode,
    }


def _show(found: dict[str, Any]) -> None:
    from ..recorder.words import counted, plural

    versions = "\n".join(f"  {name:<18}{version or 'not installed'}" for name, version in found["versions"].items())
    log = found["log"]
    runs = (
        f"{plural(log['runs'], 'run')}, {log['bytes'] / 1e6:.1f} MB" if log["there"] else "not there yet; the first run makes it"
    )
    cassettes = [
        f"  {c['path']}: "
        + ("damaged" if c["exchanges"] is None else counted(exchange=c["exchanges"], session=c["sessions"]))
        + (f"\n    no longer read by this Agent SDK: {', '.join(names)}" if (names := c["no_longer_read"]) else "")
        for c in found["cassettes"]
    ]
    live = found["live"]
    heading("Versions")
    say(f"{versions}\n")
    heading("Log")
    say("\n".join([f"  {log['path']}: {runs}", *map(mirror_line, log.get("shelves", []))]) + "\n")
    heading("Cassettes")
    say(("\n".join(cassettes) or "  none below this folder") + "\n")
    heading("Live runs")
    say(f"  key           {live['key']}\n  API           {live['base_url']}\n  TEST_MODE     {live['mode']}\n")
    if (shelf := found["shelf"]) is not None:
        heading("Shelf")
        say("\n".join(shelf_lines(shelf)) + "\n")
    heading("Problems", "1;31" if found["problems"] else "1")
    say("\n".join(f"  {problem}" for problem in found["problems"]) or "  none")
