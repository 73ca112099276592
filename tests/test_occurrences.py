"""A search for a text passes over the carriers that cannot hold it, and over no other."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retold.audit.occurrences import Carrier, contains, could_hold

characters = st.sampled_from(
    ["a", "B", "ß", "ſ", "K", "ﬁ", "é", "\N{COMBINING ACUTE ACCENT}", '"', "\\", "/", "\n", "\0", "u", "0", " "]
)
texts = st.text(characters, min_size=1, max_size=8)


def written(value: object, escaped: bool, slashes: bool) -> str:
    """Write JSON as one of the programs that exist: with every character or few as escapes, and slashes too, as PHP does."""
    data = json.dumps(value, ensure_ascii=escaped)
    return data.replace("/", "\\/") if slashes else data


@st.composite
def carriers(draw: st.DrawFn, holding: str) -> Carrier:
    """Make a carrier with a text in any case, at any depth of JSON in JSON, or split over the deltas of a block."""
    inner = draw(texts) + draw(st.sampled_from([holding, holding.upper(), holding.swapcase(), ""])) + draw(texts)
    raw = inner
    for _ in range(draw(st.integers(0, 3))):
        raw = written(draw(st.sampled_from([raw, [raw], {raw: 1}])), draw(st.booleans()), draw(st.booleans()))
    if draw(st.booleans()):
        raw = f"event: x\ndata: {raw}\n\n"
    block = written(inner, draw(st.booleans()), draw(st.booleans()))
    return Carrier("run", "body", [1], raw, draw(st.sampled_from([[], [block]])))


@given(st.data(), st.lists(texts, min_size=1, max_size=3))
def test_a_carrier_that_is_passed_over_holds_none_of_the_texts(data: st.DataObject, wanted: list[str]) -> None:
    """Each spelling that the search would find is found by the test before it, too."""
    carrier = data.draw(carriers(wanted[0]))
    assert could_hold(wanted)(carrier) or not _finds(carrier, wanted)


def _finds(carrier: Carrier, wanted: list[str]) -> bool:
    return any(contains(text)(value) for text in wanted for value in (*carrier.texts(), carrier.raw))


@pytest.mark.parametrize(
    ("wanted", "raw"),
    [
        ("K", '"\N{KELVIN SIGN}"'), ("café", '"cafe\N{COMBINING ACUTE ACCENT}"'), ("strasse", '"STRAßE"'),
        ("etc/passwd", r'"etc\/passwd"'), ("etc/passwd", r'{"a": "\"etc\\/passwd\""}'), ("say it", r'"s\u0061y it"'),
        ("a\tb", r'"a\tb"'), ("a\tb", r'"\"a\\tb\""'), ("one\ntwo", "one\ntwo"),
    ],
)  # fmt: skip
def test_each_spelling_is_found(wanted: str, raw: str) -> None:
    """Another case, composition or escape of a text is the same text."""
    carrier = Carrier("run", "body", [1], raw)
    assert _finds(carrier, [wanted])
    assert could_hold([wanted])(carrier)


@given(st.text("ab", min_size=3, max_size=9))
def test_a_carrier_without_the_text_is_passed_over(wanted: str) -> None:
    """Otherwise the search would parse every event of a log."""
    assert not could_hold([wanted, f'{wanted}"\n'])(Carrier("run", "body", [1], '{"c": "d\\n"}', ['"ab"']))
    assert could_hold([wanted, "other"])(Carrier("run", "body", [1], "{}", [f'"x{wanted}"']))
