"""What strangers send, publish and answer: they get no more room, memory or time than is theirs."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from wirekit import Live, answer, client_settings, key, metagraph, run, server_settings, task

from raytensor.config.wire import Server
from raytensor.types import Failure, Reason, Response
from raytensor.wire import codec
from raytensor.wire.client import Addresses, WireClient
from raytensor.wire.connections import Connections, UnprovedBytes
from raytensor.wire.endpoints import BadEndpoint, endpoint, group_of, is_own
from raytensor.wire.errors import Overloaded
from raytensor.wire.server import WireServer

# ---------------------------------------------------------------------------------------------- published addresses


@pytest.mark.parametrize(
    "host",
    [
        "::7f00:1",  # 127.0.0.1, as a compatible address
        "::ffff:10.0.0.1",
        "fec0::1",  # QEMU's host net
        "64:ff9b::a9fe:a9fe",  # NAT64 of 169.254.169.254
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "100::1",
        "198.18.0.1",
        "100.64.0.1",
        "192.0.0.8",
        "192.88.99.1",
        "240.0.0.1",
        "fd00::1",
        "fe80::1",
    ],
)
def test_addresses_without_a_public_host_are_not_asked(host):
    axon = f"[{host}]:80" if ":" in host else f"{host}:80"
    with pytest.raises(BadEndpoint, match="of this machine or of a private network|metadata"):
        endpoint(axon, allow_local=False)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a83f:8110::1",  # 6to4 of 168.63.129.16
    ],
)
def test_a_clouds_own_hosts_are_never_asked(host):
    axon = f"[{host}]:80" if ":" in host else f"{host}:80"
    for allow_local in (False, True):
        with pytest.raises(BadEndpoint, match="metadata service"):
            endpoint(axon, allow_local=allow_local)


def test_public_addresses_are_asked_and_this_machines_own_are_not():
    for axon in ("8.8.8.8:1", "[2606:4700::1]:65535", "[64:ff9b::808:808]:1", "[::ffff:8.8.8.8]:1"):
        assert endpoint(axon, allow_local=False)[1] in (1, 65535)
    assert is_own("127.0.0.1") and not is_own("8.8.8.8") and not is_own("2606:4700::1")
    for wrong in ("8.8.8.8:0", "8.8.8.8:65536", "8.8.8.8:00000000000000000001", "[[8.8.8.8]]:1", "8.8.8.8", "a:1"):
        with pytest.raises(BadEndpoint):
            endpoint(wrong, allow_local=True)


# ------------------------------------------------------------------------------------------- connections and bodies


class Peer:
    def __init__(self, address: str) -> None:
        self.group, self.evicted = group_of(address), False

    def evict(self) -> None:
        self.evicted = True


def test_ipv6_connections_count_by_64():
    room = Connections(Server(max_connections=100, max_connections_per_address=3))
    peers = [Peer(f"2001:db8::{n}") for n in range(4)]
    assert [room.opened(peer) for peer in peers] == [True, True, True, False]
    assert room.opened(Peer("2001:db8:0:1::1")), "the next /64 is somebody else"
    room.closed(peers[3])
    room.closed(peers[0])
    assert room.opened(Peer("2001:db8::ffff"))
    assert group_of("::ffff:10.0.0.1") == group_of("10.0.0.1") == "10.0.0.1"


def test_strangers_never_take_the_callers_share():
    room = Connections(Server(max_connections=8, max_connections_per_address=100, kept_for_callers=0.5))
    caller = Peer("10.0.0.1")
    assert room.opened(caller)
    room.busy(caller)
    room.proved(caller)
    room.idle(caller)
    strangers = [Peer(f"10.1.0.{n}") for n in range(4)]
    assert all(room.opened(peer) for peer in strangers)
    room.busy(strangers[0])
    late = Peer("10.2.0.1")
    assert room.opened(late) and [peer.evicted for peer in strangers] == [False, True, False, False]
    for peer in (strangers[2], strangers[3], late):
        room.busy(peer)
    assert not room.opened(Peer("10.2.0.2")), "all strangers are being answered"
    assert not caller.evicted and room.evicted == 1


def test_unproved_bytes_have_one_budget():
    budget = UnprovedBytes(400)
    with budget.open("10.0.0.1") as one:
        one.took(100)
        with pytest.raises(Overloaded):
            one.took(1)  # a quarter is the most of one address
    assert budget.held == 0
    bodies = [budget.open(f"10.0.0.{n}") for n in range(5)]
    for body in bodies[:4]:
        body.took(100)
    with pytest.raises(Overloaded):
        bodies[4].took(1)
    for body in bodies:
        body.__exit__()
    assert budget.held == 0


async def _head(live, headers: dict[str, str], length: int, body: bytes = b""):
    """A request whose body is only begun: (reader, writer)."""
    reader, writer = await asyncio.open_connection(live.host, live.port)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"POST /ask HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {length}\r\n\r\n".encode() + body)
    await writer.drain()
    return reader, writer


def test_an_idle_crowd_keeps_no_validator_out(validator, miner):
    async def check():
        settings = server_settings(max_connections=12, max_connections_per_address=100)
        async with Live(validator, miner, settings=settings) as live:
            crowd = [await asyncio.open_connection(live.host, live.port) for _ in range(12)]
            for reader, writer in crowd[-6:]:
                writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            async with WireClient(validator, client_settings(tries=1)) as client:
                for seed in range(3):
                    found = await client.ask(task(validator.ss58, miner.ss58, seed=seed), live.axon)
                    assert isinstance(found, Response), found
                more = [await asyncio.open_connection(live.host, live.port) for _ in range(12)]
                assert isinstance(await client.ask(task(validator.ss58, miner.ss58, seed=9), live.axon), Response)
            assert live.server.gate.counts["evicted"] >= 6
            for _, writer in crowd + more:
                writer.close()

    run(check())


def test_a_stranger_is_refused_before_its_body(validator, miner):
    stranger = key("stranger")

    async def check():
        async with Live(validator, miner) as live:
            headers, _ = live.request(task(stranger.ss58, miner.ss58), signer=stranger)
            reader, writer = await _head(live, headers, 1_000_000)  # no byte of it is sent
            told = await asyncio.wait_for(reader.readuntil(b"}"), 5)
            assert b" 403 " in told and b"not registered" in told
            writer.close()

    run(check())


def test_bodies_that_nobody_proved_fill_no_memory(validator, miner):
    async def check():
        settings = server_settings(bounds__max_body_bytes=65536, max_unproved_bytes=4 * 65536)
        async with Live(validator, miner, settings=settings) as live:
            begun = []
            for _ in range(3):
                headers, _ = live.request()
                begun.append(await _head(live, headers, 60_000, b"x" * 59_000))
            replies = [asyncio.create_task(reader.readuntil(b"}")) for reader, _ in begun]
            done, waiting = await asyncio.wait(replies, timeout=8, return_when=asyncio.FIRST_COMPLETED)
            told = done.pop().result()  # of one address: a quarter of the budget, so one of them has room
            for one in waiting:
                one.cancel()
            assert b" 503 " in told and b"wait for their signature" in told
            for _, writer in begun:
                writer.close()
            while live.server.gate.unproved.held:
                await asyncio.sleep(0.01)
            headers, body = live.request()
            assert (await live.post(headers, body))[0] == 200

    run(check())


def test_the_receiver_pins_the_scheme(miner):
    caller = key("ed", "ed25519")

    async def status(**settings):
        async with Live(caller, miner, settings=server_settings(**settings)) as live:
            headers, body = live.request()
            return await live.post(headers, body)

    async def check():
        code, told = await status()
        assert (code, told["error"]) == (401, "BadSignature") and "sr25519 only" in told["reason"]
        assert (await status(schemes=["sr25519", "ed25519"]))[0] == 200

    run(check())


# -------------------------------------------------------------------------------------------------- several hotkeys


def test_several_hotkeys_share_a_port(validator, miner):
    others = [miner, key("second miner"), key("third miner")]
    asked: list[str] = []

    async def ask(question):
        asked.append(question.hotkey)
        return await answer(question)

    async def check():
        hotkeys = [one.ss58 for one in others]
        server = WireServer(hotkeys, ask, server_settings(protocols=["btauth", "epistula", "axon_v10"]))
        host, port = await server.start()
        server.update(metagraph([validator.ss58, *hotkeys]))
        for protocol in ("btauth", "epistula", "axon_v10"):
            async with WireClient(validator, client_settings(protocol=protocol)) as client:
                for one in hotkeys:
                    found = await client.ask(task(validator.ss58, one, seed=len(asked)), f"{host}:{port}")
                    assert isinstance(found, Response) and found.hotkey == one == asked[-1], found
                stray = await client.ask(task(validator.ss58, key("nobody").ss58), f"{host}:{port}")
                assert isinstance(stray, Failure) and "WrongReceiver" in stray.detail
        assert server.gate.totals()["ok"] == 9 and server.gate.totals()["WrongReceiver"] == 3
        await server.stop()

    run(check())


def test_a_server_of_two_subnets_admits_by_the_subnet_of_the_question(validator, miner):
    async def check():
        async with Live(validator, miner) as live:
            second = metagraph([miner.ss58])
            object.__setattr__(second, "netuid", 2)  # the validator is no neuron of it
            live.server.update(second)
            question = task(validator.ss58, miner.ss58)
            object.__setattr__(question, "netuid", 2)
            status, told = await live.post(*live.request(question))
            assert (status, told["error"]) == (403, "Refused") and "on subnet 2" in told["reason"]
            assert (await live.post(*live.request()))[0] == 200

    run(check())


def test_one_address_is_asked_within_its_bound_whatever_its_hotkeys(validator):
    hotkeys = [key(f"miner {n}").ss58 for n in range(12)]
    busy, most = 0, 0

    async def ask(question):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.02)
        busy -= 1
        return await answer(question)

    async def check():
        server = WireServer(hotkeys, ask, server_settings())
        host, port = await server.start()
        graph = metagraph([validator.ss58, *hotkeys], axons=["", *[f"{host}:{port}"] * len(hotkeys)])
        server.update(graph)
        settings = client_settings(max_in_flight_per_address=3, max_connections_per_endpoint=100)
        async with WireClient(validator, settings) as client:
            tasks = [task(validator.ss58, hotkey, deadline_s=30.0) for hotkey in hotkeys]
            found = await client.ask_all(tasks, graph)
        assert all(isinstance(one, Response) for one in found), found
        assert most <= 3
        await server.stop()

    run(check())


def test_all_clients_of_a_process_share_one_bound(miner):
    callers = [key(f"caller {n}") for n in range(4)]
    busy, most = 0, 0

    async def ask(question):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.02)
        busy -= 1
        return await answer(question)

    async def check():
        server = WireServer(miner.ss58, ask, server_settings())
        host, port = await server.start()
        graph = metagraph([miner.ss58, *(one.ss58 for one in callers)], axons=[f"{host}:{port}", *[""] * 4])
        server.update(graph)
        settings = client_settings(max_in_flight=5, max_connections_per_endpoint=100)
        shared = Addresses(settings)

        async def of(caller):
            async with WireClient(caller, settings, addresses=shared) as client:
                tasks = [task(caller.ss58, miner.ss58, seed=n, deadline_s=30.0) for n in range(10)]
                return await client.ask_all(tasks, graph)

        for found in await asyncio.gather(*map(of, callers)):
            assert all(isinstance(one, Response) for one in found), found
        assert most <= 5
        await server.stop()

    run(check())


# ---------------------------------------------------------------------------------------------------------- answers


def served(body: bytes, content_type: str, delay_s: float = 0.0, status: int = 200):
    """An HTTP server in a thread that answers everything alike; a context manager that gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(delay_s)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Running(HTTPServer):
        def __enter__(self):
            threading.Thread(target=self.serve_forever, daemon=True).start()
            return self.server_address[1]

        def __exit__(self, *_):
            self.shutdown()
            self.server_close()

    return Running(("127.0.0.1", 0), Handler)


