"""Nobody waits for another's long request, or for a disk that is busy."""

from __future__ import annotations

import asyncio
import json
import threading

from nodes import RawClient

from raytensor.devnet.author import Author
from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import build_runtime
from raytensor.devnet.persist import Disk
from raytensor.devnet.rpc import NodeRpc
from raytensor.errors import ChainError

TIMEOUT_S = 30


class Collector:
    def __init__(self) -> None:
        self.subscriptions: dict = {}
        self.sent: list[str] = []

    def send(self, text: str) -> None:
        self.sent.append(text)


async def ask(rpc: NodeRpc, method: str, *params):
    connection = Collector()
    await rpc.handle(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}), connection)
    return json.loads(connection.sent[0]).get("result")


class BusyDisk(Disk):
    """Its writes wait for `free`, as they do while the operating system flushes what others wrote."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.free, self.broken = threading.Event(), False

    def _write(self, *arguments) -> None:
        assert self.free.wait(TIMEOUT_S)
        if self.broken:
            self._db.close()
        super()._write(*arguments)


async def until(condition) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_busy_disk_holds_up_blocks_and_finality_but_no_answer(tmp_path):
    async def scenario() -> None:
        disk = BusyDisk(tmp_path)
        chain = Chain(build_runtime(block_time_ms=50), disk=disk)
        author = Author(chain, interval_s=0.05)
        rpc = NodeRpc(chain, author)
        author.start()
        await until(lambda: chain.best.number == 1)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert (await ask(rpc, "chain_getHeader"))["number"] == "0x1"
            assert await ask(rpc, "chain_getFinalizedHead") == f"0x{chain.genesis.hash.hex()}"
        disk.free.set()
        await until(lambda: chain.finalized.number >= 3)
        await author.stop()
        best, finalized = chain.best.number, chain.finalized.number
        disk.close()
        again = Chain(build_runtime(block_time_ms=50), disk=Disk(tmp_path))
        assert again.best.number == best and again.finalized.number >= finalized
        again.disk.close()

    asyncio.run(scenario())


def test_a_disk_that_fails_ends_the_node_with_the_cause(tmp_path):
    async def scenario() -> None:
        disk = BusyDisk(tmp_path)
        disk.broken = True
        disk.free.set()
        author = Author(Chain(build_runtime(block_time_ms=50), disk=disk), interval_s=0.05)
        author.start()
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.wait({author.failure})
        error = author.failure.exception()
        assert (
            isinstance(error, ChainError) and "block 1 can't be written" in str(error) and str(tmp_path) in str(error)
        )
        await author.stop()

    asyncio.run(scenario())


def test_a_finality_told_out_of_turn_survives(tmp_path):
    chain = Chain(build_runtime(), finality_lag=5, disk=Disk(tmp_path))
    for i in range(1, 5):
        chain.seal(12_000 * i)
    assert chain.finalized.number == 0
    chain.finalize(3)
    chain.disk.close()
    again = Chain(build_runtime(), finality_lag=5, disk=Disk(tmp_path))
    assert (again.best.number, again.finalized.number) == (4, 3)
    again.disk.close()


def test_others_are_answered_while_many_blocks_are_made(manual):
    maker, other = RawClient(manual.endpoint, timeout_s=60), RawClient(manual.endpoint)
    maker.send('{"jsonrpc":"2.0","id":1,"method":"dev_newBlock","params":[{"count":2000}]}')
    seen = {0}
    while max(seen) < 2000:
        seen.add(int(other.call("chain_getHeader")["number"], 16))
    assert maker.receive()["result"] == other.call("chain_getHead")
    assert len(seen) > 3, "the other client saw the chain grow"
    maker.close()
    other.close()


def test_others_are_answered_within_a_long_batch_and_a_long_pipeline(manual):
    greedy, other = RawClient(manual.endpoint, timeout_s=60), RawClient(manual.endpoint)
    call = {"jsonrpc": "2.0", "method": "state_call", "params": ["Metadata_metadata_at_version", "0f000000"]}
    greedy.send(json.dumps([call | {"id": i} for i in range(60)]))
    pipelined = 60
    for i in range(pipelined):
        greedy.send(json.dumps(call | {"id": 1000 + i}))
    answers = []
    reader = threading.Thread(target=lambda: answers.extend(greedy.receive() for _ in range(1 + pipelined)))
    reader.start()
    counted = 0
    while reader.is_alive():
        other.call("system_health")
        counted += 1
    reader.join(TIMEOUT_S)
    assert [reply["id"] for reply in answers[0]] == list(range(60))
    assert [reply["id"] for reply in answers[1:]] == list(range(1000, 1000 + pipelined))
    assert counted > 3
    greedy.close()
    other.close()
