"""`retold play` of a long cassette begins before the file is completely read, and shows the same."""

import re
from pathlib import Path

import pytest

from retold.recorder.cassette.format import read_cassette, write_cassette
from tests.conftest import ROOT
from tests.e2e import in_this_process

LAZY_BYTES = "retold.recorder.cassette.format.LAZY_BYTES"
CASSETTES = [ROOT / "cassettes" / f"{name}.yaml" for name in ("clean_streaming_numbers", "parallel_reviews", "robust_retries")]


def without_ids(output: str) -> str:
    """Return the output without the ids of runs and sessions, which each import generates."""
    return re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?\b", "ID", output)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
@pytest.mark.parametrize("handlers", [("simple",), ("console:partial=true", "simple"), ("debug",)], ids="-".join)
def test_a_long_cassette_is_played_like_a_short_one(
    handlers: tuple[str, ...], suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has overlapping exchanges, and several handlers show it."""
    options = [option for handler in handlers for option in ("--handler", handler)]
    for recorded in CASSETTES:
        path = tmp_path / f"{recorded.stem}{suffix}"
        write_cassette(path, read_cassette(recorded).exchanges)
        command = ["play", str(path), "--timing", "instant", *options]
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        short = in_this_process(*command)
        monkeypatch.setattr(LAZY_BYTES, 0)
        long = in_this_process(*command)
        assert (long.returncode, without_ids(long.stdout), long.stderr) == (0, without_ids(short.stdout), "")


def test_damage_after_the_beginning_is_an_error_in_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages before it are shown, and the error names the place."""
    path = tmp_path / "c.yaml"
    exchanges = read_cassette(ROOT / "cassettes" / "development_pipeline.yaml").exchanges
    assert len(exchanges) > 2
    write_cassette(path, exchanges)
    text = path.read_text()
    path.write_text(text[::-1].replace("status:"[::-1], "stutas:"[::-1], 1)[::-1])
    monkeypatch.setattr(LAZY_BYTES, 0)
    done = in_this_process("play", path, "--timing", "instant")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"interaction {len(exchanges)} is damaged" in done.stderr
    assert "ASSISTANT: " in done.stdout
