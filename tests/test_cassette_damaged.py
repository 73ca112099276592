"""A missing cassette and a damaged one are different errors.

The error of a damaged one names the place, and it is never overwritten.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from retold.recorder.cassette.format import read_cassette, write_cassette
from retold.recorder.errors import CassetteError, CassetteMissing
from tests.exchanges import answer, exchange

GOOD = """\
version: 1
interactions:
- request: {method: POST, uri: 'https://h/v1/messages', headers: {}, body: '{}'}
  response: {status: {code: 200, message: OK}, headers: {}, body: {string: one}}
- request:
    method: POST
    uri: https://h/v1/messages
    headers: {}
    body: '{}'
  response:
    status: {code: 200, message: OK}
    headers: {}
    body: {string: two}
- request: {method: POST, uri: 'https://h/v1/messages', headers: {}, body: '{}'}
  response: {status: {code: 200, message: OK}, headers: {}, body: {string: three}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.yaml"


def refused(path: Path, content: str | bytes) -> str:
    """Return the error of reading this content. The file must stay unchanged."""
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(data)
    with pytest.raises(CassetteError) as caught:
        read_cassette(path)
    assert not isinstance(caught.value, CassetteMissing)
    assert path.read_bytes() == data
    return str(caught.value)


def test_an_absent_cassette_is_missing(path: Path) -> None:
    """It has its own error, so a recorder knows that there is nothing to lose."""
    with pytest.raises(CassetteMissing, match=rf"no cassette at {path}\."):
        read_cassette(path)
    assert not path.exists()


def test_an_undamaged_cassette_is_read(path: Path) -> None:
    """This is the text that the other tests damage."""
    path.write_text(GOOD)
    assert [e.response.body for e in read_cassette(path).exchanges if e.response] == [b"one", b"two", b"three"]


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (("    uri: https", "   uri: https"), 7),
        (("  response:\n", "  response\n"), 11),
        (("    headers: {}\n    body: '{}'\n  r", "    headers: {\n    body: '{}'\n  r"), 10),
        (("version: 1", "version: 'x"), 3),
        (("body: {string: two}", "body: {string: *nobody}"), 13),
        (("\n- request:\n", "\n<<<<<<< HEAD\n- request:\n"), 6),
    ],
)
def test_damaged_yaml_is_an_error_with_its_line(path: Path, damage: tuple[str, str], line: int) -> None:
    """Examples are syntax errors and merge conflicts. The message names file and line, and the way out."""
    content = GOOD.replace(*damage)
    assert content != GOOD
    message = refused(path, content)
    assert re.match(rf"{path}:(\d+): the cassette is damaged: ", message)
    assert abs(int(message.removeprefix(f"{path}:").partition(":")[0]) - line) <= 1
    assert message.endswith("It was left as it is. Restore it from version control.")


def test_damaged_json_is_an_error_with_its_line(tmp_path: Path) -> None:
    """Files that end in `.json` have the same error."""
    message = refused(tmp_path / "c.json", '{"version": 1,\n "interactions": [\n}')
    assert message.startswith(f"{tmp_path}/c.json:3: the cassette is damaged: ")


@pytest.mark.parametrize(
    "content", ["", "\n", "# nothing\n", "null\n", "just text\n", "[]\n", "version: 1\n", "interactions: {}\n"]
)
def test_a_file_without_interactions_is_damaged(path: Path, content: str) -> None:
    """An empty file is damaged too. vcrpy reads it as an empty cassette, and then overwrites it."""
    assert refused(path, content).startswith(f"{path} is not a cassette: it has no list `interactions`.")


def test_an_empty_json_file_is_damaged(tmp_path: Path) -> None:
    """It lacks even `null`."""
    assert refused(tmp_path / "c.json", "").startswith(f"{tmp_path}/c.json:1: the cassette is damaged: ")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"version: 1\ninteractions: [\xe9]\n", bytes(range(256))])
def test_a_file_that_is_not_utf_8_is_damaged(path: Path, content: bytes) -> None:
    """Examples are binary noise and another encoding."""
    assert refused(path, content).startswith(f"cannot read the cassette {path}: it is not text (byte ")


def test_a_folder_is_not_a_cassette(tmp_path: Path) -> None:
    """It exists, but it cannot be read."""
    with pytest.raises(CassetteError, match=r"cannot read the cassette .*it is a folder"):
        read_cassette(tmp_path)


@pytest.mark.trap(45)
@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (("    method: POST\n", ""), "missing key 'method'"),
        (("    uri: https://h/v1/messages\n", ""), "missing key 'uri'"),
        (("    status: {code: 200, message: OK}\n    h", "    h"), "missing key 'status'"),
        (("    status: {code: 200, message: OK}\n    h", "    status: {code: ok}\n    h"), "invalid literal for int"),
        (("body: {string: two}", "body: {string: 2}"), "a body of type int"),
        (("body: {string: two}", "body: {base64_string: x}"), "Invalid base64-encoded string"),
        (
            ("body: {string: two}", "body: {string: two}\n  retold: {ending: exploded}"),
            "unknown ending 'exploded'; one of complete",
        ),
        (("body: {string: two}", "body: {string: two}\n  retold: {offsets_ms: 1 x}"), "could not convert string to float"),
        (("body: {string: two}", "body: {string: two}\n  retold: {error: {type: X}}"), "missing key 'message'"),
        (("body: {string: two}", "body: {string: two}\n  retold: [1]"), "retold should be a mapping, and is '[1]'"),
        (("body: {string: two}", "body: {string: two}\n- just text"), "an interaction should be a mapping"),
    ],
)
def test_a_damaged_entry_names_its_number_and_line(path: Path, damage: tuple[str, str], what: str) -> None:
    """The second of three interactions is damaged. It begins on line 5."""
    content = GOOD.replace(*damage)
    assert content != GOOD
    number, line = (3, 14) if "just text" in damage[1] else (2, 5)
    message = refused(path, content)
    assert message.startswith(f"{path}:{line}: interaction {number} is damaged: {what}")
    assert message.endswith("The file was left as it is.")


