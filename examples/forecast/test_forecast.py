"""Miners forecast over signed HTTP; their errors are known when the values are."""

import pytest

from raytensor.types import Failure


@pytest.fixture
def subnet_name():
    return "forecast"


@pytest.mark.parametrize("served_miner", [("honest", "lazy", "silent")], indirect=True)
def test_forecasts_are_judged_when_the_truth_arrives(served_miner):
    honest, lazy, silent = served_miner.hotkeys
    first = served_miner.play()
    (score,) = first[honest]
    assert len(score.values["forecast"]) == 3 and not served_miner.weights  # evidence, and no verdict yet
    last = served_miner.play(rounds=11)
    assert isinstance(last[silent][0], Failure) and silent not in served_miner.weights
    assert served_miner.weights[honest] > 5 * served_miner.weights[lazy] > 0
