"""A cassette may be named as a file, `-`, an open pipe, a git revision or a compressed file. `git diff` shows it by meaning."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.cli.endings import CASSETTES, check_cassette
from retold.formats import FORMATS
from retold.recorder.cassette.format import names_file, read_cassette
from retold.recorder.cassette.named import is_elsewhere, is_revision, read_named, stem_of
from retold.recorder.errors import CassetteError, CassetteMissing, InputError
from retold.recorder.files import MOST_UNPACKED_BYTES, unpacked
from tests.conftest import ROOT
from tests.e2e import in_this_process

NUMBERS = ROOT / "cassettes" / "clean_streaming_numbers.yaml"


@pytest.fixture
def numbers() -> Path:
    """Return a cassette in the working directory."""
    return Path(shutil.copy(NUMBERS, "numbers.yaml"))


@pytest.fixture
def repository(numbers: Path) -> Path:
    """Return a repository with that cassette in a folder: committed once, then changed and staged, then changed again."""
    Path("deep").mkdir()
    path = Path(shutil.move(numbers, "deep/numbers.yaml"))
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    path.write_text(path.read_text().replace('"text": "1\\n', '"text": "0\\n').replace("one number per line", "staged"))
    git("add", ".")
    path.write_text(path.read_text().replace("staged", "in the work tree"))
    return path


def git(*arguments: str) -> str:
    names = ["-c", "user.name=tests", "-c", "user.email=tests", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *names, *arguments], check=True, capture_output=True, text=True).stdout


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Make stdin return these bytes."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "elsewhere"),
    [
        ("-", True), ("/dev/stdin", True), ("/dev/fd/65000", True), ("/proc/self/fd/65001", True), ("HEAD:a/b.yaml", True),
        ("HEAD~2:./x.JSON", True), (":staged.yml", True), ("main@{yesterday}:x.yaml.gz", True), ("a.yaml", False),
        ("log.db:last", False), ("test_a.py::test_b.yaml", False), ("http://x.yaml", False), ("--option:x.yaml", False),
        ("HEAD:x.txt", False), ("last~1", False), ("HEAD:", False),
    ],
)  # fmt: skip
def test_is_elsewhere_recognises_names_that_are_not_files(name: str, elsewhere: bool) -> None:
    """A colon alone makes no revision: the path must end like a recording. An existing file of the whole name is that file."""
    assert is_elsewhere(name) is elsewhere
    assert not elsewhere or names_file(name)
    if elsewhere and ":" in name and "/" not in name:
        Path(name).touch()
        assert not is_revision(name)


@pytest.mark.usefixtures("repository")
def test_every_command_takes_a_revision() -> None:
    """The revision is a commit or the index, with a path from the top or from here. A plain path means the work tree."""
    shown = in_this_process("diff", "HEAD:deep/numbers.yaml", ":deep/numbers.yaml")
    assert (shown.returncode, "one number per line" in shown.stdout) == (1, True)
    os.chdir("deep")
    assert in_this_process("diff", "HEAD:./numbers.yaml", "HEAD:deep/numbers.yaml").returncode == 0
    assert in_this_process("diff", ":./numbers.yaml", "numbers.yaml").returncode == 1
    assert "10" in in_this_process("play", "HEAD:./numbers.yaml", "--timing", "instant").stdout
    imported = in_this_process("import", "HEAD:./numbers.yaml")
    assert imported.stdout.split()[1:] == ["numbers", "1", "exchange"]
    assert "is there already" in in_this_process("import", "HEAD:deep/numbers.yaml").stdout
    assert "one request" in in_this_process("explain", "cache", "HEAD:./numbers.yaml").stdout
    assert "one number per line" in in_this_process("textconv", "HEAD:./numbers.yaml").stdout
    example = ROOT / "examples" / "clean_streaming_numbers.yaml"
    assert in_this_process("run", str(example), "--cassette", "HEAD:./numbers.yaml").returncode == 0
    assert retold.compare("HEAD:./numbers.yaml", "HEAD:deep/numbers.yaml").same


@pytest.mark.usefixtures("repository")
def test_a_missing_revision_is_an_error() -> None:
    """The error is one sentence with git's reason and hint, also outside of a repository."""
    with pytest.raises(
        CassetteMissing, match=r"no cassette at HEAD:numbers\.yaml: path 'numbers\.yaml' does not exist in 'HEAD'\."
    ):
        read_named("HEAD:numbers.yaml")
    with pytest.raises(CassetteMissing, match=r"no cassette at nope:x\.yaml: .*nope"):
        read_named("nope:x.yaml")
    done = in_this_process("replay", "HEAD:numbers.yaml", "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = in_this_process("serve", "HEAD:deep/numbers.yaml", "--mode", "once")
    assert "HEAD:deep/numbers.yaml cannot be recorded into" in done.stderr


def test_a_revision_without_git_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CassetteError, match=r"^cannot read HEAD:x\.yaml: git cannot be run"):
        read_named("HEAD:x.yaml")


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_cassette_is_read_from_stdin(suffix: str, numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content decides between YAML and JSON. stream-json still works."""
    made = Path(f"made{suffix}")
    held = read_cassette(numbers)
    retold.write_cassette(made, held.exchanges)
    for arguments in (["diff", "-", "numbers.yaml"], ["diff", "numbers.yaml", "/dev/stdin"], ["import", "-"]):
        typed(monkeypatch, made.read_bytes())
        done = in_this_process(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
    assert "stdin" in done.stdout
    lines = in_this_process("show", "last", "--json").stdout
    typed(monkeypatch, lines.encode())
    assert in_this_process("diff", "-", "last").returncode == 0
    typed(monkeypatch, b"")
    done = in_this_process("diff", "-", "numbers.yaml")
    assert done.returncode == 2


def test_a_process_substitution_is_read_as_a_file(numbers: Path) -> None:
    """In `retold diff <(…) FILE` the shell names an open pipe. retold does not wait for a pipe in a folder."""
    reading, writing = os.pipe()
    os.write(writing, numbers.read_bytes())
    os.close(writing)
    assert retold.compare(f"/dev/fd/{reading}", numbers).same
    os.close(reading)
    os.mkfifo("pipe.yaml")
    with pytest.raises(InputError, match="it is a named pipe, not a file"):
        retold.compare("pipe.yaml", numbers)


@pytest.mark.parametrize(
    ("name", "stem"), [("a/b.yaml", "b"), ("a.yaml.gz", "a"), ("HEAD:x/y.yaml", "y"), ("-", "stdin"), ("a.b.json", "a.b")]
)
def test_the_name_of_a_recording_is_its_stem(name: str, stem: str) -> None:
    assert stem_of(name) == stem


# Compressed files, and endings


def test_compressed_files_round_trip(numbers: Path) -> None:
    """The cassette and the export have the uncompressed content. Equal content gives equal compressed bytes."""
    assert in_this_process("import", str(numbers)).returncode == 0
    for name in ("made.yaml", "made.json", "made.jsonl"):
        for each in (name, f"{name}.gz", f"again-{name}.gz"):
            assert in_this_process("export", "last", "-o", each).returncode == 0
        assert gzip.decompress(Path(f"{name}.gz").read_bytes()) == Path(name).read_bytes()
        assert Path(f"{name}.gz").read_bytes() == Path(f"again-{name}.gz").read_bytes()
        assert in_this_process("diff", name, f"{name}.gz").returncode == 0
    done = in_this_process("import", "made.jsonl.gz", "--db", "other.db")
    assert (done.returncode, done.stderr) == (0, "")
    assert in_this_process("import", "made.yaml.gz", "--db", "other.db").stdout.split()[1] == "made"
    with retold.use_cassette("made.yaml.gz") as cassette:
        assert cassette.all_played is False


def test_damaged_and_oversized_compressed_files_are_refused(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both errors name the file. A decompression bomb is never unpacked in full."""
    Path("cut.yaml.gz").write_bytes(gzip.compress(numbers.read_bytes())[:-20])
    with pytest.raises(CassetteError, match=r"^cannot read the cassette cut\.yaml\.gz: its gzip data is damaged"):
        read_cassette("cut.yaml.gz")
    assert MOST_UNPACKED_BYTES > 100_000_000
    monkeypatch.setattr("retold.recorder.files.MOST_UNPACKED_BYTES", 1000)
    with pytest.raises(OSError, match="holds more than 0 MB"):
        unpacked(gzip.compress(bytes(1001)))


@pytest.mark.usefixtures("numbers")
@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (["export", "last", "-o", "x.docx"], [each for form in FORMATS.values() for each in form.suffixes]),
        (["diff", "last", "last", "-o", "x.docx"], [".txt", ".json", ".md", ".html"]),
        (["stats", "-o", "x.docx"], [".txt", ".csv", ".json", ".html"]),
        (["record", "-o", "x.docx", "--", "true"], CASSETTES),
        (["proxy", "-o", "x.docx.gz"], CASSETTES),
        (["run", "w.yaml", "--live", "--cassette", "x.docx"], CASSETTES),
    ],
)
def test_an_unknown_ending_is_refused(arguments: list[str], known: list[str]) -> None:
    """The error lists the known endings, and the command writes nothing."""
    assert in_this_process("import", "numbers.yaml").returncode == 0
    done = in_this_process(*arguments)
    assert done.returncode == 2
    assert "the ending .docx" in done.stderr
    assert all(ending in done.stderr for ending in known)
    assert not Path("x.docx").exists()


