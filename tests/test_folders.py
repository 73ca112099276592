"""The recorded program's folders are replaced by the current program's, in requests and answers, and no other text changes."""

import gzip
import http.client
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import retold
from retold.recorder.cassette.format import read_cassette, write_cassette
from retold.recorder.cassette.transfer import exchanges_of, import_exchanges
from retold.recorder.folders import FolderMap, Folders, is_mapped, pairs_between
from retold.recorder.http.event_stream import TYPE
from retold.recorder.http.exchange import Exchange, Request
from retold.recorder.http.refold import refold_exchange
from retold.recorder.log.log import EventLog
from retold.replay.relocating import folders_between, relocated
from tests.bedrock_server import frames_of
from tests.conftest import Cli
from tests.exchanges import GZIP, JSON, SSE, URL, answer, exchange
from tests.messages_server import MessagesServer, Reply, text
from tests.wire import Wire, wire

ONE = Folders("/tmp/one", "/home/ann")
TWO = Folders("/srv/build/two", "/root/b")
TO_TWO = FolderMap(pairs_between(ONE, TWO))

WHOLE = {
    "/tmp/one": "/srv/build/two",
    "/tmp/one/note.txt": "/srv/build/two/note.txt",
    "see /tmp/one.": "see /srv/build/two.",
    "(/tmp/one)": "(/srv/build/two)",
    "--dir=/tmp/one": "--dir=/srv/build/two",
    "@/tmp/one/a.py": "@/srv/build/two/a.py",
    "file:///tmp/one/a": "file:///srv/build/two/a",
    "**/tmp/one/a**": "**/srv/build/two/a**",
    "/home/ann/.bashrc": "/root/b/.bashrc",
    "\x1b[0m/tmp/one\x1b[32m/tmp/one": "\x1b[0m/srv/build/two\x1b[32m/srv/build/two",
    "/home/ann/.claude/projects/-tmp-one/memory/": "/root/b/.claude/projects/-srv-build-two/memory/",
    "/tmp/claude-0/-tmp-one-sub/tasks": "/tmp/claude-0/-srv-build-two-sub/tasks",
    "a:/tmp/one:/home/ann": "a:/srv/build/two:/root/b",
}

ELSEWHERE = [
    "/tmp/oneself", "/tmp/one-b", "/tmp/one.txt", "/tmp/one_b", "/tmp/oneé", "/tmp/one@1", "/tmp/one%20b", "/home/annabel",
    "/private/tmp/one", "./tmp/one", "~/tmp/one", "x/tmp/one", "${ROOT}/tmp/one", "é/tmp/one", "ng -tmp-one", "C:\\tmp\\one",
    "https://a.b/home/ann",
]  # fmt: skip


@pytest.mark.parametrize("text", WHOLE)
def test_a_whole_path_is_mapped(text: str) -> None:
    assert TO_TWO.value(text) == WHOLE[text]


@pytest.mark.parametrize("text", ELSEWHERE)
def test_a_part_of_another_path_or_word_is_not_mapped(text: str) -> None:
    assert TO_TWO.value(text) == text


def test_a_folder_inside_another_one_is_mapped_first() -> None:
    old, new = Folders("/home/ann/work", "/home/ann"), Folders("/w/k", "/home/bob")
    folders = FolderMap(pairs_between(old, new))
    assert folders.value(["/home/ann/work/a", "/home/ann/workshop"]) == ["/w/k/a", "/home/bob/workshop"]
    same_cwd = FolderMap(pairs_between(old, Folders("/home/ann/work", "/root")))
    assert same_cwd.value("/home/ann/work /home/ann") == "/home/ann/work /root"


@pytest.mark.parametrize("folder", ["", "/", "/w", "work", "C:\\Users\\ann", '/a/"quoted"', "/a/new\nline", "/a/\udcff"])
def test_other_folders_are_not_mapped(folder: str) -> None:
    assert not is_mapped(folder)
    assert not FolderMap(pairs_between(Folders(folder), TWO))
    assert not FolderMap(pairs_between(ONE, Folders(folder)))


def test_equal_folders_change_nothing() -> None:
    assert not FolderMap(pairs_between(ONE, ONE))
    assert not FolderMap(pairs_between(ONE, Folders()))


