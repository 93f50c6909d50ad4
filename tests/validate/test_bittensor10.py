"""Miners that were written for bittensor 10, unchanged: our validator asks their axons, and the chain pays them.

They live in an environment of their own; RAYTENSOR_BITTENSOR10_PYTHON names its interpreter (.ci/run makes one).
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import netkit
import numpy as np
import pytest
from operatorkit import Operator
from served_miners import bigrams

from raytensor import config
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.data.text import prepare

PYTHON = os.environ.get("RAYTENSOR_BITTENSOR10_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="RAYTENSOR_BITTENSOR10_PYTHON names no Python with bittensor 10")


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ten")
    data = config.Data(tokenizer="bytes", max_documents=netkit.MAX_DOCUMENTS)
    text = prepare(data, Path(os.environ["TEXT_CACHE"]), lambda words: None)
    pair, unigram = bigrams(text.train.astype(np.int64), text.vocab_size)
    np.savez(folder / "tables.npz", pair=pair, unigram=unigram)
    with ExitStack() as stack:
        miners = [PYTHON, str(netkit.HERE / "bittensor10_miners.py")]
        yield netkit.start(folder, stack, subnets=1, validators=1, served_by=miners)


def test_miners_of_bittensor_10_are_asked_and_paid(net, tmp_path, joining):
    (netuid,) = net.netuids
    best, second, silent = net.miners[netuid]
    operator = Operator(net, tmp_path, f"netuids=[{netuid}]", "asking.protocol=axon_v10", env=joining())
    try:
        with ChainClient(net.endpoint, 20.0) as client:

            def paid() -> dict[str, int]:
                seen = read_metagraph(client, netuid)
                return dict(zip(seen.hotkeys, map(int, seen.emission_alpha_rao), strict=True))

            operator.wait_for("alpha for the best miner", lambda: paid().get(best, 0) > 0)
            seen = paid()
        assert seen[best] > seen[second] >= 0 and seen[silent] == 0
        answered = {score["hotkey"] for score in operator.results(netuid) if "failure" not in score}
        assert answered == {best, second}
    finally:
        assert operator.stop() == 130
