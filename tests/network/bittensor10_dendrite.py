"""A validator as people wrote it for bittensor 10: its dendrite asks one miner. Run with a Python that has it.

    python bittensor10_dendrite.py '{"uri": ..., "hotkey": ..., "ip": ..., "port": ..., "fields": {...}}'

Prints the answer's fields and the dendrite's status as JSON.
"""

import asyncio
import json
import sys
from typing import ClassVar

from bittensor.core.chain_data import AxonInfo
from bittensor.core.dendrite import Dendrite
from bittensor.core.synapse import Synapse
from bittensor.utils import networking
from bittensor_wallet import Keypair

networking.get_external_ip = lambda: "192.0.2.1"


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


async def ask(asked: dict) -> dict:
    dendrite = Dendrite(wallet=Keypair.create_from_uri(asked["uri"]))
    target = AxonInfo(
        version=1, ip=asked["ip"], port=asked["port"], ip_type=4, hotkey=asked["hotkey"], coldkey=asked["hotkey"]
    )
    try:
        synapse = await dendrite.call(target, NextToken(**asked["fields"]), timeout=60.0, deserialize=False)
    finally:
        await dendrite.aclose_session()
    status = synapse.dendrite.status_code, synapse.dendrite.status_message
    return {"status": status, "ids": synapse.ids, "probs": synapse.probs}


print(json.dumps(asyncio.run(ask(json.loads(sys.argv[1])))))
