"""The file handler: the content of the file after each message, and its rotation, full disks and failures."""

import gzip
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.handlers import HandlerThread, make_handler, read_stream
from retold.handlers.base import StreamEnd, StreamStart
from retold.recorder.errors import HandlerError
from tests.e2e import normalised
from tests.test_handler_contract import record
from tests.test_handlers import INIT, RESULT, text

Json = dict[str, Any]

PATH = Path("logs/out.log")


def write(messages: Iterable[Json], **options: Any) -> list[Json]:
    """Write a stream through a file handler and return the jsonl line of each message."""
    log, run = record(messages)
    read_stream(log.events(run), make_handler("file", {"file_path": str(PATH)} | options, io.StringIO()))
    return [message.data for message in log.messages(run)]


def messages_in(path: Path, form: str) -> list[Json]:
    """Return the messages of a jsonl or json file. Fail if it is not valid to its end."""
    whole = path.read_text()
    items = json.loads(whole) if form == "json" else [json.loads(line) for line in whole.split("\n")[:-1]]
    assert whole.endswith("\n")
    return [item["message"] for item in items]


def one_by_one(messages: Iterable[Json], **options: Any) -> Iterator[list[Json]]:
    """Yield the messages so far, after the handler has received each one."""
    log, run = record(messages)
    handler = make_handler("file", {"file_path": str(PATH)} | options, io.StringIO())
    handler.start(StreamStart(run, "story", "one", "mock", 0, 0))
    handled = []
    for message in log.messages(run):
        handler.message(message)
        handled.append(message.data)
        yield handled
    handler.end(StreamEnd(0), len(handled), len(handled))
    handler.close()


STORY = [INIT, text("one\ntwo"), text("é 漢 👩‍👩‍👧 \ud800"), RESULT]


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_the_file_is_valid_after_every_message(form: str) -> None:
    """Each message is written and flushed at once, so a reader always sees a valid file."""
    for handled in one_by_one(STORY, format=form):
        assert messages_in(PATH, form) == handled


def test_text_is_written_after_every_message() -> None:
    """The file has a line as soon as its message was handled, not when it is closed."""
    for number, _ in enumerate(one_by_one([text("<0>"), text("<1>"), text("<2>")])):
        assert f"ASSISTANT: <{number}>\n" in PATH.read_text()


@pytest.mark.parametrize("form", ["text", "jsonl", "json"])
def test_append_keeps_earlier_content(form: str) -> None:
    """A second stream follows the first, and a JSON file is still valid."""
    first, second = write([text("<0>"), text("<1>")], format=form), write([text("<2>")], format=form)
    if form == "text":
        whole = PATH.read_text()
        assert [whole.index(f"<{number}>") for number in range(3)] == sorted(whole.index(f"<{number}>") for number in range(3))
    else:
        assert messages_in(PATH, form) == first + second


@pytest.mark.parametrize("form", ["text", "jsonl", "json"])
def test_without_append_the_file_begins_anew(form: str) -> None:
    """`append: false` removes an earlier stream."""
    write([text("<0>"), text("<1>")], format=form)
    write([text("<2>")], format=form, append=False)
    whole = PATH.read_text()
    assert ("<0>" in whole, "<1>" in whole, whole.count("<2>")) == (False, False, 1)


def test_an_unfinished_line_of_another_program_is_not_continued() -> None:
    """An unfinished last line stays separate."""
    PATH.parent.mkdir()
    PATH.write_text('{"torn": ')
    expected = write([text("<0>")], format="jsonl")
    torn, line, end = PATH.read_text().split("\n")
    assert (torn, json.loads(line)["message"], end) == ('{"torn": ', expected[0], "")


@pytest.mark.parametrize("there", ["[\n{}", "hello\n", "{}"])
def test_a_file_that_is_not_an_array_is_not_appended_to(there: str) -> None:
    """`format: json` appends to an array of messages or an empty file. Another file is left unchanged."""
    PATH.parent.mkdir()
    PATH.write_text(there)
    with pytest.raises(HandlerError, match=r"^cannot append to 'logs/out.log': it does not end as an array of messages does\.$"):
        write([text("<0>")], format="json")
    assert PATH.read_text() == there


def test_a_jsonl_line_has_its_place_in_the_log() -> None:
    """The line has run, number, ISO time, step, type and subtype beside the message."""
    (expected,) = write([RESULT], format="jsonl")
    line = json.loads(PATH.read_text())
    (message,) = retold.EventLog("log.db").messages(line["run"])
    assert {key: line[key] for key in ("seq", "step", "task", "type", "subtype", "message")} == {
        "seq": message.seq, "step": "one", "task": "", "type": "result", "subtype": "success", "message": expected,
    }  # fmt: skip
    assert line["time"].endswith("Z") or line["time"].endswith("+00:00")


