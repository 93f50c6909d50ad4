"""A real server and real sockets: every refusal with its reason."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import aiohttp
from wirekit import Live, answer, client_settings, key, metagraph, run, server_settings, task, until

from raytensor.config import Freshness
from raytensor.types import Reason
from raytensor.wire import auth, codec
from raytensor.wire.client import WireClient
from raytensor.wire.nonce_store import LocalNonces, NonceStore
from raytensor.wire.server import WireServer


def test_refusals(validator, miner):
    """Each refusal has its status, its name, a reason and a fix, and the handler never hears of it."""
    heard = []

    async def ask(question):
        heard.append(question)
        return await answer(question)

    stranger = key("stranger")

    async def check():
        settings = server_settings(bounds__max_body_bytes=100_000)
        async with Live(validator, miner, ask, settings) as live:
            headers, body = live.request()
            assert (await live.post(headers, body))[0] == 200
            cases = {
                "ReplayedRequest": (headers, body),
                "StaleRequest": live.request(nonce_ns=time.time_ns() - 11 * 10**9),
                "BadSignature": (live.request()[0], body + b" "),
                "MalformedAuth": ({"Content-Type": codec.SAFETENSORS}, body),
                "WrongReceiver": live.request(receiver=stranger.ss58),
                "TooLarge": (live.request()[0], b"x" * 100_001),
                "Refused": live.request(task(stranger.ss58, miner.ss58), signer=stranger),
            }
            statuses = {"TooLarge": 413, "Refused": 403}
            for name, (bad_headers, bad_body) in cases.items():
                status, told = await live.post(bad_headers, bad_body)
                assert (status, told["error"]) == (statuses.get(name, 401), name), told
                assert told["reason"] and told["fix"]
            assert "not registered on subnet 1" in told["reason"]
            assert live.server.gate.counts == {"ok": 1} | dict.fromkeys(cases, 1)
            assert len(heard) == 1

    run(check())


def test_bodies_that_are_refused(validator, miner):
    other = key("other miner")

    async def check():
        async with Live(validator, miner) as live:

            async def signed(body, content_type=codec.SAFETENSORS, **more):
                given = {
                    "method": "POST",
                    "path": "/ask",
                    "body": body,
                    "receiver": miner.ss58,
                    "nonce_ns": time.time_ns(),
                }
                headers = auth.sign(validator, **given) | {"Content-Type": content_type} | more
                status, told = await live.post(headers, body)
                assert status == 400 and told["error"] == "PayloadError"
                return told["reason"]

            good = codec.encode_task(task(validator.ss58, miner.ss58), codec.SAFETENSORS)
            assert "8 bytes or more" in await signed(b"")
            assert "header says" in await signed(b"\xff" * 100)
            assert "content type" in await signed(good, "application/x-pickle")
            assert "compressed" in await signed(good, **{"Content-Encoding": "gzip"})
            stolen = codec.encode_task(task(other.ss58, miner.ss58), codec.SAFETENSORS)
            assert "another validator" in await signed(stolen)
            astray = codec.encode_task(task(validator.ss58, other.ss58), codec.SAFETENSORS)
            assert "another miner" in await signed(astray)
            elsewhere = codec.encode_task(
                dataclasses.replace(task(validator.ss58, miner.ss58), netuid=9), codec.SAFETENSORS
            )
            assert "about subnet 9; this miner serves subnet 1" in await signed(elsewhere)
            headers, body = live.request()
            for path in ("/", "/ask/", "/complete", "/NextToken"):
                assert (await live.post(headers, body, path))[0] == 404
            async with live.http.get("/health") as reply:
                assert (reply.status, (await reply.json())["ok"]) == (200, True)

    run(check())


async def raw(live, sent, pauses_s=(), limit_s=60.0):
    """Sends bytes piece by piece and returns all that comes back until the server closes, and the seconds it took."""
    reader, writer = await asyncio.open_connection(live.host, live.port)
    start = time.monotonic()
    for number, piece in enumerate(sent):
        writer.write(piece)
        if number < len(pauses_s):
            await asyncio.sleep(pauses_s[number])
    data = await asyncio.wait_for(reader.read(), limit_s)
    writer.close()
    return data, time.monotonic() - start


def test_slow_senders_are_cut_off(validator, miner):
    async def check():
        settings = server_settings(header_timeout_s=1.0, body_timeout_s=1.2)
        async with Live(validator, miner, settings=settings) as live:
            nothing, after_s = await raw(live, [])
            assert b"408 TooSlow" in nothing and b"headers did not arrive within 1 s" in nothing and after_s < 30
            half, after_s = await raw(live, [b"POST /ask HTTP/1.1\r\n", b"Host: x\r\n"], [0.1])
            assert b"408 TooSlow" in half and after_s < 30
            headers, body = live.request()
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"POST /ask HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
            slow, after_s = await raw(live, [head, body[:10], body[10:20]], [0.1, 0.1])
            assert b"408" in slow and b"body did not arrive within 1.2 s" in slow and after_s < 30
            # A connection may be idle for longer than the headers may take.
            assert (await live.post(*live.request()))[0] == 200
            await asyncio.sleep(1.1)
            assert (await live.post(*live.request()))[0] == 200
            assert live.server.num_connections == 1, "one connection was used twice"

    run(check())


def test_too_much_is_refused_before_and_while_it_is_read(validator, miner):
    async def check():
        async with Live(validator, miner, settings=server_settings(bounds__max_body_bytes=10_000)) as live:
            headers, _ = live.request()
            told, _ = await raw(live, [b"POST /ask HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"])
            assert b"413" in told and b"99999999999 bytes; at most 10000 are read" in told

            async def endless():
                while True:
                    yield b"x" * 4096

            async with live.http.post("/ask", data=endless(), headers=headers) as reply:
                assert reply.status == 413 and "more than 10000" in (await reply.json())["reason"]
            told, _ = await raw(live, [b"\x16\x03\x01 this is no HTTP\r\n\r\n"])
            assert b"400" in told and b"does not follow HTTP" in told

    run(check())


def test_connections_are_bounded(validator, miner):
    async def check():
        settings = server_settings(max_connections_per_address=2)
        async with Live(validator, miner, settings=settings) as live:
            held = [await asyncio.open_connection(live.host, live.port) for _ in range(2)]
            await until(lambda: live.server.num_connections == 2)
            told, _ = await raw(live, [])
            assert b"503" in told and b"too many open connections" in told
            for _, writer in held:
                writer.close()
            await until(lambda: live.server.num_connections == 0)
            assert (await live.post(*live.request()))[0] == 200

    run(check())


def test_limits_of_a_caller(validator, miner):
    async def check():
        settings = server_settings(policy__hotkey_rate=0.01, policy__hotkey_burst=2.0)
        async with Live(validator, miner, settings=settings) as live:
            statuses = [(await live.post(*live.request()))[0] for _ in range(3)]
            assert statuses == [200, 200, 429]
            headers, body = live.request()
            async with live.http.post("/ask", data=body, headers=headers) as reply:
                assert reply.status == 429 and 1 <= int(reply.headers["Retry-After"]) <= 101
                assert "0.01 requests/s" in (await reply.json())["reason"]

    run(check())


def test_an_address_that_sends_rubbish_is_limited(validator, miner):
    async def check():
        settings = server_settings(policy__address_rate=0.001, policy__address_burst=5.0)
        async with Live(validator, miner, settings=settings) as live:
            statuses = [(await live.post({}, b"rubbish"))[0] for _ in range(7)]
            assert statuses == [401] * 5 + [429] * 2

    run(check())


def test_nobody_is_served_before_the_subnet_is_known(validator, miner):
    async def check():
        server = WireServer(miner.ss58, answer, server_settings())
        host, port = await server.start()
        async with WireClient(validator, client_settings()) as client:
            outcome = await client.ask(task(validator.ss58, miner.ss58), f"{host}:{port}")
            assert outcome.reason is Reason.REFUSED and "not read its subnet yet" in outcome.detail
        await server.stop()

    run(check())


def test_replicas_on_one_port_share_the_work_and_the_nonce_store(validator, miner):
    async def check():
        store = NonceStore(Freshness(max_skew_s=0.05))
        first = WireServer(miner.ss58, answer, server_settings(reuse_port=True), nonces=LocalNonces(store))
        host, port = await first.start()
        settings = server_settings(reuse_port=True, port=port)
        second = WireServer(miner.ss58, answer, settings, nonces=LocalNonces(store))
        await second.start()
        for server in (first, second):
            server.update(metagraph([validator.ss58]))
        body = codec.encode_task(task(validator.ss58, miner.ss58), codec.SAFETENSORS)
        given = {"method": "POST", "path": "/ask", "body": body, "receiver": miner.ss58}
        statuses = []
        for _ in range(40):
            headers = auth.sign(validator, nonce_ns=time.time_ns(), **given) | {"Content-Type": codec.SAFETENSORS}
            for _ in range(3):  # each on a connection of its own, so that either replica may get it
                async with aiohttp.ClientSession() as http:
                    async with http.post(f"http://{host}:{port}/ask", data=body, headers=headers) as reply:
                        statuses.append(reply.status)
        assert statuses == [200, 401, 401] * 40
        for server in (first, second):
            assert server.gate.counts["ok"] > 0 and server.gate.counts["ReplayedRequest"] > 0
            await server.stop()

    run(check())
