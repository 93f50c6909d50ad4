"""What the peers of the wire benchmark say to each other: keys, questions, answers, command line. Plain Python only.

Peers run in environments of their own (bittensor 10 and 11 exclude each other and RayTensor's), so this file imports
nothing but the standard library.

    peer.py serve PAYLOAD                     prints {"port": ...}, answers until its standard input closes
    peer.py ask PAYLOAD PORT SECONDS WORKERS  prints {"answered", "failed", "why", "seconds", "cpu_s"}
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
from collections.abc import Awaitable, Callable

VALIDATOR_SEED = bytes([1]) * 32
MINER_SEED = bytes([2]) * 32

# rows, tokens per row, answers per row: one short text, and the question of the default network run.
SIZES = {"small": (1, 16, 16), "run": (48, 40, 128)}


def question(payload: str) -> dict:
    """Fields of the question: tokens [rows][width] and lengths [rows]."""
    rows, width, top_k = SIZES[payload]
    rng = random.Random(0)
    tokens = [[rng.randrange(1024) for _ in range(width)] for _ in range(rows)]
    return {
        "task_id": "bench/0",
        "round": 1,
        "netuid": 1,
        "tokens": tokens,
        "lengths": [width] * rows,
        "top_k": top_k,
        "deadline_s": 30.0,
    }


def answer(payload: str) -> tuple[list, list]:
    """ids and probs, [rows][top_k] each; the probabilities are exact as float32."""
    rows, _, top_k = SIZES[payload]
    rng = random.Random(1)
    ids = [rng.sample(range(1024), top_k) for _ in range(rows)]
    probs = [[rng.randrange(1, 2**16) / 2**23 for _ in range(top_k)] for _ in range(rows)]
    return ids, probs


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def drive(ask: Callable[[], Awaitable[str]], seconds: float, workers: int) -> dict:
    """Asks over and over for a while, `workers` at once. `ask` returns "" or why it failed."""
    counts = {"answered": 0, "failed": 0, "why": ""}
    for _ in range(10):
        counts["why"] = await ask() or counts["why"]
    start, cpu = time.monotonic(), time.process_time()

    async def work() -> None:
        while time.monotonic() - start < seconds:
            why = await ask()
            counts["failed" if why else "answered"] += 1
            counts["why"] = why or counts["why"]

    await asyncio.gather(*(work() for _ in range(workers)))
    return counts | {"seconds": time.monotonic() - start, "cpu_s": time.process_time() - cpu}


def main(serve: Callable[[str], None], ask: Callable[[str, int, float, int], dict]) -> None:
    """The command line of a peer."""
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        payload, port, seconds, workers = sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
        print(json.dumps(ask(payload, port, seconds, workers)), flush=True)


def wait_for_the_end() -> None:
    """Returns when the benchmark closes our standard input."""
    while sys.stdin.readline():
        pass
