"""RayTensor's wire as a peer of the benchmark: every check on, answers and questions as numpy arrays."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import payload as bench

from raytensor.config.wire import Client, Server
from raytensor.types import Failure, Response, Task
from raytensor.wire.auth import Key
from raytensor.wire.client import WireClient
from raytensor.wire.server import WireServer

VALIDATOR, MINER = Key(bench.VALIDATOR_SEED), Key(bench.MINER_SEED)


def serve(payload: str) -> None:
    protocol = sys.argv[3] if len(sys.argv) > 3 else "btauth"
    ids, probs = bench.answer(payload)
    ids, probs = np.array(ids, np.int32), np.array(probs, np.float32)

    async def ask(task: Task) -> Response:
        return Response(task.task_id, task.hotkey, ids, probs)

    async def run() -> None:
        settings = Server(host="127.0.0.1", port=0, protocols=[protocol])
        settings.policy.allow = [VALIDATOR.ss58]
        settings.policy.hotkey_rate = settings.policy.hotkey_burst = 1e9
        settings.policy.address_rate = settings.policy.address_burst = 1e9
        server = WireServer(MINER.ss58, ask, settings)
        print(json.dumps({"port": (await server.start())[1]}), flush=True)
        await asyncio.to_thread(bench.wait_for_the_end)
        await server.stop()

    asyncio.run(run())


def ask(payload: str, port: int, seconds: float, workers: int) -> dict:
    body, _, protocol = (sys.argv[6] if len(sys.argv) > 6 else "safetensors:btauth").partition(":")
    fields = bench.question(payload)
    fields["tokens"] = np.array(fields["tokens"], np.int32)
    fields["lengths"] = np.array(fields["lengths"], np.int32)
    task = Task(validator=VALIDATOR.ss58, hotkey=MINER.ss58, **fields)
    expected = np.array(bench.answer(payload)[1], np.float32)

    async def run() -> dict:
        settings = Client(
            allow_local_addresses=True, body=body, protocol=protocol, max_connections_per_endpoint=workers
        )
        async with WireClient(VALIDATOR, settings) as client:

            async def once() -> str:
                outcome = await client.ask(task, f"127.0.0.1:{port}")
                if isinstance(outcome, Failure):
                    return outcome.detail
                return "" if np.array_equal(outcome.probs, expected) else "a wrong answer"

            return await bench.drive(once, seconds, workers)

    return asyncio.run(run())


if __name__ == "__main__":
    bench.main(serve, ask)
