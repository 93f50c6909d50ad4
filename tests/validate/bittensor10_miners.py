"""Miners as people wrote them for bittensor 10: its axon, a synapse with its own fields. Run with a Python that has it.

    python bittensor10_miners.py FOLDER   (reads miners.json and tables.npz there, as netkit and the test write them)

Prints one JSON object with each hotkey's port, then serves until its standard input ends. Two things differ from a
default start: the axons listen on 127.0.0.2 only, and the look-up of the machine's external address (a request to the
internet) is left out.
"""

# No `from __future__ import annotations`: the axon reads the annotations of what it is given as objects.
import json
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Tuple  # noqa: UP035

import numpy as np
from bittensor.core.axon import Axon
from bittensor.core.synapse import Synapse
from bittensor.utils import networking
from bittensor_wallet import Keypair

networking.get_external_ip = lambda: "192.0.2.1"
HOST = "127.0.0.2"  # the chain refuses 127.0.0.1, and no machine but this one answers here


class NextToken(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = (
        *("task_id", "round", "netuid", "tokens", "lengths", "top_k", "deadline_s"),
    )
    task_id: str
    round: int
    netuid: int
    tokens: list[list[int]]
    lengths: list[int]
    top_k: int
    deadline_s: float
    ids: list[list[int]] | None = None
    probs: list[list[float]] | None = None
    elapsed_s: float = 0.0


def serve(miner: dict, table: np.ndarray, validators: list[str]) -> tuple[Axon, int]:
    """An axon that answers from a table of p(next | last); one whose share is negative answers nothing."""

    async def forward(synapse: NextToken) -> NextToken:
        if miner["share"] < 0:
            return synapse
        last = [row[length - 1] for row, length in zip(synapse.tokens, synapse.lengths, strict=True)]
        order = np.argsort(-table[last], axis=1, kind="stable")[:, : synapse.top_k]
        synapse.ids = order.tolist()
        synapse.probs = (np.take_along_axis(table[last], order, 1) * 0.999).tolist()
        return synapse

    def blacklist(synapse: NextToken) -> Tuple[bool, str]:  # noqa: UP006
        return synapse.dendrite.hotkey not in validators, "not a validator of this test"

    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    wallet = SimpleNamespace(hotkey=Keypair.create_from_uri(miner["uri"]))
    axon = Axon(wallet=wallet, port=port, ip=HOST, external_ip=HOST)
    axon.fast_config.host = HOST
    axon.attach(forward_fn=forward, blacklist_fn=blacklist)
    axon.start()
    return axon, port


def main(folder: Path) -> None:
    asked = json.loads((folder / "miners.json").read_text())
    with np.load(folder / "tables.npz", allow_pickle=False) as tables:
        pair, unigram = tables["pair"], tables["unigram"]
    served = {
        miner["hotkey"]: serve(miner, miner["share"] * pair + (1 - miner["share"]) * unigram, asked["validators"])
        for miner in asked["miners"]
    }
    print(json.dumps({hotkey: port for hotkey, (_, port) in served.items()}), flush=True)
    sys.stdin.read()
    for axon, _ in served.values():
        axon.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