# Rotation


def rotated() -> list[str]:
    return sorted(path.name for path in PATH.parent.iterdir())


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_a_file_that_would_grow_too_large_is_rotated(form: str) -> None:
    """Every file is valid and at most `max_file_size`. The kept files have the newest messages in order.

    A higher number is older.
    """
    expected = write([text(f"<{number}>") for number in range(20)], format=form, max_file_size=900, max_files=4)
    assert rotated() == ["out.log", "out.log.1", "out.log.2", "out.log.3"]
    kept = [message for name in reversed(rotated()) for message in messages_in(PATH.parent / name, form)]
    assert kept == expected[-len(kept) :]
    assert len(kept) >= 6
    assert max(path.stat().st_size for path in PATH.parent.iterdir()) <= 900


def test_rotated_files_are_compressed() -> None:
    """`compress` gzips rotated files without losing messages."""
    expected = write(
        [text(f"<{number}>") for number in range(10)], format="jsonl", max_file_size="900B", max_files=9, compress=True
    )
    names = rotated()
    assert names[0] == "out.log"
    assert all(name.endswith(".gz") for name in names[1:])
    lines = [gzip.decompress((PATH.parent / name).read_bytes()).decode() for name in reversed(names[1:])] + [PATH.read_text()]
    assert [json.loads(line)["message"] for line in "".join(lines).splitlines()] == expected


def test_a_message_larger_than_the_limit_has_a_separate_file() -> None:
    """Files are cut between messages, never inside one, and are never empty."""
    expected = write([text("x" * 1000), text("y" * 1000)], format="jsonl", max_file_size=100)
    assert rotated() == ["out.log", "out.log.1"]
    assert messages_in(Path("logs/out.log.1"), "jsonl") + messages_in(PATH, "jsonl") == expected


# Failures


FULL = """\
import io, resource, sys
import retold
from retold.handlers import make_handler, read_stream
with retold.EventLog("log.db") as log:
    events = list(log.events(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
handler = make_handler("file", {"file_path": "logs/out.log", "format": sys.argv[1]}, io.StringIO())
try:
    read_stream(events, handler)
except OSError as error:
    print(type(error).__name__, handler.result()["written"])
"""


@pytest.mark.parametrize("form", ["text", "jsonl", "json"])
def test_a_full_disk_leaves_no_partial_line(form: str, environment: dict[str, str]) -> None:
    """A message that does not fit is not written at all, earlier ones stay valid, and the failure is reported."""
    log, run = record([text(f"<{number}> {'x' * 70}") for number in range(50)])
    log.close()
    command = [sys.executable, "-c", FULL, form, run]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    kind, written = done.stdout.split()
    assert kind == "OSError"
    assert 2000 - 420 < PATH.stat().st_size <= 2000
    if form == "text":
        lines = PATH.read_text().splitlines()[1:]
        assert [line.partition("ASSISTANT: ")[2] for line in lines] == [f"<{n}> {'x' * 70}" for n in range(int(written))]
    else:
        assert len(messages_in(PATH, form)) == int(written)


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_several_handlers_may_write_one_file(form: str) -> None:
    """Tasks write to the same file at once. It has all messages, and it is valid."""
    log, run = record([text(f"<{number}>") for number in range(30)])
    options = {"file_path": str(PATH), "format": form}
    over = [threading.Event() for _ in range(4)]
    threads = [
        HandlerThread(log, run, "one", make_handler("file", options, io.StringIO()), after=0, over=each.set) for each in over
    ]
    assert all(each.wait(30) for each in over)
    assert [thread.error for thread in threads] == [None] * 4
    assert len(messages_in(PATH, form)) == 120


def test_a_file_that_cannot_be_opened_is_reported_and_harms_nothing_else() -> None:
    """A missing folder, or a folder in place of the file, is a failure of this handler only."""
    PATH.mkdir(parents=True)
    with pytest.raises(HandlerError, match=r"^cannot write file_path 'logs/out.log': Is a directory\.$"):
        write([text("<0>")])


def test_the_result_has_the_path_and_the_number_of_messages() -> None:
    """The run's result has the file and the number of messages in it."""
    log, run = record(STORY)
    handler = make_handler("file", {"file_path": str(PATH)}, io.StringIO())
    read_stream(log.events(run), handler)
    assert handler.result() == {"path": "logs/out.log", "written": 2}
    assert normalised(PATH.read_text()).endswith("✓ Stream completed: 4 messages (2 written) in N.Ns\n\n")