@pytest.mark.parametrize("own", ["first_ms: .inf", "offsets_ms: 1e999", "ended_ms: -.inf"])
def test_an_infinite_time_is_damage(path: Path, own: str) -> None:
    """YAML reads infinity as a float, but it is not a time."""
    assert "interaction 2 is damaged" in refused(path, GOOD.replace("{string: two}", f"{{string: two}}\n  retold: {{{own}}}"))


@pytest.mark.parametrize("own", ["tool_results: [5]", "tool_results: text", "cost_usd: abc"])
def test_a_value_of_the_wrong_kind_is_damage(path: Path, own: str) -> None:
    """Reading the file reports a value that would break a replay later, with its line."""
    assert "interaction 2 is damaged" in refused(path, GOOD.replace("{string: two}", f"{{string: two}}\n  retold: {{{own}}}"))


@pytest.mark.trap(45)
def test_a_newer_format_is_refused(path: Path) -> None:
    """The error names both versions and the way out."""
    assert refused(path, GOOD + "retold: {format: 3}\n") == (
        f"{path} was written by a newer retold (cassette format 3, this one reads up to 2). Update retold: pip install -U retold."
    )


def written_in_lines(path: Path) -> list[str]:
    write_cassette(path, [exchange(answer(b"event: a\ndata: 1\n\n", b"data: 2\n\n")), exchange(), exchange()])
    return path.read_text().splitlines(keepends=True)


def test_a_json_cassette_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    """A partly copied file is an error, not a shorter recording."""
    path = tmp_path / "c.json"
    lines = written_in_lines(path)
    for number in range(1, len(lines)):
        refused(path, "".join(lines[:number]))


def test_a_yaml_cassette_cut_anywhere_is_damaged(path: Path) -> None:
    """A partly copied file is an error, not a shorter answer or fewer interactions."""
    lines = written_in_lines(path)
    for number in range(1, len(lines)):
        refused(path, "".join(lines[:number]))


# Safety


@pytest.mark.trap(42)
@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/object/new:subprocess.Popen", "!!python/name:os.system", "!custom"]
)
def test_a_yaml_tag_for_objects_is_refused_and_executes_nothing(path: Path, tmp_path: Path, tag: str) -> None:
    """Cassettes arrive in pull requests, so reading one must not run it."""
    content = GOOD.replace("{string: two}", f"\n      string: {tag} ['touch {tmp_path}/executed']")
    assert re.match(rf"{path}:1[34]: the cassette is damaged: could not determine a constructor", refused(path, content))
    assert not (tmp_path / "executed").exists()


def bomb(levels: int) -> str:
    """Return a few lines of aliases that expand to 10 to the power of `levels` words."""
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels + 1)]
    return "\n".join(lines) + "\n"


def test_a_yaml_bomb_is_refused_even_if_nothing_uses_it(path: Path) -> None:
    """Aliases that expand to ten billion words are refused at the line of the first one beyond the bound."""
    assert "aliases stand for too much" in refused(path, bomb(10) + GOOD)


def test_aliases_within_the_bound_are_read(path: Path) -> None:
    """A thousand words in an unknown key are not damage."""
    path.write_text(bomb(3) + GOOD)
    assert len(read_cassette(path).exchanges) == 3


@pytest.mark.trap(42)
def test_a_yaml_bomb_in_a_field_is_refused(path: Path) -> None:
    """A list in place of a text is damage. As text this small list has 100,000 words, and a larger one has no end."""
    refused(path, bomb(5) + GOOD.replace("method: POST", "method: *a5", 1))


DEEP = """
import sys
from retold.recorder.cassette.format import read_cassette
from retold.recorder.errors import CassetteError

try:
    read_cassette(sys.argv[1])
except CassetteError:
    print("refused")
"""


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_a_file_nested_too_deeply_is_damaged(tmp_path: Path, name: str) -> None:
    """200 kB of brackets cause an error, not a crash of the process."""
    path = tmp_path / name
    path.write_text("[" * 200_000)
    done = subprocess.run(
        [sys.executable, "-c", DEEP, str(path)], env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "refused\n")


def test_dumped_documents_are_safe_yaml(path: Path) -> None:
    """retold writes no tag except `!!binary`."""
    write_cassette(path, [exchange(answer(b"\xff", headers=()), body=b"\x80", variables={"a": "b"})])
    assert set(re.findall(r"!\S+", path.read_text())) == {"!!binary"}
    assert yaml.safe_load(path.read_text())["version"] == 1
