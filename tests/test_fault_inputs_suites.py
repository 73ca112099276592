"""Inputs of other recorders: tags, parsed bodies and bodies that are mappings. The inputs are beside this repository."""

import json

import pytest

from retold.recorder.cassette.format import read_cassette
from tests.conftest import SHARED
from tests.e2e import in_this_process

FAULTS = SHARED / "faults" / "suites"

pytestmark = pytest.mark.skipif(not FAULTS.is_dir(), reason="the inputs are not beside this repository")


@pytest.mark.parametrize("name", ["istr", "istr-new", "dict-body", "parsed-body"])
def test_a_cassette_is_read_with_its_bodies(name: str) -> None:
    (exchange,) = read_cassette(FAULTS / f"{name}.yaml").exchanges
    prompt = "\u00e9" if name == "parsed-body" else "hi"
    expected = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": prompt}]}
    assert json.loads(exchange.request.body) == expected
    assert [header.lower() for header, _ in exchange.request.headers] == ["content-type"]
    assert in_this_process("import", str(FAULTS / f"{name}.yaml")).returncode == 0


def test_a_parsed_body_has_its_content_length() -> None:
    (exchange,) = read_cassette(FAULTS / "parsed-body.yaml").exchanges
    assert exchange.response is not None
    assert str(len(exchange.response.body)) == dict(exchange.response.headers)["content-length"]
