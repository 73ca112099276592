"""A fleet that is hurt in every way loses, doubles and reorders nothing; `python -m tests.fleet_faults` runs the whole size."""

import pytest

from tests.fleet_faults import Size, hurt


@pytest.mark.stress
def test_a_fleet_that_is_hurt_loses_nothing() -> None:
    """Nodes killed and stopped, all away, shippers killed and doubled: two mirrors are equal to the logs."""
    size = Size(pods=2, events=2_000, run=700, per_s=300, calm_s=0.5, stopped_s=1, away_s=3)
    outcome = hurt(size)
    assert outcome.events == [4_000, 4_000]
    assert outcome.pages > 0