def ask_once(validator, miner, port: int, block_s: float = 0.0, **more):
    question = task(validator.ss58, miner.ss58, **more)

    async def go():
        async with WireClient(validator, client_settings(tries=1)) as client:
            if block_s:
                asyncio.get_running_loop().call_later(0.5, time.sleep, block_s)
            return await client.ask(question, f"127.0.0.1:{port}")

    return asyncio.run(go())


def test_an_answer_is_no_longer_than_its_question_needs(validator, miner):
    bomb = b"[" + b"{}," * 200_000 + b"{}]"
    with served(bomb, codec.SAFETENSORS) as port:
        found = ask_once(validator, miner, port)
    assert found.reason is Reason.MALFORMED and "at most" in found.detail
    question = task(validator.ss58, miner.ss58)
    rows, top_k = len(question.lengths), question.top_k
    assert codec.answer_bytes(question, codec.SAFETENSORS) < 8 * rows * top_k + 32 * 1024
    ids = np.full((rows, top_k), -(2**31) + 1, np.int32)
    longest = Response(
        question.task_id, question.hotkey, ids, np.full((rows, top_k), 1.17549435e-38, np.float32), 0.123
    )
    for kind in (codec.SAFETENSORS, codec.JSON):
        assert len(codec.encode_response(longest, kind)) <= codec.answer_bytes(question, kind)


