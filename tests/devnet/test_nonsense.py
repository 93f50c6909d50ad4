"""Nonsense on the wire: each gets the error of a real node, and the node serves on."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time

import pytest
from signing import ALICE, BOB, compact, prefixed, signed, to_hex, transfer_call
from websocket import ABNF, WebSocketException, create_connection

from raytensor.devnet.author import Author
from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import build_runtime
from raytensor.devnet.rpc import NodeRpc


@pytest.fixture
def client(devnet, raw):
    made = raw(devnet)
    yield made
    # whatever was sent, a new client is served
    assert raw(devnet).call("system_chain") == "Bittensor"


@pytest.mark.parametrize(
    "text, code",
    [
        ("", -32700),
        ("{", -32700),
        ("nonsense", -32700),
        ("\x00\x01", -32700),
        ("[" * 100_000, -32700),
        ("[]", -32600),
        ("1", -32600),
        ('"x"', -32600),
        ("null", -32600),
        ('{"id":1}', -32600),
        ('{"id":1,"jsonrpc":"2.0","method":5}', -32600),
        ('{"id":1,"jsonrpc":"2.0","method":"system_chain","params":"x"}', -32600),
        ('{"id":{"a":1},"jsonrpc":"2.0","method":"system_chain"}', -32600),
        ('{"id":1,"jsonrpc":"2.0","method":"no_such_method"}', -32601),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getStorage","params":["zz"]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getStorage","params":[5]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getStorage"}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getStorage","params":["0x","0x","0x"]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getStorage","params":{"nokey":1}}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"chain_getBlockHash","params":["x"]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"chain_getBlockHash","params":[-1]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"chain_getBlockHash","params":[true]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getKeysPaged","params":["0x","many"]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"system_accountNextIndex","params":["5xyz"]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_call","params":["Core_version","0x00"]}', 4003),
        ('{"id":1,"jsonrpc":"2.0","method":"state_call","params":["AccountNonceApi_account_nonce","0x00"]}', 4003),
        ('{"id":1,"jsonrpc":"2.0","method":"dev_newBlock","params":[{"count":0}]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"dev_setStorage","params":[[["0x00","0x00"]]]}', -32602),
    ],
)
def test_bad_requests(client, text, code):
    client.send(text)
    assert client.receive()["error"]["code"] == code


def test_notifications_get_no_answer_and_bad_batch_items_get_theirs(client):
    client.send('{"jsonrpc":"2.0","method":"system_chain"}')
    client.send('[{"jsonrpc":"2.0","method":"system_chain"},5,{"jsonrpc":"2.0","id":"a","method":"system_name"}]')
    replies = client.receive()
    assert [reply.get("id") for reply in replies] == [None, "a"] and replies[0]["error"]["code"] == -32600


GENESIS = b"\1" * 32
GOOD = signed(transfer_call(BOB.public_key, 1), ALICE, 0, GENESIS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        GOOD[:-1],
        GOOD[:40],
        GOOD + b"\0",
        compact(1 << 40) + GOOD,
        prefixed(b"\x85" + bytes(150)),
        prefixed(b"\x84" + b"\5" + bytes(150)),
        prefixed(b"\x84\0" + bytes(32) + b"\3" + bytes(100)),
        signed(b"\xfe\xfe", ALICE, 0, GENESIS),
        signed(b"\5\xfe", ALICE, 0, GENESIS),
        signed(b"\5\3\0", ALICE, 0, GENESIS),
        signed(b"\x0b\0" * 20 + b"\0", ALICE, 0, GENESIS),
        signed((b"\x0b\0\4" * 12) + b"\0\0\0", ALICE, 0, GENESIS),  # batches nested twelve deep
        signed(transfer_call(BOB.public_key, 1), ALICE, 0, GENESIS, era=b"\x00\xff"),
    ],
)
def test_extrinsics_that_do_not_decode(client, data):
    reply = client.request("author_submitExtrinsic", [to_hex(data)])
    assert reply["error"]["code"] == 1001 and "invalid format" in reply["error"]["message"]


def test_a_watch_that_is_refused_leaves_no_subscription(client):
    reply = client.request("author_submitAndWatchExtrinsic", [to_hex(GOOD)])
    assert reply["error"] == {"code": 1010, "message": "Invalid Transaction", "data": "Transaction has a bad signature"}
    assert client.request("author_submitAndWatchExtrinsic", [to_hex(b"\0")])["error"]["code"] == 1001
    assert client.call("author_unwatchExtrinsic", ["none"]) is False


def test_big_frames(client):
    client.send('"' + "a" * 10_000_000 + '"')
    assert client.receive()["error"]["code"] == -32600
    client.send('"' + "a" * 16_000_000 + '"')
    assert client.receive()["error"] == {
        "code": -32007,
        "message": "Request is too big",
        "data": "Exceeded max limit of 15728640",
    }
    assert client.call("system_chain") == "Bittensor"


def test_a_frame_beyond_every_limit_ends_the_connection(devnet):
    connection = create_connection(devnet.endpoint, timeout=20)
    with pytest.raises((WebSocketException, ConnectionError, OSError)):
        connection.send("a" * 40_000_000)
        while connection.recv_data()[0] != ABNF.OPCODE_CLOSE:
            pass
        raise ConnectionError("closed by the node, as it should")


def test_binary_frames_and_broken_handshakes(client, devnet):
    client.socket.send_binary(b'{"id":7,"jsonrpc":"2.0","method":"system_chain"}')
    assert client.receive()["result"] == "Bittensor"
    host, port = devnet.endpoint.removeprefix("ws://").split(":")
    for junk in (
        b"\x16\x03\x01\x00\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 5000,
        b"POST / HTTP/1.1\r\nContent-Length: 9",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            plain.sendall(junk)


def test_a_thousand_open_sockets(devnet, raw):
    host, port = devnet.endpoint.removeprefix("ws://").split(":")
    sockets = []
    try:
        for _ in range(1000):
            sockets.append(socket.create_connection((host, int(port)), timeout=20))
        assert raw(devnet).call("system_chain") == "Bittensor"
    finally:
        for one in sockets:
            one.close()


def test_a_slow_reader_does_not_hold_up_others(devnet, raw):
    slow = create_connection(devnet.endpoint, timeout=20)
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "state_getMetadata"})
    for _ in range(600):  # about 60 MB of replies that nobody reads
        slow.send(request)
    quick = raw(devnet)
    started = time.monotonic()
    assert quick.call("system_chain") == "Bittensor"
    assert time.monotonic() - started < 15
    slow.close()


class Collector:
    """A connection that keeps what it is sent."""

    def __init__(self) -> None:
        self.subscriptions: dict = {}
        self.sent: list[str] = []

    def send(self, text: str) -> None:
        self.sent.append(text)


@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_requests_always_get_a_json_rpc_answer(seed):
    """25,000 mutated requests for each seed, straight into the dispatcher of a whole node."""
    random_ = random.Random(seed)
    chain = Chain(build_runtime())
    rpc = NodeRpc(chain, Author(chain, interval_s=None))
    genesis = chain.genesis.hash
    names = [n for n in rpc.methods if n not in ("dev_newBlock", "dev_setStorage", "engine_createBlock")]
    calls = [transfer_call(BOB.public_key, 5), b"\0\0\x10abcd", b"\x0b\0\0", b"\7\0\1\0\4\0\0\4\xff\xff" + bytes(8)]
    apis = [f"{api.name}_{method}" for api in chain.runtime.apis.values() for method in api.methods]
    account = chain.runtime.System.Account
    junk = [None, -1, 10**30, 1.5, True, "", "0x", "0xzz", [], {}, [[]], "0x" + "00" * 32, to_hex(genesis), "é" * 50]

    def mutated(data: bytes) -> bytes:
        data = bytearray(data)
        for _ in range(random_.randint(0, 3)):
            kind = random_.randrange(4)
            if kind == 0 and data:
                data[random_.randrange(len(data))] = random_.randrange(256)
            elif kind == 1 and data:
                del data[random_.randrange(len(data)) :]
            elif kind == 2:
                data.insert(random_.randint(0, len(data)), random_.randrange(256))
            elif data:
                data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        return bytes(data)

    def request() -> str:
        kind = random_.randrange(6)
        if kind == 0:
            body = mutated(signed(mutated(random_.choice(calls)), ALICE, random_.randint(0, 3), genesis))
            method, params = "author_submitAndWatchExtrinsic", [to_hex(body)]
        elif kind == 1:
            method, params = (
                "state_call",
                [random_.choice(apis), to_hex(mutated(random_.randbytes(random_.randint(0, 70))))],
            )
        elif kind == 2:
            key = (
                account.raw_key(ALICE.public_key)
                if random_.random() < 0.5
                else random_.choice(list(chain.runtime.store.items))
            )
            method, params = random_.choice(["state_getStorage", "state_getKeysPaged"]), [to_hex(mutated(key)), 5]
        else:
            method = random_.choice(names)
            params = [random_.choice(junk) for _ in range(random_.randint(0, 4))]
        text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        if kind == 5 and random_.random() < 0.5:
            position = random_.randrange(len(text))
            text = text[:position] + random_.choice(['"', "{", "]", "\\", "\x00", ""]) + text[position + 1 :]
        return text

    for number in range(25_000):
        connection = Collector()
        asyncio.run(rpc.handle(request(), connection))
        for text in connection.sent:
            reply = json.loads(text)
            assert reply["jsonrpc"] == "2.0" and ("result" in reply or "error" in reply or "method" in reply)
        for subscription in list(connection.subscriptions.values()):
            subscription.close()
        if number % 1000 == 999:
            chain.seal(chain.runtime.timestamp_ms + 12_000)
    total = sum(info.data.free + info.data.reserved for info in account.current.values())
    assert total == chain.runtime.Balances.TotalIssuance.get()
