"""What the wire's tests share: keys, a subnet, a question and its honest answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time

import aiohttp
import numpy as np

from raytensor.config.wire import Client, Server
from raytensor.types import Metagraph, Response, Task
from raytensor.wire import auth, codec
from raytensor.wire.auth import Key
from raytensor.wire.server import WireServer


def key(name: str, scheme: str = "sr25519") -> Key:
    return Key(hashlib.blake2b(name.encode(), digest_size=32).digest(), scheme)


def metagraph(
    hotkeys: list[str], *, axons: list[str] | None = None, permits: list[bool] | None = None, stake_rao: int = 10**12
) -> Metagraph:
    n = len(hotkeys)
    zeros = np.zeros(n, np.uint64)
    return Metagraph(
        netuid=1,
        block=100,
        block_hash="0x00",
        tempo=20,
        last_epoch_block=80,
        next_epoch_block=101,
        hotkeys=tuple(hotkeys),
        coldkeys=tuple(hotkeys),
        axons=tuple(axons or [""] * n),
        stake_alpha_rao=np.full(n, stake_rao, np.uint64),
        validator_permit=np.array([True] * n if permits is None else permits),
        active=np.ones(n, bool),
        last_update=zeros,
        block_at_registration=zeros,
        incentive=np.zeros(n, np.uint16),
        dividends=np.zeros(n, np.uint16),
        consensus=np.zeros(n, np.uint16),
        validator_trust=np.zeros(n, np.uint16),
        emission_alpha_rao=zeros,
    )


def task(
    validator: str,
    hotkey: str,
    *,
    seed: int = 0,
    rows: int = 8,
    width: int = 24,
    top_k: int = 16,
    deadline_s: float = 10.0,
) -> Task:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width + 1, rows).astype(np.int32)
    tokens = rng.integers(0, 1024, (rows, width)).astype(np.int32)
    tokens[np.arange(width)[None, :] >= lengths[:, None]] = 0
    return Task(f"1/{seed}/{hotkey[:8]}", 1, 1, validator, hotkey, tokens, lengths, top_k, deadline_s)


async def answer(question: Task) -> Response:
    """A real, deterministic next-token distribution: a softmax of hashed logits of each row's last token."""
    rows = np.arange(len(question.lengths))
    last = question.tokens[rows, question.lengths - 1]
    logits = np.sin(np.outer(last + 1, np.arange(1, 257)).astype(np.float32))
    ids = np.argsort(-logits, axis=1, kind="stable")[:, : question.top_k].astype(np.int32)
    weights = np.exp(np.take_along_axis(logits, ids, axis=1))
    probs = (weights / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    return Response(question.task_id, question.hotkey, ids, probs, 0.001)


def server_settings(**changes) -> Server:
    """On a free loopback port, with next to no clock skew, so that the nonce store is ready at once."""
    settings = Server(host="127.0.0.1", port=0)
    settings.freshness.max_skew_s = 0.05
    settings.policy.address_rate = settings.policy.address_burst = 1e6
    for name, value in changes.items():
        holder = settings
        *parts, last = name.split("__")
        for part in parts:
            holder = getattr(holder, part)
        assert hasattr(holder, last)
        setattr(holder, last, value)
    return settings


def client_settings(**changes) -> Client:
    settings = Client(allow_local_addresses=True)
    for name, value in changes.items():
        assert hasattr(settings, name)
        setattr(settings, name, value)
    return settings


def run(test):
    """One event loop with a time limit."""
    asyncio.run(asyncio.wait_for(test, 120))


async def until(condition):
    """Returns once it holds; the limit is that of `run`."""
    while not condition():
        await asyncio.sleep(0.01)


class Live:
    """A server of `miner` that serves `validator`, and plain HTTP to it."""

    def __init__(self, validator, miner, ask=answer, settings=None, **more):
        self.validator, self.miner = validator, miner
        self.server = WireServer(miner.ss58, ask, settings or server_settings(), **more)

    async def __aenter__(self):
        self.host, self.port = await self.server.start()
        self.server.update(metagraph([self.validator.ss58, self.miner.ss58]))
        self.axon = f"{self.host}:{self.port}"
        self.http = aiohttp.ClientSession(f"http://{self.axon}")
        return self

    async def __aexit__(self, *_):
        await self.http.close()
        await self.server.stop()

    def request(self, question=None, **changes):
        """Headers and body of an honest request, with changes to what is signed."""
        question = question or task(self.validator.ss58, self.miner.ss58)
        body = codec.encode_task(question, codec.SAFETENSORS)
        given = {
            "method": "POST",
            "path": "/ask",
            "body": body,
            "receiver": self.miner.ss58,
            "nonce_ns": time.time_ns(),
        }
        signer = changes.pop("signer", self.validator)
        headers = auth.sign(signer, **(given | changes))
        return headers | {"Content-Type": codec.SAFETENSORS}, body

    async def post(self, headers, body, path="/ask"):
        async with self.http.post(path, data=body, headers=headers) as reply:
            data = await reply.read()
            return reply.status, json.loads(data) if reply.content_type == "application/json" else data