paths = st.sampled_from(["/tmp/one", "/home/ann", "/home/ann/x y", "/tmp/one.", "/tmp/oneself", "/x/-tmp-one"])
around = st.sampled_from(["", " ", "\n", "\t", '"', "'", "<", ">", "see ", "é ", "\\ ", "&"])


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(around, paths, around), max_size=4), st.integers(0, 3), st.booleans())
def test_json_in_json_stays_json(parts: list[tuple[str, str, str]], depth: int, ascii_only: bool) -> None:
    """A path is mapped at any depth as in the plain text."""
    text = "".join(itertools.chain(*parts))
    spelled = text
    for _ in range(depth):
        spelled = json.dumps({"text": spelled}, ensure_ascii=ascii_only)
    spelled = TO_TWO.data(spelled.encode()).decode()
    for _ in range(depth):
        spelled = json.loads(spelled)["text"]
    assert spelled == TO_TWO.value(text)


def test_each_spelling_of_a_folder_is_replaced_in_its_own() -> None:
    folders = FolderMap(pairs_between(Folders("/tmp/é one"), Folders("/tmp/ü two")))
    for write in (json.dumps, lambda text: json.dumps(json.dumps(text)), quote, lambda text: quote(text, safe="")):
        assert folders.data(write("/tmp/é one/a").encode()).decode() == write("/tmp/ü two/a")
    assert TO_TWO.data(rb'"\/tmp\/one\/a"') == rb'"\/srv\/build\/two\/a"'


# Answers


def delta(piece: str, field: str = "text") -> bytes:
    event = {"type": "content_block_delta", "index": 1, "delta": {"type": f"{field}_delta", field: piece}}
    return b"event: content_block_delta\ndata: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def joined(frames: list[bytes], field: str) -> str:
    deltas = (json.loads(frame.partition(b"data: ")[2])["delta"] for frame in frames if b"content_block_delta" in frame)
    return "".join(delta[field] for delta in deltas)


PING = b'event: ping\ndata: {"type": "ping"}\n\n'
INPUT = json.dumps({"file_path": "/tmp/one/note.txt", "content": "x\n/tmp/one\n/tmp/oneself\n/home/ann"})


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, len(INPUT)), max_size=12), st.sampled_from(["text", "partial_json"]))
@example(list(range(len(INPUT))), "partial_json")
def test_a_path_split_over_deltas_is_mapped(places: list[int], field: str) -> None:
    edges = sorted({0, len(INPUT), *places})
    frames = [frame for a, b in itertools.pairwise(edges) for frame in (delta(INPUT[a:b], field), PING)]
    found = relocated(exchange(answer(*frames)), TO_TWO).response
    assert found is not None
    after = [piece.data for piece in found.pieces]
    assert joined(after, field) == TO_TWO.value(INPUT)
    assert len(after) == len(frames)
    if field == "partial_json":
        assert json.loads(joined(after, field))["file_path"] == "/srv/build/two/note.txt"


START = b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"text":"/tmp/one/a"}}\n\n'
BODIES = {
    "a frame without a delta": (answer(START), START.replace(b"/tmp/one", b"/srv/build/two")),
    "a body of JSON in pieces": (answer(b'{"a":"/tmp/o', b'ne/x"}', headers=JSON), b'{"a":"/srv/build/two/x"}'),
    "a packed stream": (answer(gzip.compress(START), headers=GZIP), START.replace(b"/tmp/one", b"/srv/build/two")),
    "a stream that was cut": (answer(START, b'data: {"text":"/tmp/one/', headers=SSE), None),
}


@pytest.mark.parametrize("name", BODIES)
def test_each_form_of_an_answer_is_mapped(name: str) -> None:
    response, expected = BODIES[name]
    found = relocated(exchange(response), TO_TWO).response
    assert found is not None
    assert found.body == (expected or response.body.replace(b"/tmp/one", b"/srv/build/two"))
    assert [piece.offset_ns for piece in found.pieces][-1] == response.pieces[-1].offset_ns
    assert found.header("content-encoding") is None


@pytest.mark.parametrize("action", ["invoke-with-response-stream", "converse-stream"])
def test_a_path_below_base64_is_mapped(action: str) -> None:
    """The frames of Bedrock keep correct checksums."""
    parts = frames_of(Reply([text("It is in /tmp/one/a today", 7)]), action, {"model": "m"})
    found = relocated(exchange(answer(*parts, headers=(("content-type", TYPE),))), TO_TWO)
    assert refold_exchange(found).text == "It is in /srv/build/two/a today"


def test_an_answer_without_a_folder_stays_the_same_object() -> None:
    """Its bytes stay exact, also if they are compressed."""
    recorded = exchange(answer(gzip.compress(delta("/tmp/oneself")), headers=GZIP))
    assert relocated(recorded, TO_TWO) is recorded
    assert relocated(recorded, FolderMap({})) is recorded