def test_the_ending_decides_the_format(numbers: Path) -> None:
    """This is true for statistics and for differences, also compressed. The file contains the printed text."""
    assert in_this_process("import", str(numbers)).returncode == 0
    for ending, options in ((".csv", ["--csv"]), (".json", ["--json"]), (".txt", [])):
        assert in_this_process("stats", "-o", f"s{ending}").stdout == ""
        assert Path(f"s{ending}").read_text() == in_this_process("stats", *options).stdout
    assert in_this_process("stats", "-o", "s.csv").returncode == 2
    assert in_this_process("stats", "-o", "s.html.gz").returncode == 0
    assert gzip.decompress(Path("s.html.gz").read_bytes()).startswith(b"<!doctype html>")
    assert in_this_process("diff", "last", str(numbers), "-o", "d.json.gz").returncode in (0, 1)
    assert json.loads(gzip.decompress(Path("d.json.gz").read_bytes()))["a"]
    assert in_this_process("diff", "last", "last", "-o", "d.MD").returncode == 0
    assert in_this_process("stats", "-o", "s").returncode == 0
    assert Path("s").read_text() == Path("s.txt").read_text()
    check_cassette(Path("no_ending"))


@pytest.mark.usefixtures("numbers")
def test_a_dash_writes_to_stdout() -> None:
    """This works for printable output. A recorded cassette needs a file: `-` and revisions are refused."""
    assert in_this_process("import", "numbers.yaml").returncode == 0
    for arguments in (["export", "last"], ["stats"], ["diff", "last", "last"]):
        assert in_this_process(*arguments, "-o", "-").stdout == in_this_process(*arguments).stdout
    for name in ("-", "HEAD:x.yaml", "/dev/fd/99999"):
        done = in_this_process("record", "-o", name, "--", "true")
        assert (done.returncode, done.stderr) == (2, f"retold: {name} cannot be written; a cassette is written to a file.\n")
    assert sorted(map(str, Path().iterdir())) == [".retold", "numbers.yaml"]


