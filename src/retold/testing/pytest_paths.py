"""Paths of cassettes: `cassettes/<module>/<test>.yaml` beside the module, or the path of the mark, counted from that folder.

Two tests never share a file by accident. A name that holds other characters than file names should, or is too long, is changed
and gets a digest. So does a name that differs from another one only in case or in Unicode normalisation, because macOS and
Windows take both for one file. Which names a module has is noted while pytest makes its items, before any are selected: a test
has the same file in every session.
"""

import os
import shlex
import unicodedata
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from .pytest_session import STATS
from .record_modes import OneTest

MAX_NAME = 200
_KEPT = frozenset("._-[] ,=+@")
_SUFFIX = ".yaml"

NAMES = pytest.StashKey[dict[tuple[str, str], set[str]]]()
"""(parent's id, folded name) -> the spellings of it."""


def note(config: pytest.Config, made: object) -> None:
    """Note the names of the items that pytest made from one object of a module or class."""
    for node in made if isinstance(made, list) else [made]:
        if isinstance(node, pytest.Item | pytest.Collector):
            config.stash[NAMES].setdefault(_key(node), set()).add(node.name)


def folder_of(item: pytest.Item) -> Path:
    """Return the folder of a module's cassettes."""
    return Path(item.path).parent / "cassettes" / Path(item.path).stem


def path_of(item: pytest.Item, marker: pytest.Mark | None) -> Path:
    """Return the path of a test's cassette."""
    folder = folder_of(item)
    if (named := _named_by(marker)) is not None:
        return folder / str(named)
    owner = getattr(item, "cls", None)
    name = without_secrets(item, item.name if owner is None else f"{owner.__qualname__}.{item.name}")
    safe = safe_name(name)
    if safe == name and _has_twin(item):
        apart = folder / f"{_with_digest(safe, name)}{_SUFFIX}"
        # A file of that very spelling was recorded by retold 0.1, or when the test had no twin.
        if apart.exists() or f"{safe}{_SUFFIX}" not in _listed(folder):
            return apart
    return folder / f"{safe}{_SUFFIX}"


def _named_by(marker: pytest.Mark | None) -> object:
    if marker is None:
        return None
    return marker.args[0] if marker.args else marker.kwargs.get("path")


def is_named(marker: pytest.Mark | None) -> bool:
    """Return whether the mark names a cassette, which other tests may use, too."""
    return _named_by(marker) is not None


def note_user(item: pytest.Item) -> None:
    """Count a collected test as a user of its cassette, for pruning."""
    stats, marker = item.config.stash[STATS], item.get_closest_marker("retold")
    path, folder = path_of(item, marker), folder_of(item)
    stats.users[str(path)] = stats.users.get(str(path), 0) + 1
    parts = {Path(str(arg).partition("::")[0]).stem for arg in item.config.args if "::" in str(arg)}
    inside = Path(os.path.normpath(path)).is_relative_to(folder)
    if is_named(marker) and (folder.name in parts or not inside):
        stats.uncertain = sorted({*stats.uncertain, str(path)})


def one_test(item: pytest.Item, path: Path) -> OneTest:
    """Return the test as a miss names it, with paths that count from the folder in which pytest was started."""
    start = item.config.invocation_params.dir
    argument = "::".join([os.path.relpath(item.path, start), *item.nodeid.split("::")[1:]])
    return OneTest(shlex.quote(argument), os.path.relpath(path, start))


def without_secrets(item: pytest.Item, name: str) -> str:
    """Return a test's name without secrets in its parameters; numbers distinguish the tests instead."""
    from ..recorder.secrets.redactor import Redactor

    clean = Redactor().text(name)
    if clean == name:
        return name
    callspec = getattr(item, "callspec", None)
    numbers = () if callspec is None else callspec.indices.values()
    return "-".join([clean, *map(str, numbers)])


def safe_name(name: str) -> str:
    """Return a test's name as a file name. A changed name gets a digest."""
    safe = "".join(char if char.isalnum() or char in _KEPT else "-" for char in name).lstrip(".")
    return safe if safe == name and len(safe.encode()) <= MAX_NAME else _with_digest(safe, name)


def _with_digest(safe: str, name: str) -> str:
    return f"{safe.encode()[:MAX_NAME].decode('utf-8', 'ignore')}-{sha256(name.encode()).hexdigest()[:8]}"


def _has_twin(item: pytest.Item) -> bool:
    """Return whether a file system may confuse the name of the test, or of one of its classes, with another one."""
    names = item.config.stash[NAMES]
    return any(len(names.get(_key(node), ())) > 1 for node in item.listchain() if node.parent is not None)


def _key(node: Any) -> tuple[str, str]:
    return "" if node.parent is None else node.parent.nodeid, unicodedata.normalize("NFC", node.name).casefold()


def _listed(folder: Path) -> list[str]:
    """Return the names in a folder as they are spelled. `exists` ignores their case on some file systems."""
    return os.listdir(folder) if folder.is_dir() else []
