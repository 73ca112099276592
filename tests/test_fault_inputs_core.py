"""The inputs of ../shared/faults/core, each with its correct values. Skipped in a clone without them."""

from pathlib import Path

import pytest

from tests import forks
from tests.conftest import SHARED
from tests.fault_folder import copy_of

FOLDER = SHARED / "faults" / "core"
pytestmark = [pytest.mark.stress, pytest.mark.skipif(not FOLDER.is_dir(), reason="the inputs are not beside this clone")]

RIGHT = {
    "02_events_behind_the_end.py": (
        "writer: 0/200 runs with events behind run.ended, 0/200 ended twice, verify ok: True",
        "middleware: 0/60 runs with events behind run.ended, verify ok: True",
    ),
    "05_slow_miss.py": ("cassette of 120 growing turns",),
    "06_recorder_for_days.py": ("after  6000 calls",),
    "07_ending_lost_after_full_disk.py": ("'chunk', 'exchange.ended', 'run.ended']", "\ncomplete None\n"),
    "08_middleware_close_says_the_process_died.py": ("run: completed | its exchange: closed None",),
    "09_small_ones.py": (
        "dir has use_cassette: True | __version__: 0.",
        "\npickles\n",
        "lock files left by 5 failed starts: 0 | fds held: 0",
        "cassette mode under umask 077: 0o600",
        "symlink kept: True",
        "recorded_at yesterday -> CassetteError",
    ),
    "10_double_work_per_frame.py": (
        "1 message: {'PLAIN_DELTA.fullmatch': 3}",  # one search matches the 100 deltas
        "{'decompress': 103, 'PLAIN_DELTA.fullmatch': 103}",
    ),
    "11_idle_followers.py": ("4 idle followers",),
}
MOVED = {
    "from retold.recorder.errors import for_sdk, MissError": (
        "from retold.recorder.errors import MissError\nfrom retold.recorder.http.sdk_errors import for_sdk"
    ),
    "exg._Foreign": "__import__('retold.recorder.http.encodings', fromlist=['_'])._Bounded",
}
"""Internal names that these inputs import, and their present modules."""

SLOW = {"02_events_behind_the_end.py", "05_slow_miss.py", "06_recorder_for_days.py"}


def run(name: str, environment: dict[str, str], *arguments: str) -> str:
    source = (copy_of("core") / name).read_text()
    for old, new in MOVED.items():
        source = source.replace(old, new)
    Path(name).write_text(source)
    env = environment | {"ANTHROPIC_API_KEY": "sk-ant-dummy"}
    done = forks.run(name, *arguments, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers_after(output: str, words: str) -> list[float]:
    """Return the number after these words in each line that has them."""
    return [float(line.partition(words)[2].split()[0]) for line in output.splitlines() if words in line]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.stress) if n in SLOW else n for n in RIGHT])
def test_a_script_gives_the_correct_values(name: str, environment: dict[str, str]) -> None:
    output = run(name, environment, *(("memory",) if name.startswith("06") else ()))
    assert [text for text in RIGHT[name] if text not in output] == [], output
    assert "Redactor.json" not in output.partition("gzip")[0]
    if name.startswith("05"):
        assert max(numbers_after(output, "a miss costs")) <= 100  # milliseconds of CPU
    if name.startswith("06"):
        assert 0 < max(numbers_after(output, "kept")) < 1  # KiB per call; without `memory` the script prints 0.0
    if name.startswith("11"):
        assert max(numbers_after(output, "of this process:")) <= 10  # queries per second


def test_a_key_is_in_no_column(environment: dict[str, str]) -> None:
    assert "sk-ant" not in run("01_secret_in_listing.py", environment)
