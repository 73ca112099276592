"""A cassette read one interaction at a time gives the same result as a parser of the whole file, or the same refusal."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retold.recorder.cassette import format as cassette_format
from retold.recorder.cassette.block_yaml import CassetteLoader, NotPlain
from retold.recorder.cassette.exchanges import Outline, outline
from retold.recorder.cassette.format import read_cassette, write_cassette
from retold.recorder.errors import CassetteError
from retold.recorder.http.exchange import Exchange
from tests.exchanges import JSON, answer, exchange, exchanges, texts
from tests.test_mutations import mutated

ROOT = Path(__file__).parent.parent
SUFFIXES = (".yaml", ".json")
TRAPS = (
    "- request:",
    "  response:\n",
    "\n- request:\n    method: GET\n",
    "'\n- request:\n'",
    "|-\n  x",
    "a: 'b\n",
    '"\n  "',
    "# x",
)


def whole(data: bytes, suffix: str) -> Any:
    return json.loads(data) if suffix == ".json" else yaml.load(data, Loader=CassetteLoader)


def checked(data: bytes, suffix: str) -> Outline | None:
    """Compare an outline with the parser of the whole file, and return the outline."""
    found = outline(data, suffix)
    if found is None:
        return None
    try:
        document = whole(data, suffix)
    except (yaml.YAMLError, ValueError, RecursionError):
        with pytest.raises(NotPlain):
            [found.entry(number) for number in range(len(found))]
        return found
    try:
        entries = [found.entry(number) for number in range(len(found))]
    except NotPlain:
        return None  # the caller reads the whole file
    # Compare texts, because NaN differs from itself.
    assert repr(entries) == repr(document["interactions"])
    assert {**found.document, "interactions": None} == {**document, "interactions": None}
    return found


def with_traps(luck: random.Random, text: str) -> str:
    at = luck.randrange(len(text) + 1)
    return text[:at] + luck.choice(TRAPS) + text[at:]


bodies = st.builds(with_traps, st.randoms(use_true_random=False), texts.map("\n".join))


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, max_examples=20)
@given(one=exchanges(), other=exchanges(), body=bodies)
@example(exchange(), exchange(body=b"- request:\n  response:\n"), "a\n\n- request:\n    uri: 'x\n")
def test_the_outline_of_a_retold_cassette_equals_its_parsed_file(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, one: Exchange, other: Exchange, body: str
) -> None:
    """Any body, also one with lines like YAML, gives the same interactions, whether read alone or with the others."""
    path = tmp_path_factory.getbasetemp() / f"outlined{suffix}"
    write_cassette(path, [one, exchange(answer(body.encode(), headers=JSON), body=body.encode()), other])
    checked(path.read_bytes(), suffix)


@pytest.mark.parametrize("width", [80, 20, 2**20])
@settings(deadline=None, max_examples=60)
@given(first=bodies, second=st.one_of(bodies, st.binary(max_size=30)), header=texts, indent=st.sampled_from([2, 4]))
def test_the_outline_of_a_vcrpy_cassette_equals_its_parsed_file(
    width: int, first: str, second: str | bytes, header: str, indent: int
) -> None:
    """PyYAML folds long scalars in three styles, and vcrpy uses its defaults."""
    one: dict[str, Any] = {
        "request": {"body": first * 3, "headers": {"a-b": [header, "0123"]}, "method": "POST", "uri": "http://h/v1?a=%20"},
        "response": {"body": {"string": second}, "headers": {}, "status": {"code": 200, "message": "OK"}},
    }
    data = yaml.dump({"interactions": [one, one], "version": 1}, width=width, indent=indent).encode()
    checked(data, ".yaml")


ORDINARY = exchange(answer(b"event: a\ndata: {}\n\n"), body=json.dumps({"model": "m", "messages": ["x" * 50, "y" * 50]}).encode())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_usual_cassette_has_an_outline(tmp_path: Path, suffix: str) -> None:
    """Only unusual files need the slow reader of the whole file."""
    path = tmp_path / f"c{suffix}"
    write_cassette(path, [ORDINARY] * 3)
    found = checked(path.read_bytes(), suffix)
    assert found is not None
    assert len(found) == 3


@pytest.mark.parametrize("path", sorted((ROOT / "cassettes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_cassette_of_the_examples_has_an_outline(path: Path) -> None:
    """They show the forms that retold and the clients of the API produce. A file with only sessions has nothing to split."""
    data = path.read_bytes()
    assert (checked(data, ".yaml") is None) == (b"\ninteractions: []\n" in data)


HEAD = "interactions:\n- request:\n    method: GET\n    uri: http://h/\n"
REFUSED = {
    "a quoted scalar over a cut": HEAD + "    body: 'x\n- request:\n    method: PUT\n    uri: http://i/\n    body: y'\n",
    "a flow mapping over a cut": HEAD + "    headers: {a: b,\n- request:\n    c: d}\n",
    "an anchor": HEAD + "    body: &a x\n- request: *a\n",
    "a folded block": HEAD + "    body: >\n      x\n",
    "a tag": HEAD + "    body: !!str x\n",
    "a quoted key": HEAD + "    'body': x\n",
    "a quote below its key": HEAD + "    body:\n      'x\n\n- request:\n      y'\n",
    "a quote after two dashes": HEAD + "    headers:\n    - - 'a\n- request:\n      b'\n",
    "a comment after a value": HEAD + "    body: 'x' # it's\n",
    "CR": HEAD + "    body: |\n      x\r- request:\r    method: PUT\n",
    "NEL": HEAD + "    body: |\n      x\x85- request:\x85    method: PUT\n",
    "two documents": HEAD + "---\n" + HEAD,
    "two lists": HEAD + HEAD,
    "a list below another key": "a:\n  interactions:\n  - request:\n      method: GET\n",
    "a literal block after a dash": HEAD + "    headers:\n    - a: |\n      b: c\n",
    "a tab": HEAD + "    body:\t'x\n- request:\n    a: b'\n",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_an_unusual_file_is_left_to_the_parser(text: str) -> None:
    """The outline guesses nothing."""
    assert checked(text.encode(), ".yaml") is None


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.stress) for seed in range(3, 40))])
def test_a_mutated_file_is_read_or_refused_by_both_readers(seed: int) -> None:
    """Values are replaced, lines moved, bytes flipped, indentation and quotes changed."""
    luck = random.Random(seed)
    sources = [path.read_text() for path in sorted((ROOT / "cassettes").glob("*.yaml")) if path.stat().st_size < 12_000]
    for _ in range(60):
        data = mutated(luck.choice(sources), luck)
        for _ in range(luck.randrange(3)):
            lines = data.split(b"\n")
            at = luck.randrange(len(lines))
            lines[at:at] = [luck.choice(TRAPS).encode()] if luck.random() < 0.5 else [b" " + lines.pop(at)]
            data = b"\n".join(lines)
        checked(data, ".yaml")


# Lazily


@pytest.fixture
def always_lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read small files lazily too."""
    monkeypatch.setattr(cassette_format, "LAZY_BYTES", 0)


Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "a missing method": lambda data: data.replace(b"method", b"methud"),
    "a status that is no number": lambda data: data.replace(b"200", b"x00"),
    "an ending that nobody knows": lambda data: data.replace(b"ending: complete", b"ending: x").replace(
        b'"ending": "complete"', b'"ending": "x"'
    ),
    "a character that YAML and JSON refuse": lambda data: data.replace(b"event: a", b"event: \x01"),
    "bytes that are no UTF-8": lambda data: data.replace(b"event: a", b"event: \xff"),
}


