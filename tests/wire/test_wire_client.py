"""The client: one outcome per question whatever the miners do, and no request where none should go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wirekit import answer, client_settings, key, metagraph, server_settings, task

from raytensor.types import Failure, Reason, Response
from raytensor.wire import codec
from raytensor.wire.client import WireClient
from raytensor.wire.deadline import adaptive_deadline_s
from raytensor.wire.endpoints import BadEndpoint, endpoint, url
from raytensor.wire.server import WireServer

# ------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "axon, words",
    [
        ("", "no address"),
        ("example.com:80", "not an IP address"),
        ("1.2.3.4", "not an IP address"),
        ("8.8.8.8:0", "port"),
        ("8.8.8.8:65536", "port"),
        ("8.8.8.8:x", "port"),
        ("8.8.8.8:", "port"),
        ("0.0.0.0:80", "not the address of a single"),
        ("224.0.0.1:80", "not the address of a single"),
        ("255.255.255.255:80", "not the address of a single"),
        ("[::]:80", "not the address of a single"),
        ("[ff02::1]:80", "not the address of a single"),
        ("127.0.0.1:80", "this machine"),
        ("[::1]:80", "this machine"),
        ("10.0.0.1:80", "private"),
        ("192.168.1.1:80", "private"),
        ("169.254.169.254:80", "metadata"),
        ("169.254.1.1:80", "private"),
        ("[::ffff:127.0.0.1]:80", "private"),
        ("[fe80::1]:80", "private"),
        ("[2002:7f00:1::]:80", "private"),
        ("100.64.0.1:80", "private"),
        ("[::ffff:0.0.0.0]:80", "not the address of a single"),
        ("user@8.8.8.8:80", "not an IP"),
    ],
)
def test_addresses_that_are_not_asked(axon, words):
    with pytest.raises(BadEndpoint, match=words):
        endpoint(axon, allow_local=False)


def test_addresses_that_are_asked():
    assert endpoint("8.8.8.8:8091", allow_local=False) == ("8.8.8.8", 8091)
    assert url(*endpoint("[2606:4700::1]:1", allow_local=False)) == "http://[2606:4700::1]:1"
    assert endpoint("127.0.0.1:8091", allow_local=True) == ("127.0.0.1", 8091)
    for never in ("0.0.0.0:80", "224.0.0.1:80", "[::]:80"):
        with pytest.raises(BadEndpoint):
            endpoint(never, allow_local=True)


# -------------------------------------------------------------------------------------------------------- deadline


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=60), st.floats(0, 5))
def test_the_deadline_is_median_plus_mads(times, mads):
    limit_s = adaptive_deadline_s(times, 0, mads=mads, quorum=0.6, least_s=0.001)
    if mads == 0:
        assert limit_s is None
        return
    middle = sorted(times)[(len(times) - 1) // 2]
    spread = sorted(abs(t - middle) for t in times)[(len(times) - 1) // 2]
    assert limit_s == pytest.approx(max(0.001, middle + mads * spread))


@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=60), st.integers(0, 60))
def test_what_is_still_out_does_not_move_the_deadline_later(times, num_late):
    """The deadline with late ones out is the deadline when they have come in late."""
    late = [max(times) * 1000.0] * num_late
    now = adaptive_deadline_s(times, num_late, mads=3.0, quorum=0.6, least_s=0.0)
    if len(times) < 0.6 * (len(times) + num_late):
        assert now is None
    else:
        assert now == adaptive_deadline_s(times + late, 0, mads=3.0, quorum=0.6, least_s=0.0)


# ------------------------------------------------------------------------------------------------- whole questions


@contextlib.asynccontextmanager
async def subnet(validator, handlers):
    """Real servers, one per handler; (tasks' hotkeys, metagraph)."""
    keys = [key(f"m{number}") for number in range(len(handlers))]
    servers = [WireServer(k.ss58, handler, server_settings()) for k, handler in zip(keys, handlers, strict=True)]
    places = [await server.start() for server in servers]
    axons = ["", *(f"{host}:{port}" for host, port in places)]
    graph = metagraph([validator.ss58, *(k.ss58 for k in keys)], axons=axons)
    for server in servers:
        server.update(graph)
    try:
        yield [k.ss58 for k in keys], graph
    finally:
        await asyncio.gather(*(server.stop(0.1) for server in servers))


def test_every_question_has_one_outcome_in_order(validator):
    async def hang(question):
        await asyncio.sleep(600)

    async def decline(question):
        return Failure(question.task_id, question.hotkey, Reason.SILENT, "no")

    async def crash(question):
        raise RuntimeError

    async def late(question):
        await asyncio.sleep(0.3)
        return await answer(question)

    async def wrong(question):
        response = await answer(question)
        return Response("another", response.hotkey, response.ids, response.probs)

    async def check():
        handlers = [answer] * 10 + [late] * 2 + [hang] * 2 + [decline, crash, wrong]
        async with subnet(validator, handlers) as (hotkeys, graph):
            unknown = key("nobody").ss58
            tasks = [
                task(validator.ss58, hotkey, seed=n, deadline_s=100.0) for n, hotkey in enumerate([*hotkeys, unknown])
            ]
            async with WireClient(validator, client_settings(min_deadline_s=2.5)) as client:
                start = time.monotonic()
                outcomes = await client.ask_all(tasks, graph)
                elapsed_s = time.monotonic() - start
        assert elapsed_s < 50, "two miners that hang cost the adaptive deadline, not their 100 s"
        expected = [None] * 12 + [Reason.TIMEOUT] * 2 + [Reason.SILENT, Reason.ERROR, Reason.MALFORMED, Reason.SILENT]
        assert len(outcomes) == len(tasks)
        for asked, outcome, reason in zip(tasks, outcomes, expected, strict=True):
            assert outcome.hotkey == asked.hotkey
            if reason is None:
                assert isinstance(outcome, Response) and outcome.task_id == asked.task_id
                assert np.array_equal(outcome.probs, (await answer(asked)).probs)
            else:
                assert isinstance(outcome, Failure) and outcome.item_id == asked.task_id
                assert outcome.reason is reason, outcome
        assert "median" in outcomes[12].detail

    asyncio.run(asyncio.wait_for(check(), 240))


def test_a_bound_on_questions_under_way(validator):
    running = peak = 0

    async def ask(question):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.02)
        running -= 1
        return await answer(question)

    async def check():
        async with subnet(validator, [ask]) as (hotkeys, graph):
            tasks = [task(validator.ss58, hotkeys[0], seed=n) for n in range(40)]
            async with WireClient(
                validator, client_settings(max_in_flight=5, max_connections_per_endpoint=64)
            ) as client:
                outcomes = await client.ask_all(tasks, graph)
        assert all(isinstance(outcome, Response) for outcome in outcomes) and peak == 5
        assert [outcome.task_id for outcome in outcomes] == [asked.task_id for asked in tasks]

    asyncio.run(asyncio.wait_for(check(), 240))


