"""A node under load, for the devnet benchmark: how fast it answers while it takes transfers and metagraph readers.

In: a state folder. Out: start, worst and usual answer in seconds, blocks, memory. The node is closed at the end.
"""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from devnet_extrinsics import TIMEOUT_S, transfers
from websocket import create_connection

from raytensor.devnet.launch import EmbeddedChain


def resident_mb(pid: int | str = "self") -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def answers_under_load(state: Path, log: Path, netuids: list[int], seconds: float) -> dict[str, float]:
    """A node over that state, with transfers and readers of metagraphs: start, worst and usual answers in seconds."""
    started = time.monotonic()
    node = EmbeddedChain(state, 0.25, log, TIMEOUT_S)
    took = time.monotonic() - started
    stop = threading.Event()

    def connected(work: Callable[[Callable], None]) -> None:
        client = create_connection(node.endpoint, timeout=TIMEOUT_S)

        def ask(method: str, *params):
            client.send(json.dumps({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}))
            return json.loads(client.recv())["result"]

        while not stop.is_set():
            work(ask)
        client.close()

    def read(ask: Callable) -> None:
        for netuid in netuids:
            ask("state_call", "SubnetInfoRuntimeApi_get_metagraph", f"0x{netuid.to_bytes(2, 'little').hex()}")
            stop.wait(0.05)

    def send(ask: Callable) -> None:
        genesis, spec = bytes.fromhex(ask("chain_getBlockHash", 0)[2:]), ask("state_getRuntimeVersion")["specVersion"]
        for raw in transfers(20_000, genesis, spec):
            ask("author_submitExtrinsic", f"0x{raw.hex()}")
            if stop.is_set():
                return

    threads = [threading.Thread(target=connected, args=(work,), daemon=True) for work in (read, send)]
    for thread in threads:
        thread.start()
    waited: list[float] = []
    heads: set[str] = set()

    def watch(ask: Callable) -> None:
        before = time.monotonic()
        ask("system_health")
        waited.append(time.monotonic() - before)
        heads.add(ask("chain_getHead"))
        if sum(waited) + 0.01 * len(waited) > seconds:
            stop.set()
        time.sleep(0.01)

    try:
        connected(watch)
        return {
            "start": took,
            "worst": max(waited),
            "median": statistics.median(waited),
            "blocks": len(heads) - 1,
            "resident": resident_mb(node.pid),
        }
    finally:
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT_S)
        node.close()
