"""The inputs of ../shared/faults/attack that are in no other table, with their correct values.

Skipped in a clone without them.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.e2e import in_this_process
from tests.fault_folder import copy_of
from tests.messages_server import MessagesServer, Reply, text

FOLDER = SHARED / "faults" / "attack"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the inputs are not beside this clone")


def run(environment: dict[str, str], *command: str | Path) -> tuple[str, str]:
    env = environment | {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout, done.stderr


@pytest.mark.stress
def test_an_interrupted_append_leaves_the_run_writable(environment: dict[str, str]) -> None:
    assert run(environment, sys.executable, copy_of("attack") / "01_interrupt.py")[0] == "{'goes on': 100}\n"


def test_deleting_the_log_of_a_running_recorder_is_an_error(environment: dict[str, str]) -> None:
    output, error = run(environment, sys.executable, copy_of("attack") / "02_log_deleted.py")
    assert "no error" not in output
    assert re.search(r"LogError: the log .* is no longer there: it was deleted or moved", error)


def test_a_web_page_is_neither_answered_nor_recorded(environment: dict[str, str]) -> None:
    """The request of the script goes to a proxy on another port."""
    with MessagesServer(lambda _: Reply([text("ok")])) as api:
        script = (FOLDER / "08_browser_page.sh").read_text().replace("http://127.0.0.1:8081", "$ANTHROPIC_BASE_URL")
        Path("page.sh").write_text(script.partition("retold show")[0])
        output, _ = run(environment, "retold", "record", "--upstream", api.url, "--", "sh", "page.sh")
        assert (api.requests, "403 Forbidden" in output) == ([], True)
    assert in_this_process("ls", "--json").stdout == "[]\n"


def test_an_ordinary_word_that_is_a_setting_replays_elsewhere(environment: dict[str, str]) -> None:
    with MessagesServer(lambda _: Reply([text("ok")])) as api:
        output, _ = run(environment, "sh", FOLDER / "16_false_positive.sh", api.url)
    assert output.endswith("exit 0\n")
    assert "set up a development server" in Path("fp.yaml").read_text()


def test_a_gzip_bomb_costs_little(environment: dict[str, str]) -> None:
    # Through a shell: on Linux a process inherits the peak memory of its parent, here a worker of pytest.
    output, _ = run(environment, "sh", "-c", '"$@"; exit $?', "sh", sys.executable, copy_of("attack") / "09_gzip_bomb.py")
    assert int(output.rsplit(maxsplit=1)[1]) < 500  # megabytes at the peak


def test_no_search_in_a_frame_is_quadratic(environment: dict[str, str]) -> None:
    output, _ = run(environment, sys.executable, copy_of("attack") / "11_delta_regex.py")
    assert max(float(line.split()[2]) for line in output.splitlines()) < 2


CASSETTES = {
    "bad-timestamp.yaml": "'x' is no timestamp",
    "bad-uri.yaml": "Invalid IPv6 URL",
    "inf-status.yaml": "is 'inf'",
    "bomb-ending.yaml": "aliases stand for too much",
    "bomb-interaction.yaml": "aliases stand for too much",
    "bomb-parsed_body.yaml": "aliases stand for too much",
    "bomb-request.yaml": "aliases stand for too much",
    "bomb-status.yaml": "aliases stand for too much",
}


@pytest.mark.parametrize("name", CASSETTES)
def test_a_hostile_cassette_is_named_in_one_line(name: str) -> None:
    done = in_this_process("play", FOLDER / name)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert re.match(rf"retold: .*{name}:\d+: ", done.stderr)
    assert CASSETTES[name] in done.stderr


WORKFLOWS = {
    "j-center.yaml": "the number 1000000000 is too large here",
    "j-deepparen.yaml": "brackets nest more than 20 deep",
    "j-fmterr.yaml": "TypeError",
    "j-include.yaml": "a template cannot include other files",
    "j-typeerr.yaml": "TypeError",
    "j-zero.yaml": "ZeroDivisionError",
    "wf-float.yaml": "'x' is no float",
    "wf-int.yaml": "'x' is no int",
    "wf-ts.yaml": "'x' is no timestamp",
}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_hostile_workflow_is_named_by_file_line_and_column(name: str) -> None:
    """The API is not called. `validate`, which evaluates nothing, also finds the mistakes that the text alone reveals."""
    shutil.copy(FOLDER / name, name)
    with MessagesServer(lambda _: Reply([text("ok")])) as api:
        done = in_this_process("run", name, "--live", url=api.url)
        assert api.requests == []
    assert done.returncode == 2
    assert re.match(rf"retold: {name}:\d+:\d+: ", done.stderr)
    assert WORKFLOWS[name] in done.stderr
    checked = in_this_process("validate", name)
    assert (checked.returncode, checked.stdout.endswith(": ok\n")) in ((0, True), (2, False))


def test_a_failing_or_endless_template_is_named_by_file_line_and_column() -> None:
    templates = re.findall(r"\{[{%].*?(?=   \{|\n|  takes|$)", (FOLDER / "17_templates.txt").read_text())
    assert len(templates) >= 9
    for template in templates:
        prompt = template.partition(" takes ")[0].replace("'", "''")
        Path("t.yaml").write_text(f"workflow:\n  name: t\n  steps:\n    - {{name: s, type: claude, prompt: '{prompt}'}}\n")
        with MessagesServer(lambda _: Reply([text("ok")])) as api:
            done = in_this_process("run", "t.yaml", "--live", url=api.url)
            assert (done.returncode, api.requests) == (2, []), template
        assert re.match(r"retold: t\.yaml:4:\d+: ", done.stderr), template
        assert ".." not in done.stderr
