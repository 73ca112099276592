"""A fleet under every fault loses, doubles and reorders nothing. `python -m tests.fleet_faults` runs it at full size."""

import pytest

from tests.fleet_faults import Size, hurt


@pytest.mark.stress
def test_a_fleet_under_faults_loses_nothing() -> None:
    """Nodes are killed, stopped and all away; shippers are killed and doubled. Two mirrors equal the logs."""
    size = Size(pods=2, events=2_000, run=700, per_s=300, calm_s=0.5, stopped_s=1, away_s=3)
    outcome = hurt(size)
    assert outcome.events == [4_000, 4_000]
    assert outcome.pages > 0
