"""taowire's miner and validator client (btauth/1 on FastAPI and httpx) as a peer of the benchmark.

Run it with a Python that has taowire 0.1.0a2. Signed responses, which our protocol does not have, are switched off on
both sides; so are its limits, as on the other peers. Its subnet comes from its own testing package, HTTP and
signatures are real.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import payload as bench
from bittensor.sp_core import Keypair
from pydantic import BaseModel
from taowire.auth.signer import RequestSigner
from taowire.chain.axon import parse_axon
from taowire.chain.gateway import NeuronView
from taowire.config import MinerSettings
from taowire.miner.app import Miner
from taowire.miner.routes import RouteContext
from taowire.observability.logging import configure_logging
from taowire.testing.fake_chain import FakeChain
from taowire.testing.metagraph import FakeMetagraphSource
from taowire.validator.client import ValidatorClient

VALIDATOR, MINER = Keypair.create_from_seed(bench.VALIDATOR_SEED, 1), Keypair.create_from_seed(bench.MINER_SEED, 1)
ROUTE = "/v1/next"


class Question(BaseModel):
    task_id: str
    round: int
    netuid: int
    tokens: list[list[int]]
    lengths: list[int]
    top_k: int
    deadline_s: float


class Answer(BaseModel):
    task_id: str
    ids: list[list[int]]
    probs: list[list[float]]


def serve(payload: str) -> None:
    configure_logging("ERROR")
    ids, probs = bench.answer(payload)
    chain = FakeChain()
    chain.add_subnet(1)
    chain.register(1, MINER.ss58_address)
    chain.register(1, VALIDATOR.ss58_address, validator_permit=True, stake_tao=1000)
    gateway = chain.with_signer(MINER.ss58_address)
    port = bench.free_port()
    most = 1_000_000
    settings = MinerSettings(
        netuid=1,
        wallet_name="bench",
        wallet_path=Path(tempfile.gettempdir()),
        external_ip="127.0.0.2",
        bind_host="127.0.0.1",
        bind_port=port,
        allow_private_axons=True,
        ntp_servers=(),
        sign_responses=False,
        metrics_bind=f"127.0.0.1:{bench.free_port()}",
        rate_ip_per_s=most,
        rate_ip_burst=most,
        rate_hotkey_per_s=most,
        rate_hotkey_burst=most,
    )
    metagraph = FakeMetagraphSource(gateway, 1)
    miner = Miner(settings, gateway=gateway, metagraph=metagraph, hotkey=MINER, check_sdk=False)

    @miner.route(ROUTE, request=Question, response=Answer)
    async def next_tokens(question: Question, ctx: RouteContext) -> Answer:
        return Answer(task_id=question.task_id, ids=ids, probs=probs)

    server = miner.serve_in_background()
    print(json.dumps({"port": port}), flush=True)
    bench.wait_for_the_end()
    server.stop(5.0)


def ask(payload: str, port: int, seconds: float, workers: int) -> dict:
    configure_logging("ERROR")
    neuron = NeuronView(
        uid=0,
        hotkey=MINER.ss58_address,
        coldkey=MINER.ss58_address,
        validator_permit=False,
        active=True,
        total_stake_tao=0.0,
        alpha_stake=0.0,
        tao_stake=0.0,
        axon=parse_axon(f"127.0.0.1:{port}", allow_private=True),
        last_update=0,
        incentive=0.0,
        dividends=0.0,
        axon_protocol=87,
    )
    question, expected = Question(**bench.question(payload)), bench.answer(payload)[1]

    async def run() -> dict:
        async with ValidatorClient(
            RequestSigner(VALIDATOR), max_concurrency=workers, timeout_s=30.0, verify_responses=False
        ) as client:

            async def once() -> str:
                body = question.model_dump_json().encode()
                result = await client.query(neuron, ROUTE, body, response_model=Answer)
                if not result.ok:
                    return f"{result.status} {result.error_code}"
                return "" if result.data.probs == expected else "a wrong answer"

            return await bench.drive(once, seconds, workers)

    return asyncio.run(run())


if __name__ == "__main__":
    bench.main(serve, ask)
