"""Miners that are served over the wire, in their own process: bigram tables of the text, one better than the other.

    python served_miners.py FOLDER   (reads miners.json there: [{"hotkey", "netuid", "share"}], validators, cache)

Prints one JSON object with each hotkey's port, then serves until its standard input ends. share: of the bigram in the
miner's mixture with the frequency table; -1 answers nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np

from raytensor import config
from raytensor.config.wire import AccessPolicy, Server
from raytensor.data.text import prepare
from raytensor.types import Failure, Reason, Response
from raytensor.wire.server import WireServer

HOST = "127.0.0.2"  # the chain refuses 127.0.0.1, and no machine but this one answers here


def bigrams(train: np.ndarray, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """float64 [V, V]: p(next | last); float64 [V]: p(next)."""
    counts = np.zeros((vocab_size, vocab_size))
    np.add.at(counts, (train[:-1], train[1:]), 1.0)
    unigram = (counts.sum(0) + 1) / (counts.sum() + vocab_size)
    return (counts + 5 * unigram) / (counts.sum(1, keepdims=True) + 5), unigram


async def main(folder: Path) -> None:
    asked = json.loads((folder / "miners.json").read_text())
    data = config.Data(tokenizer="bytes", max_documents=asked["max_documents"])
    text = prepare(data, Path(asked["cache"]), lambda words: None)
    pair, unigram = bigrams(text.train.astype(np.int64), text.vocab_size)

    def answering(share: float):
        table = share * pair + (1 - share) * unigram

        async def ask(task):
            if share < 0:
                return Failure(task.task_id, task.hotkey, Reason.SILENT, "asleep")
            rows = table[task.tokens[np.arange(len(task.lengths)), task.lengths - 1]]
            ids = np.argsort(-rows, axis=1, kind="stable")[:, : task.top_k].astype(np.int32)
            return Response(
                task.task_id, task.hotkey, ids, (np.take_along_axis(rows, ids, 1) * 0.999).astype(np.float32)
            )

        return ask

    async def pieces(prompt):
        for word in f"{prompt.text} ... said {prompt.hotkey[:6]}".split():
            yield word + " "

    ports, servers = {}, []
    for miner in asked["miners"]:
        settings = Server(host=HOST, port=0, policy=AccessPolicy(allow=asked["validators"]))
        settings.freshness.max_skew_s = 0.2
        server = WireServer(
            miner["hotkey"], answering(miner["share"]), settings, complete=pieces if miner["share"] >= 0 else None
        )
        _, ports[miner["hotkey"]] = await server.start()
        servers.append(server)
    print(json.dumps(ports), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for server in servers:
        await server.stop(0.5)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
