"""People review a cassette in a diff, and formatters may change it: neither changes the replay."""

import json
import re
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
import vcr
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.cassette.entry import LAYOUTS, lay_out, restore
from retold.recorder.cassette.format import read_cassette, write_cassette
from retold.recorder.errors import CassetteError
from retold.recorder.http.exchange import Exchange, Request
from tests.conftest import SHARED
from tests.exchanges import JSON, answer, exchange, texts

PROMPT = {
    "model": "claude-haiku-4-5",
    "max_tokens": 512,
    "system": "You are a careful reviewer.\nAnswer in one sentence. é 😀",
    "messages": [{"role": "user", "content": "Which Python files are here?"}, {"role": "user", "content": "Look first."}],
}
COMPACT = json.dumps(PROMPT, separators=(",", ":"), ensure_ascii=False).encode()

_scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, st.just("\ud83d"))
_values = st.recursive(
    _scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)), max_leaves=8
)


@settings(deadline=None, max_examples=80)
@given(_values, st.sampled_from(sorted(LAYOUTS)), st.booleans())
def test_a_formatted_body_has_its_exact_bytes_again(value: object, layout: str, as_list: bool) -> None:
    try:
        body = json.dumps([value] if as_list else {"a": value}, **LAYOUTS[layout]).encode()
    except UnicodeEncodeError:
        return
    found = lay_out(body, short=0)
    assert found is not None
    assert restore(*found) == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a":1e3}',
        b'{"a": 1,"b":2}',
        b'{"a":"\\/"}',
        b'{"a":1}\n',
        b'{"a":',
        b"[" * 5000,
        b'{"a":"\xff"}',
        b'"text"',
        b'{"a":"\\u00E9"}',
    ],
)
def test_a_body_without_an_exact_layout_stays_unformatted(body: bytes) -> None:
    assert lay_out(body, short=0) is None