@contextlib.asynccontextmanager
async def stranger(reply):
    """A miner that writes what it likes: reply(request bytes, writer, number of the connection)."""
    count = 0

    async def serve(reader, writer):
        nonlocal count
        count += 1
        head = await reader.readuntil(b"\r\n\r\n")
        await reply(head, writer, count)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", lambda: count


TYPED = f"HTTP/1.1 200 OK\r\nContent-Type: {codec.SAFETENSORS}\r\n".encode()


def http(body, status="200 OK", content_type="application/json", more=""):
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


@pytest.mark.parametrize(
    "sent, reason, words",
    [
        (http(b"nonsense"), Reason.MALFORMED, "application/json, not application/x-safetensors"),
        (http(b"nonsense", content_type=codec.SAFETENSORS), Reason.MALFORMED, "the safetensors header says"),
        (
            http(b"{}", content_type=codec.SAFETENSORS, more="Content-Encoding: gzip\r\n"),
            Reason.MALFORMED,
            "8 bytes or more, not 2",
        ),
        (http(b"", "302 Found", more="Location: http://127.0.0.1:1/\r\n"), Reason.ERROR, "302 by HTTP$"),
        (
            http(json.dumps({"error": "Refused", "reason": "no\x1b[31m" * 999, "fix": 7}).encode(), "403 X"),
            Reason.REFUSED,
            "403 Refused: no",
        ),
        (http(json.dumps({"error": "Declined", "failure": "crashed"}).encode(), "422 X"), Reason.CRASHED, "422"),
        (http(json.dumps({"error": "Declined", "failure": "made up"}).encode(), "422 X"), Reason.ERROR, "422"),
        (http(json.dumps({"message": "v10 says no"}).encode(), "401 X"), Reason.REFUSED, "401 by HTTP: v10 says no"),
        (TYPED + b"Content-Length: 99999999999\r\n\r\n", Reason.MALFORMED, "at most"),
        (
            TYPED + b"Transfer-Encoding: chunked\r\n\r\n" + 2 * (b"4000\r\n" + b"x" * 0x4000 + b"\r\n"),
            Reason.MALFORMED,
            "more than",
        ),
        (b"SSH-2.0-OpenSSH\r\n", Reason.ERROR, "connection failed"),
        (b"", Reason.ERROR, "connection failed"),
    ],
    ids=range(12),
)
def test_a_strangers_answer(validator, miner, sent, reason, words):
    async def reply(head, writer, number):
        writer.write(sent)
        await writer.drain()

    async def check():
        settings = client_settings()
        settings.bounds.max_answer_bytes = 10_000
        async with stranger(reply) as (axon, count), WireClient(validator, settings) as client:
            outcome = await client.ask(task(validator.ss58, miner.ss58, deadline_s=30.0), axon)
            assert isinstance(outcome, Failure) and outcome.reason is reason, outcome
            assert re.search(words, outcome.detail), outcome
            assert len(outcome.detail) < 1000 and outcome.detail.isprintable()
            assert count() <= 2

    asyncio.run(asyncio.wait_for(check(), 30))