def test_only_the_format_that_was_asked_for_is_read(validator, miner):
    with served(json.dumps({"message": "response/1"}).encode(), codec.JSON) as port:
        found = ask_once(validator, miner, port)
    assert found.reason is Reason.MALFORMED and "application/json, not application/x-safetensors" in found.detail


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "no such model"}, "422 by HTTP: no such model"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
        ({"error": {"code": "rate_limited", "message": "slow down"}}, "422 rate_limited: slow down"),
        ({"error": {"code": 17, "message": "slow down"}}, "422 17: slow down"),
        ({"message": "Synapse failed"}, "422 by HTTP: Synapse failed"),
        ({"error": "Declined", "reason": "later", "fix": "wait"}, "422 Declined: later (wait)"),
        ({"error": {"message": {"deep": 1}}, "detail": {"x": 1}}, "422 by HTTP"),
    ],
)
def test_reasons_of_other_peoples_servers_are_shown(validator, miner, body, said):
    with served(json.dumps(body).encode(), codec.JSON, status=422) as port:
        found = ask_once(validator, miner, port)
    assert isinstance(found, Failure) and said in found.detail, found


def test_a_server_of_ipv6_serves_ipv4_as_well(validator, miner):
    async def check():
        server = WireServer(miner.ss58, answer, server_settings(host="::"))
        _, port = await server.start()
        server.update(metagraph([validator.ss58, miner.ss58]))
        async with WireClient(validator, client_settings()) as client:
            for seed, axon in enumerate((f"127.0.0.1:{port}", f"[::1]:{port}")):
                found = await client.ask(task(validator.ss58, miner.ss58, seed=seed), axon)
                assert isinstance(found, Response), found
        await server.stop()

    run(check())


def test_an_answer_that_had_arrived_is_in_time(validator, miner):
    """The loop does not run for three seconds; the answer came meanwhile, within a deadline of two."""
    told = json.dumps({"error": "Declined", "reason": "not today", "failure": "silent"}).encode()
    with served(told, codec.JSON, delay_s=0.2, status=422) as port:
        found = ask_once(validator, miner, port, block_s=3.0, deadline_s=2.0)
    assert (found.reason, "not today" in found.detail) == (Reason.SILENT, True), found
    with served(told, codec.JSON, delay_s=1.5, status=422) as port:
        found = ask_once(validator, miner, port, deadline_s=0.3)
    assert found.reason is Reason.TIMEOUT
