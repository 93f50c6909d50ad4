"""The wire behind uvicorn and behind Ray Serve, where they are installed: the same answers and the same refusals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import aiohttp
import pytest
from wirekit import answer, client_settings, key, metagraph, run, server_settings, task, until

from raytensor.config import Freshness
from raytensor.types import Reason, Response
from raytensor.wire import auth, codec
from raytensor.wire.asgi import AsgiApp
from raytensor.wire.client import WireClient
from raytensor.wire.codec import Prompt
from raytensor.wire.gate import Gate
from raytensor.wire.nonce_store import SharedNonces, shared_store


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def words(prompt):
    for number in range(3):
        await asyncio.sleep(0.01)
        yield f"{prompt.text} {number} "


async def honest_and_not(validator, miner, port):
    """What any server of the wire must do, asked through real sockets."""
    axon, stranger = f"127.0.0.1:{port}", key("stranger")
    async with WireClient(validator, client_settings()) as client:
        for seed in range(3):
            question = task(validator.ss58, miner.ss58, seed=seed)
            near, far = await answer(question), await client.ask(question, axon)
            assert isinstance(far, Response), far
            assert far.probs.tobytes() == near.probs.tobytes() and far.ids.tobytes() == near.ids.tobytes()
        prompt = Prompt("p", 1, validator.ss58, miner.ss58, "hé", deadline_s=30.0)
        assert [piece async for piece in client.complete(prompt, axon)] == ["hé 0 ", "hé 1 ", "hé 2 "]
    async with WireClient(stranger, client_settings()) as client:
        outcome = await client.ask(task(stranger.ss58, miner.ss58), axon)
        assert outcome.reason is Reason.REFUSED and "not registered" in outcome.detail
    body = codec.encode_task(task(validator.ss58, miner.ss58), codec.SAFETENSORS)
    signed = {"method": "POST", "path": "/ask?x=%20y", "body": body, "receiver": miner.ss58}
    headers = auth.sign(validator, nonce_ns=time.time_ns(), **signed) | {"Content-Type": codec.SAFETENSORS}
    cases = [
        (headers, body, 200, ""),
        (headers, body, 401, "ReplayedRequest"),
        ({}, body, 401, "MalformedAuth"),
        (auth.sign(validator, nonce_ns=time.time_ns(), **signed), body + b" ", 401, "BadSignature"),
        (auth.sign(validator, nonce_ns=time.time_ns(), **signed), b"x" * 70_000, 413, "TooLarge"),
    ]
    from yarl import URL

    async with aiohttp.ClientSession() as http:
        for sent, data, status, name in cases:
            async with http.post(URL(f"http://{axon}/ask?x=%20y", encoded=True), data=data, headers=sent) as reply:
                assert reply.status == status
                assert name == "" or (await reply.json())["error"] == name


@contextlib.asynccontextmanager
async def under_uvicorn(app):
    """The port of the app; its socket listens before the server starts, so that nobody else gets it."""
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    bound = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        await until(lambda: server.started or serving.done())
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 60)


def test_under_uvicorn(validator, miner):
    async def check():
        gate = Gate(miner.ss58, answer, server_settings(bounds__max_body_bytes=65_536), complete=words)
        gate.update(metagraph([validator.ss58]))
        async with under_uvicorn(AsgiApp(gate)) as port:
            await honest_and_not(validator, miner, port)
        assert gate.counts["ok"] == 5 and gate.in_flight == 0

    run(check())


def served(hotkey, handle, validator):
    """Makes the app of one replica; runs in the replica."""
    settings = server_settings(bounds__max_body_bytes=65_536)
    gate = Gate(hotkey, answer, settings, nonces=SharedNonces(handle, 60.0), complete=words)
    gate.update(metagraph([validator]))
    return AsgiApp(gate)


@pytest.mark.slow
def test_under_ray_serve(ray_session, validator, miner):
    try:
        from ray import serve
    except ImportError as error:
        pytest.skip(f"Ray Serve is not installed: {error}")
    hotkey, caller, port = miner.ss58, validator.ss58, free_port()
    handle = shared_store(hotkey, Freshness(max_skew_s=0.05))
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    try:

        @serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.1})
        @serve.ingress(lambda: served(hotkey, handle, caller))
        class Miner:
            pass

        serve.run(Miner.bind(), name="miner", route_prefix="/")
        asyncio.run(asyncio.wait_for(honest_and_not(validator, miner, port), 60))
    finally:
        serve.shutdown()
        ray_session.kill(handle)
