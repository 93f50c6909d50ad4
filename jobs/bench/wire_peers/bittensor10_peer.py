"""bittensor 10's axon and dendrite as a peer of the benchmark and of the interoperation tests.

Run it with a Python that has bittensor 10.5. Two things differ from a default start: the axon listens on loopback only,
and the look-up of the machine's external address (a request to the internet) is left out.
"""

# No `from __future__ import annotations`: the axon reads the annotations of what it is given as objects.
import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Tuple  # noqa: UP035

sys.path.insert(0, str(Path(__file__).resolve().parent))

import payload as bench
from bittensor.core.axon import Axon
from bittensor.core.chain_data import AxonInfo
from bittensor.core.dendrite import Dendrite
from bittensor.core.synapse import Synapse
from bittensor.utils import networking
from bittensor_wallet import Keypair

networking.get_external_ip = lambda: "192.0.2.1"
VALIDATOR = Keypair.create_from_seed("0x" + bench.VALIDATOR_SEED.hex())
MINER = Keypair.create_from_seed("0x" + bench.MINER_SEED.hex())


class NextToken(Synapse):
    """The synapse that raytensor.wire.axon_v10 speaks."""

    required_hash_fields: ClassVar[tuple[str, ...]] = (
        "task_id",
        "round",
        "netuid",
        "tokens",
        "lengths",
        "top_k",
        "deadline_s",
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


def serve(payload: str) -> None:
    ids, probs = bench.answer(payload)

    async def forward(synapse: NextToken) -> NextToken:
        synapse.ids, synapse.probs = ids, probs
        return synapse

    # The axon compares the annotation with typing's own Tuple.
    def blacklist(synapse: NextToken) -> Tuple[bool, str]:  # noqa: UP006
        return synapse.dendrite.hotkey != VALIDATOR.ss58_address, "not the validator"

    port = bench.free_port()
    axon = Axon(wallet=SimpleNamespace(hotkey=MINER), port=port, ip="127.0.0.1", external_ip="127.0.0.1")
    axon.fast_config.host = "127.0.0.1"
    axon.attach(forward_fn=forward, blacklist_fn=blacklist)
    axon.start()
    print(json.dumps({"port": port}), flush=True)
    bench.wait_for_the_end()
    axon.stop()


def ask(payload: str, port: int, seconds: float, workers: int) -> dict:
    target = AxonInfo(version=1, ip="127.0.0.1", port=port, ip_type=4, hotkey=MINER.ss58_address, coldkey="")
    fields, expected = bench.question(payload), bench.answer(payload)[1]

    async def run() -> dict:
        dendrite = Dendrite(wallet=VALIDATOR)

        async def once() -> str:
            synapse = await dendrite.call(target, NextToken(**fields), timeout=30.0, deserialize=False)
            if not synapse.is_success:
                return f"{synapse.dendrite.status_code} {synapse.dendrite.status_message}"
            return "" if synapse.probs == expected else "a wrong answer"

        try:
            return await bench.drive(once, seconds, workers)
        finally:
            await dendrite.aclose_session()

    return asyncio.run(run())


if __name__ == "__main__":
    bench.main(serve, ask)