def test_the_prompt_of_claude_code_names_folders_too() -> None:
    headers = (("x-claude-code-session-id", "1"),)

    def asked(cwd: str, home: str) -> Request:
        text = f"# Env\n - Primary working directory: {cwd}\n memory at `{home}/.claude/projects/-x/memory/`."
        return Request("POST", URL, headers, json.dumps({"system": text}).encode())

    folders = folders_between(asked(*ONE.as_dict().values()), asked(*TWO.as_dict().values()))
    assert folders.value("/tmp/one /home/ann/x") == "/srv/build/two /root/b/x"


# Recordings


def recorded_in(folders: Folders) -> Exchange:
    body = json.dumps({"model": "m", "system": f"You work in {folders.cwd}.", "messages": []}).encode()
    made = exchange(answer(delta(f"{folders.cwd}/a and {folders.home}")), body)
    return replace(made, request=Request("POST", URL, JSON, body, folders))


def test_only_folders_that_appear_are_kept(tmp_path: Path) -> None:
    shown, hidden = recorded_in(ONE), replace(exchange(answer(PING)), request=Request("POST", URL, JSON, b"{}", ONE))
    with EventLog(tmp_path / "log.db") as log:
        kept = exchanges_of(log, import_exchanges(log, [shown, hidden], name="n", source="s"))
    assert [each.request.folders for each in kept] == [ONE, ONE]
    for name in ("c.yaml", "c.json"):
        write_cassette(tmp_path / name, kept)
        assert [each.request.folders for each in read_cassette(tmp_path / name).exchanges] == [ONE, Folders()]


def answer_with(server: Wire, system: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]), timeout=20)
    body = json.dumps({"model": "m", "system": system, "messages": []})
    connection.request("POST", "/v1/messages", body, {"content-type": "application/json"})
    read = connection.getresponse().read().decode()
    connection.close()
    return read


def test_a_recording_answers_in_another_folder() -> None:
    """The request is matched in the recorded folders, and the answer has the local ones. In the same folders it is exact."""
    recorded = recorded_in(ONE)
    assert recorded.response is not None
    with wire(mode="none", recorded=[recorded], folders=ONE) as server:
        assert answer_with(server, "You work in /tmp/one.").encode() == recorded.response.body
    with wire(mode="none", recorded=[recorded], folders=TWO) as server:
        assert joined([answer_with(server, "You work in /srv/build/two.").encode()], "text") == "/srv/build/two/a and /root/b"
    missed = 'recorded "You work in /tmp/one.", now "You work in /srv/other."'
    with wire(mode="none", recorded=[recorded], folders=TWO) as server:
        assert missed in json.loads(answer_with(server, "You work in /srv/other."))["error"]["message"]


def test_a_recording_may_have_the_folders_of_several_programs() -> None:
    """Exchanges of an older recording have no folders, and match unchanged."""
    three = Folders("/opt/three", "/home/cat")
    old = exchange(answer(delta("old")), json.dumps({"model": "m", "system": "In /opt/three.", "messages": []}).encode())
    with wire(mode="none", recorded=[recorded_in(ONE), old, recorded_in(TWO)], folders=three) as server:
        for _ in range(2):
            assert joined([answer_with(server, "You work in /opt/three.").encode()], "text") == "/opt/three/a and /home/cat"
        assert joined([answer_with(server, "In /opt/three.").encode()], "text") == "old"


@pytest.mark.needs("genai-prices")
def test_a_command_is_recorded_with_its_folders(tmp_path: Path, cli: Cli) -> None:
    """It is replayed in others: the program asks with its folder, and writes to the path in the answer."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    folders = [tmp_path / "one", tmp_path / "two"]
    command = [sys.executable, "-S", "-E", str(program)]
    for folder in folders:
        folder.mkdir()
    cassette = str(tmp_path / "c.yaml")
    with MessagesServer([Reply([text(f"{folders[0]}/note.txt")])]) as server:
        made = cli("record", "-o", cassette, "--upstream", server.url, "--", *command, cwd=folders[0])
    assert made.returncode == 0, made.stderr
    (folders[0] / "note.txt").unlink()
    replayed = cli("replay", cassette, "--", *command, cwd=folders[1])
    assert replayed.returncode == 0, replayed.stderr
    assert (folders[1] / "note.txt").exists()
    assert not (folders[0] / "note.txt").exists()
    assert retold.read_cassette(cassette).exchanges[0].request.folders.cwd == str(folders[0])


PROGRAM = """
import http.client, json, os
connection = http.client.HTTPConnection(os.environ["ANTHROPIC_BASE_URL"].partition("//")[2])
body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": f"Work in {os.getcwd()}."}]}
connection.request("POST", "/v1/messages", json.dumps(body), {"content-type": "application/json", "x-api-key": "k"})
path = json.loads(connection.getresponse().read())["content"][0]["text"]
open(path, "w").close()
"""
