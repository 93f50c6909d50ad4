"""Arrays over signed HTTP: who fills holes well earns more, who changes the rest of a picture nothing."""

import dataclasses

import numpy as np
import pytest

from raytensor.mechanisms.base import Ask, Item
from raytensor.mechanisms.evidence import State
from raytensor.types import Failure, Reason


@pytest.fixture
def subnet_name():
    return "inpainting"


@pytest.mark.parametrize("served_miner", [("honest", "lazy", "silent")], indirect=True)
def test_the_better_picture_earns_more(served_miner):
    honest, lazy, silent = served_miner.hotkeys
    played = served_miner.play(rounds=2)
    (good,), (poor,) = played[honest], played[lazy]
    assert good.values["explained"] > poor.values["explained"]
    assert isinstance(played[silent][0], Failure)
    assert served_miner.weights[honest] > 0.5 > served_miner.weights[lazy] >= served_miner.weights[silent] == 0.0

    # A picture that is changed outside of the hole is no answer, however good it is.
    ask = Ask("seed", served_miner.netuid, served_miner.validator, 9, (honest,))
    ((task, whole),) = served_miner.mechanism.tasks(ask, State(), None)
    (answer,) = served_miner.ask([task])
    assert answer.payload["pictures"].shape == (8, 48, 48)
    changed = dataclasses.replace(answer, payload={"pictures": answer.payload["pictures"] + np.float32(0.1)})
    right, wrong = served_miner.mechanism.score([Item(task, whole, answer), Item(task, whole, changed)])
    assert right.values["explained"] > 0.5
    assert isinstance(wrong, Failure) and wrong.reason is Reason.MALFORMED and "outside of the hole" in wrong.detail
