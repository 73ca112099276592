"""`pytest --retold-prune` and record mode `refresh`: remove the recordings that no test of a session played.

A cassette is pruned only if each collected test that uses it ran and passed without a miss. Tests that were not collected may
use a cassette that a mark names. So such a cassette is also kept if it is outside of the folder of its module, or if single
tests (`test_a.py::test_one`) were selected from the module.
"""

import os
from collections import Counter
from collections.abc import Container
from pathlib import Path

from ..recorder.cassette.format import read_cassette, write_cassette
from ..recorder.errors import CassetteError
from ..recorder.log.sqlite.opening import locked
from .pytest_session import Stats


def prune(stats: Stats, only: Container[str] | None = None) -> None:
    """Remove the recordings that no test played, and note the pruned cassettes or the reason for which one is kept.

    `only` are the paths of the cassettes to prune; by default all.
    """
    files = Counter(map(os.path.realpath, stats.users))
    for path, left in stats.unplayed.items():
        if not left or (only is not None and path not in only):
            continue
        certain = path not in stats.uncertain and files[os.path.realpath(path)] == 1
        if not certain or stats.passed.get(path) != stats.users.get(path):
            stats.pruned[path] = "kept, because not every test that may use it ran and passed"
            continue
        try:
            _remove(Path(path), left)
            stats.pruned[path] = "removed"
        except (CassetteError, OSError) as error:
            stats.pruned[path] = f"kept: {error}"


def _remove(path: Path, left: list[int]) -> None:
    """Remove exchanges by their numbers from 0, and sessions of the Agent SDK by -1 minus theirs.

    Raise CassetteError, OSError.
    """
    with locked(Path(os.path.realpath(path)).parent):
        _, exchanges, sessions, kept = read_cassette(path)
        played = [exchange for number, exchange in enumerate(exchanges) if number not in left]
        write_cassette(path, played, [each for number, each in enumerate(sessions) if -1 - number not in left], kept)
