"""A terminal gets colours, a pager and fitting tables. A pipe gets the same words, plain and in full. `ls` sorts and limits."""

import contextlib
import csv
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.cli import main, make_app, terminal
from retold.cli.table import LEAST, fitted, print_table, width_of
from retold.handlers import make_handler
from retold.recorder import colour
from retold.recorder.events import Entry
from retold.recorder.http.exchange import Failure
from retold.recorder.log.log import EventLog
from tests.e2e import in_this_process
from tests.talk import asked, record, text, turn

WIDE = "東京の天気"
HEBREW = "שלום"


class Screen(io.StringIO):
    """A terminal that stores its text."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


def on_screen(*arguments: str) -> tuple[int, str, str]:
    """Run a command in this process with terminals as stdout and stderr. Return its exit code and both texts."""
    out, err, argv = Screen(), Screen(), sys.argv
    sys.argv = ["retold", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = argv
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set up a terminal of 80 columns without settings of its user."""
    for name in ("NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "PAGER", "LESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("RETOLD_PAGER", "cat")
    monkeypatch.setattr(colour, "_chosen", "auto")


@pytest.fixture
def runs() -> list[str]:
    """Record three runs, oldest first: an expensive one, a cheap one with a failed call, and one of unknown cost."""
    failed = turn(asked("b"), text("x"), ending="cut", failure=Failure("Cut", "cut"), call=1)
    return [
        record(".retold/log.db", turn(asked("a"), text("one"), cost_usd=0.5, call=0), name="beta"),
        record(".retold/log.db", turn(asked("b"), text("two"), cost_usd=0.25, call=0), failed, name=WIDE),
        record(".retold/log.db", turn(asked("c"), text("three"), call=0), name="alpha"),
    ]


# Colours


@pytest.mark.parametrize(
    ("environment", "choice", "on_terminal", "in_pipe"),
    [
        ({}, "auto", True, False),
        ({"NO_COLOR": "1"}, "auto", False, False),
        ({"NO_COLOR": ""}, "auto", True, False),
        ({"CLICOLOR_FORCE": "1"}, "auto", True, True),
        ({"FORCE_COLOR": "3"}, "auto", True, True),
        ({"FORCE_COLOR": "0"}, "auto", True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, "auto", False, False),
        ({"TERM": "dumb"}, "auto", False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, "auto", True, True),
        ({"CLICOLOR": "0"}, "auto", False, False),
        ({"NO_COLOR": "1"}, "always", True, True),
        ({"FORCE_COLOR": "1"}, "never", False, False),
    ],
)
def test_the_precedence_of_colour_settings(
    environment: dict[str, str], choice: Any, on_terminal: bool, in_pipe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The option on the command line comes first, then NO_COLOR, then the two variables that force colours, then the terminal."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    colour.choose(choice)
    assert (colour.in_colour(Screen()), colour.in_colour(io.StringIO())) == (on_terminal, in_pipe)


@pytest.mark.usefixtures("runs")
def test_every_output_follows_the_same_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables, hits, differences and console obey the option before or after the command. It has no effect on the next one."""
    for way in (["ls"], ["search", "one"], ["diff", "last", "last~2"], ["show", "last", "--handler", "console"]):
        assert "\x1b[" in in_this_process("--color", "always", *way).stdout, way
        assert "\x1b[3" not in on_screen(*way, "--color=never")[1], way
    assert "\x1b[" in in_this_process("ls", "--color", "always").stdout
    assert "\x1b[" in on_screen("ls")[1]
    assert "\x1b[" not in in_this_process("ls").stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in in_this_process("ls").stdout


def test_every_command_accepts_the_output_options() -> None:
    """Only the help of the group lists them. The error of a wrong value lists the right ones."""
    group: Any = typer.main.get_command(make_app())
    for name, command in group.commands.items():
        hidden = {option: each.hidden for each in command.params for option in each.opts}
        assert (hidden["--color"], hidden["--no-pager"]) == (True, True), name
    done = in_this_process("ls", "--color", "sometimes")
    assert done.returncode == 2
    assert "always" in done.stderr


# The pager


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "less"),
        ({"PAGER": "more"}, "more"),
        ({"PAGER": "more", "RETOLD_PAGER": "less -S"}, "less -S"),
        ({"PAGER": "more", "RETOLD_PAGER": ""}, None),
        ({"PAGER": "cat"}, None),
    ],
)
def test_the_program_of_the_pager_comes_from_the_environment(environment: dict[str, str], expected: str | None) -> None:
    assert terminal.program(environment) == expected


@pytest.mark.usefixtures("runs")
def test_the_pager_gets_output_and_notes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """This happens only on a terminal, with its colours and width. The options of less can be set."""
    monkeypatch.setenv("RETOLD_PAGER", "{ echo $LESS; cat; } > page.txt")
    assert on_screen("ls", "-n", "2") == (0, "", "")
    lines = Path("page.txt").read_text().splitlines()
    assert lines[0] == "FRX"
    assert lines[1].startswith("\x1b[1mRUN\x1b[0m")
    assert lines[-1] == "retold: the newest 2 runs; more with -n 10, all with -n 0"
    Path("page.txt").unlink()
    assert "alpha" in on_screen("ls", "--no-pager")[1]
    assert "alpha" in on_screen("--no-pager", "ls")[1]
    assert "alpha" in in_this_process("ls").stdout
    assert on_screen("ls", "--status", "failed")[0] == 1  # nothing is printed, so no pager starts
    assert not Path("page.txt").exists()


@pytest.mark.usefixtures("runs")
def test_leaving_the_pager_early_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends quietly. Closing any other pipe still ends the command with 141."""
    with EventLog() as log, log.start(name="long", mode="live") as run:
        run.append(*(Entry("message", b'{"type":"system","note":"%d %s"}' % (at, b"long " * 20)) for at in range(1000)))
    monkeypatch.setenv("RETOLD_PAGER", "true")
    assert on_screen("show", "last", "--raw") == (0, "", "")


@pytest.mark.usefixtures("runs")
def test_a_missing_pager_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is printed without it. If less is missing, no pager starts and no note is printed."""
    monkeypatch.setenv("RETOLD_PAGER", "no-such-pager -x")
    code, out, err = on_screen("ls")
    assert (code, "alpha" in out) == (0, True)
    assert err == "retold: cannot run the pager 'no-such-pager -x'; see RETOLD_PAGER and PAGER\n"
    monkeypatch.delenv("RETOLD_PAGER")
    monkeypatch.setattr("shutil.which", lambda _: None)
    code, out, err = on_screen("ls")
    assert (code, "alpha" in out, err) == (0, True, "")


@pytest.mark.usefixtures("runs")
@pytest.mark.needs("pexpect")
def test_less_works_on_a_real_terminal() -> None:
    """A long table stays on the screen until `q`. Ctrl-C does not end less."""
    import pexpect

    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "LANG": "C.UTF-8", "TERM": "xterm"}
    child = pexpect.spawn(
        sys.executable, ["-m", "retold", "ls"], dimensions=(3, 80), env=environment, encoding="utf-8", timeout=30
    )  # fmt: skip
    child.expect("alpha")
    child.expect_exact(":\x1b[K")  # the prompt: less reads keys now
    child.sendintr()
    child.send("G")
    child.expect("beta")
    child.send("q")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus in (0, 130)  # 130 if Ctrl-C came while the command was still writing


# Tables

TEXTS = st.text(st.sampled_from("ab …é東京🚀שa\u0301"), max_size=30)


@settings(max_examples=40)
@given(TEXTS, st.integers(0, 40))
def test_a_shortened_text_fits(text: str, width: int) -> None:
    """Its last character marks the cut. A text that fits is unchanged."""
    shown = fitted(text, width)
    assert width_of(shown) <= width
    assert shown == text if width_of(text) <= width else shown[-1:] in ("…", "")


@settings(max_examples=40)
@given(st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip), TEXTS), min_size=1, max_size=5))
def test_columns_begin_in_the_same_cell(rows: list[tuple[str, str, str]]) -> None:
    """This is true for characters of any width, in a pipe: the cells of a line are padded and two spaces apart."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print_table([("A", "B", "C"), *rows], right=(1,))
    widths = [max(width_of(row[column]) for row in [("A", "B", "C"), *rows]) for column in range(3)]
    for line, row in zip(out.getvalue().split("\n")[1:], rows, strict=False):
        pads = [" " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True)]
        assert line == f"{row[0]}{pads[0]}  {pads[1]}{row[1]}  {row[2]}".rstrip()


@pytest.mark.parametrize("columns", [20, 40, 60])
def test_a_table_fits_on_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest text column is shortened first. Figures, and columns that stay whole, are cut only at the edge."""
    monkeypatch.setenv("COLUMNS", str(columns))
    out = Screen()
    with contextlib.redirect_stdout(out):
        print_table([("RUN", "N", "NAME"), ("0123456789", "12345", WIDE * 8), ("b", "1", "x")], right=(1,), whole=(0,))
    lines = [re.sub(r"\x1b\[[0-9]*m", "", line) for line in out.getvalue().splitlines()]
    assert all(width_of(line) <= columns for line in lines)
    assert lines[1].startswith("0123456789  12345")
    assert lines[1].endswith("…")
    assert LEAST < 10


def test_right_to_left_text_does_not_move_its_neighbours() -> None:
    """A terminal gets marks around the text. A pipe gets the recorded text."""
    out, pipe = Screen(), io.StringIO()
    for each in (out, pipe):
        with contextlib.redirect_stdout(each):
            print_table([("NAME", "N"), (HEBREW, "12"), ("plain", "3")])
    assert out.getvalue().splitlines()[1] == f"\u200e{HEBREW}\u200e   12"
    assert pipe.getvalue().splitlines()[1] == f"{HEBREW}   12"


def test_a_header_is_bold_on_a_terminal_only() -> None:
    """A row of totals is bold, too."""
    out = Screen()
    with contextlib.redirect_stdout(out):
        print_table([("A",), ("b",), ("total",)], has_total=True)
    assert out.getvalue() == "\x1b[1mA\x1b[0m\nb\n\x1b[1mtotal\x1b[0m\n"


def test_console_has_its_boxes_with_forced_colours() -> None:
    """`--color always | less -R` shows the same as the terminal."""
    colour.choose("always")
    out = io.StringIO()
    make_handler("console", {}, out)._box("title", ["line"], "cyan")  # type: ignore[attr-defined]
    assert "╭" in out.getvalue()


# The listing


def names(*arguments: str) -> list[str]:
    return [run["name"] for run in json.loads(in_this_process("ls", *arguments, "--json").stdout)]


SORTED = {
    "": ["alpha", WIDE, "beta"],
    "-r": ["beta", WIDE, "alpha"],
    "--sort name": ["alpha", "beta", WIDE],
    "--sort name --reverse": [WIDE, "beta", "alpha"],
    "--sort cost": ["beta", WIDE, "alpha"],
    "--sort cost -r": [WIDE, "beta", "alpha"],
    "--sort errors -n 2": [WIDE, "alpha"],
    "--sort messages": [WIDE, "alpha", "beta"],
    "--sort status": ["alpha", WIDE, "beta"],
    "--sort mode": ["alpha", WIDE, "beta"],
    "--sort source": ["alpha", WIDE, "beta"],
}


@pytest.mark.usefixtures("runs")
def test_a_listing_is_sorted() -> None:
    """Numbers go from the largest down, texts from A to Z, unknown values last. Equal runs are sorted newest first."""
    assert {options: names(*options.split()) for options in SORTED} == SORTED
    assert sorted(names("--sort", "took")) == sorted(SORTED[""])


@pytest.mark.usefixtures("runs")
def test_a_cut_listing_has_a_note() -> None:
    """The note names the option for more, also beside JSON and CSV. A complete listing has no note."""
    for form in ([], ["--json"], ["--csv"]):
        done = in_this_process("ls", "-n", "2", *form)
        assert done.stderr == "retold: the newest 2 runs; more with -n 10, all with -n 0\n"
        assert in_this_process("ls", "-n", "3", *form).stderr == ""
        assert in_this_process("ls", "-n", "0", *form).stderr == ""
    assert in_this_process("ls", "-n", "1", "--sort", "name").stderr.startswith("retold: the first 1 run; ")


def test_a_listing_can_be_csv(runs: list[str]) -> None:
    """It has the values of --json, one line for each run. Two forms at once are refused."""
    found = list(csv.DictReader(io.StringIO(in_this_process("ls", "--csv").stdout)))
    assert [line["run"] for line in found] == runs[::-1]
    assert [(line["cost_usd"], line["failed_calls"], line["models"]) for line in found] == [
        ("", "0", "claude-test-1"), ("0.25", "1", "claude-test-1"), ("0.5", "0", "claude-test-1")
    ]  # fmt: skip
    assert in_this_process("ls", "--csv", "--json").returncode == 2


@pytest.mark.usefixtures("runs")
def test_a_narrow_terminal_has_space_for_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It omits seconds and, beside the cost, the number of messages. A pipe has every column."""
    head = on_screen("ls", "--cost", "--color", "never")[1].splitlines()[0].split()
    assert head == ["RUN", "STARTED", "MODE", "STATUS", "TOOK", "ERRORS", "COST", "NAME"]
    monkeypatch.setenv("COLUMNS", "120")
    wide = on_screen("ls", "--cost", "--color", "never")[1]
    assert wide == in_this_process("ls", "--cost").stdout
    assert re.search(r"\d\d-\d\d \d\d:\d\d:\d\d", wide)


# Other tables


def test_hits_fit_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of wide characters, half as many fit."""
    monkeypatch.setenv("COLUMNS", "40")
    record(".retold/log.db", turn(asked("a"), text(f"needle {WIDE * 20}"), call=0), name=WIDE * 9)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in on_screen("search", "needle")[1].splitlines()]
    assert all(width_of(line) <= 40 for line in lines)
    assert [line[-1] for line in lines] == ["…", "…"]


@pytest.mark.usefixtures("runs")
def test_hits_can_be_csv() -> None:
    """The first line has the names. Each hit has one line with its matching lines."""
    found = list(csv.DictReader(io.StringIO(in_this_process("search", "one OR two", "--csv").stdout)))
    assert [(line["name"], line["type"], line["lines"]) for line in found] == [
        (WIDE, "assistant text", "two"), ("beta", "assistant text", "one")
    ]  # fmt: skip
    assert in_this_process("search", "one", "--csv", "--json").returncode == 2


def test_the_explanation_of_the_cache_can_be_csv() -> None:
    """It has the fields of --json. A list is JSON in its field."""
    talk = [turn(asked("a"), text("x"), call=0), turn(asked("a", "x", "b"), text("y"), call=1)]
    record(".retold/log.db", *talk, name="talk")
    (line,) = csv.DictReader(io.StringIO(in_this_process("explain", "cache", "last", "--csv").stdout))
    (found,) = json.loads(in_this_process("explain", "cache", "last", "--json").stdout)
    assert set(line) == set(found)
    assert (line["turn"], json.loads(line["causes"])) == (str(found["turn"]), found["causes"])


@pytest.mark.usefixtures("runs")
def test_the_doctor_marks_its_headings() -> None:
    """On a terminal headings are bold, and red above problems."""
    assert "\x1b[1mVersions\x1b[0m\n  retold" in on_screen("doctor")[1]
    Path("bad.yaml").write_text("interactions: [\n")
    assert "\x1b[1;31mProblems\x1b[0m\n  bad.yaml" in on_screen("doctor")[1]
    assert "\x1b" not in in_this_process("doctor").stdout
