"""A real server and real sockets: every refusal with its reason, and equality with the in-process answer."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time

import aiohttp
import numpy as np
import pytest
from wirekit import answer, client_settings, key, metagraph, server_settings, task

from raytensor.types import Failure, Reason, Response
from raytensor.wire import auth, codec
from raytensor.wire.client import WireClient
from raytensor.wire.codec import Prompt
from raytensor.wire.errors import Declined
from raytensor.wire.server import WireServer


def run(test):
    """One event loop with a time limit."""
    asyncio.run(asyncio.wait_for(test, 60))


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
        given = {"method": "POST", "path": "/ask", "body": body, "receiver": self.miner.ss58, "nonce_ns": time.time_ns()}
        signer = changes.pop("signer", self.validator)
        headers = auth.sign(signer, **(given | changes))
        return headers | {"Content-Type": codec.SAFETENSORS}, body

    async def post(self, headers, body, path="/ask"):
        async with self.http.post(path, data=body, headers=headers) as reply:
            data = await reply.read()
            return reply.status, json.loads(data) if reply.content_type == "application/json" else data


@pytest.mark.parametrize("body", ["safetensors", "json"])
@pytest.mark.parametrize("protocol", ["btauth", "epistula", "axon_v10"])
def test_the_wire_gives_the_bits_of_the_process(protocol, body, validator, miner):
    async def check():
        settings = server_settings(protocols=["btauth", "epistula", "axon_v10"])
        async with Live(validator, miner, settings=settings) as live:
            async with WireClient(validator, client_settings(protocol=protocol, body=body)) as client:
                for seed in range(5):
                    question = task(validator.ss58, miner.ss58, seed=seed)
                    near, far = await answer(question), await client.ask(question, live.axon)
                    assert isinstance(far, Response), far
                    assert (far.task_id, far.hotkey) == (near.task_id, near.hotkey)
                    for name in ("ids", "probs"):
                        mine, theirs = getattr(near, name), getattr(far, name)
                        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
                        assert mine.tobytes() == theirs.tobytes()

    run(check())


def test_the_handler_sees_the_bits_that_were_asked(validator, miner):
    seen = []

    async def ask(question):
        seen.append(question)
        return await answer(question)

    async def check():
        async with Live(validator, miner, ask) as live, WireClient(validator, client_settings()) as client:
            question = task(validator.ss58, miner.ss58, seed=3)
            await client.ask(question, live.axon)
            for name in question.__dataclass_fields__:
                assert np.array_equal(getattr(seen[0], name), getattr(question, name)), name

    run(check())


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
            assert live.server.gate.counts == {"ok": 1} | {name: 1 for name in cases}
            assert len(heard) == 1

    run(check())


def test_bodies_that_are_refused(validator, miner):
    other = key("other miner")

    async def check():
        async with Live(validator, miner) as live:
            async def signed(body, content_type=codec.SAFETENSORS, **more):
                given = {"method": "POST", "path": "/ask", "body": body, "receiver": miner.ss58, "nonce_ns": time.time_ns()}
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
            headers, body = live.request()
            for path in ("/", "/ask/", "/complete", "/NextToken"):
                assert (await live.post(headers, body, path))[0] == 404
            async with live.http.get("/health") as reply:
                assert (reply.status, await reply.json()) == (200, {"ok": True})

    run(check())


async def raw(live, sent, pauses_s=(), limit_s=10.0):
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
        settings = server_settings(header_timeout_s=0.4, body_timeout_s=0.6)
        async with Live(validator, miner, settings=settings) as live:
            nothing, after_s = await raw(live, [])
            assert b"408 TooSlow" in nothing and b"headers did not arrive within 0.4 s" in nothing and after_s < 3
            half, after_s = await raw(live, [b"POST /ask HTTP/1.1\r\n", b"Host: x\r\n"], [0.1])
            assert b"408 TooSlow" in half and after_s < 3
            headers, body = live.request()
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"POST /ask HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode()
            slow, after_s = await raw(live, [head, body[:10], body[10:20]], [0.1, 0.1])
            assert b"408" in slow and b"body did not arrive within 0.6 s" in slow and after_s < 4
            # A connection may be idle for longer than the headers may take.
            for _ in range(3):
                assert (await live.post(*live.request()))[0] == 200
                await asyncio.sleep(0.5)
            assert live.server._addresses.total() == 1, "one connection was used three times"

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
            await asyncio.sleep(0.1)
            told, _ = await raw(live, [])
            assert b"503" in told and b"too many open connections" in told
            for _, writer in held:
                writer.close()
            await asyncio.sleep(0.2)
            assert (await live.post(*live.request()))[0] == 200

    run(check())


def test_limits_of_a_caller(validator, miner):
    async def check():
        settings = server_settings(policy__hotkey_rate=0.5, policy__hotkey_burst=2.0)
        async with Live(validator, miner, settings=settings) as live:
            statuses = [(await live.post(*live.request()))[0] for _ in range(3)]
            assert statuses == [200, 200, 429]
            headers, body = live.request()
            async with live.http.post("/ask", data=body, headers=headers) as reply:
                assert reply.status == 429 and 1 <= int(reply.headers["Retry-After"]) <= 3
                assert "0.5 requests/s" in (await reply.json())["reason"]

    run(check())


def test_an_address_that_sends_rubbish_is_limited(validator, miner):
    async def check():
        settings = server_settings(policy__address_rate=0.1, policy__address_burst=5.0)
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


def test_handlers_that_decline_fail_or_dawdle(validator, miner):
    async def ask(question):
        if question.round == 2:
            raise RuntimeError("secret detail")
        if question.round == 3:
            await asyncio.sleep(30)
        return Failure(question.task_id, question.hotkey, Reason.SILENT, "asleep")

    async def check():
        settings = server_settings(answer_timeout_s=0.3)
        async with Live(validator, miner, ask, settings) as live, WireClient(validator, client_settings()) as client:
            question = task(validator.ss58, miner.ss58)
            outcomes = [await client.ask(dataclasses.replace(question, round=n), live.axon) for n in (1, 2, 3)]
            assert [outcome.reason for outcome in outcomes] == [Reason.SILENT, Reason.ERROR, Reason.TIMEOUT]
            assert "asleep" in outcomes[0].detail and "secret" not in outcomes[1].detail
            assert live.server.gate._held == 0

    run(check())


def test_concurrency_is_bounded_and_the_rest_is_told(validator, miner):
    running, peak = 0, 0

    async def ask(question):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.2)
        running -= 1
        return await answer(question)

    async def check():
        settings = server_settings(max_in_hand=4, max_waiting=8)
        async with Live(validator, miner, ask, settings) as live:
            replies = await asyncio.gather(*(live.post(*live.request()) for _ in range(30)))
            statuses = sorted(status for status, _ in replies)
            assert statuses == [200] * 12 + [503] * 18 and peak == 4
            assert (await live.post(*live.request()))[0] == 200

    run(check())


def test_a_caller_that_hangs_up_frees_its_place(validator, miner):
    ended = asyncio.Event()

    async def ask(question):
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()
        return await answer(question)

    async def check():
        async with Live(validator, miner, ask) as live, WireClient(validator, client_settings()) as client:
            outcome = await client.ask(task(validator.ss58, miner.ss58, deadline_s=0.3), live.axon)
            assert outcome.reason is Reason.TIMEOUT
            await asyncio.wait_for(ended.wait(), 5)
            await asyncio.sleep(0.05)
            assert live.server.gate._held == 0

    run(check())


WORDS = ["Once ", "upon ", "a ", "time\n", "ünïcode 🎲"]


def prompt(validator, miner, **changes):
    return Prompt("p1", 1, validator.ss58, miner.ss58, "Tell me", **({"deadline_s": 5.0} | changes))


def test_completions_stream(validator, miner):
    closed = []

    async def complete(question):
        try:
            for word in WORDS if question.seed == 0 else iter(lambda: "more ", None):
                await asyncio.sleep(0.02)
                yield word
            if question.max_tokens == 7:
                raise RuntimeError("secret detail")
            if question.max_tokens == 8:
                await asyncio.sleep(30)
        finally:
            closed.append(question.seed)

    async def check():
        settings = server_settings(protocols=["btauth", "epistula"], stream_pause_s=0.4)
        async with Live(validator, miner, settings=settings, complete=complete) as live:
            for protocol in ("btauth", "epistula"):
                async with WireClient(validator, client_settings(protocol=protocol)) as client:
                    arrived = []
                    async for piece in client.complete(prompt(validator, miner), live.axon):
                        arrived.append((piece, time.monotonic()))
                    assert [piece for piece, _ in arrived] == WORDS
                    assert arrived[-1][1] - arrived[0][1] > 0.05, "the pieces came all at once"
            async with WireClient(validator, client_settings()) as client:
                for max_tokens, words in ((7, "failed while it answered"), (8, "did not finish in time")):
                    with pytest.raises(Declined, match=words):
                        async for _ in client.complete(prompt(validator, miner, max_tokens=max_tokens), live.axon):
                            pass
                endless = client.complete(prompt(validator, miner, seed=1, deadline_s=60), live.axon)
                assert await anext(endless) == "more "
                await endless.aclose()
                for _ in range(50):
                    await asyncio.sleep(0.05)
                    if 1 in closed:
                        break
                assert closed[-1] == 1 and live.server.gate._held == 0
                with pytest.raises(Declined, match="403 Refused"):
                    async with WireClient(key("stranger"), client_settings()) as other:
                        async for _ in other.complete(prompt(key("stranger"), miner), live.axon):
                            pass

    run(check())
