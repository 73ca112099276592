"""The scripts on secrets of a folder of fault inputs, if it exists. Each prints the correct values."""

import os
from pathlib import Path

import pytest

from tests import forks
from tests.fault_folder import copy_of

FAULTS = Path(__file__).resolve().parents[2] / "shared" / "faults"

RIGHT = {
    "core/01_secret_in_listing.py": ["test_x[REDACTED]", "RuntimeError: 401 bad key REDACTED", "verify     : []"],
    "core/03_redacted_word_breaks_replay_elsewhere.py": [
        "while recording the program got: SELECT 1 -- postgres\nSELECT 1 -- postgres"
    ],
    "attack/03_gzip_split.py": ["gzip stream: False ending: cut", "gzip body: False"],
    "attack/04_escapes.py": ["removed"],
    "attack/05_headers.py": ["headers written: []", "sig=REDACTED", "a=1;api_key=REDACTED", "access_token=REDACTED"],
    "attack/07_name.py": ["deploy REDACTED", "s REDACTED", "\n[]"],
}
WRONG = ["hunter2", "sk-ant", "WRITTEN", "abcdefghijklmnop", "replay elsewhere"]


@pytest.mark.stress
@pytest.mark.skipif(not FAULTS.is_dir(), reason="the folder of fault inputs is not here")
@pytest.mark.parametrize("script", RIGHT)
def test_no_secret_is_written_and_no_word_is_removed(script: str, tmp_path: Path) -> None:
    """Each script runs in a new process, in an empty environment."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "LANG": "C.UTF-8"}
    folder, _, name = script.partition("/")
    done = forks.run(copy_of(folder) / name, env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert [text for text in RIGHT[script] if text not in done.stdout] == []
    assert [text for text in WRONG if text in done.stdout] == []