@pytest.mark.usefixtures("always_lazy")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_is_reported_when_the_interaction_is_needed(tmp_path: Path, suffix: str, damage: Damage) -> None:
    """The others are read. The damaged one is refused with the error of a reader of the whole file."""
    path = tmp_path / f"c{suffix}"
    write_cassette(path, [exchange(uri="http://first/"), ORDINARY])
    first, second = path.read_bytes().split(b'"http://first/"' if suffix == ".json" else b"uri: http://first/")
    middle = second.rindex(b"request")
    path.write_bytes(
        first + (b'"http://first/"' if suffix == ".json" else b"uri: http://first/") + second[:middle] + damage(second[middle:])
    )
    with pytest.raises(CassetteError) as expected:
        read_cassette(path)
    found = read_cassette(path, lazy=True).exchanges
    assert found[0].request.uri == "http://first/"
    for _ in range(2):
        with pytest.raises(CassetteError) as refused:
            found[1]
        assert str(refused.value) == str(expected.value)


@pytest.mark.usefixtures("always_lazy")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cassette_that_was_cut_short_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    """A reader of its beginning alone would not notice."""
    path = tmp_path / f"c{suffix}"
    write_cassette(path, [ORDINARY] * 3)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CassetteError, match=r"cut short|damaged"):
        read_cassette(path, lazy=True)


@pytest.mark.usefixtures("always_lazy")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_lazy_exchanges_are_a_sequence_like_the_tuple(tmp_path: Path, suffix: str) -> None:
    """This covers length, order, indexes, slices and equality. Each exchange is one object."""
    path = tmp_path / f"c{suffix}"
    written = tuple(exchange(uri=f"http://h/{number}") for number in range(5))
    write_cassette(path, written)
    found: Sequence[Exchange] = read_cassette(path, lazy=True).exchanges
    assert not isinstance(found, tuple)
    assert (len(found), found[-1], found[1:3], list(found)) == (5, written[4], written[1:3], list(written))
    assert found == written
    assert found[2] is found[2]
    assert (written[3] in found, found.index(written[3])) == (True, 3)
    with pytest.raises(IndexError):
        found[5]
