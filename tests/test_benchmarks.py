"""The benchmarks are complete: make runs all of them, and the page describes them. Nothing is timed here."""

from importlib import import_module
from pathlib import Path

import pytest
from benchmarks.__main__ import NAMES, _summary, _write, merged
from benchmarks.contestants import Read
from benchmarks.measure import Row, absent, beside, cells, environment, figure, ratio
from benchmarks.peers import SENT, _compared, _kept, _paced

from tests.conftest import ROOT

FOLDER = ROOT / "benchmarks"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("__"))


def test_every_module_that_measures_is_run_by_make_bench_and_described() -> None:
    measuring = [name for name in MODULES if hasattr(import_module(f"benchmarks.{name}"), "measure")]
    assert measuring == sorted(NAMES)
    described = (FOLDER / "README.md").read_text()
    assert [name for name in NAMES if f"| `{name}` |" not in described] == []


def test_measured_code_sees_no_key_and_an_empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a dummy")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "a dummy")
    seen = environment(tmp_path)
    assert set(seen) <= {"PATH", "PYTHONPATH", "HOME", "LANG", "TZ"}
    assert seen["HOME"] == str(tmp_path)


def read(body: bytes = b"", stream_ms: float = 10.0) -> Read:
    return Read(1.0, stream_ms, 20.0, 0, body, "")


def test_a_missing_peer_has_rows_that_report_it() -> None:
    ours = {"retold": [read(b"".join(SENT["live"]))] * 3}
    rows = [
        *_compared("first event", ours, lambda found: found.first_ms, "ms", ["vcrpy"]),
        *(row for row in _paced("pace", ours, 10.0, ["vcrpy"]) if row.peer == "vcrpy"),
        *_kept("bytes", {"retold": ours["retold"][0]}, SENT["live"], ["vcrpy"]),
    ]
    assert [(row.peer, row.theirs, row.remark) for row in rows] == [("vcrpy", None, "not installed")] * 3


def test_frames_count_as_kept_only_if_they_are_unchanged() -> None:
    sent = SENT["live"]
    whole, changed = b"".join(sent), b"".join([sent[0], sent[1].replace(b"text", b"TEXT"), *sent[2:]])
    found = {"retold": read(whole), "vcrpy": read(changed), "cassetter": read(whole[:-1])}
    changed_row, short_row = _kept("frames", found, sent, ["vcrpy", "cassetter"])
    assert (changed_row.ours, changed_row.theirs, changed_row.met) == (len(sent), len(sent) - 1, True)
    assert short_row.remark == f"{len(sent) - 1} frames, {len(whole) - 1:,} of {len(whole):,} bytes"
    assert [row.met for row in _kept("frames", {**found, "retold": read(changed)}, sent, ["vcrpy"])] == [False]


def test_a_remark_replaces_the_comparison() -> None:
    rows = [absent("a", [1.0], "aimock", "ms"), beside("b", 21, "frames", "aimock", 17, remark="fewer"), Row("c", 2.0, "ms")]
    assert [line[1:5] for line in cells(rows)[1:]] == [
        ("1.00 ms", "", "aimock", "not installed"),
        ("21 frames", "17 frames", "aimock", "fewer"),
        ("2.00 ms", "", "", ""),
    ]


def test_a_missed_goal_is_named_with_its_figures() -> None:
    rows = [
        figure("quick", [1.0], "ms", at_most=2),
        figure("slow", [3.0], "ms", at_most=2),
        ratio("slower", [3.0], "vcrpy", [1.0], "ms", at_most=2),
        absent("alone", [3.0], "aimock", "ms"),
    ]
    assert _summary(cells(rows)[1:]).splitlines() == [
        "1 of 3 goals met",
        "- missed: slow: 3.00 ms; goal <= 2 ms",
        "- missed: slower: 3.00 ms, vcrpy 1.00 ms: 3.00x; goal <= 2x",
    ]


def test_tables_are_merged_into_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new table goes to its place, an old one is replaced, the others stay, and the goals are counted over all."""
    results = tmp_path / "RESULTS.md"
    monkeypatch.setattr("benchmarks.__main__.RESULTS", results)

    def table(name: str, ms: float) -> tuple[str, str, list[Row]]:
        return f"`python -m benchmarks.{name}`, 1 s", f"{name}: a | b", [ratio("slow", [ms], "x|y", [1.0], "ms", at_most=2)]

    _write("here", [table("append", 3.0), table("wire", 1.0)], "1 of 2 goals met\n- missed: slow: old")
    before = results.read_text()
    after = merged(before, "there", [table("fleet", 1.0)])
    assert [line for line in after.splitlines() if line.startswith("## ")] == [
        f"## {n}: a | b" for n in ("append", "fleet", "wire")
    ]
    assert "2 of 3 goals met\n- missed: slow: 3.00 ms, x|y 1.00 ms: 3.00x; goal <= 2x\n\n## append" in after
    again = merged(after, "there", [table("append", 1.5)])
    assert "3 of 3 goals met\n\n## append" in again
    assert again.partition("## fleet")[2] == after.partition("## fleet")[2]
    assert "missed" not in again


def test_the_results_in_the_repository_can_be_merged() -> None:
    """Merging no tables changes nothing."""
    results = (FOLDER / "RESULTS.md").read_text("utf-8")
    assert merged(results, "", []) == results