@pytest.mark.skipif(not (SHARED / "recordings").is_dir(), reason="the recordings are not beside this repository")
def test_real_request_bodies_read_back_exactly(tmp_path: Path) -> None:
    bodies = [
        e.request.body
        for path in sorted((SHARED / "recordings").rglob("*.yaml"))[:12]
        if b"interactions" in path.read_bytes()[:2000]
        for e in read_cassette(path).exchanges
    ]
    write_cassette(tmp_path / "c.yaml", [exchange(body=body) for body in bodies])
    assert [e.request.body for e in read_cassette(tmp_path / "c.yaml").exchanges] == bodies


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_the_digest_in_the_file_is_that_of_the_replayed_body(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    write_cassette(path, [exchange(body=COMPACT)])
    own = yaml.safe_load(path.read_text("utf-8"))["interactions"][0]["retold"]
    (read,) = read_cassette(path).exchanges
    assert (read.request.body, own["body_layout"]) == (COMPACT, "compact")
    assert sha256(read.request.body).hexdigest() == own["body_sha256"]


def test_git_shows_the_changed_line_of_a_prompt(tmp_path: Path, environment: dict[str, str]) -> None:
    """One word of a prompt and the answer changed. The diff has these lines, the digest, and no other line."""

    def git(*args: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *args]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    write_cassette(tmp_path / "c.yaml", [exchange(answer(b"event: a\ndata: one\n\n"), body=COMPACT)])
    git("add", ".")
    git("commit", "-qm", "One")
    write_cassette(tmp_path / "c.yaml", [exchange(answer(b"event: a\ndata: two\n\n"), body=COMPACT.replace(b"Python", b"Rust"))])
    changed = [line for line in git("diff", "-U0").split("\n") if re.match(r"[-+](?![-+])", line)]
    assert [re.sub(r"'?[0-9a-f]{64}'?", "DIGEST", line).split() for line in changed] == [
        ["-", *['"content":', '"Which', "Python", "files", "are", 'here?"']],
        ["+", *['"content":', '"Which', "Rust", "files", "are", 'here?"']],
        ["-", "data:", "one"],
        ["+", "data:", "two"],
        ["-", "body_sha256:", "DIGEST"],
        ["+", "body_sha256:", "DIGEST"],
    ]


def test_vcrpy_matches_a_request_by_its_body(tmp_path: Path) -> None:
    """vcrpy compares parsed JSON if the content type is JSON."""
    import httpx2

    write_cassette(tmp_path / "c.yaml", [exchange(answer(b"{}", headers=JSON), body=COMPACT)])
    recorder = vcr.VCR(record_mode="none", match_on=["method", "uri", "body"])
    with recorder.use_cassette(str(tmp_path / "c.yaml")), httpx2.Client() as client:
        url = "https://api.anthropic.com/v1/messages"
        assert client.post(url, content=COMPACT, headers={"content-type": "application/json"}).content == b"{}"


def test_an_edited_body_is_replayed_as_edited(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    write_cassette(path, [exchange(body=COMPACT)])
    path.write_text(path.read_text("utf-8").replace("Python", "Rust"), "utf-8")
    assert read_cassette(path).exchanges[0].request.body == COMPACT.replace(b"Python", b"Rust")
    path.write_text(path.read_text("utf-8").replace('"role"', "role"), "utf-8")
    with pytest.raises(CassetteError, match="interaction 1 is damaged"):
        read_cassette(path)


def test_request_headers_without_a_reader_are_left_out(tmp_path: Path) -> None:
    names = ["Host", "Connection", "Content-Length", "Accept-Encoding", "X-Stainless-OS", "x-stainless-read-timeout"]
    kept = (("content-type", "application/json"), ("anthropic-beta", "a"), ("x-stainless-retry-count", "1"))
    asked = Request("POST", "https://api.anthropic.com/v1/messages", (*((name, "x") for name in names), *kept), b"{}")
    write_cassette(tmp_path / "c.yaml", [Exchange(asked, answer())])
    assert read_cassette(tmp_path / "c.yaml").exchanges[0].request.headers == kept


WORDS = ["no", "on", "Yes", "1e3", "0123", "0o17", "0x1f", "12:30:45", "2026-11-22", "~", "null", "", "1_000", ".5", "+1", "1.10"]


def test_values_that_yaml_readers_disagree_on_are_quoted(tmp_path: Path) -> None:
    asked = Request("POST", "https://h/", tuple((f"x-{n}", word) for n, word in enumerate(WORDS)), b"{}")
    write_cassette(tmp_path / "c.yaml", [Exchange(asked, answer())])
    lines = (tmp_path / "c.yaml").read_text().split("\n")
    assert [word for word in WORDS if f"      - {word}" in lines] == []
    assert read_cassette(tmp_path / "c.yaml").exchanges[0].request == asked


def test_header_values_without_quotes_are_text_as_written(tmp_path: Path) -> None:
    pairs = "".join(f"      x-{n}: [{word}]\n" for n, word in enumerate(WORDS)) + "      on: yes\n"
    body = "    body: {a: 1, b: [no]}\n  response: null\n"
    entry = f"- request:\n    method: GET\n    uri: https://h/\n    headers:\n{pairs}{body}"
    (tmp_path / "c.yaml").write_text(f"version: 1\ninteractions:\n{entry}")
    (read,) = read_cassette(tmp_path / "c.yaml").exchanges
    assert [value for _, value in read.request.headers] == [*(word for word in WORDS if word), "yes"]
    assert read.request.headers[-1] == ("on", "yes")
    assert json.loads(read.request.body) == {"a": 1, "b": [False]}


def formatted(text: str) -> dict[str, str]:
    """Return the same cassette after formatters, by their changes."""
    loaded = yaml.safe_load(text)
    return {
        "comment behind the end": text + "# reviewed\n",
        "end mark": text + "...\n",
        "start mark": "---\n" + text,
        "blank lines at the end": text + "\n\n",
        "no newline at the end": text.rstrip("\n"),
        "CRLF": text.replace("\n", "\r\n"),
        "other style": yaml.safe_dump(loaded),
        "sorted, indented": yaml.safe_dump(loaded, indent=4, width=60, sort_keys=True),
        "unquoted": re.sub(r"'(no|0)'", r"\1", text),
    }


SAMPLE = [exchange(answer(b"data: 1\n\n"), body=COMPACT), exchange(answer(b"data: no\n\n"), body=COMPACT)]


@pytest.mark.parametrize("kind", sorted(formatted("a: 1")))
def test_a_formatted_cassette_is_read_as_before(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c.yaml"
    write_cassette(path, SAMPLE)
    before = read_cassette(path).exchanges
    path.write_bytes(formatted(path.read_text("utf-8"))[kind].encode())
    assert read_cassette(path).exchanges == before


@pytest.mark.parametrize("end", ["...\n", "...\n# reviewed\n", "... # reviewed\n\n"])
def test_a_cassette_of_format_1_is_read(tmp_path: Path, end: str) -> None:
    path = tmp_path / "c.yaml"
    write_cassette(path, [exchange()])
    old = path.read_text().replace("format: 2", "format: 1").replace("retold_end: true\n", end)
    path.write_text(old)
    assert read_cassette(path).exchanges == (exchange(),)
    path.write_text(old.removesuffix(end))
    with pytest.raises(CassetteError, match="cut short"):
        read_cassette(path)


def test_a_merge_conflict_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    write_cassette(path, SAMPLE)
    mine = "    method: POST\n"
    text = path.read_text("utf-8")
    path.write_text(text.replace(mine, f"<<<<<<< HEAD\n{mine}=======\n    method: PUT\n>>>>>>> theirs\n", 1), "utf-8")
    with pytest.raises(CassetteError, match=r"c\.yaml:6: the cassette is damaged: an unresolved merge conflict"):
        read_cassette(path)