# git diff


def test_git_shows_a_cassette_by_meaning(repository: Path) -> None:
    """The two lines of the help suffice. A cassette that was recorded again differs only by meaning."""
    help_text = in_this_process("textconv", "--help").stdout
    attributes, command = (line.strip() for line in help_text.splitlines() if line.strip().startswith(("echo", "git config")))
    subprocess.run(attributes, shell=True, check=True)
    subprocess.run(command.replace("retold textconv", f"{sys.executable} -m retold textconv"), shell=True, check=True)
    Path("cassettes/in").mkdir(parents=True)
    path = Path(shutil.move(repository, "cassettes/in/numbers.yaml"))
    git("add", ".")
    git("commit", "-qm", "two")
    changed = path.read_text().replace("in the work tree", "and again").replace("Sun, 22 Nov 2026", "Mon, 23 Nov 2026")
    path.write_text(changed)
    lines = [line for line in git("diff").splitlines() if line.startswith(("+ ", "- "))]
    assert lines == [
        "-      Count from 1 to 10, in the work tree, and nothing else.",
        "+      Count from 1 to 10, and again, and nothing else.",
    ]


@pytest.mark.parametrize("content", ["plain: yaml\n", "version: 1\ninteractions: [\n", "not\tyaml: [\n"])
def test_textconv_prints_any_other_file_unchanged(content: str) -> None:
    """git stops if the command fails, and would show no difference of the other files."""
    Path("other.yaml").write_text(content)
    done = in_this_process("textconv", "other.yaml")
    assert (done.returncode, done.stdout) == (0, content)
    assert done.stderr.startswith("retold: printed as it is: ")
    assert in_this_process("textconv", "missing.yaml").returncode == 2


def test_the_text_of_a_cassette_is_stable(numbers: Path) -> None:
    """The text contains no ids and no times, so two recordings of the same answers have the same text."""
    first = in_this_process("textconv", str(numbers)).stdout
    other: dict[str, Any] = {"req_011CdiLUDjuJR8eCT89r6GPX": "req_2", "2026-11-22": "2027-01-01"}
    text = numbers.read_text()
    for old, new in other.items():
        text = text.replace(old, new)
    numbers.write_text(text)
    assert in_this_process("textconv", str(numbers)).stdout == first
    assert "req_" not in first
    assert first.startswith("conversation")
