"""Start of a node and transfers through it, for the devnet benchmark: in this process, and over a websocket.

In: a folder for the state, how many transfers. Out: seconds and rates. Nodes are closed when a function returns.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

from bittensor_core import Keypair
from websocket import create_connection

from raytensor.devnet.builtin import compact
from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import DEV_ACCOUNTS, build_runtime
from raytensor.devnet.launch import EmbeddedChain

RAO = 10**9
SENDERS = ("//Alice", "//Bob", "//Charlie")
TIMEOUT_S = 600.0


def transfers(num: int, genesis: bytes, spec_version: int) -> list[bytes]:
    """Signed transfers of 1 TAO to Dave, by turns of the rich accounts."""
    keys, made = [Keypair.create_from_uri(uri) for uri in SENDERS], []
    call = b"\5\3\0" + DEV_ACCOUNTS["Dave"] + compact(RAO)
    for i in range(num):
        key = keys[i % len(keys)]
        extra = b"\0" + compact(i // len(keys)) + b"\0\0"
        versions = spec_version.to_bytes(4, "little") + (1).to_bytes(4, "little")
        signature = bytes(key.sign(call + extra + versions + genesis + genesis + b"\0"))
        body = b"\x84\0" + bytes(key.public_key) + b"\1" + signature + extra + call
        made.append(compact(len(body)) + body)
    return made


def start_up(folder: Path, times: int) -> tuple[float, float]:
    """Seconds until a fresh node serves, on the clock and of its processor: the medians."""
    took, busy = [], []
    for i in range(times):
        started = time.monotonic()
        chain = EmbeddedChain(folder / f"start{i}", 0.25, folder / "log", TIMEOUT_S)
        took.append(time.monotonic() - started)
        ticks = Path(f"/proc/{chain.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        busy.append(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))
        chain.close()
    return statistics.median(took), statistics.median(busy)


def submit_and_seal(num: int) -> float:
    """Processor seconds for transfers from bytes to a sealed block."""
    chain = Chain(build_runtime())
    raws = transfers(num, chain.genesis.hash, chain.runtime.version.spec_version)
    before = time.process_time()
    for raw in raws:
        chain.pool.submit(raw)
    while chain.pool.has_ready():
        chain.seal(chain.runtime.timestamp_ms + 250)
    took = time.process_time() - before
    assert sum(len(block.extrinsics) - 1 for block in chain.by_number[1:]) == num
    return took


def sustained(folder: Path, num: int) -> float:
    """Transfers a second that one node with 0.25 s blocks takes over a websocket, until all are in blocks."""
    node = EmbeddedChain(folder / "sustained", 0.25, folder / "log", TIMEOUT_S)
    try:
        client = create_connection(node.endpoint, timeout=TIMEOUT_S)

        def ask(method: str, *params):
            client.send(json.dumps({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}))
            return json.loads(client.recv())["result"]

        spec = ask("state_getRuntimeVersion")["specVersion"]
        raws = transfers(num, bytes.fromhex(ask("chain_getBlockHash", 0)[2:]), spec)
        started = time.monotonic()
        for at in range(0, num, 100):
            batch = [
                {"jsonrpc": "2.0", "id": at + i, "method": "author_submitExtrinsic", "params": [f"0x{raw.hex()}"]}
                for i, raw in enumerate(raws[at : at + 100])
            ]
            client.send(json.dumps(batch))
            refused = [reply for reply in json.loads(client.recv()) if "error" in reply]
            assert not refused, refused[0]
        while ask("author_pendingExtrinsics"):
            assert time.monotonic() - started < TIMEOUT_S, "the pool did not empty"
            time.sleep(0.02)
        took = time.monotonic() - started
        client.close()
        return num / took
    finally:
        node.close()
