"""`retold_vcr = true` beside pytest-vcr: its fixtures and options stay, and retold plays and records under its `vcr` mark.

pytest-vcr makes a `VCR` for each module and a cassette for each marked test. This plugin replaces the second one's fixture.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .pytest_session import begin


@pytest.fixture
def vcr_cassette(request: pytest.FixtureRequest, vcr: Any, vcr_cassette_name: str) -> Iterator[Any]:
    """The cassette of a marked test, in use by vcrpy and retold."""
    from pytest_vcr import _update_kwargs

    from .vcr_config import in_test
    from .vcr_tape import use_both

    config: dict[str, Any] = {}
    _update_kwargs(request, config)
    if request.config.getoption("--disable-vcr"):
        with vcr.use_cassette(vcr_cassette_name, **config) as cassette:
            yield cassette
        return
    merged = vcr.get_merged_config(**config)
    path = Path(merged["path_transformer"](vcr_cassette_name))
    mode = str(getattr(merged["record_mode"], "value", merged["record_mode"]))
    is_taught = getattr(vcr.persister, "__module__", "") != "vcr.persisters.filesystem"
    tape = use_both(vcr, path, config, mode, make=in_test(request.node, path), is_taught=is_taught)
    begin(request.node, tape)
    yield tape.joined