def test_an_answer_that_trickles_ends_at_the_deadline(validator, miner):
    async def reply(head, writer, number):
        writer.write(TYPED + b"Content-Length: 1000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:  # until the client hangs up
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)

    async def check():
        async with stranger(reply) as (axon, _), WireClient(validator, client_settings()) as client:
            outcome = await client.ask(task(validator.ss58, miner.ss58, deadline_s=0.5), axon)
            assert outcome.reason is Reason.TIMEOUT

    asyncio.run(asyncio.wait_for(check(), 30))


def test_each_try_is_signed_anew(validator, miner):
    nonces = []

    async def reply(head, writer, number):
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line)
        nonces.append(lines["X-Bittensor-Nonce"])
        writer.write(b"" if number == 1 else http(b"{}", "503 Service Unavailable"))
        await writer.drain()

    async def check():
        async with stranger(reply) as (axon, _), WireClient(validator, client_settings(tries=3)) as client:
            outcome = await client.ask(task(validator.ss58, miner.ss58), axon)
            assert outcome.reason is Reason.ERROR and "503" in outcome.detail

    asyncio.run(asyncio.wait_for(check(), 30))
    assert len(nonces) == 3 == len(set(nonces))


def test_nothing_is_sent_to_local_addresses_without_the_switch(validator, miner):
    async def reply(head, writer, number):
        writer.write(http(b"{}"))

    async def check():
        settings = client_settings(allow_local_addresses=False)
        async with stranger(reply) as (axon, count), WireClient(validator, settings) as client:
            outcome = await client.ask(task(validator.ss58, miner.ss58), axon)
            assert outcome.reason is Reason.ERROR and "allow_local_addresses" in outcome.detail and count() == 0

    asyncio.run(asyncio.wait_for(check(), 30))


def test_connections_are_used_again(validator):
    async def check():
        async with subnet(validator, [answer]) as (hotkeys, graph), WireClient(validator, client_settings()) as client:
            for seed in range(20):
                assert isinstance(
                    await client.ask(task(validator.ss58, hotkeys[0], seed=seed), graph.axons[1]), Response
                )
            pooled = sum(len(connections) for connections in client._session.connector._conns.values())
            assert pooled == 1

    asyncio.run(asyncio.wait_for(check(), 30))
